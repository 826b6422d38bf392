import copy
import json
import os
import shutil
import signal

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope import build
from fluoroscope.ablation import ablate as ablate_module
from fluoroscope.ablation.ablate import ablate
from fluoroscope.config import CONF
from fluoroscope.config.ablate import check_ablate
from fluoroscope.errors import InputError
from fluoroscope.train import train
from tests.support.commands import end, run, start, tiny_arguments, wait_for
from tests.support.films import TINY
from tests.support.metrics import metric_table
from tests.support.wandb_log import OfflineRun

# Lightning logs in float32, and AdamW lets the last bits of a double grow.
LOGGED = {"rtol": 1e-5, "atol": 1e-7}
DOUBLE = ["trainer.precision=64-true", "backbone.channels_last=false"]


def ablation(films, *overrides):
    keys = [key for key in TINY if key != "logger=csv"]  # it is the default here
    pattern = r"data.patient_pattern='(p\d+)_'"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("ablate", [*keys, f"data.root={films}", pattern, "seeds=1", *overrides])
    return check_ablate(cfg)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def alone(cfg, folder):
    """The same head by `scripts/train.py`, with the backbone in every batch."""
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, "run.dir", str(folder))
    return train(cfg, folder, [])


def logged(folder, key):
    rows = pd.read_csv(folder / "metrics.csv")[["step", "epoch", key]].dropna()
    return rows.reset_index(drop=True)


CASES = {
    "orders, rates, seeds": (
        "activations=[relu,prelu,gelu,identity]",
        "seeds=2",
        "++grid.head.order=[activation-norm,norm-activation]",
        "++grid.optimizer.lr=[1e-2,1e-3]",
    ),
    "clipped, dropout, one decay each": (
        "activations=[elu]",
        "trainer.gradient_clip_val=0.05",
        "head.dropout=0.3",
        "++grid.optimizer.weight_decay=[0.0,0.5]",
    ),
    "layer norm, centred, prior, focal": (
        "activations=[leaky_relu,tanh]",
        "head.norm=layer",
        "head.bias_init=centered",
        "head.prior_bias=true",
        "loss.name=focal",
        "loss.pos_weight=auto",
    ),
    "no norm, balanced draws, width and init each": (
        "activations=[relu]",
        "head.norm=none",
        "data.sampler=balanced",
        "++grid.head.width=[19,31]",
        "++grid.head.init=[he,torch]",
    ),
    "sgd, one cycle": (
        "activations=[relu]",
        "optimizer=sgd",
        "++optimizer.args.momentum=0.8",
        "schedule=one_cycle",
        "++grid.optimizer.lr=[1e-2,1e-1]",
    ),
    # Its features are kept in float32, and each seed has batches of its own.
    "cached": ("activations=[relu,silu]", "seeds=2", "data.augment=[]", "features=cached"),
}


BRIEF = ("cached",)


@pytest.mark.parametrize(
    "case", [c if c in BRIEF else pytest.param(c, marks=pytest.mark.whole) for c in CASES]
)
def test_a_head_of_a_bank_is_the_head_of_a_run_of_its_own(case, films, tmp_path):
    """In float64, where AdamW does not turn rounding into steps: every logged number, the
    probability of every image, and the best epoch. The run augments, and runs its backbone.
    """
    assert_a_bank_is_its_heads(films, tmp_path, case)


def assert_a_bank_is_its_heads(films, tmp_path, case, *overrides):
    near = {"rtol": 1e-3, "atol": 1e-5} if case == "cached" else LOGGED
    asked = ablation(films, "features=live", *CASES[case], *DOUBLE, *overrides)
    ablate(asked, tmp_path / "bank")
    names = list(asked.heads)
    for name in {names[0], names[-1]}:
        one = alone(asked.heads[name], tmp_path / name)
        bank = tmp_path / "bank/heads" / name
        result = json.loads((bank / "result.json").read_text())
        assert result["best_epoch"] == one["best_epoch"]
        unranked = {f"{window}/effective_rank" for window in ("start", "train")}
        assert one["units"].keys() - result["units"].keys() == unranked
        own, ours = metric_table(tmp_path / name), metric_table(bank)
        assert set(own) - set(ours) == {f"units/{key}" for key in unranked}
        for key in set(own) & set(ours) - {"step", "epoch", "units/val/effective_rank"}:
            expected, found = logged(tmp_path / name, key), logged(bank, key)
            pd.testing.assert_frame_equal(found, expected, **near)
        for split in ("val", "test"):
            theirs = pd.read_csv(tmp_path / name / f"predictions/{split}.csv")
            mine = pd.read_csv(bank / f"predictions/{split}.csv")
            pd.testing.assert_frame_equal(mine, theirs, **near)


