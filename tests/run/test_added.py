"""Callbacks and loggers that a command adds: what they see, what is stored, what is refused."""

import csv
import json
import shutil
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir
from pytorch_lightning.loggers import CSVLogger

from fluoroscope.command import composition, entry
from fluoroscope.command.command_line import spell_out
from fluoroscope.config import CONF
from fluoroscope.config.schema import plain
from fluoroscope.config.stored_yaml import check_plain
from fluoroscope.config.train import check_train
from fluoroscope.config.trust import trusted_today
from fluoroscope.errors import InputError
from fluoroscope.own_code import trusting
from fluoroscope.run.added import check_added, make_callbacks, make_logger
from fluoroscope.run.checkpoints import Saving
from fluoroscope.run.preemption import Preemption
from fluoroscope.run.run_folder import checkpoint, read_json
from tests.support.commands import tiny_arguments
from tests.support.own_package import EXAMPLES, forgotten

MINE = "+callbacks.mine={_target_: mypkg.watching.MeanPixel, every: 3}"
LINES = "+logger.lines={_target_: mypkg.watching.JsonLines, file: '${run.dir}/lines.jsonl'}"
MODULE = """
import pytorch_lightning as pl

class Writes(pl.Callback):
    def __init__(self, file, every=1):
        open(file, "w").close()

class Kept(pl.Callback):
    def __init__(self, value=None):
        self.value = value
    def state_dict(self):
        import numpy
        return {"best": numpy.float64(1) if self.value is None else self.value}

class Fails(pl.Callback):
    def __init__(self, how="raise"):
        if how == "raise":
            raise ValueError("no such device. Do that.")
        if how == "exit":
            raise SystemExit(3)
    def on_train_epoch_end(self, trainer, pl_module):
        raise RuntimeError("a callback broke")

class Adds(pl.Callback):
    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["mine"] = {"place": [__import__("pathlib").Path("x")]}

class Saving(Kept):
    pass

class Unreachable(pl.loggers.CSVLogger):
    def log_hyperparams(self, params):
        raise ConnectionError("no answer from the server. Try later.")

class Logs(pl.Callback):
    def __init__(self, name):
        self._name = name
    def on_train_batch_end(self, trainer, pl_module, *rest):
        pl_module.log_dict({self._name: 1.0})

class Nested(pl.Callback):
    def __init__(self, part, scale=1.0):
        self.part, self.scale = part, scale

class Needs(pl.Callback):
    def __init__(self, *, rate):
        pass

def factory():
    return Writes("made")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with a module of the user's own."""
    sys.modules.pop("own_module", None)
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with forgotten():
        yield tmp_path
    sys.modules.pop("own_module", None)


def composed(*words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["backbone=lite0", *map(spell_out, words)])


def checked(*words):
    """As the command checks them: first the form, then with the libraries."""
    raw = composed(*words)
    with trusting(trusted_today(raw)):
        cfg = check_train(raw, words)
        check_added(cfg)
    return cfg


def made(*words, folder="run"):
    cfg = checked(*words)
    with trusting(trusted_today(composed(*words))):
        return make_callbacks(cfg, Path(folder))


