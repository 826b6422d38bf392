import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fluoroscope.config.report import Rule
from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.evidence import gather
from fluoroscope.reporting.sentences import _what_would_decide
from fluoroscope.reporting.verdict import verdict
from tests.reporting.folders import metrics, predictions, write_grid

SEEDS = (1, 2, 3, 4)
LINEAR = {"identity": {"table": lambda seed: predictions(seed, noise=2)}}


def dying(seed):
    return metrics(dead=(0.05, 0.2, 0.2 + 0.02 * seed))


def better(seed):
    return predictions(seed, separation=2.0, noise=1)


def judged(root, **keys):
    found = collect([root], keys.get("incomplete", False))
    return verdict(compare(found, **keys))


def fact(root, title):
    """A row of the table of evidence."""
    return dict(row[:2] for row in basis(compare(collect([root]))).rows)[title]


def told(lines, start):
    return next(line for line in lines if line.startswith(start))


def test_dead_units_that_cost_nothing_are_not_destructive(tmp_path):
    near = {"identity": {"table": lambda seed: predictions(seed, spread=0.29)}}
    write_grid(tmp_path, {"relu": {"logged": dying}, "same": {}, **near}, SEEDS)
    ours = judged(tmp_path)
    assert ours.destructive is False
    assert ours.headline.startswith(
        "ReLU is not destructive here: no image was blacked out (0 of 4 runs), and although 25.0% "
        "of its 40 units are dead at the end, no activation is better by the margin of 0.02 "
        "(closest: identity +0.000, interval -0.003 to +0.004); only one learning rate was tried."
    )
    assert told(ours.advice, "Try several learning rates")
    assert told(ours.advice, "More seeds do not replace more patients")


def test_dead_units_that_may_cost_more_than_the_margin_leave_it_undecided(tmp_path):
    """ "No difference" is never said of an interval that holds both zero and a gain."""
    write_grid(tmp_path, {"relu": {"logged": dying}, **LINEAR}, SEEDS)
    ours = judged(tmp_path)
    assert ours.destructive is None
    assert ours.headline.startswith(
        "Undecided: no image was blacked out (0 of 4 runs), but ReLU's dead share grows (5.0% of "
    )
    assert "cannot exclude that another activation scores better by more than" in ours.headline
    wide = judged(tmp_path, rule=Rule(margin=0.3))
    assert wide.destructive is False


def test_one_epoch_shows_no_growth_and_decides_nothing(tmp_path):
    short = metrics(dead=(0.4,), blackout=(0.0,), auroc=(0.7,))
    write_grid(tmp_path, {"relu": {"logged": short}, **LINEAR}, SEEDS)
    ours = judged(tmp_path)
    assert ours.destructive is None
    assert ours.headline == (
        "Undecided: one epoch does not show whether the dead share grows; train longer."
    )


def test_one_activation_alone_decides_nothing(tmp_path):
    write_grid(tmp_path, LINEAR, SEEDS)
    ours = judged(tmp_path, reference="identity")
    assert ours.headline == (
        "Undecided: there is no other activation to compare with identity; train some."
    )


def test_growth_is_the_t_interval_of_what_each_seed_gained(tmp_path):
    write_grid(tmp_path, {"relu": {"logged": dying}, **LINEAR}, SEEDS)
    growth = gather(compare(collect([tmp_path])))[0].growth
    each = 0.15 + 0.02 * np.array(SEEDS)
    half = stats.t.ppf(0.975, 3) * each.std(ddof=1) / 2
    assert growth == pytest.approx((each.mean(), each.mean() - half, each.mean() + half))


def test_dead_units_that_cost_scores_are_destructive(tmp_path):
    activations = {"relu": {"logged": dying}, "better": {"table": better}, **LINEAR}
    ours = judged(write_grid(tmp_path, activations, SEEDS))
    assert ours.destructive is True
    assert ours.headline.startswith(
        "ReLU is destructive here: its dead share grows (5.0% of its 40 units after the first "
        "epoch, 25.0% at the end) and better (+0."
    )
    assert ours.advice[0] == "Use head.activation=better instead."


