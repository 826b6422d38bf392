"""The table of what a verdict stands on: one column per setting, in numbers of the runs."""

import numpy as np
import pytest
from scipy import stats

from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from tests.reporting.folders import metrics, predictions, write_grid

SEEDS = (1, 2, 3, 4)
ROWS = (
    *("Test AUROC of ReLU", "Ensemble of its seeds", "Learning rate"),
    *("Blackouts of ReLU", "Lasting blackouts"),
    *("Dead units of ReLU", "Growth of their share", "By training"),
    *("Linear head", "Other activations"),
)


def dying(seed):
    return metrics(dead=(0.05, 0.2, 0.2 + 0.02 * seed))


def facts(root, column=1, **keys):
    """The facts of a setting, by their titles."""
    table = basis(compare(collect([root]), **keys))
    return {row[0]: row[column] for row in table.rows}


def test_one_setting_has_a_column_of_facts(tmp_path):
    near = {"identity": {"table": lambda seed: predictions(seed, spread=0.29)}}
    write_grid(tmp_path, {"relu": {"logged": dying}, "same": {}, **near}, SEEDS)
    comparison = compare(collect([tmp_path]))
    table = basis(comparison)
    assert table.titles == ["Evidence", "Value"]
    assert tuple(row[0] for row in table.rows) == ROWS
    ours = facts(tmp_path)
    row = comparison.settings[0].rows.iloc[0]
    bounds = f"({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
    assert ours["Test AUROC of ReLU"] == f"{row['auroc']:.3f} {bounds}"
    value, gain = ours["Ensemble of its seeds"].split("; largest gain over it: ")
    assert (
        value == f"{row['ensemble']:.3f} ({row['ensemble_low']:.3f} to {row['ensemble_high']:.3f})"
    )
    assert gain.startswith("same +0.000 (+0.000 to +0.000)") or gain.startswith("identity +")
    assert ours["Learning rate"] == "only optimizer.lr=0.001 was tried"
    assert ours["Blackouts of ReLU"] == "in 0 of 4 runs"
    assert "5.0%" in ours["Dead units of ReLU"]
    assert "25.0%" in ours["Dead units of ReLU"]
    each = 0.15 + 0.02 * np.array(SEEDS)
    half = stats.t.ppf(0.975, 3) * each.std(ddof=1) / 2
    lacking = "without the first epoch: no census at the start"
    bounds = f"+{each.mean() - half:.1%} to +{each.mean() + half:.1%}"
    assert ours["Growth of their share"] == f"+{each.mean():.1%} ({bounds}): it grows; {lacking}"
    assert ours["Lasting blackouts"].startswith("0% of the images; geometry alone predicts less")
    assert ours["By training"] == "n/a"  # nothing predicts it: these runs measured no features
    assert ours["Linear head"] == "equivalent: the head needs no nonlinearity"
    assert ours["Other activations"] == "0 better, 0 worse, 2 equivalent, 0 not decided"


def test_one_seed_and_a_missing_linear_head(tmp_path):
    write_grid(tmp_path, {"relu": {"logged": dying}, "same": {}}, [3])
    ours = facts(tmp_path)
    assert ours["Growth of their share"] == "+21.0% in the only seed"
    assert ours["Linear head"] == "n/a"
    assert ours["Other activations"].endswith("1 not decided")


def test_blackouts_are_counted_by_run_and_in_the_reference_alone(tmp_path):
    dark = {1: metrics(blackout=(0.0, 0.125, 0.0)), 2: metrics(), 3: metrics(), 4: metrics()}
    others = {"identity": {"logged": metrics(blackout=(0.5,) * 3)}}
    write_grid(tmp_path, {"relu": {"logged": dark.get}, **others}, SEEDS)
    assert facts(tmp_path)["Blackouts of ReLU"] == (
        "in 1 of 4 runs, up to 12.5% of a window's images"
    )


def test_runs_without_a_census_say_so(tmp_path):
    blind = metrics(dead=(None,) * 3, blackout=(None,) * 3)
    write_grid(tmp_path, {"relu": {"logged": blind}, "identity": {}}, SEEDS)
    ours = facts(tmp_path)
    assert ours["Blackouts of ReLU"] == ours["Growth of their share"] == "not measured"
    assert ours["Dead units of ReLU"] == "n/a"


def test_a_learning_rate_that_is_not_tuned_is_not_counted(tmp_path):
    for rate, auroc in ((0.01, 0.0), (0.002, 0.05)):
        logged = metrics(auroc=(0.6 + auroc, 0.7 + auroc, 0.72 + auroc))
        runs = {"relu": {"logged": logged}, "identity": {}}
        write_grid(tmp_path / str(rate), runs, SEEDS, optimizer__lr=rate)
    table = basis(compare(collect([tmp_path])))
    assert table.titles == ["Evidence", "1: optimizer.lr=0.002", "2: optimizer.lr=0.01"]
    (learning_rate,) = (row for row in table.rows if row[0] == "Learning rate")
    assert learning_rate == [
        "Learning rate",
        "optimizer.lr=0.002: best validation AUROC (0.770) of optimizer.lr=0.002; "
        "optimizer.lr=0.01",
        "optimizer.lr=0.01: not counted, ReLU validates better at optimizer.lr=0.002",
    ]


def test_a_setting_without_the_reference_says_so(tmp_path):
    write_grid(tmp_path / "a", {"relu": {}, "identity": {}}, SEEDS)
    write_grid(tmp_path / "b", {"identity": {}, "elu": {}}, SEEDS, head__order="b")
    comparison = compare(collect([tmp_path]), incomplete=True)
    table = basis(comparison)
    column = 1 + [t.label for t in comparison.settings].index("head.order=b")
    cells = [row[column] for row in table.rows]
    assert cells[0] == "no run of ReLU"
    assert cells[1:6] == ["n/a"] * 5


@pytest.mark.parametrize("by", ["optimizer.lr"])
def test_other_rows_have_blackouts_dead_units_and_findings(tmp_path, by):
    for rate, dead in ((0.01, 0.3), (0.002, 0.1), (0.003, 0.2)):
        runs = {"relu": {"logged": metrics(dead=(dead,) * 3)}}
        write_grid(tmp_path / str(rate), runs, SEEDS, optimizer__lr=rate)
    ours = facts(tmp_path, by=by, reference="0.003")
    assert ours["Dead units"] == "0.003 20.0%, 0.002 10.0%, 0.01 30.0%"
    assert ours["Blackouts"] == "in 0 of 12 runs"
    assert ours["Other optimizer.lr"].count("0 ") >= 2