def run(monkeypatch, capsys, *words):
    """The command in this process: exit code, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", *words])
    code = 0
    try:
        entry.command("", "train", "fluoroscope.train:main", "fluoroscope.config.train:check_run")
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value and key != "time_s"}
            for row in csv.DictReader(file)
        ]


def test_they_see_a_run_and_continue_with_it(films, own, monkeypatch, capsys):
    words = tiny_arguments(films, "run.dir=run", "head.norm=layer", "diagnostics.enabled=false")
    words.append("trainer.max_epochs=1")
    added = ["callbacks=learning_rate", MINE, LINES]
    assert run(monkeypatch, capsys, *words, *added)[0] == 0
    folder = own / "run"
    config, *logged = map(json.loads, (folder / "lines.jsonl").read_text().splitlines())
    assert config["config"]["head"]["width"] == 31
    assert str(films) not in json.dumps(config)  # no path
    assert "callbacks" not in str(config["config"].get("callbacks", ""))
    seen = rows(folder)
    assert [{k: pytest.approx(v) for k, v in row.items()} for row in seen] == logged
    assert [row["train/batches"] for row in seen if "train/batches" in row]
    assert any(key.startswith("lr-AdamW") for row in seen for key in row)
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["loggers"]["lines"]["file"] == "$(RUN_DIR)/lines.jsonl"
    assert stored["callbacks"]["mine"] == {"_target_": "mypkg.watching.MeanPixel", "every": 3}
    assert [*stored["callbacks"]] == ["learning_rate", "mine"]
    provenance = read_json(folder / "provenance.json")
    assert provenance["callbacks"] == stored["callbacks"]
    assert "+logger.lines=" in " ".join(provenance["overrides"])

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    longer = [f"run.resume={folder}", "trainer.max_epochs=2"]
    code, _, err = run(monkeypatch, capsys, *longer)
    assert code == 2
    assert "the run has callbacks.learning_rate (pytorch_lightning.callbacks.Learn" in err
    assert "+callbacks.learning_rate=null to continue without it" in err
    code, _, err = run(monkeypatch, capsys, *longer, "callbacks=learning_rate", MINE)
    assert (code, "the run has logger.lines (mypkg.watching.JsonLines)" in err) == (2, True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    state = torch.load(checkpoint(folder, "last"), weights_only=True)["callbacks"]["MeanPixel"]
    without = ["+callbacks.learning_rate=null", "+logger.lines=null", MINE]
    assert run(monkeypatch, capsys, *longer, *without)[0] == 0
    later = torch.load(checkpoint(folder, "last"), weights_only=True)["callbacks"]["MeanPixel"]
    assert later["batches"] == 2 * state["batches"] > 0


def test_a_folder_of_ones_own_has_groups(films, own, monkeypatch, capsys):
    """A logger alone is beside metrics.csv, without W&B; interpolations and nulls are taken."""
    groups = {
        "logger/table": {"table": {"_target_": "pytorch_lightning.loggers.CSVLogger"}},
        "callbacks/stop": {
            "stop": {
                "_target_": "pytorch_lightning.callbacks.EarlyStopping",
                "monitor": "val/loss",
                "patience": 0,
                "min_delta": 9.0,
                "mode": "min",
            },
            "off": None,
        },
    }
    groups["logger/table"]["table"]["save_dir"] = "${run.dir}/table"
    for name, content in groups.items():
        (own / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (own / f"mine/{name}.yaml").write_text(yaml.safe_dump(content))
    words = tiny_arguments(films, "run.dir=run", "head.norm=layer", "diagnostics.enabled=false")
    words.remove("logger=csv")
    words += ["--config-dir", "mine", "logger=table", "callbacks=stop", "trainer.max_epochs=3"]
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, "W&B off" in out) == (0, True), err
    assert len({row["epoch"] for row in rows(own / "run") if "val/loss" in row}) == 2
    (table,) = (own / "run/table").rglob("metrics.csv")
    assert "val/loss" in table.read_text().partition("\n")[0]
    assert not (own / "run/wandb").exists()


def test_a_callback_that_raises_marks_the_run_failed(films, own, monkeypatch, capsys):
    words = tiny_arguments(films, "run.dir=run", "head.norm=layer", "diagnostics.enabled=false")
    broken = "+callbacks.f={_target_: own_module.Fails, how: later}"
    with suppress(RuntimeError):
        run(monkeypatch, capsys, *words, broken)
    assert read_json(own / "run/failed.json")["exit_code"] == 1


@pytest.mark.parametrize("kind", ["Kept", pytest.param("Adds", marks=pytest.mark.whole)])
def test_an_entry_that_a_resume_cannot_read_ends_the_run(films, own, monkeypatch, capsys, kind):
    words = tiny_arguments(films, "run.dir=run", "head.norm=layer", "diagnostics.enabled=false")
    told = {
        "Kept": "checkpoint['callbacks']['Kept']['best'] is a numpy.float64, which a resumed run",
        "Adds": "checkpoint['mine']['place'] is a pathlib.PosixPath, which a resumed run",
    }
    code, _, err = run(monkeypatch, capsys, *words, f"+callbacks.k={{_target_: own_module.{kind}}}")
    assert (code, told[kind] in err) == (2, True), err


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            "own_module.Unreachable, save_dir: x",
            "ConnectionError: no answer from the server); see",
        ),
        ("pytorch_lightning.loggers.TensorBoardLogger, save_dir: x", "TensorBoardLogger': ModuleN"),
    ],
)
def test_a_logger_that_cannot_be_opened_ends_the_run_before_it_begins(
    films, own, monkeypatch, capsys, entry, told
):
    if "TensorBoard" in entry and find_spec("tensorboard"):
        pytest.skip("TensorBoard is installed")
    words = tiny_arguments(films, "run.dir=run", "head.norm=layer", "diagnostics.enabled=false")
    code, _, err = run(monkeypatch, capsys, *words, f"+logger.x={{_target_: {entry}}}")
    assert (code, told in err) == (2, True), err
    assert not [path for path in (own / "run").glob("*") if path.name != ".lock"]


def test_a_logger_does_not_write_over_the_table_of_the_run(own):
    word = "pytorch_lightning.loggers.CSVLogger, save_dir: '${run.dir}', name: '', version: ''"
    cfg = checked(added := f"+logger.x={{_target_: {word}}}")
    with (
        trusting(trusted_today(composed(added))),
        pytest.raises(InputError, match=r"^logger\.x\.save_dir: metrics\.csv of this folder"),
    ):
        make_logger(cfg, "x", Path("run"))


REFUSED = [
    ("callbacks.x={_target_: own_modul.Writes}", "there is no module own_modul"),
    ("callbacks.x={_target_: own_module.Write}", "own_module has no Write (did you mean 'Writes'?"),
    ("callbacks.x={_target_: own_module.factory}", "Callback; it is a function"),
    ("callbacks.x={_target_: os.system, command: touch x}", "it is a builtin_function_or_method"),
    ("callbacks.x={_target_: torch.nn.ReLU}", "must be a class derived from pytorch_lightning.cal"),
    (
        "logger.x={_target_: own_module.Writes, file: made}",
        "derived from pytorch_lightning.loggers",
    ),
    (
        "callbacks.x={_target_: own_module.Writes, fil: made}",
        "callbacks.x.fil: own_module.Writes does not take it (its arguments: file, every) (did you",
    ),
    (
        "callbacks.x={_target_: own_module.Writes}",
        "cannot be made (missing a required argument: 'file'); add",
    ),
    ("callbacks.x={_target_: own_module.Needs}", "missing a required argument: 'rate'"),
    ("callbacks.x={every: 3}", "callbacks.x must be a mapping with the import path of a class"),
    ("callbacks.x={_target_: 3}", "must be a mapping with the import path of a class"),
    ("callbacks._target_=own_module.Writes", "callbacks._target_ must be a mapping with the"),
    ("callbacks.x={_target_: own_module.Nested, part: '${data.nothing}'}", "callbacks.x: Interp"),
    ("callbacks.x={_target_: own_module.Nested, part: ???}", "callbacks.x: Missing mandatory"),
    ("logger.x={_target_: pytorch_lightning.loggers.WandbLogger}", "is built in; use logger=wandb"),
    (
        "logger.x={_target_: pytorch_lightning.loggers.CometLogger, api_key: abc}",
        "logger.x.api_key would be stored with the run; put it into an environment variable",
    ),
    (
        "callbacks.x={_target_: own_module.Nested, part: '${oc.env:NOT_SET_HERE}'}",
        "callbacks.x.part: the environment variable NOT_SET_HERE is not set",
    ),
    (
        "callbacks.x={_target_: own_module.Nested, part: '${oc.env:MINE,none}'}",
        "callbacks.x.part: write an environment variable as ${oc.env:NAME} alone",
    ),
    (
        "logger.x={_target_: own_module.Nested, part: [{password: 1234}]}",
        "logger.x.part.password would be stored with the run",
    ),
    (
        "logger.x={_target_: own_module.Nested, part: 'https://me:pw@server/x'}",
        "logger.x.part would be stored with the run",
    ),
    (
        "callbacks.x={_target_: own_module.Nested, part: {_target_: own_module.Writes, fil: made}}",
        "callbacks.x.part.fil: own_module.Writes does not take it",
    ),
    (
        "callbacks.x={_target_: own_module.Nested, part: [{_target_: own_module.Nope}]}",
        "own_module has no Nope",
    ),
    ("callbacks.x={_target_: own_module.Nested, part: {_target_: 3}}", "must be the import path"),
    (
        "callbacks.x={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 1}",
        "averages of weights are built in; use optimizer.ema_decay",
    ),
]


@pytest.mark.parametrize(("word", "told"), REFUSED)
def test_what_cannot_be_made_is_refused_before_anything_is_made(own, word, told):
    first = "+callbacks.a={_target_: own_module.Writes, file: made}"
    with pytest.raises(InputError) as refusal:
        checked(first, f"+{word}")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (own / "made").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{_target_: own_module.Fails}"], "ValueError: no such device"),
        (["{_target_: own_module.Fails, how: exit}"], "it exits"),
        (["{_target_: own_module.Kept}"] * 2, "callbacks.c0 and callbacks.c1 would share one"),
        (["{_target_: pytorch_lightning.callbacks.ModelCheckpoint}"], "set another folder, such"),
        (
            ["{_target_: pytorch_lightning.callbacks.ModelCheckpoint, dirpath: run/checkpoints}"],
            "the run's own checkpoints are in its folder checkpoints",
        ),
        (["{_target_: own_module.Nested, part: {_target_: builtins.nothing}}"], "nothing"),
    ],
)
def test_what_its_class_refuses_is_refused_in_one_sentence(own, words, told):
    with pytest.raises(InputError) as refusal:
        made(*(f"+callbacks.c{n}={word}" for n, word in enumerate(words)))
    assert told in str(refusal.value)


def test_the_refusal_of_a_command_leaves_nothing(films, own, monkeypatch, capsys):
    words = tiny_arguments(films, "run.dir=run")
    broken = "+callbacks.x={_target_: own_module.Writes, fil: made}"
    code, _, err = run(monkeypatch, capsys, *words, broken)
    assert (code, err.count("\n"), "Traceback" in err) == (2, 1, False)
    assert not (own / "run").exists()


def test_arguments_are_filled_in_where_they_are_used(own, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    inner = "{_target_: datetime.timedelta, hours: 2}"
    words = [
        f"+callbacks.t={{_target_: own_module.Nested, part: {inner}, scale: '${{seed}}'}}",
        "+callbacks.e={_target_: own_module.Nested, part: '${oc.env:MY_TOKEN}'}",
        "+callbacks.d={_target_: own_module.Nested, part: ['${run.dir}/a', x]}",
    ]
    cfg = checked(*words)
    assert "s3cret" not in str(cfg)
    assert cfg.callbacks.e.part == "$(MY_TOKEN)"
    t, e, d, _ = made(*words, folder="somewhere")
    assert (t.part.total_seconds(), t.scale, e.part) == (7200, 1, "s3cret")
    assert d.part == ["somewhere/a", "x"]


def test_a_state_is_not_kept_under_the_name_of_one_of_every_run(own):
    """Lightning keeps states by the name of a class."""
    cfg = checked(word := "+callbacks.s={_target_: own_module.Saving, value: 1}")
    with (
        trusting(trusted_today(composed(word))),
        pytest.raises(InputError, match=r"a callback of every run and callbacks\.s would share"),
    ):
        make_callbacks(cfg, Path("run"), [saving()])


def saving():
    return Saving(Path("run"), dict, None, Preemption())


class Logged(pl.LightningModule):
    """A module whose metrics are only noted."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def log(self, name, value, *rest, **more):
        self.seen[name] = value


