"""Folds of a cross-validation are scored together."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from fluoroscope.config.report import Rule
from fluoroscope.config.shareable import without_paths
from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import Collection, collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.curves import histories
from fluoroscope.reporting.evidence import gather
from fluoroscope.reporting.folds import number_of
from fluoroscope.reporting.out_of_fold import write_folds
from fluoroscope.reporting.page import HTML, MARKDOWN, write
from fluoroscope.reporting.verdict import verdict
from fluoroscope.run.score_limits import score_limits
from fluoroscope.statistics import auroc_interval, count_classes, macro_auroc
from tests.reporting.folders import (
    LABELS,
    fold_of,
    metrics,
    predictions,
    write_cross_validation,
    write_grid,
    write_run,
)
from tests.test_statistics import within_folds

FOLDS, SEEDS = 3, (1, 2, 3)


def films(seed, **keys):
    return predictions(seed, images=180, patients=61, **keys)


def better(seed):
    return films(seed, separation=2.2, noise=1)


def linear(seed):
    return films(seed, noise=2)


ACTIVATIONS = {"relu": films, "better": better, "identity": linear}


def compared(runs, incomplete=False, **keys):
    return compare(Collection(list(runs), []), incomplete=incomplete, **keys)


def read(place):
    return collect([place]).runs


def in_fold(k):
    return lambda run: run.config["data"]["fold"].startswith(f"{k}/")


def altered(runs, which, table=None, **result):
    """The runs, of which some have other predictions or results."""
    changed = []
    for run in runs:
        if which(run):
            test = run.predictions["test"] if table is None else table(run.predictions["test"])
            new = {"predictions": {"test": test}, "result": run.result | result}
            changed.append(replace(run, **new))
        else:
            changed.append(run)
    return changed


def configured(runs, keys_of):
    """The runs with other keys; `keys_of` takes a run and gives sections."""
    return [
        replace(
            run,
            config=run.config | {s: run.config[s] | keys for s, keys in keys_of(run).items()},
        )
        for run in runs
    ]


def without(runs, *names):
    """The runs without the folders of these names."""
    return [run for run in runs if run.folder.name not in names]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    return collect([write_cross_validation(root, ACTIVATIONS, SEEDS, FOLDS)]).runs


@pytest.fixture(scope="module")
def found(runs):
    return compared(runs)


def score(table):
    fold = table["group"].to_numpy() % FOLDS
    return np.mean([within_folds(table, fold, label) for label in LABELS])


def test_a_score_is_that_of_the_pairs_within_folds_of_each_seed(found):
    rows = found.settings[0].rows.set_index("activation")
    relu = [score(films(seed)) for seed in SEEDS]
    gains = [score(better(seed)) - own for seed, own in zip(SEEDS, relu, strict=True)]
    assert rows.loc["relu", "auroc"] == pytest.approx(np.mean(relu), abs=1e-6)
    assert rows.loc["relu", "auroc_sd"] == pytest.approx(np.std(relu, ddof=1), abs=1e-6)
    assert rows.loc["better", "difference"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert list(rows["seeds"]) == [3, 3, 3]
    assert list(rows["difference_seeds"]) == [0, 3, 3]


def test_activations_are_compared_over_seeds_and_all_patients(found):
    rows = found.settings[0].rows.set_index("activation")
    assert rows.loc["better", "finding"] == "better"
    assert rows.loc["identity", "finding"] == "undecided"
    assert found.floor == ""


def test_the_floor_counts_the_patients_of_all_folds(runs):
    counts = [count_classes(films(1), label).values() for label in LABELS]
    fewest = min(patients for classes in counts for _, patients in classes)
    assert compared(runs, rule=Rule(min_patients=fewest)).floor == ""
    assert f"{fewest} " in compared(runs, rule=Rule(min_patients=fewest + 1)).floor


def test_the_facts_are_those_of_all_folds(found):
    tested = [fold_of(films(1), k, FOLDS)[0] for k in (1, 2, 3)]
    assert found.common["test images"] == 180
    assert found.common["test patients"] == films(1)["group"].nunique()
    few, many = sorted(map(len, tested))[:: FOLDS - 1]
    assert found.common["train images"] == f"{180 - 5 - many} to {180 - 5 - few}"
    assert found.common["folds"].startswith("1, 2, 3 of 3; each image is scored by the model")
    assert found.common["split_fingerprint"] == ["f1", "f2", "f3"]
    assert found.common["seeds"] == [1, 2, 3]
    assert {"folds", "split_fingerprint"} <= without_paths(found.common).keys()  # sent to W&B
    assert found.common["runs"] == len(found.settings[0].by_run) == 27


def test_each_fold_has_a_score_and_an_interval_of_its_own(found):
    folds = found.settings[0].folds
    assert list(zip(folds["activation"], folds["fold"], strict=True))[:3] == [
        ("relu", 1),
        ("relu", 2),
        ("relu", 3),
    ]
    for _, row in folds[folds["activation"] == "better"].iterrows():
        parts = [fold_of(better(seed), row["fold"], FOLDS)[0] for seed in SEEDS]
        assert (row["images"], row["patients"]) == (len(parts[0]), parts[0]["group"].nunique())
        expected = np.mean([macro_auroc(part, LABELS)[0] for part in parts])
        assert row["auroc"] == pytest.approx(expected, abs=1e-6)
        low, high = auroc_interval(parts[0], LABELS)
        assert row["auroc_high"] - row["auroc_low"] == pytest.approx(high - low, rel=0.5)
        assert row["auroc_low"] < row["auroc"] < row["auroc_high"]


def test_runs_of_one_fold_are_compared_as_runs_of_any_split(tmp_path):
    for place, keys in (("plain", {}), ("one", {"data__fold": "2/5"})):
        write_grid(tmp_path / place, {"relu": {}, "identity": {}}, table=films, **keys)
    plain, one = (compared(read(tmp_path / place)) for place in ("plain", "one"))
    assert (one.settings[0].folds, plain.settings[0].folds) == (None, None)
    assert "folds" not in one.common
    pd.testing.assert_frame_equal(one.settings[0].rows, plain.settings[0].rows)


def test_the_units_of_a_seed_are_the_mean_over_folds(tmp_path):
    """Growth counts a seed once, whatever the number of its folds."""
    for k, seed in product((1, 2, 3), SEEDS):
        tested, splits = fold_of(films(seed), k, 3)
        dead = (0.1, 0.1 + 0.01 * k, 0.1 + 0.02 * k + 0.01 * seed)
        keys = {"fingerprint": f"f{k}", "splits": splits, "data__fold": f"{k}/3"}
        write_run(tmp_path / f"{seed}-{k}", "relu", seed, tested, metrics(dead), **keys)
    found = compared(read(tmp_path))
    assert found.settings[0].rows.loc[0, "dead"] == pytest.approx(0.1 + 0.04 + 0.02)
    mean, low, high = gather(found)[0].growth
    assert mean == pytest.approx(0.06)
    half = 4.302653 * 0.01 / np.sqrt(3)  # t of two degrees of freedom
    assert (low, high) == (pytest.approx(0.06 - half), pytest.approx(0.06 + half))


@pytest.mark.parametrize(
    ("put", "told"),
    [
        # Patients of fold 1 are tested by fold 2 too: all of their images, some, or other ones.
        (lambda t, other: pd.concat([t, other[other["group"] == other["group"].iloc[0]]]), "1 pat"),
        (lambda t, other: pd.concat([t, other.iloc[:1]]), "1 patient of the test split of one"),
        (
            lambda t, other: t.assign(group=t["group"].where(t.index > 0, other["group"].iloc[0])),
            "1 patient of the test split of one fold are tested by another one too",
        ),
        # An image that another fold knows with another label or patient.
        (lambda t, other: pd.concat([t, other.iloc[:1].assign(group=9999)]), "1 image of the test"),
        (lambda t, other: pd.concat([t, other.iloc[:1].assign(Mass=0.5)]), "another patient or la"),
    ],
)
def test_folds_that_share_patients_are_refused(runs, put, told):
    other = runs[0].predictions["test"]
    assert in_fold(1)(runs[0])
    wrong = altered(runs, in_fold(2), lambda table: put(table, other))
    with pytest.raises(InputError, match=told):
        compared(wrong)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (
            {"split_fingerprint": "f1"},
            "1/3 in the first and 2/3 in the second, but their splits",
        ),
        ({"labels": ["Nodule"]}, "labels is .* in the first and .*Nodule"),
        ({"source": "nih14"}, "source is table in the first and nih14 in the second"),
        (
            {"splits": [{"split": s, "images": n} for s, n in (("train", 100), ("test", 81))]},
            "folds of different collections, of 180 and of 181 images",
        ),
    ],
)
def test_folds_of_other_data_are_refused(runs, result, told):
    with pytest.raises(InputError, match=told):
        compared(altered(runs, in_fold(2), **result))


@pytest.mark.parametrize(
    ("fold", "told"),
    [
        ("1/2", "data.fold is 1/3 in the first and 1/2 in the second"),
        ("4/5", "data.fold is 1/3 in the first and 4/5 in the second"),
        (None, "data.fold is 1/3 in the first and None in the second"),
    ],
)
def test_folds_of_other_numbers_are_refused(runs, fold, told):
    odd = configured(
        runs, lambda run: {"data": {"fold": fold}} if run.folder.name == "relu-s2-3" else {}
    )
    with pytest.raises(InputError, match=f"better-s1-1 and .*relu-s2-3 cannot be compared: {told}"):
        compared(odd)


def test_other_keys_must_be_the_same_in_all_folds(runs):
    odd = configured(runs, lambda run: {"data": {"image_px": 96}} if in_fold(2)(run) else {})
    with pytest.raises(InputError, match="image_px is 64 in the first and 96 in the second"):
        compared(odd)


def test_a_run_of_a_fold_must_have_the_split_of_its_fold(runs):
    other = altered(runs, lambda run: run is runs[-1], split_fingerprint="f9")
    with pytest.raises(InputError, match="split_fingerprint is f3 in the first and f9"):
        compared(other)


def test_a_fold_twice_is_refused(runs):
    twice = [*runs, next(run for run in runs if run.folder.name == "relu-s1-2")]
    with pytest.raises(
        InputError, match=r"are both relu with seed 1 and data\.fold=2/3 in the same"
    ):
        compared(twice)


def test_runs_without_predictions_are_refused(runs):
    online = [replace(run, folder=None, predictions={}) for run in runs]
    with pytest.raises(
        InputError, match="needs the predictions of each run; they exist in run fol"
    ):
        compared(online)


def test_a_missing_fold_is_named(runs):
    some = [run for run in runs if not in_fold(2)(run)]
    with pytest.raises(
        InputError, match=r"9 runs are missing: better with seed 1 and data.fold=2/3"
    ):
        compared(some)
    found = compared(some, incomplete=True)
    assert any("data.fold=2/3" in line for line in found.left_out)
    part = [films(seed)[films(seed)["group"] % 3 != 1] for seed in SEEDS]
    expected = np.mean([score(table) for table in part])
    rows = found.settings[0].rows.set_index("activation")
    assert rows.loc["relu", "auroc"] == pytest.approx(expected, abs=1e-6)


def test_a_fold_that_only_some_have_is_left_out(runs):
    """As while a sweep is running."""
    missing = [f"{name}-s{seed}-3" for name in ("relu", "identity") for seed in SEEDS]
    some = without(runs, *missing)
    with pytest.raises(InputError, match=r"6 runs are missing: .*fold=3/3"):
        compared(some)
    found = compared(some, incomplete=True)
    assert any(
        "3 runs, so that every activation and seed has the same folds: 1, 2" in line
        for line in found.left_out
    )
    assert found.common["runs"] == 18
    assert set(found.settings[0].rows["seeds"]) == {3}


def test_a_seed_that_lacks_a_fold_is_left_out(runs):
    found = compared(without(runs, "relu-s3-2"), incomplete=True)
    assert any("2 runs, so that" in line and "folds: 1, 2, 3" in line for line in found.left_out)
    rows = found.settings[0].rows.set_index("activation")
    assert (rows.loc["relu", "seeds"], rows.loc["better", "seeds"]) == (2, 3)
    assert rows.loc["better", "difference_seeds"] == 2


def test_an_image_that_all_folds_test_counts_once(runs):
    few = [replace(run, predictions={"test": films(1).head(30)}) for run in runs]
    (limit,) = compared(few).limits
    assert [limit] == score_limits(films(1).head(30), LABELS)
    assert "images of" in limit


def test_folds_beside_a_given_test_split_test_the_same_patients(runs):
    """Their scores are means over the models; a patient counts once."""
    same = []
    for run in runs:
        table = ACTIVATIONS[run.activation](10 * run.seed + number_of(run))
        same.append(replace(run, predictions={"test": table}))
    found = compared(same)
    assert (found.common["test images"], found.common["test patients"]) == (180, 61)
    assert found.common["folds"].endswith("; one test split")
    rows = found.settings[0].rows.set_index("activation")
    models = [[macro_auroc(films(10 * s + k), LABELS) for k in (1, 2, 3)] for s in SEEDS]
    means = [np.mean([value for value, _ in of_seed]) for of_seed in models]
    assert rows.loc["relu", "auroc"] == pytest.approx(np.mean(means), abs=1e-6)
    assert rows.loc["relu", "auroc_sd"] == pytest.approx(np.std(means, ddof=1), abs=1e-6)
    alone = auroc_interval(films(11), LABELS)
    width = rows.loc["relu", "auroc_high"] - rows.loc["relu", "auroc_low"]
    assert width == pytest.approx(alone[1] - alone[0], rel=0.25)  # not 1 / sqrt(3) of it


def test_of_several_collections_one_may_give_its_test_split(runs):
    """Its patients are tested by all folds, those of the other collection by one."""
    mixed = []
    for run in runs:
        whole = ACTIVATIONS[run.activation](run.seed)
        given = whole["group"] < 120
        of_fold = whole["group"] % FOLDS == number_of(run) - 1
        mixed.append(replace(run, predictions={"test": whole[given | of_fold]}))
    found = compared(mixed)
    assert (found.common["test images"], found.common["test patients"]) == (180, 61)
    table = found.settings[0].rows.set_index("activation")
    folds = [films(1)[(films(1)["group"] < 120) | (films(1)["group"] % 3 == k)] for k in range(3)]
    number = np.repeat([0, 1, 2], [len(fold) for fold in folds])
    expected = [
        macro_auroc(pd.concat([films(s).loc[fold.index] for fold in folds]), LABELS, number)[0]
        for s in SEEDS
    ]
    assert len(number) > 180
    assert table.loc["relu", "auroc"] == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("same", [False, True])
def test_rows_that_copies_have_shifted_are_numbered_anew(runs, same):
    """`data.on_duplicate=drop` leaves out other images in each fold."""
    whole = compared(runs)
    shifted = []
    for run in runs:
        k = int(run.config["data"]["fold"][0])
        table = films(run.seed)
        table[["row", "group"]] -= 3 * k
        if not same:
            table = run.predictions["test"].assign(row=range(len(run.predictions["test"])))
            table["group"] = pd.factorize(table["group"])[0]
        config = run.config | {"data": run.config["data"] | {"on_duplicate": "drop"}}
        shifted.append(replace(run, config=config, predictions={"test": table}))
    found = compared(shifted)
    if same:
        assert (found.common["test images"], found.common["test patients"]) == (180, 61)
    else:
        pd.testing.assert_frame_equal(found.settings[0].rows, whole.settings[0].rows)
        assert found.common["test images"] == 180


def settings(runs, **keys):
    return [table.setting for table in compared(runs, **keys).settings]


def test_the_momentum_that_follows_from_the_batches_of_a_fold_makes_no_setting(runs):
    """head.norm_momentum=auto takes it from their number."""

    def momentum(run):
        return {"norm_momentum": 0.12 if in_fold(3)(run) else 0.11}

    followed = configured(runs, lambda run: {"head": momentum(run)})
    assert settings(followed) == [{}]
    chosen = configured(
        followed, lambda run: {"head": {"norm_momentum": 0.5}} if run.seed == 1 else {}
    )
    with pytest.raises(InputError, match="grid is incomplete"):
        settings(chosen)
    sizes = [
        run
        for size in (8, 32)
        for run in configured(followed, lambda run, n=size: {"data": {"batch_size": n}})
        if run.activation == "relu"
    ]
    assert settings(sizes, by="data.batch_size") == [{}]


def test_settings_and_folds(runs):
    several = [
        run
        for lr in (0.02, 0.01)
        for run in configured(runs, lambda _, lr=lr: {"optimizer": {"lr": lr}})
    ]
    found = compared(several)
    assert [t.setting for t in found.settings] == [{"optimizer.lr": lr} for lr in (0.01, 0.02)]
    assert [len(t.folds) for t in found.settings] == [9, 9]


def test_folds_are_no_rows(runs):
    with pytest.raises(InputError, match=r"data\.fold is 1/3 in the first and 2/3 in the second"):
        compared(runs, by="data.fold")


def test_the_page_shows_the_folds_and_the_predictions_are_written(found, tmp_path):
    write(found, verdict(found), tmp_path, lambda _: None)
    for name in (HTML, MARKDOWN):
        page = (tmp_path / name).read_text()
        assert "AUROC of each fold (mean over seeds" in page
        assert "1, 2, 3 of 3; each image is scored by the model that has not seen it" in page
        for _, row in found.settings[0].folds.iterrows():
            shown = f"{row['auroc']:.3f} ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
            assert shown in page
    stored = pd.read_csv(tmp_path / "folds.csv")
    pd.testing.assert_frame_equal(stored.drop(columns="setting"), found.settings[0].folds)
    files = {path.name for path in (tmp_path / "out_of_fold").iterdir()}
    assert files == {f"{name}-s{seed}.csv" for name in ACTIVATIONS for seed in SEEDS}


def test_the_file_holds_each_image_once_scored_by_the_model_of_its_fold(found, tmp_path):
    write_folds(found, tmp_path)
    table = pd.read_csv(tmp_path / "out_of_fold/relu-s2.csv")
    parts = [f"{label}{end}" for label in LABELS for end in ("", "_probability")]
    assert list(table) == ["fold", "row", "group", *parts]
    assert list(table["fold"]) == list(table["group"] % FOLDS + 1)
    expected = films(2).sort_values("row", ignore_index=True)
    table = table.sort_values("row", ignore_index=True)[list(expected)]
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_a_label_called_fold_is_a_label(runs, tmp_path):
    names = {"Mass": "fold", "Mass_probability": "fold_probability"}
    renamed = altered(
        runs, lambda _: True, lambda t: t.rename(columns=names), labels=["Nodule", "fold"]
    )
    found, plain = compared(renamed), compared(runs)
    pd.testing.assert_frame_equal(found.settings[0].rows, plain.settings[0].rows)
    write_folds(found, tmp_path)
    head = (tmp_path / "out_of_fold/relu-s1.csv").read_text().partition("\n")[0]
    assert head == "fold,row,group,Nodule,Nodule_probability,fold,fold_probability"


def test_curves_are_means_over_folds(runs):
    own = {1: 0.1, 2: 0.4, 3: 0.4}
    several = [
        replace(run, row="relu", metrics=metrics(dead=[own[k]] * 3))
        for k in own
        for run in runs
        if in_fold(k)(run) and run.activation == "relu"
    ]
    drawn = histories(several)
    assert drawn["units/val/dead_frac"].to_numpy() == pytest.approx(np.full(9, 0.3))
