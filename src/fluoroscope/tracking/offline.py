"""Offline W&B runs below a folder, each with its segments, one for every time it was continued."""

import math
import re
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from fluoroscope.tracking.offline_log import Entry, Log, entry, read_log, resumed_at

SEGMENT = re.compile(r"offline-run-(?P<started>\d{8}_\d{6})-(?P<run_id>.+)")
# The client writes at least so often while a run logs something.
GOING_ON_S = 60.0


class Segment:
    """`wandb/offline-run-STARTED-ID/`, with `run-ID.wandb`, the log of one process.

    Attributes:
        folder: that folder; two segments of a run lie side by side.
        started: when, as text that sorts.
        run_id: W&B's, the same for all segments of a run.
        staging: where a run keeps the files of its artifacts, which its log names.
    """

    def __init__(self, folder: Path) -> None:
        match = SEGMENT.fullmatch(folder.name)
        assert match, folder
        self.folder, self.started, self.run_id = folder, match["started"], match["run_id"]
        self.path = folder / f"run-{self.run_id}.wandb"
        self.marker = Path(f"{self.path}.synced")
        self.staging = folder.parent / "artifacts/staging"

    @property
    def uploaded(self) -> bool:
        """Marked as such by the client, and not written to since."""
        try:
            return self.marker.stat().st_mtime >= self.path.stat().st_mtime
        except FileNotFoundError:
            return False

    def read(self) -> Log:
        return read_log(self.path) if self.path.is_file() else Log(b"", [], torn=False)

    @cached_property
    def entries(self) -> list[Entry]:
        return [entry(record) for record in self.read().records]

    @cached_property
    def begins_at(self) -> float:
        """The optimizer step from which on it logged; by its first row where nothing tells it."""
        records = zip(self.read().records, self.entries, strict=True)
        told = next((resumed_at(record) for record, entry in records if entry.kind == "run"), None)
        return min(self.steps, default=math.inf) if told is None else told

    @property
    def kinds(self) -> set[str]:
        return {entry.kind for entry in self.entries}

    @property
    def empty(self) -> bool:
        """A process that was killed early leaves a log without anything in it."""
        return "run" not in self.kinds

    @property
    def going_on(self) -> bool:
        """Not ended, and written to a moment ago."""
        age_s = time.time() - self.path.stat().st_mtime if self.path.exists() else math.inf
        return "exit" not in self.kinds and age_s < GOING_ON_S

    @property
    def steps(self) -> list[int]:
        """The optimizer step of each logged row."""
        return [entry.step for entry in self.entries if entry.step is not None]


class Run:
    """The segments of one run, in the order in which they were made."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = sorted(segments, key=lambda segment: segment.started)
        self.started = self.segments[0].started
        self.folder = self.segments[0].folder.parent.parent

    @property
    def pending(self) -> list[Segment]:
        """Those that hold something and are not uploaded yet."""
        return [s for s in self.segments if not s.uploaded and not s.empty]

    @property
    def empty(self) -> list[Segment]:
        return [s for s in self.segments if not s.uploaded and s.empty and not s.going_on]

    @property
    def going_on(self) -> bool:
        return any(s.going_on for s in self.segments if not s.uploaded)

    def rewound_at(self, segment: Segment) -> float:
        """The step from which on later segments logged again what this one had logged."""
        later = self.segments[self.segments.index(segment) + 1 :]
        return min((s.begins_at for s in later), default=math.inf)

    def rewound(self, segments: Iterable[Segment]) -> int:
        """How many rows of these segments later ones logged again."""
        return sum(step >= self.rewound_at(s) for s in segments for step in s.steps)


def find_runs(places: Iterable[Path]) -> list[Run]:
    """All runs with offline segments below the folders, the oldest first."""
    found: dict[tuple[Path, str], dict[Path, Segment]] = {}
    for place in places:
        for folder in place.glob("**/offline-run-*"):
            if SEGMENT.fullmatch(folder.name) and folder.is_dir():
                segment = Segment(folder.resolve())
                run = found.setdefault((segment.folder.parent, segment.run_id), {})
                run[segment.folder] = segment
    runs = [Run(list(segments.values())) for segments in found.values()]
    return sorted(runs, key=lambda run: (run.started, str(run.folder)))
