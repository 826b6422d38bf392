import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from fluoroscope.data.splits import assign_splits, check_splits, count_table, fingerprint
from fluoroscope.errors import InputError

LABELS = ["Edema", "Mass"]


def make_table(patients=200, seed=0, root="/data/set"):
    """1 to 6 images a patient; Edema in 40 % of patients, Mass in 10 %, on most of their images."""
    random = np.random.default_rng(seed)
    rows = []
    for p in range(patients):
        edema, mass = random.random() < 0.4, random.random() < 0.1
        for i in range(random.integers(1, 7)):
            seen = random.random(2) < 0.8
            labels = {"Edema": float(edema and seen[0]), "Mass": float(mass and seen[1])}
            rows.append({"path": f"{root}/p{p}/{i}.png", "patient": f"p{p}"} | labels)
    table = pd.DataFrame(rows)
    table.insert(2, "split", pd.Series([None] * len(table), dtype=object))
    table.insert(3, "view", pd.Series([None] * len(table), dtype=object))
    return table


def small_table(rows):
    """A table from (patient, split, Edema)."""
    frame = pd.DataFrame(rows, columns=["patient", "split", "Edema"])
    return frame.assign(path=[f"/d/{i}.png" for i in range(len(frame))], view=None)


def splits_by_patient(table):
    return table.groupby("patient")["split"].unique()


def test_patients_stay_together_and_shares_are_exact():
    table = assign_splits(make_table(), LABELS, val_frac=0.15, test_frac=0.2)
    found = splits_by_patient(table)
    assert found.map(len).max() == 1
    assert found.map(lambda s: s[0]).value_counts().to_dict() == {
        "train": 130,
        "test": 40,
        "val": 30,
    }
    check_splits(table, LABELS)


def test_shares_of_images_and_positives_are_as_even_as_sklearn_makes_them():
    table = make_table()
    truth = table[LABELS].mean()
    ours, sklearns, images = [], [], []
    combined = table["Edema"] + 2 * table["Mass"]
    for seed in range(5):
        rows = assign_splits(table, LABELS, test_frac=0.2, seed=seed).query("split == 'test'")
        ours.append((rows[LABELS].mean() - truth).abs().max())
        images.append(len(rows) / len(table))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        _, other = next(folds.split(table, combined, table["patient"]))
        sklearns.append((table[LABELS].iloc[other].mean() - truth).abs().max())
    assert np.mean(ours) < max(np.mean(sklearns), 0.01)
    np.testing.assert_allclose(images, 0.2, atol=0.01)


def test_rarest_finding_reaches_every_split():
    table = make_table(100)
    table["Mass"] = table["patient"].isin([f"p{i}" for i in range(7, 17)]).astype(float)
    for seed in range(20):
        split = assign_splits(table, LABELS, val_frac=0.2, test_frac=0.2, seed=seed)
        with_mass = split[split["Mass"] == 1].groupby("split")["patient"].nunique()
        assert with_mass.to_dict() == {"train": 6, "val": 2, "test": 2}


def test_draw_depends_on_the_seed_and_not_on_the_order_of_rows_or_the_root():
    table = make_table()
    first = assign_splits(table, LABELS, seed=3)
    shuffled = table.sample(frac=1, random_state=0)
    again = assign_splits(shuffled, LABELS, seed=3)
    assert again.index.tolist() == shuffled.index.tolist()
    assert again["split"].sort_index().tolist() == first["split"].tolist()
    moved = assign_splits(make_table(root="/elsewhere"), LABELS, seed=3)
    assert moved["split"].tolist() == first["split"].tolist()
    other = assign_splits(table, LABELS, seed=4)
    changed = splits_by_patient(other).map(lambda s: s[0] == "test")
    same = splits_by_patient(first).map(lambda s: s[0] == "test") & changed
    assert same.sum() < 15  # 30 patients each; chance alone makes 4.5 the same
    assert table["split"].isna().all()  # the given table is left alone


def test_given_test_split_is_kept_and_val_comes_from_the_rest():
    table = make_table()
    test = table["patient"].isin([f"p{i}" for i in range(50)])
    table.loc[test, "split"] = "test"
    split = assign_splits(table, LABELS, val_frac=0.2)
    assert (split["split"] == "test").tolist() == test.tolist()
    assert split.groupby("split")["patient"].nunique().to_dict() == {
        "train": 120,
        "val": 30,
        "test": 50,
    }
    check_splits(split, LABELS)


def test_val_comes_from_given_train():
    table = make_table()
    test = table["patient"].isin([f"p{i}" for i in range(50)])
    table["split"] = np.where(test, "test", "train")
    split = assign_splits(table, LABELS, val_frac=0.2)
    assert split.groupby("split")["patient"].nunique().to_dict() == {
        "train": 120,
        "val": 30,
        "test": 50,
    }


