import math

import pytest

from fluoroscope.run.story import story

HEAD = {"activation": "relu", "order": "activation-norm", "init": "keras", "bias_init": None}


def told(dead=0.0, blackout=0.0, zero=0.0, linear=0.1, dead_max=0.0, backbone=0.5, **more):
    head = HEAD | {key: value for key, value in more.items() if key in HEAD}
    units = {"zero_frac": more.get("zero_frac", 0.5)} | {
        "dead_frac": dead,
        "blackout_frac": blackout,
        "linear_frac": linear,
    }
    units |= {"dead_max": dead_max, "dead_expected_frac": 0.019}
    result = {
        "width": 800,
        "head": head,
        "activation": "relu",
        "units": {f"val/{key}": value for key, value in units.items()},
        "grad": {"last": {"features_zero_frac": zero, "l2/backbone": backbone}},
        "postmortem": "200 of 800 units died",
    }
    return story(result)


@pytest.mark.parametrize(
    ("case", "units", "gradient"),
    [
        (
            {"dead": 0.25},
            "Of the head's 800 relu units 200 ended dead (25.0%, where the features' geometry "
            "alone would leave 1.9%): 200 of 800 units died.",
            "Every image sent gradient back through the head: dead units cost the head width, not "
            "the backbone its gradient.",
        ),
        (
            {"dead": 0.25, "backbone": math.nan},
            "Of the head's 800 relu units 200 ended dead",
            "Every image sent gradient back through the head, though the frozen backbone has no "
            "use for it: dead units",
        ),
        (
            {"zero": math.nan},
            "None of the head's 800 relu units ended dead.",
            "No training image had a label: what gradient they send was not measured.",
        ),
        (
            {},
            "None of the head's 800 relu units ended dead.",
            "Every image sent gradient back through the head.",
        ),
        (
            {"linear": 0.8, "dead_max": 0.1},
            "None of the head's 800 relu units ended dead (at most 10.0% were, after some epoch), "
            "but 80% of them are straight lines on these images.",
            "Every image",
        ),
        (
            {"dead": 0.9, "blackout": 0.3},
            "Of the head's 800 relu units 720 ended dead",
            "On 30.0% of the validation images every gate is closed and the backbone learns",
        ),
        (
            {"dead": 1, "blackout": 1, "zero_frac": 1},
            "Of the head's",
            "No validation image opens any gate: the model is a constant.",
        ),
        (
            {"dead": 1, "blackout": 1, "activation": "tanh"},
            "Of the head's 800 relu units 800 ended dead (100.0%): 200",
            "No validation image opens any gate: no gradient passes the head any more.",
        ),
        (
            {"dead": 0.25, "bias_init": 0.1},
            "Of the head's 800 relu units 200 ended dead (25.0%):",
            "",
        ),
        (
            {"dead": 0.25, "init": "torch"},
            "Of the head's 800 relu units 200 ended dead (25.0%):",
            "",
        ),
        (
            {"dead": 0.25, "order": "norm-activation"},
            "Of the head's 800 relu units 200 ended dead (25.0%):",
            "",
        ),
        ({"dead": 0.5, "zero": 0.02}, "Of the head's", "2.0% of the last epoch's images sent no"),
        ({"dead": math.nan}, "The units were not measured.", "Every image"),
    ],
)
def test_two_sentences_say_what_happened(case, units, gradient):
    sentences = told(**case)
    assert len(sentences) == 2
    assert sentences[0].startswith(units)
    assert sentences[1].startswith(gradient)
