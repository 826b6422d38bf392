import errno
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy import stats

from fluoroscope import build
from fluoroscope.ablation import study
from fluoroscope.ablation.remedies import WHEN, compare, markdown, summarise
from fluoroscope.ablation.settings import check_remedies, on_cached_features
from fluoroscope.command.entry import CONF
from fluoroscope.errors import InputError
from fluoroscope.run.run_folder import read_json
from fluoroscope.statistics import t_interval
from tests.support.films import TINY, tiny_config

TINY_REMEDIES = [*TINY, "data.patient_pattern='(p\\d+)_'", "seeds=2"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("remedies", [*overrides])


@pytest.fixture(scope="module")
def default():
    return composed()


def changed(cfg, *overrides):
    return OmegaConf.merge(OmegaConf.create(OmegaConf.to_container(cfg)), dotlist(*overrides))


def dotlist(*overrides):
    return OmegaConf.from_dotlist([*overrides])


def test_each_remedy_of_the_file_is_a_valid_run_that_differs_from_the_first():
    remedies = check_remedies(composed("data=nih14", "data.root=films"))
    assert len(remedies.runs) == 18
    first = next(iter(remedies.runs))
    assert [name for name, cfg in remedies.runs.items() if cfg == remedies.runs[first]] == [first]
    assert [n for n, cfg in remedies.runs.items() if not on_cached_features(cfg)] == ["unfreezing"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seeds=0", "seeds must be a whole number of at least 1; got 0"),
        ("only=[nothing]", "only must be one of .*; got 'nothing'"),
        ("only=5", r"only must be a list of names, written 'only=\[5\]'; got 5"),
        ("only=none", r"only must be a list of names, written 'only=\[none\]'; got 'none'"),
        ("remedies.mine=3", "remedies.mine must be a list of KEY=VALUE; got 3"),
        ("remedies.mine=['head.widht=3']", r"there is no key head.widht \(did you mean"),
        ("remedies.mine=['optimizer.lr=-1']", "optimizer.lr must be at least 0"),
        ("remedies.init-He=[]", "'init he' and 'init-He' would share the folder init-He-s"),
        ("remedies.mine=['data.val_frac=0.3']", "remedies.mine changes data.val_frac, but all"),
        ("remedies.mine=['seed=2']", "remedies.mine changes seed, but all"),
        ("remedies.mine=['trainer.devices=2']", "remedies are compared in one process"),
        ("trainer.devices=auto", "remedies are compared in one process"),
        ("trainer.strategy=ddp", "remedies are compared in one process"),
        ("trainer.num_nodes=2", "remedies are compared in one process"),
        ("remedies.mine=['diagnostics.enabled=false']", "enabled=false leaves remedies.mine"),
        ("diagnostics.layers=['backbone.*']", "behind cached features only head.activation"),
        ("run.resume=here", "run.resume: give the folder as run.dir"),
    ],
)
def test_what_cannot_be_compared_is_refused(default, override, told):
    with pytest.raises(InputError, match=told):
        check_remedies(changed(default, override))


def test_a_remedy_may_load_and_watch_otherwise(default):
    mine = "data.batch_size=4,data.sampler=balanced,data.image_px=96,data.num_workers=0"
    augment = "data.augment=[{name: RandomGamma}]"
    cfg = changed(default, f"remedies.mine=[{mine}]", "trainer.devices=[1]", "only=[none,mine]")
    cfg.remedies.mine += [augment, "diagnostics.layers=['backbone.*']"]
    assert check_remedies(cfg).runs["mine"].data.batch_size == 4