@pytest.mark.parametrize(
    ("dead", "told"),
    [
        (lambda seed: metrics(dead=(0.25, 0.2, 0.25)), "does not grow (25.0% of"),
        # Up and down, by 1 % up on average.
        (
            lambda seed: metrics(dead=(0.25, 0.2, 0.26 + 0.1 * (-1) ** seed)),
            "does not grow detectably (25.0% of",
        ),
    ],
)
def test_a_gain_without_growth_is_not_for_dead_units(tmp_path, dead, told):
    activations = {"relu": {"logged": dead}, "better": {"table": better}, **LINEAR}
    ours = judged(write_grid(tmp_path, activations, SEEDS))
    assert ours.destructive is False
    assert f"scores better, but not because of dead units: their share {told}" in ours.headline


def test_neither_growth_nor_gain(tmp_path):
    flat = metrics(dead=(0.1, 0.1, 0.1))
    ours = judged(write_grid(tmp_path, {"relu": {"logged": flat}, **LINEAR}, SEEDS))
    assert ours.destructive is False
    assert "its dead share does not grow (10.0% of its 40 units after the first" in ours.headline


E3 = (0.0, 0.0, 0.0)
LASTING = {
    "the end": {"blackout": (0.0, 0.0, 0.125)},
    "most validations": {"blackout": (0.5, 0.5, 0.0)},
    "most training epochs": {"blackout": E3, "train_blackout": (0.0, 0.02, 0.03)},
}
PASSING = {
    "one image of an early training epoch": {"blackout": E3, "train_blackout": (0.002, 0.0, 0.0)},
    "half of the images of an early epoch": {"blackout": E3, "train_blackout": (0.5, 0.0, 0.0)},
    "one validation": {"blackout": (0.0, 0.125, 0.0)},
    "below the share": {"blackout": (0.009, 0.009, 0.009), "train_blackout": (0.009,) * 3},
}


@pytest.mark.parametrize("case", LASTING)
def test_blackouts_that_last_are_destructive_whatever_else_is_missing(tmp_path, case):
    dark = metrics(**LASTING[case])
    ours = judged(write_grid(tmp_path, {"relu": {"logged": dark}}, (1, 2)))
    assert ours.destructive is True
    assert "close every unit and send no gradient back" in ours.headline
    assert "geometry alone predicts less than 0.01% (2^-40: independent" in ours.headline
    assert ours.headline.endswith("no other activation shows whether the score suffers.")
    assert ours.advice[0].startswith("Against blackouts: head.activation=leaky_relu")


@pytest.mark.parametrize("case", PASSING)
@pytest.mark.parametrize("width", [8, 40])
def test_other_blackouts_are_an_alarm(tmp_path, case, width):
    flat = (0.1, 0.1, 0.1)
    dark = metrics(dead=flat, **PASSING[case])
    activations = {"relu": {"logged": dark}, **LINEAR}
    ours = judged(write_grid(tmp_path, activations, SEEDS, head__width=width))
    assert ours.destructive is False
    assert "not destructive here: no blackout lasted (some in 4 of 4 runs, up to " in ours.headline
    alarm = told(ours.advice, "Alarm: in 4 of 4 ReLU runs an image closed every unit")
    assert f"2^-{width}" in alarm
    assert "Against blackouts: head.activation=leaky_relu" in alarm


def test_what_a_narrow_head_gives_by_geometry_does_not_decide(tmp_path):
    """Four independent units close on 6.25 % of images, trained or not."""
    runs = {"relu": {"logged": metrics(dead=(0.1,) * 3, blackout=(0.06,) * 3)}, **LINEAR}
    narrow = write_grid(tmp_path / "narrow", runs, SEEDS, head__width=4)
    assert judged(narrow).destructive is False
    wide = write_grid(tmp_path / "wide", runs, SEEDS, head__width=8)
    assert judged(wide).destructive is True


def test_one_dark_image_of_one_seed_does_not_decide_and_one_dark_run_does(tmp_path):
    flat = (0.1, 0.1, 0.1)
    for name, end, expected in (("image", 0.02, False), ("run", 1.0, True)):
        one = {1: metrics(dead=flat, blackout=(0.0, end, end))}
        runs = {"relu": {"logged": lambda s, one=one: one.get(s, metrics(dead=flat))}, **LINEAR}
        assert judged(write_grid(tmp_path / name, runs, SEEDS)).destructive is expected