def test_three_given_splits_are_kept_or_ignored():
    table = make_table()
    number = table["patient"].str[1:].astype(int)
    table["split"] = np.select([number < 20, number < 50], ["val", "test"], "train")
    kept = assign_splits(table, LABELS)
    assert kept["split"].tolist() == table["split"].tolist()
    anew = assign_splits(table, LABELS, keep_given=False)
    assert anew["split"].tolist() == assign_splits(make_table(), LABELS)["split"].tolist()


def test_test_list_that_shares_patients_is_refused_as_a_leak():
    table = make_table()
    table.loc[table.groupby("patient").head(1).index[:50], "split"] = "test"
    shared = table[table["split"] == "test"]["patient"].isin(
        table[table["split"].isna()]["patient"]
    )
    split = assign_splits(table, LABELS)
    with pytest.raises(
        InputError, match=r"patients are in two splits \(.*set data.splits=own"
    ) as e:
        check_splits(split, LABELS)
    numbers = [int(word) for word in str(e.value).replace("(", " ").split() if word.isdigit()]
    assert sum(numbers) == shared.sum() > 20


@pytest.mark.parametrize("names", [["test"], ["val", "test"], ["test", "val", "val"]])
def test_given_splits_without_train_are_kept_and_only_needed_ones_are_checked(names):
    rows = [(str(i), names[i % len(names)], int(i > 5)) for i in range(12)]
    split = assign_splits(small_table(rows), ["Edema"])
    assert split["split"].tolist() == [name for _, name, _ in rows]
    check_splits(split, ["Edema"], ["test"])
    with pytest.raises(InputError, match="the train split has no images"):
        check_splits(split, ["Edema"])


def test_leaking_patients_are_counted_and_not_named():
    rows = [("secret1", "train", 1), ("secret1", "test", 0), ("secret2", "train", 0)]
    rows += [("secret2", "test", 1), ("secret3", "val", 1), ("secret3", "test", 0), ("x", "val", 0)]
    with pytest.raises(InputError, match=r"\(2 in train and test, 1 in val and test\)") as e:
        check_splits(small_table(rows), ["Edema"])
    assert "secret" not in str(e.value)


def test_empty_split_and_split_with_one_class_are_refused():
    rows = [("a", "train", 1), ("b", "train", 0), ("c", "test", 1), ("d", "test", 0)]
    with pytest.raises(InputError, match=r"the val split has no images; set data.splits=own"):
        check_splits(small_table(rows), ["Edema"])
    rows += [("e", "val", 1), ("f", "val", np.nan), ("g", "val", 1)]
    with pytest.raises(
        InputError, match="the val split cannot score 'Edema': positive images 2, negative images 0"
    ):
        check_splits(small_table(rows), ["Edema"])
    check_splits(small_table([*rows, ("h", "val", 0)]), ["Edema"])


def test_a_share_of_less_than_two_patients_is_refused():
    message = r"too few patients \(200\) .*share of 0.005 is less than two"
    with pytest.raises(InputError, match=message):
        assign_splits(make_table(), LABELS, val_frac=0.005)


@pytest.mark.parametrize("keep_given", [True, False])
def test_no_images_are_refused(keep_given):
    with pytest.raises(InputError, match=r"no usable images are left to split; check data\.root"):
        assign_splits(make_table(20).iloc[:0], LABELS, keep_given=keep_given)


def test_too_few_patients_with_a_label_are_refused():
    table = make_table(60)
    table["Mass"] = table["patient"].isin(["p1", "p2"]).astype(float)
    with pytest.raises(
        InputError, match=r"too few patients \(2\) have an image with 'Mass' .* test, val, train"
    ):
        assign_splits(table, LABELS)
    table["Mass"] = 1 - table["Mass"]
    with pytest.raises(InputError, match=r"too few patients \(2\) have an image without 'Mass'"):
        assign_splits(table, LABELS)


def test_unknown_labels_are_neither_present_nor_absent():
    table = make_table(100)
    table.loc[table["patient"].isin([f"p{i}" for i in range(40)]), "Mass"] = np.nan
    split = assign_splits(table, LABELS, val_frac=0.2, test_frac=0.2)
    unknown = split[split["Mass"].isna()].groupby("split")["patient"].nunique()
    np.testing.assert_allclose(unknown[["train", "val", "test"]], [24, 8, 8], atol=2)


def test_count_table_by_hand():
    rows = [("a", "train", 1), ("a", "train", 0), ("b", "train", np.nan)]
    rows += [("c", "val", 1), ("d", "val", 1), ("e", "test", 0)]
    assert count_table(small_table(rows), ["Edema"]) == [
        {"split": "train", "images": 3, "patients": 2, "Edema": 1},
        {"split": "val", "images": 2, "patients": 2, "Edema": 2},
        {"split": "test", "images": 1, "patients": 1, "Edema": 0},
    ]


