import numpy as np
import pytest
from scipy import stats

from fluoroscope.config.report import Rule
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.evidence import gather
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
        "Undecided: no image was blacked out, but ReLU's dead share grows (5.0% of its 40 units"
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


def test_a_blackout_in_any_run_is_destructive_whatever_else_is_missing(tmp_path):
    dark = {1: metrics(blackout=(0.0, 0.125, 0.0)), 2: metrics()}
    ours = judged(write_grid(tmp_path, {"relu": {"logged": dark.get}}, (1, 2)))
    assert ours.destructive is True
    assert ours.headline.startswith(
        "ReLU is destructive here: in 1 of 2 runs some images closed every unit and sent no "
        "gradient back, up to 12.5% of an epoch's images; in 0 runs they still did so at the end."
    )
    assert ours.advice[0].startswith("Against blackouts: head.activation=leaky_relu")


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
    assert "in 4 of 8 runs" in headline
    assert headline.endswith(
        "at optimizer.lr=0.1 (not the learning rate at which it validates best)."
    )


def test_another_reference_is_called_by_its_name(tmp_path):
    write_grid(tmp_path, {"elu": {"logged": metrics(dead=(0.1,) * 3)}, **LINEAR}, SEEDS)
    assert judged(tmp_path, reference="elu").headline.startswith("elu is not destructive here")


def test_what_would_decide_is_advised(tmp_path):
    write_grid(tmp_path, {"relu": {}, **LINEAR}, SEEDS)
    comparison = compare(collect([tmp_path]))
    row = comparison.settings[0].rows.iloc[1]
    assert row["finding"] == "undecided"
    advice = told(verdict(comparison).advice, "To find a true difference of 0.02 in four of five")
    assert f"takes {row['patients_for_margin']:.0f} test patients with these 4 seeds" in advice
    assert (row["seeds_for_margin"] == np.inf) == ("no number of seeds finds less than" in advice)
