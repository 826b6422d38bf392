"""Resized copy of a collection with its study table: `scripts/prepare.py data=...`."""

import os
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fluoroscope.commands import called
from fluoroscope.config.prepare import Audit, Copy
from fluoroscope.console import show_progress
from fluoroscope.data.study_table import Collection, first_three, patients_known
from fluoroscope.data.survey import find_unusable, survey_images, turned_images, user_cache
from fluoroscope.errors import InputError, plural
from fluoroscope.files.images import UnreadableError
from fluoroscope.launch.process_setup import cores
from fluoroscope.prepare import collection_audit, copy_table
from fluoroscope.prepare.copy_manifest import (
    Stamp,
    check_writable,
    is_done,
    locked_copy,
    mark_unfinished,
    open_list,
    read_done,
    remove_unnamed,
)
from fluoroscope.prepare.copy_table import collection_mark
from fluoroscope.prepare.image_copy import SUFFIXES, copy_image, neutral_name
from fluoroscope.prepare.permissions import as_strict_as, of_copy

AHEAD = 4  # items per thread that run or wait; bounds the memory
T = TypeVar("T")
R = TypeVar("R")


class Task(NamedTuple):
    source: str  # absolute
    name: str  # of the copy, relative to its folder


class Outcome(NamedTuple):
    stamp: Stamp | None = None
    reason: str = ""  # why the image was not copied


def main(job: Copy) -> None:
    """Entry of `scripts/prepare.py data=...`.

    Raises:
        InputError: the collection cannot be read, the audit has hard findings, or a file cannot
            be written.
    """
    new = not job.out.exists()
    check_writable(job.out, _about(job))
    collection = collection_audit.read_collection(job.train.data)
    with as_strict_as(collection.table["path"], collection.root, job.out, new):
        if job.audit:
            collection_audit.check(Audit(job.train, job.out, job.name_images), collection)
        copy(job, collection)


def copy(job: Copy, collection: Collection) -> None:
    """Copy the images that have no copy yet, write the table, remove copies of other images.

    Raises:
        InputError: an image cannot be read and `data.on_unreadable` is "stop"; a full disk.
    """
    paths, stop = collection.table["path"].tolist(), job.train.data.on_unreadable == "stop"
    survey = survey_images(paths, cache_dir=user_cache())
    unusable = set(find_unusable(paths, survey, "stop" if stop else "skip"))
    tasks = {
        row: Task(path, neutral_name(_relative(path, collection.root), SUFFIXES[job.format]))
        for row, path in enumerate(paths)
        if row not in unusable
    }
    with _writing(), locked_copy(job.out, _about(job)):
        todo = _not_done(job, tasks)
        outcomes = dict(zip(todo, _run(job, list(todo.values())), strict=True))
        failed = [row for row, outcome in outcomes.items() if outcome.reason]
        if failed and stop:
            raise InputError(_unreadable(paths[failed[0]], outcomes[failed[0]].reason))
        left_out = sorted([*unusable, *failed])
        names = [task.name for row, task in tasks.items() if row not in failed]
        decisions = *collection.decisions, *turned_images(survey.drop(index=left_out))
        kept = collection._replace(table=collection.table.drop(index=left_out), decisions=decisions)
        copy_table.write(job, kept, names, len(left_out))
        removed = remove_unnamed(job.out, names)
    _summarize(job, kept, len(todo) - len(failed), removed, [paths[row] for row in left_out])


def in_parallel(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the results in the order of the items; items that have not started can be cancelled.

    Uses threads: decoding, resizing and encoding release the interpreter lock.

    >>> list(in_parallel(lambda x: x + 1, [1, 2, 3], workers=2))
    [2, 3, 4]
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _not_done(job: Copy, tasks: dict[int, Task]) -> dict[int, Task]:
    done = read_done(job.out)

    def has_copy(task: Task) -> bool:
        return is_done(job.out, task.name, task.source, done)

    found = in_parallel(has_copy, tasks.values(), cores())
    found = show_progress(found, "looking for copies", len(tasks))
    return {row: tasks[row] for row, exists in zip(tasks, found, strict=True) if not exists}


def _run(job: Copy, tasks: list[Task]) -> Iterator[Outcome]:
    if tasks:
        mark_unfinished(job.out, _about(job))
    for folder in {os.path.dirname(task.name) for task in tasks}:
        (job.out / folder).mkdir(parents=True, exist_ok=True)
    work = partial(_copy_one, job)
    with open_list(job.out) as log:
        outcomes = in_parallel(work, tasks, cores())
        outcomes = show_progress(outcomes, "copying images", len(tasks))
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome.stamp is not None:
                log.write(outcome.stamp.line(task.name))
            yield outcome


def _copy_one(job: Copy, task: Task) -> Outcome:
    try:
        source = os.stat(task.source)
        mode = of_copy(source.st_mode)
        written = copy_image(task.source, job.out / task.name, job.size, job.format, mode)
    except FileNotFoundError:
        return Outcome(reason="the file no longer exists")
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
        f"cannot read image {path}: {reason}; repair it and run the same command again, or leave "
        "such images out with data.on_unreadable=skip"
    )


@contextmanager
def _writing() -> Iterator[None]:
    """Turn an error of the file system into one that says how to continue.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        place, reason = error.filename or "the copy", error.strerror or error
        raise InputError(
            f"cannot write {place} ({reason}); correct this and run the same command again to "
            "continue"
        ) from None


def _summarize(job: Copy, kept: Collection, new: int, removed: int, left_out: list[str]) -> None:
    images, patients = len(kept.table), plural(kept.table["patient"].nunique(), "patient")
    known = patients_known(kept.patients_of, kept.decisions)
    of = {"all": patients, "some": f"at most {patients}", "none": "unknown patients"}[known]
    existing = images - new
    print(f"{job.out}: {plural(images, 'image')} of {of}", end="")
    print(f", of which {existing:,} existed already" if existing else "")
    if removed:
        print(f"removed copies of images that are no longer in the table: {removed:,}")
    for decision in kept.decisions:
        print(decision.describe())
    if left_out:
        unusable = plural(len(left_out), "image")
        print(f"left out: {unusable} that cannot be used: {first_three(left_out)}")
    out = shlex.quote(str(job.out))
    print("\nTo train on it, here or on a machine that the folder is copied to:")
    print(f"  {called('train')} data=prepared data.root={out} data.image_px={job.size}")