def test_an_optimizer_by_which_heads_change_each_other_is_refused(films, tmp_path):
    asked = ablation(films, "activations=[relu]", "optimizer=lamb")
    with pytest.raises(InputError, match=r"optimizer\.name=lamb takes steps that depend on all"):
        ablate(asked, tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


def test_what_is_done_stays_and_passes_keep_to_the_memory(films, tmp_path, capsys):
    asked = ablation(films, "activations=[relu,gelu,identity]", "seeds=2")
    cfg = next(iter(asked.heads.values()))
    one = ablate_module.head_bytes(cfg, build.build_backbone(cfg).num_features, 1)
    tight = asked._replace(memory_gib=2.5 * one / ablate_module.GIB)
    ablate(tight, tmp_path)
    assert "6 heads in 4 passes" in capsys.readouterr().out  # 2 and 1 of each seed
    folders = sorted((tmp_path / "heads").iterdir())
    assert {f.name for f in folders} == set(asked.heads)
    before = {f: (f / "result.json").stat().st_mtime_ns for f in folders}
    gone = tmp_path / "heads/gelu-s2"
    shutil.rmtree(gone)
    ablate(asked, tmp_path)
    assert "1 head in 1 pass, 5 already done" in capsys.readouterr().out
    after = {f: (f / "result.json").stat().st_mtime_ns for f in folders}
    assert [f for f in folders if after[f] != before[f]] == [gone]


def written(folder):
    """The files of each head by name, without run ids and times."""
    files = {f.relative_to(folder): f.read_bytes() for f in folder.glob("heads/*/**/*.*")}
    kept = {name: text for name, text in files.items() if name.name != "provenance.json"}
    for name in [name for name in kept if name.name == "result.json"]:
        result = json.loads(kept[name])
        kept[name] = {key: result[key] for key in result.keys() - {"fit_s", "total_s"}}
    return kept


def test_heads_are_the_same_however_many_passes_run_at_once(films, tmp_path, capsys, monkeypatch):
    """Byte for byte, with threads in each pass; W&B gets them in their order."""
    sent = []
    monkeypatch.setattr(ablate_module, "cores", lambda: 2)
    monkeypatch.setattr(ablate_module.Ablating, "send", lambda self, done: sent.extend(done.rows))
    asked = ablation(films, "activations=[relu]", "seeds=2")
    cfg = next(iter(asked.heads.values()))
    one = ablate_module.head_bytes(cfg, build.build_backbone(cfg).num_features, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ablate(asked, tmp_path / "two")
        assert "4 heads in 2 passes (2 at a time)" in capsys.readouterr().out
        ablate(asked._replace(memory_gib=3.5 * one / ablate_module.GIB), tmp_path / "one")
        assert "4 heads in 2 passes; " in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    assert len(written(tmp_path / "one")) == 4 * 7
    assert written(tmp_path / "two") == written(tmp_path / "one")
    assert sent == 2 * [f"{name}-s{seed}" for seed in (1, 2) for name in ("relu", "identity")]


@pytest.mark.whole
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_stopped_ablation_keeps_finished_passes_and_continues(
    signum, whole_group, films, tmp_path
):
    """By Ctrl-C, which reaches every process, or by a signal to the first process alone."""
    keys = ["activations=[relu]", "seeds=4", "trainer.max_epochs=20", "run.dir=study"]
    arguments = [*tiny_arguments(films), *keys, "backbone.frozen=true", "report=false"]
    process = start([a for a in arguments if a != "logger=csv"], tmp_path, script="ablate")
    wait_for(tmp_path / "study/heads/identity-s1/result.json", process)
    os.killpg(process.pid, signum) if whole_group else process.send_signal(signum)
    code, out, err = end(process)  # which waits for all that hold its streams
    assert code == 128 + signum, (out, err)
    assert "stopped; to continue, repeat the command with run.dir=study" in out
    assert "Traceback" not in err
    done = len(list(tmp_path.glob("study/heads/*/result.json")))
    assert 2 <= done < 8
    out, _ = run(arguments, tmp_path, script="ablate")
    assert f"{8 - done} heads in " in out
    assert f"{done} already done" in out
    assert len(list(tmp_path.glob("study/heads/*/result.json"))) == 8


@pytest.mark.whole
def test_a_head_alone_in_its_pass_is_the_same(films, tmp_path):
    """What else is in the bank changes rounding at most."""
    asked = ablation(films, "activations=[relu,gelu,identity]", *DOUBLE)
    ablate(asked, tmp_path / "three")
    ablate(asked._replace(memory_gib=1e-9), tmp_path / "one")
    for name in asked.heads:
        whole, own = (tmp_path / n / "heads" / name / "metrics.csv" for n in ("three", "one"))
        pd.testing.assert_frame_equal(pd.read_csv(whole), pd.read_csv(own), rtol=1e-6, atol=1e-9)


def test_a_head_that_diverges_is_marked_and_the_others_go_on(films, tmp_path, capsys):
    asked = ablation(films, "activations=[identity]", "++grid.optimizer.lr=[1e-3,1e38]")
    ablate(asked, tmp_path)
    failed = tmp_path / "heads/identity-lr1e+38-s1"
    assert not (failed / "result.json").exists()
    assert "training diverged" in json.loads((failed / "failed.json").read_text())["error"]
    assert (tmp_path / "heads/identity-lr0.001-s1/result.json").exists()
    assert "1 diverged" in capsys.readouterr().out
    before = (failed / "failed.json").stat().st_mtime_ns
    ablate(asked, tmp_path)  # it would diverge again
    assert "0 heads in 0 passes, 2 already done (1 diverged)" in capsys.readouterr().out
    assert (failed / "failed.json").stat().st_mtime_ns == before


def test_a_folder_of_another_study_is_refused_before_anything_is_trained(films, tmp_path):
    asked = ablation(films, "activations=[identity]")
    ablate(asked, tmp_path)
    other = ablation(films, "activations=[identity]", "head.width=19")
    with pytest.raises(InputError, match=r"a different run \(head.width differs\)"):
        ablate(other, tmp_path)


def test_an_ablation_from_before_the_momentum_was_automatic_continues(films, tmp_path):
    old = ablation(films, "activations=[relu]", "head.norm_momentum=0.01")
    ablate(old, tmp_path)
    more = ablation(films, "activations=[relu,gelu]", "head.norm_momentum=auto")
    ablate(more, tmp_path)
    momenta = [
        OmegaConf.load(tmp_path / "heads" / name / "config.yaml").head.norm_momentum
        for name in more.heads
    ]
    assert set(momenta) == {0.01}


def test_heads_of_other_features_are_refused(films, tmp_path):
    ablate(ablation(films, "activations=[identity]", "views=1"), tmp_path)
    with pytest.raises(InputError, match=r"trained with views=1, not views=2"):
        ablate(ablation(films, "activations=[identity]", "views=2"), tmp_path)


def test_what_is_done_before_does_not_change_the_views_of_the_rest(films, tmp_path):
    keys = ["activations=[identity]", "seeds=2", "views=1"]
    first = next(iter(ablation(films, *keys).heads.values()))
    file = tmp_path / "weights.pth"  # with which one backbone serves all seeds
    torch.save(build.build_backbone(first).network.state_dict(), file)
    asked = ablation(films, *keys, "backbone.weights=file", f"backbone.file={file}")
    ablate(asked, tmp_path)
    head = tmp_path / "heads/identity-s2"
    before = pd.read_csv(head / "metrics.csv")
    shutil.rmtree(head)
    ablate(asked, tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(head / "metrics.csv"), before)


def test_a_head_half_written_is_written_anew(films, tmp_path):
    asked = ablation(films, "activations=[identity]")
    head = tmp_path / "heads/identity-s1"
    head.mkdir(parents=True)
    (head / ".config.yaml.part").write_text("seed:")
    ablate(asked, tmp_path)
    (head / "result.json").unlink()
    ablate(asked, tmp_path)
    assert (head / "result.json").exists()


@pytest.mark.parametrize("seeds", [1, 2])  # in this process, or in two others
def test_a_folder_that_cannot_be_written_is_told(seeds, films, tmp_path, monkeypatch):
    monkeypatch.setattr(ablate_module, "cores", lambda: 2)
    (tmp_path / "heads").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*finished heads are kept"):
        ablate(ablation(films, "activations=[identity]", f"seeds={seeds}"), tmp_path)


def test_all_heads_of_a_pass_are_on_disk_before_the_first_is_sent(films, tmp_path, monkeypatch):
    def refuse(*args):
        raise InputError("no server")

    monkeypatch.setattr(ablate_module.build, "build_loggers", refuse)
    asked = ablation(films, "activations=[relu,identity]", "logger.mode=offline")
    with pytest.raises(InputError, match="no server"):
        ablate(asked, tmp_path)
    assert all((tmp_path / "heads" / name / "result.json").exists() for name in asked.heads)


def test_an_activation_in_place_leaves_the_gradients_of_the_census(films, tmp_path):
    asked = ablation(films, "activations=[relu,{relu:{inplace:true}}]", *DOUBLE)
    ablate(asked, tmp_path)
    names = ("relu-s1", "relu-inplaceTrue-s1")
    one, other = (pd.read_csv(tmp_path / "heads" / name / "metrics.csv") for name in names)
    pd.testing.assert_frame_equal(one, other, rtol=1e-6, atol=1e-9)


def test_running_statistics_that_stay_stale_are_told(films, tmp_path):
    with pytest.warns(UserWarning, match="batch norm needs about 459 batches"):
        ablate(ablation(films, "activations=[identity]", "head.norm_momentum=0.01"), tmp_path)


@pytest.mark.parametrize(
    ("activations", "failed", "reference"),
    [
        ("[gelu,relu]", "", "relu"),
        ("[gelu,relu]", "relu-s1", "gelu"),
        ("[{leaky_relu:{negative_slope:0.1}}]", "", "leaky_relu(negative_slope=0.1)"),
    ],
)
def test_the_report_compares_with_a_head_that_is_there(
    activations, failed, reference, films, tmp_path, monkeypatch
):
    asked, jobs = ablation(films, f"activations={activations}"), []
    monkeypatch.setattr("fluoroscope.report.main", jobs.append)
    for name in set(asked.heads) - {failed}:
        (tmp_path / "heads" / name).mkdir(parents=True)
        (tmp_path / "heads" / name / "result.json").write_text("{}")
    ablate_module._report(asked, tmp_path)
    assert jobs[0].reference == reference


def test_an_unknown_activation_is_refused_before_the_images_are_read(films, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build_studies", lambda cfg: pytest.fail("read"))
    with pytest.raises(InputError, match="did you mean 'relu'"):
        ablate(ablation(films, "activations=[rleu]"), tmp_path)


def test_each_head_is_a_run_of_wandb_in_one_group(films, tmp_path):
    asked = ablation(films, "activations=[relu,identity]", "logger.mode=offline")
    ablate(asked, tmp_path)
    for name in asked.heads:
        place = tmp_path / "heads" / name
        run = OfflineRun(place)
        assert run.config["head"]["activation"] == asked.heads[name].head.activation
        assert (run.exit_code, run.identity.run_group) == (0, "default-folder")
        csv = logged(place, "units/val/dead_frac")
        sent = [row["units/val/dead_frac"] for row in run.history if "units/val/dead_frac" in row]
        assert sent == pytest.approx(csv["units/val/dead_frac"].tolist())
