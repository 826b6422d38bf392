import fcntl
import os
import subprocess
import sys

import pytest

from fluoroscope import atomic_write
from fluoroscope.atomic_write import only_writer
from fluoroscope.errors import InputError

TRY = """
import sys
from pathlib import Path
from fluoroscope.atomic_write import only_writer
with only_writer(Path(sys.argv[1]), "held"):
    pass
"""


def another_gets(lock):
    """Whether another process gets the lock now."""
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(lock)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or "InputError: held" in done.stderr, done.stderr
    return done.returncode == 0


def test_one_process_at_a_time_holds_it(tmp_path):
    lock = tmp_path / ".lock"
    with only_writer(lock, "held"):
        assert not another_gets(lock)
    assert not lock.exists()
    assert another_gets(lock)


def test_a_holder_that_leaves_between_the_opening_and_the_lock_leaves_no_second_file(
    tmp_path, monkeypatch
):
    lock, real, opened = tmp_path / ".lock", fcntl.lockf, []

    def interleaved(file, operation):
        opened.append(os.fstat(file.fileno()).st_ino)
        if len(opened) == 1:  # the holder ends here, and removes the file that was opened
            lock.unlink()
        real(file, operation)

    monkeypatch.setattr(atomic_write.fcntl, "lockf", interleaved)
    with only_writer(lock, "held"):
        assert len(opened) == 2
        assert lock.stat().st_ino == opened[1]
        assert not another_gets(lock)


def test_the_refusal_is_that_of_the_caller(tmp_path, monkeypatch):
    def refused(file, operation):
        raise BlockingIOError

    monkeypatch.setattr(atomic_write.fcntl, "lockf", refused)
    with pytest.raises(InputError, match="wait for it"), only_writer(tmp_path / "a", "wait for it"):
        pass
