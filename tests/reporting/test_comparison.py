import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fluoroscope.config.report import Rule
from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import COLUMNS, compare, find
from fluoroscope.statistics import count_classes
from tests.reporting.folders import LABELS, metrics, predictions, write_grid

SEEDS = (1, 2, 3, 4)


def compared(root, **keys):
    return compare(collect([root], keys.get("incomplete", False)), **keys)


def score(table):
    known = [table.dropna(subset=label) for label in LABELS]
    return np.mean(
        [roc_auc_score(t[k], t[f"{k}_probability"]) for t, k in zip(known, LABELS, strict=True)]
    )


def score_pairs(table):
    """As `score`, without ties, in a tenth of the time."""
    values = []
    for label in LABELS:
        positive, negative = (table.loc[table[label] == c, f"{label}_probability"] for c in (1, 0))
        values.append((positive.to_numpy()[:, None] > negative.to_numpy()).mean())
    return np.mean(values)


def better(seed):
    return predictions(seed, separation=2.0, noise=1)


def uneven(seed):
    """A seed decides how good it is."""
    return predictions(seed, separation=0.6 * seed, noise=3)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    dying = {
        seed: metrics(dead=(0.01 * seed, 0.2, 0.1), blackout=(0.0, 0.3 * (seed == 2), 0.0))
        for seed in SEEDS
    }
    activations = {
        "relu": {"logged": dying.get},
        "same": {},
        "better": {"table": better},
        "uneven": {"table": uneven},
        "identity": {"table": lambda seed: predictions(seed, noise=2)},
    }
    return write_grid(root, activations, SEEDS)


@pytest.fixture(scope="module")
def rows(grid):
    return compared(grid).settings[0].rows.set_index("activation")


def test_scores_are_means_over_seeds(rows):
    relu = [score(predictions(seed)) for seed in SEEDS]
    gains = [score(better(seed)) - a for seed, a in zip(SEEDS, relu, strict=True)]
    assert rows.loc["relu", "auroc"] == pytest.approx(np.mean(relu), abs=1e-9)
    assert rows.loc["relu", "auroc_sd"] == pytest.approx(np.std(relu, ddof=1), abs=1e-9)
    assert rows.loc["better", "difference"] == pytest.approx(np.mean(gains), abs=1e-9)


def test_the_same_activation_under_another_name_makes_no_difference(rows):
    same = rows.loc["same"]
    assert (same["difference"], same["difference_low"], same["difference_high"]) == (0, 0, 0)
    assert (same["p"], same["finding"]) == (1, "equivalent")
    assert (same["smallest_difference"], same["seeds_for_margin"]) == (0, 2)
    assert same["auroc"] == rows.loc["relu", "auroc"]


def test_a_planted_gain_is_found(rows):
    assert rows.loc["better", "finding"] == "better"
    assert rows.loc["better", "difference_low"] > 0
    assert rows.loc["better", "p"] < 0.05
    assert rows.loc["identity", "finding"] == "undecided"


@pytest.mark.parametrize(
    ("name", "low", "high", "finding"),
    [
        ("relu", 0.1, 0.2, "reference"),
        ("elu", 0.001, 0.2, "better"),
        ("elu", -0.2, -0.001, "worse"),
        ("elu", -0.001, 0.2, "undecided"),
        ("elu", -0.017, 0.045, "undecided"),
        ("elu", -0.019, 0.019, "equivalent"),
        ("elu", 0.001, 0.019, "equivalent"),  # better, but by nothing that matters
        ("elu", -0.02, 0.01, "undecided"),
        ("elu", math.nan, 0.2, "undecided"),
    ],
)
def test_a_finding_is_where_the_interval_lies(name, low, high, finding):
    row = {"activation": name, "difference_low": low, "difference_high": high}
    row = pd.Series(row | {"difference_seeds": 3})
    assert find(row, "relu", Rule()) == finding
    if name != "relu":
        assert find(row, "relu", Rule(), below_floor=True) == "undecided"
        assert find(row, "relu", Rule(min_seeds=4)) == "undecided"