def test_a_comparison_trains_each_seed_and_goes_on_where_it_stopped(films, tmp_path, monkeypatch):
    cfg = composed(*TINY_REMEDIES, f"data.root={films}", "only=[none,leaky_relu,unfreezing]")
    stamps, devices = [], []
    stamp, extract = study.marked, study.extract
    monkeypatch.setattr(study, "marked", lambda *a: stamps.append(a) or stamp(*a))
    monkeypatch.setattr(study, "extract", lambda *a: devices.append(a[2]) or extract(*a))
    table = compare(check_remedies(cfg), tmp_path)
    assert len(stamps) == 1
    assert devices == [torch.device("cpu")] * 2
    assert list(table["remedy"]) == ["none", "none", *["leaky_relu"] * 2, *["unfreezing"] * 2]
    assert list(table["seed"]) == [1, 2] * 3
    result = read_json(tmp_path / "leaky_relu-s2/result.json")
    assert (result["activation"], result["seed"]) == ("leaky_relu", 2)
    assert result["name"] == "leaky_relu-s2"
    stored = OmegaConf.load(tmp_path / "leaky_relu-s2/config.yaml")
    assert (stored.seed, stored.run.name, stored.data.labels) == (2, result["name"], ["BLOB"])
    assert table["auroc"].iloc[3] == result["test"]["auroc"]
    assert not (tmp_path / "none-s1/checkpoints").exists()
    metrics = (tmp_path / "none-s2/metrics.csv").read_text()
    (tmp_path / "none-s2/result.json").unlink()
    before = (tmp_path / "none-s1/result.json").stat().st_mtime_ns
    again = compare(check_remedies(changed(cfg, "run.dir=elsewhere")), tmp_path)
    assert (tmp_path / "none-s1/result.json").stat().st_mtime_ns == before
    assert len((tmp_path / "none-s2/metrics.csv").read_text()) == len(metrics)
    pd.testing.assert_frame_equal(again.drop(columns="fit_s"), table.drop(columns="fit_s"))


def one_seed(films, only, *overrides):
    keys = [*TINY_REMEDIES, f"data.root={films}", "seeds=1", "trainer.max_epochs=1"]
    return changed(composed(*keys), f"only={only}", *overrides)


def test_a_run_that_diverges_ends_alone_and_is_not_repeated(films, tmp_path, capsys):
    cfg = one_seed(films, "[none,hot]", "remedies.hot=['optimizer.lr=1e30']")
    table = compare(check_remedies(cfg), tmp_path)
    assert list(table["failed"]) == [False, True]
    assert table.loc[1, ["dead", "auroc"]].isna().all()
    assert "2/2  hot, seed 1: failed: training stopped at optimizer step" in capsys.readouterr().out
    assert "stopped at optimizer step" in read_json(tmp_path / "hot-s1/result.json")["failed"]
    assert (tmp_path / "hot-s1/checkpoints/nonfinite.ckpt").exists()

    # Of its test images a study may hold one class alone.
    result = read_json(tmp_path / "none-s1/result.json")
    result["test"]["auroc"] = None
    (tmp_path / "none-s1/result.json").write_text(json.dumps(result))
    before = (tmp_path / "hot-s1/result.json").stat().st_mtime_ns
    again = compare(check_remedies(cfg), tmp_path)
    assert (tmp_path / "hot-s1/result.json").stat().st_mtime_ns == before
    page = markdown(summarise(again), again)
    assert f"| none | {table['dead'][0]:.1%} |" in page
    assert "| n/a |  |" in page
    assert "| hot (1 of 1 failed) | n/a | n/a | n/a | n/a | n/a |" in page


def test_a_full_disk_is_no_result(films, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        compare(check_remedies(one_seed(films, "[none]")), tmp_path)
    assert not (tmp_path / "none-s1/result.json").exists()


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"optimizer.lr": 0.5}, r"another configuration \(optimizer.lr\); choose another run.dir"),
        ({"run.patience": 3}, r"another configuration \(run.patience\)"),
        ({"logger.mode": "online", "run.name": "mine"}, r"\(its images, labels or splits\)"),
        (None, "holds no run of this study"),
    ],
)
def test_a_folder_of_another_run_is_refused_before_the_first_fit(films, tmp_path, stored, told):
    remedies = check_remedies(one_seed(films, "[none,leaky_relu]"))
    folder = tmp_path / "leaky_relu-s1"
    folder.mkdir()
    (folder / "result.json").write_text('{"split_fingerprint": "another"}')
    if stored is not None:
        config = OmegaConf.create(build.plain(remedies.runs["leaky_relu"]))
        config.data.labels = ["BLOB"]
        for key, value in stored.items():
            OmegaConf.update(config, key, value)
        OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(InputError, match=told):
        compare(remedies, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("head.activation=rleu", "head.activation must be one of"),
        ("data.batch_size=1000", "larger than the training split"),
    ],
)
def test_every_remedy_is_tried_before_the_first_fit(films, tmp_path, change, told):
    cfg = one_seed(films, "[none,mine]", f"remedies.mine=['{change}']")
    with pytest.raises(InputError, match=told):
        compare(check_remedies(cfg), tmp_path)
    assert not any(tmp_path.iterdir())


