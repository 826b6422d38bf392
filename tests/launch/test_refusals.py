"""A refusal after the processes of a run have started is one sentence from one of them."""

from functools import partial
from pathlib import Path

import pytest
import torch

from fluoroscope.errors import BAD_INPUT, CRASH, InputError, check_file
from fluoroscope.launch import refusals
from fluoroscope.launch.error_template import error_template
from fluoroscope.run import run_folder
from tests.support.commands import TRAIN, end, start, start_together, tiny_arguments
from tests.support.forking import run_script

# Each fails as input does, in the processes of these ranks.
CALLBACKS = '''
import errno, os
from pytorch_lightning import Callback

class Failing(Callback):
    """At an instant, in the processes of these ranks."""

    def __init__(self, ranks, instant):
        self.mine = int(os.environ.get("LOCAL_RANK", "0")) in ranks
        self.instant = instant

    def state_dict(self):
        return {"object": self} if self.mine and self.instant == "state" else {}

    def _disk(self, instant):
        if self.mine and self.instant == instant:
            raise OSError(errno.ENOSPC, "No space left on device")

    def setup(self, trainer, module, stage):
        self._disk("setup")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._disk("batch")
'''
HALF = """
import os
from mypkg.failing import Failing
if os.environ.get("LOCAL_RANK", "0") != "0":
    raise RuntimeError("not on this one")
"""
STATE, DISK = "which a resumed run does not read", "No space left on device"
CASES = {  # ranks, instant, and what the refusal says
    "all, at the first checkpoint": ([0, 1], "state", STATE),
    "the second, at the first checkpoint": ([1], "state", STATE),
    "the first, in a batch": ([0], "batch", DISK),
    "the second, in a batch": ([1], "batch", DISK),
    "the second, before the fit": ([1], "setup", DISK),
    "the first, before the fit": ([0], "setup", DISK),
}
QUICK = ("all, at the first checkpoint", "the second, in a batch")
SOME = [case if case in QUICK else pytest.param(case, marks=pytest.mark.whole) for case in CASES]


@pytest.fixture
def arguments(films, tmp_path):
    """Of a run of two processes, with a callback of these arguments."""
    (tmp_path / "mypkg").mkdir()
    for name, code in {"__init__": "", "failing": CALLBACKS, "half": HALF}.items():
        (tmp_path / f"mypkg/{name}.py").write_text(code)
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "run.dir=run"]
    short = ["trainer.max_epochs=1", "data.batch_size=8", "head.norm=layer"]

    def words(callback):
        return tiny_arguments(films, *two, *short, f"+callbacks.mine={{_target_: {callback}}}")

    return words


def failing(case):
    ranks, instant, _ = CASES[case]
    return f"mypkg.failing.Failing, ranks: {ranks}, instant: {instant}"


def check_one_sentence(err, told):
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("fluoroscope: ")]
    assert told in line


@pytest.mark.parametrize("case", SOME)
def test_processes_that_were_started_together_have_one_voice(arguments, tmp_path, case):
    call = partial(run_script, TRAIN, arguments(failing(case)))
    ends = [end(process) for process in start_together(call, tmp_path)]
    ranks, instant, told = CASES[case]
    check_one_sentence("".join(err for _, _, err in ends), told)
    assert [ends[rank][0] for rank in ranks] == [BAD_INPUT] * len(ranks)
    assert {code for code, _, _ in ends} <= {BAD_INPUT, CRASH}
    assert "continue with" not in "".join(out for _, out, _ in ends)
    if instant == "setup":
        assert not (tmp_path / "run").exists()
    else:
        failed = run_folder.read_json(tmp_path / "run/failed.json")
        assert failed["exit_code"] == BAD_INPUT
        assert told in failed["error"]


@pytest.mark.whole
@pytest.mark.parametrize("case", [*QUICK, "the first, before the fit"])
def test_processes_that_lightning_starts_have_one_voice(arguments, tmp_path, case):
    code, _, err = end(start(arguments(failing(case)), tmp_path))
    assert code == BAD_INPUT
    check_one_sentence(err, CASES[case][2])


@pytest.mark.whole
def test_the_second_is_refused_before_the_two_have_met(arguments, tmp_path):
    """The first one waits for it in a library, and ends with the same code."""
    code, _, err = end(start(arguments("mypkg.half.Failing, ranks: [], instant: x"), tmp_path))
    assert code == BAD_INPUT
    check_one_sentence(err, "mypkg.half cannot be imported (RuntimeError: not on this one)")


# ------------------------------------------------------------------------------- what they share
@pytest.fixture
def rank(monkeypatch):
    """Be a process of this rank, of those that share a store."""
    monkeypatch.setattr(refusals._Known, "of_another", None)
    monkeypatch.setattr(refusals._Known, "settled", False)
    store = torch.distributed.HashStore()
    monkeypatch.setattr(refusals, "_store", lambda: store)
    return lambda own: monkeypatch.setattr(refusals, "_rank", lambda: own)


def refused(name):
    with pytest.raises(InputError) as refusal:
        check_file("backbone.file", Path(name))
    return refusal.value


def test_who_refuses_first_tells_and_the_others_take_its_words(rank):
    first, later, crash = refused("a"), refused("b"), RuntimeError("Connection closed by peer")
    rank(2)
    assert refusals.settled(first) is first
    assert refusals.settled(first) is first
    assert not first.told
    for own, error in ((0, crash), (1, later), (3, crash)):
        rank(own)
        other = refusals.settled(error)
        assert (str(other), other.told) == (str(first), True)
        assert error_template(other) == error_template(first)
        assert error_template(other) == "backbone.file: there is no file <path>"
        assert str(refusals.settled(other)) == str(first)


def test_an_error_of_the_program_stays_one(rank):
    rank(0)
    crash = RuntimeError("bug")
    assert refusals.settled(crash) is crash


def test_who_cannot_ask_the_first_process_any_more_is_silent(rank, monkeypatch):
    class Gone:
        def check(self, keys):
            raise RuntimeError("Connection reset by peer")

        compare_set = check

    monkeypatch.setattr(refusals, "_store", Gone)
    rank(1)
    own = refused("a")
    assert refusals.settled(own) is own
    assert own.told
    with pytest.raises(SystemExit) as stop:
        refusals.settled(RuntimeError("Connection closed by peer"))
    assert stop.value.code == CRASH


def test_without_other_processes_nothing_changes(monkeypatch):
    monkeypatch.setattr(refusals._Known, "of_another", None)
    for error in (refused("a"), RuntimeError("bug")):
        assert refusals.settled(error) is error
    assert not refused("a").told


def test_a_signal_about_a_refusal_changes_nothing_once_the_end_is_settled(rank):
    rank(1)
    first = refused("a")
    refusals.settled(first)
    refusals._hear(0, None)
    refusals._Known.settled = False
    rank(0)
    with pytest.raises(InputError, match="there is no file a") as heard:
        refusals._hear(0, None)
    assert refusals.settled(RuntimeError("turned")) is heard.value