def test_the_share_that_decides_is_a_key_and_the_score_is_told(tmp_path):
    runs = {"relu": {"logged": metrics(blackout=(0.005,) * 3)}, "better": {"table": better}}
    write_grid(tmp_path, runs | LINEAR, SEEDS, units={"start/blackout_expected_frac": 0.003})
    ours = judged(tmp_path, rule=Rule(blackout_share=0.001))
    assert ours.headline.startswith("ReLU is destructive here: 0.50% of the images close every")
    assert ours.headline.endswith("the score suffers: better than ReLU is better.")
    assert judged(tmp_path, rule=Rule(blackout_share=0.005)).headline.find("0.50% of") < 0


def test_growth_begins_before_the_first_step(tmp_path):
    """All deaths within the first epoch: the validations alone show none."""
    flat = metrics(dead=(0.25, 0.25, 0.25))
    runs = {"relu": {"logged": flat}, "better": {"table": better}, **LINEAR}
    earlier = judged(write_grid(tmp_path / "earlier", runs, SEEDS))
    assert earlier.destructive is False
    start = {"start/dead_frac": 0.03, "start/dead_expected_frac": 0.02, "start/blackout_frac": 0.0}
    start |= {"val/dead_expected_frac": 0.04}
    write_grid(tmp_path / "now", runs, SEEDS, units=start)
    ours = judged(tmp_path / "now")
    assert ours.destructive is True
    assert "grows (3.0% of its 40 units at the start, 25.0% after the first epoch" in ours.headline
    assert fact(tmp_path / "now", "Growth of their share").endswith("+22.0%): it grows")
    # The features moved by what the formula changes; 25 - (3 + 4 - 2) is left.
    expected = "+20.0% (geometry alone: 4.0% at the end)"
    assert fact(tmp_path / "now", "By training") == expected
    earlier = fact(tmp_path / "earlier", "Growth of their share")
    assert earlier.endswith("without the first epoch: no census at the start")


def test_one_epoch_with_a_census_at_the_start_shows_growth(tmp_path):
    short = metrics(dead=(0.4,), blackout=(0.0,), auroc=(0.7,))
    runs = {"relu": {"logged": short}, "better": {"table": better}, **LINEAR}
    write_grid(tmp_path, runs, SEEDS, units={"start/dead_frac": 0.1})
    ours = judged(tmp_path)
    assert ours.destructive is True
    assert "(10.0% of its 40 units at the start, 40.0% at the end)" in ours.headline


def test_one_run_without_a_census_at_the_start_leaves_the_first_validation(tmp_path):
    lacking = {"relu": {"units": lambda s: {"start/dead_frac": 0.0} if s > 1 else {}}, **LINEAR}
    write_grid(tmp_path, lacking, SEEDS)
    found = gather(compare(collect([tmp_path])))[0]
    assert not found.from_start
    assert found.growth[0] == pytest.approx(0.2)


def test_a_blackout_of_another_activation_is_not_that_of_relu(tmp_path):
    dark = {"logged": metrics(blackout=(0.5, 0.5, 0.5))}
    ours = judged(write_grid(tmp_path, {"relu": {}, "identity": dark}, SEEDS))
    assert ours.destructive is False


def test_without_a_linear_head_it_is_undecided(tmp_path):
    activations = {"relu": {"logged": dying}, "better": {"table": better}}
    ours = judged(write_grid(tmp_path, activations, SEEDS))
    assert ours.destructive is None
    assert ours.headline.startswith("Undecided: the linear head is missing")
    assert "train head.activation=identity with the same seeds" in ours.headline


def test_one_seed_leaves_it_undecided(tmp_path):
    activations = {"relu": {"logged": dying}, "better": {"table": better}, **LINEAR}
    ours = judged(write_grid(tmp_path, activations, [3]))
    assert ours.destructive is None
    assert ours.headline.startswith("Undecided: 1 seed cannot show how much is chance")


def test_runs_without_a_census_leave_it_undecided(tmp_path):
    blind = metrics(dead=(None,) * 3, blackout=(None,) * 3)
    ours = judged(write_grid(tmp_path, {"relu": {"logged": blind}, **LINEAR}, SEEDS))
    assert ours.destructive is None
    assert ours.headline.startswith("Undecided: the units of the ReLU runs were not measured")


def test_a_test_split_without_a_class_leaves_it_undecided(tmp_path):
    table = predictions().assign(Nodule=0.0, Mass=1.0)
    write_grid(tmp_path, {"relu": {}, "identity": {}}, SEEDS, table=table)
    ours = judged(tmp_path)
    assert ours.destructive is None
    assert "the test AUROC of ReLU is not defined" in ours.headline


