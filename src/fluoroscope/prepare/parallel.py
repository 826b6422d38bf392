"""Work on many items at once, in order, and how far it is."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

AHEAD = 4  # items a worker that are begun or wait, so that memory does not grow with their number
LINE_EVERY_S = 30.0
T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """The results, in the order of the items; whoever stops early waits for what has begun alone.

    Threads: decoding, resizing and encoding leave Python to the others.

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


def told(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items, with a bar on a terminal and elsewhere a line every half minute."""
    if Console(stderr=True).is_terminal:
        yield from _with_bar(items, total, what)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_S and done < total:
            last = now
            print(_line(done, total, now - started, what), file=sys.stderr, flush=True)


def _line(done: int, total: int, seconds: float, what: str) -> str:
    """How far it is, and for how long still.

    >>> _line(300, 1200, 60.0, "copying images")
    'copying images: 300 of 1,200, 5 a second, 3 min left'
    """
    left_min = math.ceil((total - done) * seconds / done / 60)
    return f"{what}: {done:,} of {total:,}, {done / seconds:.0f} a second, {left_min} min left"


def _with_bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total)
