"""Processes that train passes at the same time, with passes that only pretend to train."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fluoroscope.ablation.passes import Finished
from fluoroscope.ablation.workers import Workers, share, start_imports
from fluoroscope.errors import InputError
from fluoroscope.model.activations import make_activation
from fluoroscope.own_code import imported, trusting

WAIT_S = 60


class Pretended(NamedTuple):
    """Runs a pass by its only name, as `PassRunner.run` does."""

    place: Path
    features: torch.Tensor = torch.empty(0)

    def run(self, names: Sequence[str], on_batch: Callable[[], None]) -> Finished:
        on_batch()
        getattr(self, names[0])(on_batch)
        return Finished(names[0], 0.0, {})

    def first(self, on_batch: Callable[[], None]) -> None:
        wait_for(self.place / "second")

    def second(self, on_batch: Callable[[], None]) -> None:
        (self.place / "second").touch()

    def write_features(self, on_batch: Callable[[], None]) -> None:
        self.features.fill_(7)

    def make_an_activation(self, on_batch: Callable[[], None]) -> None:
        make_activation("mypkg.acts.Snake", a=2)
        (self.place / "made").touch()

    def refuse(self, on_batch: Callable[[], None]) -> None:
        raise InputError("no; do it")

    def break_down(self, on_batch: Callable[[], None]) -> None:
        self.place / 1  # type: ignore[operator]

    def die(self, on_batch: Callable[[], None]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def train_without_end(self, on_batch: Callable[[], None]) -> None:
        while True:
            on_batch()
            time.sleep(0.01)

    def write(self, on_batch: Callable[[], None]) -> None:
        (self.place / "writing").touch()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        (self.place / "written").touch()


def wait_for(file: Path) -> None:
    until = time.monotonic() + WAIT_S
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.01)


def finished(place, *names, count=2):
    batches = []
    with Workers(count, Pretended(place), [[name] for name in names]) as workers:
        done = [one.line for one in workers.finished(batches.append)]
    assert not any(process.is_alive() for process in workers.processes.values())
    return done, batches


@pytest.fixture(autouse=True, scope="module")
def _imports():
    start_imports()


def test_passes_come_in_their_order_and_not_in_that_of_their_ends(tmp_path):
    done, batches = finished(tmp_path, "first", "second", "second")
    assert done == ["first", "second", "second"]
    assert sorted(batches) == [0, 1, 2]


def test_features_are_shared_and_not_copied(tmp_path):
    features = torch.zeros(3, 5)
    assert share([features])
    with Workers(1, Pretended(tmp_path, features), [["write_features"]]) as workers:
        list(workers.finished(lambda i: None))
    assert (features == 7).all()


def test_a_process_finds_and_trusts_the_code_that_its_parent_does(own_package, tmp_path):
    own_package()
    with pytest.raises(InputError, match="names code"):
        finished(tmp_path, "make_an_activation", count=1)
    with trusting(["mypkg"]):
        imported("head.activation", "mypkg.acts.Snake")  # the working folder is found here
        finished(tmp_path, "make_an_activation", count=1)
    assert (tmp_path / "made").exists()


def test_too_little_shared_memory_is_told(monkeypatch, capsys):
    def full(self):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert not share([torch.zeros(3)])
    assert "--shm-size" in capsys.readouterr().out


def test_an_error_of_a_pass_ends_the_others_at_their_next_batch(tmp_path):
    with pytest.raises(InputError, match=r"^no; do it$"):
        finished(tmp_path, "train_without_end", "refuse")


def test_an_unexpected_error_keeps_its_type_and_shows_where_it_came_from(tmp_path):
    with pytest.raises(TypeError) as caught:
        finished(tmp_path, "second", "break_down")
    assert "in break_down" in caught.value.__notes__[0]


def test_a_killed_process_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"ended by SIGKILL; .* lower memory_gib"):
        finished(tmp_path, "train_without_end", "die")


def test_what_was_trained_is_written_though_everything_is_stopped(tmp_path):
    """A signal of a terminal reaches all processes."""
    with Workers(2, Pretended(tmp_path), [["write"], ["train_without_end"]]):
        wait_for(tmp_path / "writing")
    assert (tmp_path / "written").exists()