OWN_KEYS = ("val/auroc", "val/auroc/BLOB", "test/loss", "train/loss", "units/val/dead_frac")
OWN_KEYS += ("grad/l2/total", "layers/val/x/dead_frac", "revive/units", "epoch", "step", "time_s")
OWN_KEYS += ("val/f2", "val/f2/BLOB")


@pytest.mark.parametrize("name", [*OWN_KEYS, "train/mine", "val/mine/loss", "mine/val/auroc"])
def test_a_callback_does_not_log_what_the_run_logs_itself(own, name):
    """Lightning would write the mean of both, or the callback's number alone."""
    cfg = checked(f"+callbacks.m={{_target_: own_module.Logs, name: {name}}}")
    cfg.scores = ["mypkg.scores.f2"]
    with trusting(["own_module"]):
        logs, _ = make_callbacks(cfg, Path("run"))
    module = Logged()
    if name in OWN_KEYS:
        with pytest.raises(InputError, match=rf"^callbacks\.m logs {name}, which the run logs it"):
            logs.on_train_batch_end(pl.Trainer(logger=False), module, None, None, 0)
    else:
        logs.on_train_batch_end(pl.Trainer(logger=False), module, None, None, 0)
        assert module.seen == {name: 1.0}
    module.log("val/auroc", 0.5)  # the run's own
    assert module.seen["val/auroc"] == 0.5


