"""The terminal: consoles, clean text, tables that fit, short paths, progress of a long job."""

import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fluoroscope.launch.process_setup import is_first_process

WIDTH = 140  # wide enough for a path to stay in one piece in a log
LEAST_NAME, GAP = 24, 2  # of a table: width of its names if it is too wide, space between columns
FIRST_LINE_S, NEXT_LINE_S = 10.0, 30.0
T = TypeVar("T")
REPLACEMENT = "\ufffd"
# Control characters except tab and newline, marks that reverse the order of the text, separators
# of lines, and halves of a surrogate pair, which no encoding can write.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def console_text(text: str) -> str:
    r"""Text for a terminal: no escape sequence, several lines and tabs are possible.

    >>> console_text("a\x1b[2Jb")
    'a\ufffd[2Jb'
    """
    return CONTROL.sub(REPLACEMENT, text.replace("\r\n", "\n"))


class CleanStream:
    """A text stream that writes `console_text`, in characters that its encoding has.

    Attributes:
        stream: the stream itself, for a console that writes sequences of its own.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        known = console_text(text).encode(encoding, "backslashreplace").decode(encoding)
        self.stream.write(known)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def clean_output() -> Iterator[None]:
    """Clean standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = CleanStream(sys.stdout), CleanStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def own_stream(stream: Any) -> Any:
    """The stream below a `CleanStream`."""
    return stream.stream if isinstance(stream, CleanStream) else stream


class CleanConsole(Console):
    """A console that takes markup and control characters in names for text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*args, **kwargs):
            yield Segment(text if control else console_text(text), style, control)


def make_console(stderr: bool = False) -> Console:
    """A console as wide as the terminal; 140 columns if the output goes to a file or a pipe."""
    stream = own_stream(sys.stderr if stderr else sys.stdout)
    width = None if stream.isatty() else WIDTH
    return CleanConsole(width=width, file=stream)


def fitting_tables(
    titles: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[Table]:
    """One table or more that fit `width` columns of a terminal, so that no number is cut.

    If one is too wide, the titles and the names in the first column wrap. If the other columns do
    not fit side by side either, the next table continues with them and repeats the names.
    """
    columns = [[title, *texts] for title, *texts in zip(titles, *rows, strict=True)]
    sizes = [max(map(cell_len, column)) for column in columns]
    longest, room = sizes[0], width - min(sizes[0], LEAST_NAME)
    if sum(sizes) + GAP * (len(sizes) - 1) > width:
        sizes = [min(_least(column), room - GAP) for column in columns]
    for group in _side_by_side(sizes, room):
        sizes[0] = min(longest, width - sum(GAP + sizes[i] for i in group))
        table = Table(box=None, pad_edge=False)
        for i in (0, *group):
            side: Any = "right" if i else "left"
            table.add_column(Text(titles[i]), justify=side, width=sizes[i], overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[i]) for i in (0, *group)))
        yield table


def _least(column: Sequence[str]) -> int:
    """Width of a column whose title wraps between words, and whose other texts do not wrap."""
    return max(map(cell_len, [*column[0].split(), *column[1:]]), default=1)


def _side_by_side(sizes: Sequence[int], room: int) -> Iterator[list[int]]:
    """Numbers of the columns of each table, without the first column, which all tables have."""
    group: list[int] = []
    left = room
    for i, size in enumerate(sizes[1:], start=1):
        if group and size + GAP > left:
            yield group
            group, left = [], room
        group, left = [*group, i], left - size - GAP
    yield group


def short_path(path: Path) -> Path:
    """The path relative to the working directory if it lies below it, else unchanged."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def show_progress(
    items: Iterable[T], description: str, total: int, *, every_process: bool = False
) -> Iterator[T]:
    """Yield the items, and show how many of `total` are done; see `Progress`."""
    with Progress(description, total, every_process=every_process) as progress:
        for item in items:
            yield item
            progress.advance()


class Progress:
    """Shows the progress of a long job: a live bar on a terminal, plain lines in a log.

    A line is written to standard error after 10 s and then every 30 s at most, so that a short job
    writes none. Only the first process of a run shows anything.

    Args:
        description: what is being done, such as "checking images".
        total: number of steps; None if it is not known.
        every_process: show it in any process, for a job that one process does for all others.
    """

    def __init__(
        self, description: str, total: int | None = None, *, every_process: bool = False
    ) -> None:
        self.description, self.total, self.done = description, total, 0
        self._shown = every_process or is_first_process()
        console = make_console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._bar: Bar | None = None
        if self._shown and console.is_terminal:
            self._bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(description, total=total)
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_S
        self._lines = 0

    def __enter__(self) -> Self:
        (self._bar or nullcontext()).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)
        elif self._lines and error[0] is None:
            self._print_line()

    def advance(self, steps: int = 1, description: str | None = None) -> None:
        """Count finished steps; `description` replaces the text from now on."""
        self.done += steps
        self.description = description or self.description
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, description=self.description)
        elif self._shown and time.monotonic() >= self._next_line and self.done != self.total:
            self._next_line = time.monotonic() + NEXT_LINE_S
            self._lines += 1
            self._print_line()

    def _print_line(self) -> None:
        line = progress_line(
            self.description, self.done, self.total, time.monotonic() - self._started
        )
        print(line, file=sys.stderr, flush=True)


def progress_line(description: str, done: int, total: int | None, seconds: float) -> str:
    """One line on a job that has run for `seconds`.

    >>> progress_line("copying images", 300, 1200, 60.0)
    'copying images: 300 of 1,200 done, 5 per second, 3 min left'
    >>> progress_line("copying images", 1200, 1200, 240.0)
    'copying images: 1,200 of 1,200 done in 4 min'
    """
    count = f"{description}: {done:,}" + ("" if total is None else f" of {total:,}") + " done"
    if done == total:
        return f"{count} in {math.ceil(seconds / 60)} min"
    rate = done / max(seconds, 1e-9)
    speed = f"{rate:.0f} per second" if rate >= 1 else f"{60 * rate:.1f} per minute"
    left = (
        "" if total is None or not done else f", {math.ceil((total - done) / rate / 60)} min left"
    )
    return f"{count}, {speed}{left}"