def test_few_patients_of_a_class_decide_nothing(grid):
    table = collect([grid]).runs[0].predictions["test"]
    fewest = min(min(n for _, n in count_classes(table, label).values()) for label in LABELS)
    enough = compared(grid, rule=Rule(min_patients=fewest))
    assert enough.floor == ""
    assert "better" in set(enough.settings[0].rows["finding"])
    few = compared(grid, rule=Rule(min_patients=fewest + 1))
    assert f"{fewest} positive test patients of " in few.floor
    assert f"a finding needs {fewest + 1} of each (min_patients)" in few.floor
    assert set(few.settings[0].rows["finding"]) == {"reference", "undecided"}


def test_all_settings_are_one_family(grid, tmp_path):
    """The same runs once more at another learning rate: twice as many comparisons, wider ones."""
    write_grid(
        tmp_path, {"relu": {}, "identity": {"table": lambda s: predictions(s, noise=2)}}, SEEDS
    )
    alone = compared(tmp_path)
    more = {"relu": {}, "uneven": {"table": uneven}, "better": {"table": better}}
    write_grid(tmp_path / "more", more, SEEDS, optimizer__lr=0.01)
    both = compared(tmp_path, incomplete=True)
    assert both.critical > alone.critical + 0.1
    widths = [
        c.settings[n].rows.set_index("activation").loc["identity"]
        for c, n in (
            (alone, 0),
            (both, [s.label for s in both.settings].index("optimizer.lr=0.001")),
        )
    ]
    narrow, wide = (row["difference_high"] - row["difference_low"] for row in widths)
    assert wide > 1.05 * narrow


def test_intervals_are_as_wide_as_those_of_a_loop_that_repeats_patients(rows):
    """Percentiles of 250 draws of patients for a score, of patients and seeds for a difference.

    With four seeds that vary much, the draws are too narrow: Student's t allows for it.
    """
    rng, tables = np.random.default_rng(5), {s: (predictions(s), uneven(s)) for s in SEEDS}
    groups = tables[1][0]["group"].unique()
    where = {g: np.flatnonzero(tables[1][0]["group"] == g) for g in groups}
    means, gains = [], []
    for _ in range(250):
        chosen = rng.choice(groups, len(groups))
        picked = np.concatenate([where[g] for g in chosen])
        own = {s: [score_pairs(t.iloc[picked]) for t in tables[s]] for s in SEEDS}
        means.append(np.mean([a for a, _ in own.values()]))
        gains.append(np.mean([own[s][1] - own[s][0] for s in rng.choice(SEEDS, len(SEEDS))]))
    for column, values, name in (("auroc", means, "relu"), ("difference", gains, "uneven")):
        low, high = rows.loc[name, [f"{column}_low", f"{column}_high"]].astype(float)
        ratio = (high - low) / np.subtract(*np.quantile(values, [0.975, 0.025]))
        assert ratio == pytest.approx(1, abs=0.15) if column == "auroc" else 1.5 < ratio < 4
        assert low < np.mean(values) < high


def test_measures_are_means_of_what_the_runs_hold(rows):
    relu = rows.loc["relu"]
    assert relu["dead"] == 0.1
    assert relu["dead_first"] == pytest.approx(0.025)
    assert relu["dead_max"] == pytest.approx(0.2)
    assert (relu["blackout"], relu["blackout_max"]) == (0, pytest.approx(0.3))
    assert relu["grad_head_dense"] == 2.5
    assert math.isnan(relu["grad_backbone"])
    assert math.isnan(relu["dead_expected"])
    assert math.isnan(relu["linear"])
    assert relu["epochs_to_95"] == 2  # 0.7 of 0.72 is the first at 95 %
    assert (relu["fit_s"], relu["val_auroc"]) == (12.5, 0.72)


def test_tables_hold_their_columns_the_reference_first(grid, rows):
    table = compared(grid).settings[0]
    assert list(table.rows) == list(COLUMNS)
    assert table.rows["activation"].iloc[0] == "relu"
    assert table.rows["auroc"].iloc[1:].is_monotonic_decreasing
    assert rows.loc["relu", "finding"] == "reference"
    assert rows.loc["relu", ["difference", "p", "smallest_difference"]].isna().all()
    assert [(r.activation, r.seed) for r in table.runs] == list(
        table.by_run[["activation", "seed"]].itertuples(index=False, name=None)
    )
    pd.testing.assert_frame_equal(compared(grid).settings[0].rows, table.rows)