@pytest.mark.whole
def test_the_metric_of_a_run_is_not_replaced(films, own, monkeypatch, capsys):
    words = tiny_arguments(films, "run.dir=run", "head.norm=layer", "diagnostics.enabled=false")
    word = "+callbacks.m={_target_: own_module.Logs, name: train/loss}"
    code, _, err = run(monkeypatch, capsys, *words, word)
    assert (code, "give it another name, such as mine/loss" in err) == (2, True)
    assert read_json(own / "run/failed.json")["exit_code"] == 2


def test_a_metric_that_no_run_logs_is_told_from_a_fault(own):
    stops = "_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/los"
    stop, _ = made(f"+callbacks.s={{{stops}}}")
    trainer = pl.Trainer(logger=False, max_epochs=1)
    trainer.state.fn = "fit"
    trainer._logger_connector._callback_metrics = {"val/loss": torch.tensor(1.0)}
    with pytest.raises(InputError, match=r"^callbacks\.s\.monitor: the run logs no val/los \(did"):
        stop.on_validation_end(trainer, Logged())


def test_two_averages_of_weights_are_one_too_many(own):
    word = "+callbacks.a={_target_: pytorch_lightning.callbacks.WeightAveraging}"
    cfg = checked(word)
    own_average = pl.callbacks.WeightAveraging()
    with (
        trusting(trusted_today(composed(word))),
        pytest.raises(InputError, match=r"callbacks\.a: optimizer\.ema_decay averages weights too"),
    ):
        make_callbacks(cfg, Path("run"), [own_average])


