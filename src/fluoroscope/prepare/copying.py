"""A collection to a resized copy of it with its study table: the story of `prepare.py data=...`."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fluoroscope.config.prepare import Audit, Copy
from fluoroscope.console import show_progress
from fluoroscope.data.study_table import Collection, first_three
from fluoroscope.data.survey import check_images, user_cache
from fluoroscope.errors import InputError
from fluoroscope.files.images import UnreadableError
from fluoroscope.launch.process_setup import cores
from fluoroscope.prepare import auditing, table
from fluoroscope.prepare.images import SUFFIXES, copy_image, neutral_name
from fluoroscope.prepare.manifest import (
    Stamp,
    check_writable,
    claimed,
    continued,
    is_done,
    mark_unfinished,
    read_done,
    remove_unnamed,
)
from fluoroscope.prepare.parallel import in_parallel
from fluoroscope.prepare.reading import collection_mark, read

GO_ON = "the same line goes on where this one stopped"


class Task(NamedTuple):
    source: str  # absolute
    name: str  # of the copy, below its folder


class Outcome(NamedTuple):
    stamp: Stamp | None = None
    reason: str = ""  # why there is no copy


def main(job: Copy) -> None:
    """Entry of `scripts/prepare.py data=...`.

    Raises:
        InputError: what the collection, the audit or the disk refuses.
    """
    check_writable(job.out, _about(job))
    collection = read(job.train.data)
    if job.audit:
        auditing.check(Audit(job.train, job.out, job.name_images), collection)
    copy(job, collection)


def copy(job: Copy, collection: Collection) -> None:
    """Copy the images that are not there yet, write the table of all, remove the copies of others.

    Raises:
        InputError: images that cannot be read, unless they are to be skipped; no room.
    """
    paths, stop = collection.table["path"].tolist(), job.train.data.on_unreadable == "stop"
    unusable = set(check_images(paths, "stop" if stop else "skip", cache_dir=user_cache()))
    tasks = {
        row: Task(path, neutral_name(_relative(path, collection.root), SUFFIXES[job.format]))
        for row, path in enumerate(paths)
        if row not in unusable
    }
    with _writing(), claimed(job.out, _about(job)):
        todo = _not_done(job, tasks)
        outcomes = dict(zip(todo, _run(job, list(todo.values())), strict=True))
        failed = [row for row, outcome in outcomes.items() if outcome.reason]
        if failed and stop:
            raise InputError(_unreadable(paths[failed[0]], outcomes[failed[0]].reason))
        left_out = sorted([*unusable, *failed])
        names = [task.name for row, task in tasks.items() if row not in failed]
        kept = collection._replace(table=collection.table.drop(index=left_out))
        table.write(job, kept, names, len(left_out))
        removed = remove_unnamed(job.out, names)
    _tell(job, kept, len(todo) - len(failed), removed, [paths[row] for row in left_out])


def _not_done(job: Copy, tasks: dict[int, Task]) -> dict[int, Task]:
    done = read_done(job.out)

    def look(task: Task) -> bool:
        return is_done(job.out, task.name, task.source, done)

    looks = in_parallel(look, tasks.values(), cores())
    looks = show_progress(looks, "looking for copies", len(tasks))
    return {row: tasks[row] for row, there in zip(tasks, looks, strict=True) if not there}


def _run(job: Copy, tasks: list[Task]) -> Iterator[Outcome]:
    if tasks:
        mark_unfinished(job.out, _about(job))
    for folder in {os.path.dirname(task.name) for task in tasks}:
        (job.out / folder).mkdir(parents=True, exist_ok=True)
    work = partial(_copy_one, job)
    with continued(job.out) as log:
        outcomes = in_parallel(work, tasks, cores())
        outcomes = show_progress(outcomes, "copying images", len(tasks))
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome.stamp is not None:
                log.write(outcome.stamp.line(task.name))
            yield outcome


def _copy_one(job: Copy, task: Task) -> Outcome:
    try:
        source = os.stat(task.source)
        written = copy_image(task.source, job.out / task.name, job.size, job.format)
    except FileNotFoundError:
        return Outcome(reason="it is gone")
    except UnreadableError as error:
        return Outcome(reason=str(error))
    return Outcome(Stamp(source.st_size, source.st_mtime_ns, written))


def _relative(path: str, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _about(job: Copy) -> dict[str, Any]:
    return {
        "source": job.train.data.source,
        "collection": collection_mark(job.train.data),
        "size": job.size,
        "format": job.format,
    }


def _unreadable(path: str, reason: str) -> str:
    return (
        f"cannot read image {path}: {reason}; repair it and call the same line again, or leave "
        "such images out with data.on_unreadable=skip"
    )


@contextmanager
def _writing() -> Iterator[None]:
    """Say how to go on after a full disk.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        place, reason = error.filename or "the copy", error.strerror or error
        raise InputError(f"cannot write {place} ({reason}); {GO_ON}") from None


def _tell(job: Copy, kept: Collection, new: int, removed: int, left_out: list[str]) -> None:
    images, patients = len(kept.table), kept.table["patient"].nunique()
    there = images - new
    print(f"{job.out}: {images:,} images of {patients:,} patients", end="")
    print(f", of which {there:,} were there already" if there else "")
    if removed:
        print(f"removed: {removed:,} copies that the table no longer names")
    for decision in kept.decisions:
        print(decision.told())
    if left_out:
        print(f"left out: {len(left_out):,} images that cannot be used: {first_three(left_out)}")
    out = shlex.quote(str(job.out))
    print("\nTo train with it, here or where the folder is copied to:")
    print(f"  python scripts/train.py data=prepared data.root={out} data.image_px={job.size}")
