import pytest

from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.grid import INDIFFERENT
from tests.reporting.folders import LABELS, predictions, write_grid, write_run


def compared(root, incomplete=False):
    return compare(collect([root], incomplete), incomplete=incomplete)


def test_settings_stand_apart_in_the_order_of_their_values(tmp_path):
    for i, (lr, order) in enumerate([(0.01, "b"), (0.002, "b"), (0.01, "a"), (0.002, "a")]):
        write_grid(tmp_path / str(i), {"relu": {}}, [1], optimizer__lr=lr, head__order=order)
    settings = compared(tmp_path).settings
    assert [s.setting for s in settings] == [
        {"head.order": order, "optimizer.lr": lr} for order in "ab" for lr in (0.002, 0.01)
    ]
    assert settings[0].label == "head.order=a, optimizer.lr=0.002"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run__dir", "elsewhere"),
        ("logger__mode", "online"),
        ("diagnostics__enabled", None),
        ("trainer__devices", "auto"),
        ("data__num_workers", 8),
        ("data__root", "/another/place"),
    ],
)
def test_keys_that_change_no_result_make_no_setting(tmp_path, key, value):
    write_grid(tmp_path / "a", {"relu": {}}, [1])
    write_grid(tmp_path / "b", {"relu": {}}, [2], **{key: value})
    assert [s.setting for s in compared(tmp_path).settings] == [{}]


@pytest.mark.parametrize(
    "key",
    [
        *("data__batch_size", "data__augment", "optimizer__lr", "head__init"),
        *(
            "data__order_seed",
            "trainer__max_epochs",
            "run__patience",
            "diagnostics__revive_every_n_epochs",
        ),
    ],
)
def test_keys_that_change_training_make_one(tmp_path, key):
    for value in (5, 7):
        write_grid(tmp_path / str(value), {"relu": {}}, [1], **{key: value})
    assert [list(s.setting) for s in compared(tmp_path).settings] == [[key.replace("__", ".")]] * 2


def test_the_keys_passed_over_exist():
    known = {f"{s}.{k}" for s, keys in full_config().items() for k in (keys or ())}
    assert {key for key in INDIFFERENT if key != "data.csv"} <= known


def full_config():
    from omegaconf import OmegaConf

    from fluoroscope.config import CONF

    files = ("train.yaml", "data/phantom.yaml", "trainer/auto.yaml")
    train, data, trainer = (OmegaConf.load(CONF / name) for name in files)
    train.data, train.trainer = OmegaConf.merge(train.data, data), trainer
    return {k: v for k, v in train.items() if k in ("data", "backbone", "trainer")}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"data__source": "nih14"}, "source is table in the first and nih14 in the second"),
        ({"fingerprint": "beef"}, "split_fingerprint is f00d in the first and beef in the second"),
        (
            {"data__fold": "2/5", "fingerprint": "beef"},
            "data.fold is None in the first and 2/5 in the second",
        ),
        ({"data__image_px": 96}, "data.image_px is 64 in the first and 96 in the second"),
        ({"data__views": ["PA"]}, r"data.views is None in the first and \['PA'\] in the second"),
        ({"backbone__name": "big"}, "backbone.name is tiny in the first and big in the second"),
        ({"backbone__frozen": True}, "backbone.frozen is False in the first and True"),
        ({"backbone__args": {"a": 1}}, r"backbone.args is {} in the first and {'a': 1}"),
        ({"trainer__limit_test_batches": 2}, "trainer.limit_test_batches is None in the first"),
    ],
)
def test_runs_of_other_data_or_backbones_are_refused(tmp_path, keys, told):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", "gelu", **keys)
    with pytest.raises(InputError, match=f"a and .*b cannot be compared: {told}"):
        compared(tmp_path, incomplete=True)


@pytest.mark.parametrize("column", ["row", "group", LABELS[1]])
def test_predictions_of_other_images_are_refused(tmp_path, column):
    write_run(tmp_path / "a")
    other = predictions(1)
    other.loc[9, column] = 1 - other.loc[9, column]
    write_run(tmp_path / "b", "gelu", table=other)
    with pytest.raises(InputError, match=r"test\.csv list different images, patients or labels"):
        compared(tmp_path)


def test_the_same_run_twice_is_refused(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", run__name="again")
    with pytest.raises(InputError, match=r"a and .*b are both relu with seed 1 in"):
        compared(tmp_path)


def test_the_values_of_a_key_are_compared_although_the_momentum_follows_from_them(tmp_path):
    """head.norm_momentum=auto takes it from the number of batches."""
    for size, momentum in ((8, 0.02), (32, 0.05)):
        keys = {"data__batch_size": size, "head__norm_momentum": momentum}
        write_grid(tmp_path / str(size), {"relu": {}}, [1, 2], **keys)
    whole = compare(collect([tmp_path]), by="data.batch_size", reference="8")
    assert [s.setting for s in whole.settings] == [{}]
    write_run(tmp_path / "odd", "relu", 1, data__batch_size=8, head__norm_momentum=0.5)
    split = collect([tmp_path])
    asked = {"by": "data.batch_size", "reference": "8", "incomplete": True}
    settings = compare(split, **asked).settings
    assert [s.setting["head.norm_momentum"] for s in settings] == [0.02, 0.05, 0.5]