def test_keys_that_are_numbers_are_read_again(own):
    word = "_target_: own_module.Nested, part: {0: 2, 4: 1}"
    cfg = checked(f"+callbacks.g={{{word}}}")
    check_plain("config.yaml", {"callbacks": plain(cfg.callbacks)})
    nested, _ = made(f"+callbacks.g={{{word}}}")
    assert nested.part == {0: 2, 4: 1}


def test_a_list_in_place_of_a_group_is_refused():
    for word in ("+callbacks=[{_target_: own_module.Kept}]", "data=[{a: 1}]"):
        with pytest.raises(InputError, match=r" must be one of .*; got '\[\{"):
            composition.composed("train", [word])


def test_entries_come_in_order_and_those_that_save_last(own):
    saves = "pytorch_lightning.callbacks.ModelCheckpoint"
    words = [f"+callbacks.s={{_target_: {saves}, dirpath: more}}", MINE]
    kinds = [type(callback).__name__ for callback in made(*words)]
    assert kinds == ["MeanPixel", "ModelCheckpoint", "PlainEntries"]


def test_the_keys_of_wandb_stay(own):
    cfg = checked(LINES, "logger.project=mine", "callbacks.mine={_target_: own_module.Kept}")
    assert (cfg.logger.project, cfg.logger.mode, [*cfg.loggers]) == ("mine", "auto", ["lines"])
    with pytest.raises(InputError, match=r"there is no key logger\.projct"):
        checked("+logger.projct=mine")