def test_another_reference_turns_the_differences_round(grid, rows):
    other = compared(grid, reference="better").settings[0].rows.set_index("activation")
    assert other.loc["relu", "difference"] == pytest.approx(-rows.loc["better", "difference"])
    assert other.loc["relu", "difference_low"] == pytest.approx(
        -rows.loc["better", "difference_high"], rel=0.05
    )  # the family of the other comparisons is another one
    assert other.loc["relu", "finding"] == "worse"
    with pytest.raises(InputError, match=r"reference must be one of .*'relo' \(did you mean"):
        compared(grid, reference="relo")


def test_what_all_runs_share_is_told(grid):
    common = compared(grid).common
    assert common["source"] == "table"
    assert (common["backbone"], common["frozen"], common["epochs"]) == ("tiny", False, 3)
    assert (common["test images"], common["test patients"]) == (60, 23)
    assert (common["seeds"], common["runs"]) == ([1, 2, 3, 4], 20)


def test_one_seed_has_no_p(tmp_path):
    write_grid(tmp_path, {"relu": {}, "better": {"table": better}}, [5])
    row = compared(tmp_path).settings[0].rows.iloc[1]
    assert row["difference"] > 0
    assert row["finding"] == "undecided"
    assert row[["auroc_sd", "difference_low", "p", "seeds_for_margin"]].isna().all()


def test_a_missing_seed_is_refused_or_left_out_of_the_pairs(tmp_path):
    write_grid(tmp_path, {"relu": {}, "better": {"table": better}}, SEEDS)
    (tmp_path / "relu-s2/result.json").unlink()
    (tmp_path / "relu-s2/config.yaml").unlink()
    (tmp_path / "better-s3").rename(tmp_path.parent / f"{tmp_path.name}-away")
    with pytest.raises(
        InputError,
        match="grid is incomplete, 2 runs are missing: better with seed 3 and 1 more; train the",
    ):
        compared(tmp_path)
    found = compared(tmp_path, incomplete=True)
    assert found.left_out[0].startswith("2 runs are missing (better with seed 3 and 1 more)")
    row = found.settings[0].rows.set_index("activation").loc["better"]
    gains = [score(better(seed)) - score(predictions(seed)) for seed in (1, 4)]
    assert (row["seeds"], row["difference_seeds"]) == (3, 2)
    assert row["difference"] == pytest.approx(np.mean(gains), abs=1e-9)


def test_a_setting_without_the_reference_has_no_differences(tmp_path):
    write_grid(tmp_path / "a", {"relu": {}, "gelu": {}}, SEEDS)
    write_grid(tmp_path / "b", {"gelu": {}}, SEEDS, head__init="he")
    told = "relu with seed 1 at head.init=he and 3 more"
    with pytest.raises(InputError, match=f"4 runs are missing: {told}"):
        compared(tmp_path)
    row = compared(tmp_path, incomplete=True).settings[0].rows.iloc[0]
    assert (row["activation"], row["seeds"], row["difference_seeds"]) == ("gelu", 4, 0)
    assert math.isnan(row["difference"])


def test_runs_without_predictions_are_compared_over_seeds_alone(grid):
    """As they come from W&B, where no patient's probability is."""
    there = collect([grid])
    scores = {r.name: score(r.predictions["test"]) for r in there.runs}
    bare = [
        dataclasses.replace(
            run, predictions={}, result=run.result | {"test": {"auroc": scores[run.name]}}
        )
        for run in there.runs
    ]
    told = compare(dataclasses.replace(there, runs=bare))
    (whole,), (table,) = compare(there).settings, told.settings
    columns = ["activation", "auroc", "auroc_sd", "difference", "difference_seeds"]
    pd.testing.assert_frame_equal(
        table.rows[columns].set_index("activation").sort_index(),
        whole.rows[columns].set_index("activation").sort_index(),
    )
    assert table.rows["auroc_low"].isna().all()
    row = table.rows.set_index("activation").loc["uneven"]
    by_seed = [
        {r.seed: scores[r.name] for r in bare if r.activation == name}
        for name in ("uneven", "relu")
    ]
    gains = np.array([by_seed[0][seed] - by_seed[1][seed] for seed in SEEDS])
    low, high = stats.t.interval(0.95, len(SEEDS) - 1, gains.mean(), stats.sem(gains))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high))
    assert "over seeds alone" in told.left_out[-1]
    assert set(table.rows["finding"]) == {"reference", "undecided"}
    assert table.rows["p"].isna().all()