def test_fingerprint_ignores_order_and_root_and_nothing_else():
    table = assign_splits(make_table(30), LABELS, val_frac=0.2, test_frac=0.2)
    value = fingerprint(table, LABELS)
    assert len(value) == 16
    assert int(value, 16) >= 0
    assert fingerprint(table.sample(frac=1, random_state=1), LABELS) == value
    moved = table.assign(path=table["path"].str.replace("/data/set", "/mnt/other disk/x"))
    assert fingerprint(moved, LABELS) == value

    changed = [table.copy() for _ in range(5)]
    changed[0].loc[3, "Mass"] = 1 - table.loc[3, "Mass"]
    changed[1].loc[3, "Mass"] = np.nan
    changed[2].loc[3, "patient"] = "someone else"
    changed[3].loc[3, "split"] = "val" if table.loc[3, "split"] != "val" else "test"
    changed[4].loc[3, "path"] = "/data/set/p0/renamed.png"
    values = {fingerprint(c, LABELS) for c in [*changed, table.drop(index=3)]}
    assert len(values | {value, fingerprint(table, LABELS[::-1])}) == 8


# -------------------------------------------------------------------------------------- folds
def folds(table, n, **keys):
    return [assign_splits(table, LABELS, fold=f"{k}/{n}", **keys)["split"] for k in range(1, n + 1)]


def test_every_patient_is_tested_in_one_fold():
    table = make_table()
    tested = np.stack([split == "test" for split in folds(table, 5)])
    np.testing.assert_array_equal(tested.sum(axis=0), 1)
    for split in folds(table, 5):
        assert splits_by_patient(table.assign(split=split)).map(len).max() == 1
        val = split == "val"
        np.testing.assert_allclose(val.mean(), 0.15 * 0.8, atol=0.03)


def test_folds_leave_a_given_test_split_alone_and_validate_every_other_patient_once():
    table = make_table()
    given = table["patient"].isin([f"p{i}" for i in range(50)]).to_numpy()
    table["split"] = np.where(given, "test", np.where(table.index % 3, "train", "val"))
    kept = folds(table, 4)
    for split in kept:
        assert (split == "test").tolist() == given.tolist()
    validated = np.stack([split == "val" for split in kept])
    np.testing.assert_array_equal(validated.sum(axis=0), (~given).astype(int))
    own = folds(table, 4, keep_given=False)
    np.testing.assert_array_equal(np.stack([split == "test" for split in own]).sum(axis=0), 1)


def test_folds_are_evener_than_combinations_of_labels_would_make_them():
    """Rare findings that come together with common ones: few combinations come often."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"patient": np.repeat(np.arange(600), 3).astype(str)})
    shares = [0.02, 0.04, 0.08, 0.15, 0.3, 0.4]
    labels = [f"L{i}" for i in range(len(shares))]
    for label, share in zip(labels, shares, strict=True):
        rows[label] = (random.random(len(rows)) < share).astype(float)
    table = rows.assign(path=[f"/d/{i}.png" for i in range(len(rows))], split=None, view=None)
    combined = table[labels].astype(int).astype(str).agg("".join, axis=1)

    def gap(parts):
        shares = pd.get_dummies(parts).T.to_numpy(float) @ table[labels].to_numpy()
        return np.abs(shares / table[labels].sum().to_numpy() * 5 - 1).mean()

    theirs = np.empty(len(table), int)
    library = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for part, (_, chosen) in enumerate(library.split(table, combined, table["patient"])):
        theirs[chosen] = part
    ours = [
        assign_splits(table, labels, fold=f"{k}/5")["split"].eq("test").to_numpy()
        for k in range(1, 6)
    ]
    assert gap(np.argmax(ours, axis=0)) < gap(theirs)
    np.testing.assert_allclose(np.mean(ours, axis=1), 0.2, atol=0.01)


def test_folds_do_not_depend_on_the_order_of_the_rows():
    table = make_table()
    shuffled = table.sample(frac=1, random_state=0)
    for one, other in zip(folds(table, 3), folds(shuffled, 3), strict=True):
        assert other.sort_index().tolist() == one.tolist()


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1", "a/b", "1/0", "-1/5", ""])
def test_folds_refuse(fold):
    with pytest.raises(InputError, match=r"data.fold must be k/n .*such as 2/5; got "):
        assign_splits(make_table(), LABELS, fold=fold)


def test_folds_refuse_too_few_patients():
    with pytest.raises(InputError, match=r"^too few patients \(6\) for data\.fold=1/5"):
        assign_splits(make_table(6), LABELS, fold="1/5")
    rare = make_table()
    rare["Mass"] = rare["patient"].isin(["p1", "p2", "p3"]).astype(float)
    with pytest.raises(
        InputError, match=r"too few patients \(3\) have an image with 'Mass'.* 5 parts"
    ):
        assign_splits(rare, LABELS, fold="1/5")


def test_a_soft_label_is_part_of_the_fingerprint():
    table = make_table().assign(split="train")
    soft = table.assign(Mass=table["Mass"].replace(1, 0.7))
    assert fingerprint(table, LABELS) != fingerprint(soft, LABELS)
    assert fingerprint(soft, LABELS) != fingerprint(table.assign(Mass=0.0), LABELS)