def test_lightnings_own_are_found_by_path():
    (stop, *_) = made(
        "+callbacks.s={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss}"
    )
    assert isinstance(stop, pl.callbacks.EarlyStopping)
    cfg = checked("+logger.c={_target_: pytorch_lightning.loggers.CSVLogger, save_dir: there}")
    assert CSVLogger.__name__ in cfg.loggers.c["_target_"]


# ------------------------------------------------------------ code that a stored file names
PLANTED = {"x": {"_target_": "os.system", "command": "touch planted"}}


def plant(trained_run, place):
    """A copy of a run whose configuration, and that of its checkpoints, name code."""
    shutil.copytree(trained_run, place)
    stored = yaml.safe_load((place / "config.yaml").read_text())
    stored |= {"callbacks": PLANTED, "loggers": PLANTED}
    (place / "config.yaml").write_text(json.dumps(stored))  # which is YAML, without aliases
    for path in (place / "checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        content["config"] |= {"callbacks": PLANTED, "loggers": PLANTED}
        torch.save(content, path)
    return place


def test_nothing_is_made_of_what_a_run_names(trained_run, own, monkeypatch, capsys):
    folder = plant(trained_run, own / "run")
    longer = [f"run.resume={folder}", "trainer.max_epochs=3"]
    for words in ([], ["trust=[os]"], ["trust=[os.system]"]):
        code, _, err = run(monkeypatch, capsys, *longer, *words)
        assert (code, "code that a run names is not used" in err) == (2, True), err
    out = ["+callbacks.x=null", "+logger.x=null"]
    assert run(monkeypatch, capsys, *longer, "trust=[os]", *out)[0] == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["callbacks"] == {"x": None}
    assert not list(own.rglob("planted"))


@pytest.mark.parametrize("script", ["evaluate", pytest.param("predict", marks=pytest.mark.whole)])
def test_no_command_makes_what_a_run_names(trained_run, films, own, monkeypatch, script):
    folder = plant(trained_run, own / "run")
    words = {
        "evaluate": ["split=test"],
        "predict": [f"images={films / 'BLOB'}", "out=predicted.csv"],
    }[script]
    entries = {
        "evaluate": ("fluoroscope.evaluate:main", "fluoroscope.config.evaluate:check_evaluate"),
        "predict": (
            "fluoroscope.prediction.predict:main",
            "fluoroscope.config.predict:check_predict",
        ),
    }
    words = [f"checkpoint={folder}", *words]
    monkeypatch.setattr(sys, "argv", [f"scripts/{script}.py", *words])
    entry.command("", script, *entries[script])
    assert not list(own.rglob("planted"))


def test_a_resumed_run_takes_the_loggers_of_todays_command(trained_run, own):
    """A group of loggers, or single words; what is new is added, and null leaves one out."""
    resume = f"run.resume={trained_run}"
    assert checked(resume).logger.mode == "off"  # as the run was
    assert checked(resume, "logger=wandb").logger.mode == "auto"
    cfg = checked(resume, LINES, "+callbacks.new={_target_: own_module.Kept, value: 1}")
    assert ([*cfg.loggers], [*cfg.callbacks]) == (["lines"], ["new"])
    with pytest.raises(InputError, match=r"optimizer\.name=sgd needs a new run"):
        checked(resume, "optimizer.name=sgd")