def test_weights_are_read_once_and_the_head_starts_as_in_a_run(films, tmp_path):
    file = tmp_path / "weights.pth"
    keys = ["backbone.frozen=true", "data.augment=[]", "head.width=29"]
    cfg = tiny_config(films, *keys)
    data = build.build_data(cfg, build.build_studies(cfg))
    torch.save(build.build_classifier(cfg, data).backbone.network.state_dict(), file)
    keys += ["backbone.weights=file", f"backbone.file={file}", "seed=7"]
    cfg = tiny_config(films, *keys)
    head = build.build_classifier(cfg, data).head.state_dict()
    whole = study.Study(cfg)
    _, first = whole.parts(cfg, torch.device("cpu"))
    file.unlink()
    model, second = whole.parts(cfg, torch.device("cpu"))
    assert second.features.data_ptr() == first.features.data_ptr()
    torch.testing.assert_close(dict(model.head.state_dict()), dict(head), rtol=0, atol=0)


def test_intervals_are_those_of_the_t_test():
    values = np.array([0.91, 0.88, 0.93, 0.90])
    other = np.array([0.89, 0.885, 0.90, 0.91])
    table = pd.DataFrame(
        {
            "remedy": ["a"] * 4 + ["b"] * 4,
            "seed": [1, 2, 3, 4, 4, 3, 2, 1],  # paired by seed, not by place
            "dead": 0.25,
            "linear": 0.5,
            "blackout": 0.0,
            "auroc": [*other, *values[::-1]],
            "failed": False,
        }
    )
    row = summarise(table).iloc[1]
    expected = stats.ttest_rel(values, other).confidence_interval(0.95)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((expected.low, expected.high))
    assert row["gain"] == pytest.approx((values - other).mean())
    alone = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((values.mean(), alone.low, alone.high))
    page = markdown(summarise(table), table)
    assert "| b | 25.0% | 50.0% | 0.0% | 0.905 (" in page
    assert WHEN in page


def test_seeds_that_failed_are_counted_and_left_out():
    auroc = {"a": [0.80, 0.90, 0.85, 0.70, 0.75], "b": [0.82, np.nan, 0.88, 0.75, 0.76]}
    rows = [
        {"remedy": name, "seed": seed, **dict.fromkeys(("dead", "linear", "blackout"), share)}
        | {"auroc": value, "failed": bool(np.isnan(value))}
        for name, values in auroc.items()
        for seed, value in enumerate(values)
        for share in [np.nan if np.isnan(value) else 0.1 * seed]
    ]
    row = summarise(pd.DataFrame(rows)).iloc[1]
    assert row["dead"] == pytest.approx((0 + 0.2 + 0.3 + 0.4) / 4)
    assert row["auroc"] == pytest.approx((0.82 + 0.88 + 0.75 + 0.76) / 4)
    b, a = np.array(auroc["b"])[[0, 2, 3, 4]], np.array(auroc["a"])[[0, 2, 3, 4]]
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((expected.low, expected.high))
    page = markdown(summarise(pd.DataFrame(rows)), pd.DataFrame(rows))
    assert "| b (1 of 5 failed) | 22.5% |" in page


def test_one_seed_has_no_interval():
    mean, low, high = t_interval(np.array([0.5]))
    assert mean == 0.5
    assert np.isnan(low)
    assert np.isnan(high)
