import math

import pytest

from fluoroscope.run.closing import gradient_sentence, units_sentence

HEAD = {"activation": "relu", "order": "activation-norm", "init": "keras", "bias_init": None}


def sentences(dead=0.0, blackout=0.0, zero=0.0, linear=0.1, dead_max=0.0, backbone=0.5, **more):
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
    return units_sentence(result), gradient_sentence(result)


@pytest.mark.parametrize(
    ("case", "units", "gradient"),
    [
        (
            {"dead": 0.25},
            "200 of the head's 800 relu units ended dead (25.0%; the features' geometry alone "
            "predicts 1.9%): 200 of 800 units died.",
            "Every image sent gradient back through the head. Dead units shrink the head; they do "
            "not cut off the backbone.",
        ),
        (
            {"dead": 0.25, "backbone": math.nan},
            "200 of the head's 800 relu units ended dead",
            "Every image sent gradient back through the head, but the frozen backbone does not use "
            "it. Dead units",
        ),
        (
            {"zero": math.nan},
            "None of the head's 800 relu units ended dead.",
            "No training image had a label, so the gradient per image was not measured.",
        ),
        (
            {},
            "None of the head's 800 relu units ended dead.",
            "Every image sent gradient back through the head.",
        ),
        (
            {"linear": 0.8, "dead_max": 0.1},
            "None of the head's 800 relu units ended dead (after some epoch, 10.0% were), but "
            "80% of them are linear on these images.",
            "Every image",
        ),
        (
            {"dead": 0.9, "blackout": 0.3},
            "720 of the head's 800 relu units ended dead",
            "30.0% of the validation images close every gate, and the backbone learns",
        ),
        (
            {"dead": 1, "blackout": 1, "zero_frac": 1},
            "800 of the head's",
            "No validation image opens any gate: the model is a constant.",
        ),
        (
            {"dead": 1, "blackout": 1, "activation": "tanh"},
            "800 of the head's 800 relu units ended dead (100.0%): 200",
            "No validation image opens any gate: the head no longer passes any gradient.",
        ),
        (
            {"dead": 0.25, "bias_init": 0.1},
            "200 of the head's 800 relu units ended dead (25.0%):",
            "",
        ),
        (
            {"dead": 0.25, "init": "torch"},
            "200 of the head's 800 relu units ended dead (25.0%):",
            "",
        ),
        (
            {"dead": 0.25, "order": "norm-activation"},
            "200 of the head's 800 relu units ended dead (25.0%):",
            "",
        ),
        (
            {"dead": 0.5, "zero": 0.02},
            "400 of the head's",
            "2.0% of the last epoch's labelled images sent no",
        ),
        ({"dead": math.nan}, "The units were not measured.", "Every image"),
    ],
)
def test_two_sentences_say_what_happened(case, units, gradient):
    about_units, about_gradient = sentences(**case)
    assert about_units.startswith(units)
    assert about_gradient.startswith(gradient)