def two_rates(root, val_slow, val_fast):
    """At 0.01 ReLU dies and loses; at 0.002 it does neither."""
    harmed = {"relu": {"logged": lambda seed: dead_with(dying(seed), val_fast)}}
    harmed |= {"better": {"table": better}, **LINEAR}
    well = {"relu": {"logged": dead_with(metrics(dead=(0.1,) * 3), val_slow)}, "better": {}}
    write_grid(root / "fast", harmed, SEEDS, optimizer__lr=0.01)
    write_grid(root / "slow", {**well, **LINEAR}, SEEDS, optimizer__lr=0.002)
    return judged(root)


def dead_with(logged, auroc):
    return logged.assign(**{"val/auroc": logged["val/auroc"] + auroc})


def test_only_the_tuned_learning_rate_counts(tmp_path):
    ours = two_rates(tmp_path, val_slow=0.05, val_fast=0.0)
    assert ours.destructive is False
    assert " at optimizer.lr=0.002 " in ours.headline
    assert "only one learning rate" not in ours.headline
    assert not any("Try several" in line for line in ours.advice)


def test_harm_at_the_tuned_learning_rate_is_destructive(tmp_path):
    ours = two_rates(tmp_path, val_slow=0.0, val_fast=0.05)
    assert ours.destructive is True
    assert "dead share grows at optimizer.lr=0.01 (" in ours.headline


def test_each_other_setting_has_its_own_tuned_learning_rate(tmp_path):
    harmed = {"relu": {"logged": dying}, "better": {"table": better}, **LINEAR}
    well = {"relu": {"logged": dead_with(metrics(), 0.1)}, "better": {}, **LINEAR}
    write_grid(tmp_path / "a", harmed, SEEDS, head__order="a")
    write_grid(tmp_path / "b", well, SEEDS, head__order="b")
    ours = judged(tmp_path)
    assert ours.destructive is True
    assert "grows at head.order=a (" in ours.headline


def test_a_blackout_at_an_untuned_learning_rate_is_told_as_such(tmp_path):
    dark = {"relu": {"logged": metrics(blackout=(0, 0, 0.5))}, **LINEAR}
    well = {"relu": {"logged": dead_with(metrics(), 0.1)}, **LINEAR}
    write_grid(tmp_path / "a", dark, SEEDS, optimizer__lr=0.1)
    write_grid(tmp_path / "b", well, SEEDS)
    headline = judged(tmp_path).headline
    assert "50.0% of the images close every unit" in headline
    assert "at optimizer.lr=0.1 (not the learning rate at which it validates best)" in headline


def test_another_reference_is_called_by_its_name(tmp_path):
    write_grid(tmp_path, {"elu": {"logged": metrics(dead=(0.1,) * 3)}, **LINEAR}, SEEDS)
    assert judged(tmp_path, reference="elu").headline.startswith("elu is not destructive here")


@pytest.mark.parametrize(
    ("seeds", "patients", "told"),
    [
        (np.inf, np.inf, "takes more patients and more seeds: with these 10 seeds no number of"),
        (np.inf, 132.0, "takes 132 test patients with these 10 seeds"),
        (20.0, np.inf, "takes 20 seeds with these patients"),
        (20.0, 1090.0, "takes 1,090 test patients with these 10 seeds, or 20 seeds with these"),
    ],
)
def test_what_would_decide_is_a_sentence_for_any_numbers(seeds, patients, told):
    needed = {"seeds_for_margin": seeds, "patients_for_margin": patients}
    row = {"activation": "elu", "difference_seeds": 10, "smallest_difference": 0.023}
    assert told in _what_would_decide(pd.Series(row | needed), "", 0.02)


def test_what_would_decide_is_advised(tmp_path):
    write_grid(tmp_path, {"relu": {}, **LINEAR}, SEEDS)
    comparison = compare(collect([tmp_path]))
    row = comparison.settings[0].rows.iloc[1]
    assert row["finding"] == "undecided"
    advice = told(verdict(comparison).advice, "To find a true difference of 0.02 in four of five")
    assert f"takes {row['patients_for_margin']:.0f} test patients with these 4 seeds" in advice
    assert (row["seeds_for_margin"] == np.inf) == ("no number of seeds finds less than" in advice)
