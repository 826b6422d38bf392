"""Truth, then speed, on one GPU of any kind, within a number of seconds.

First the tests of `tests/gpu` run on the device. Then come the speeds, the most important first:
the training step of the question's network against a bare loop and timm's own step, the ablation's
heads, the cost of watching, whole epochs from files, the first step from a cold start. Weights are
random and images are drawn, so nothing is downloaded and no data are needed.

Each part's result is in `gpu.json` and `gpu.md` of the folder as soon as it is there. A part that
takes too long is stopped, and one for which no time is left is named as not measured.

| key | meaning |
| --- | --- |
| `budget_s=480` | seconds for everything |
| `device=cuda` | `cpu` rehearses the same code at toy size |
| `out=outputs/gpu` | folder of the results |
| `parts=truth,heads` | these alone; default: all |

Examples:
  python -m benchmarks.gpu                # make gpu
  python -m benchmarks.gpu device=cpu     # a rehearsal
"""

import gc
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from fluoroscope.command import run_one
from fluoroscope.errors import InputError, check_choice, first_sentence
from fluoroscope.launch.run_status import BAD_INPUT

Result = dict[str, Any]
PACKAGES = ("torch", "pytorch-lightning", "timm", "numpy")
STARTS_S = 120  # a worker that has not imported everything by then
EMPTY: Result = {"columns": [], "arms": {}, "targets": [], "note": ""}


class Options(NamedTuple):
    """The keys of the command line."""

    budget_s: float = 480.0
    device: str = "cuda"
    out: Path = Path("outputs/gpu")
    parts: tuple[str, ...] = ()


def read_options(words: Sequence[str]) -> Options:
    """Checked options.

    Raises:
        InputError: an unknown key, or a value that does not fit.
    """
    given = dict(word.partition("=")[::2] for word in words)
    for key in given:
        check_choice("key", key, Options._fields)
    device = given.get("device", "cuda")
    check_choice("device", device, ("cuda", "cpu"))
    try:
        budget_s = float(given.get("budget_s", 480))
    except ValueError:
        budget_s = 0.0
    if not budget_s > 0:
        raise InputError(f"budget_s must be a number above 0; got {given['budget_s']!r}")
    names = tuple(name for name in given.get("parts", "").split(",") if name)
    return Options(budget_s, device, Path(given.get("out", "outputs/gpu")), names)


class Worker:
    """A process that has imported everything and measures parts, one after another."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder = device, folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork could not use CUDA
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, self.device, self.folder))
        self.process.start()
        there.close()
        self.facts = self._receive(STARTS_S)

    def measure(self, name: str, limit_s: float) -> Result:
        """The result of a part, or what it has told before it was stopped, and why it was."""
        end, kept = time.monotonic() + limit_s, dict(EMPTY)
        self.pipe.send(name)
        while True:
            kept |= self._receive(max(0.0, end - time.monotonic()))
            if not kept.pop("more", False):
                return kept

    def _receive(self, limit_s: float) -> Result:
        try:
            if self.pipe.poll(limit_s):
                return self.pipe.recv()
            self.end()
            return {"problem": "stopped at its time limit"}
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            self.end()
            return {"problem": f"its process ended with exit code {code}"}

    def revive(self) -> None:
        """Start it again if it has ended."""
        if not self.process.is_alive():
            self._start()

    def end(self) -> None:
        """Kill it and the processes that it has started."""
        try:
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.join()


def _work(pipe: Connection, device: str, folder: Path) -> None:
    """Measure the parts whose names arrive."""
    os.setpgrp()  # so that it is killed with its children
    # Loaders start their processes as in a run; this process would spawn them, each with imports.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    # For deterministic algorithms; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from fluoroscope.launch import process_setup

    process_setup.prepare()
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pipe.send({"refused": "there is no CUDA device here; device=cpu rehearses at toy size"})
        return
    from benchmarks import gpu_parts
    from benchmarks.rounds import describe_machine

    place = gpu_parts.Place(device, folder, lambda result: pipe.send(result | {"more": True}))
    parts = {part.name: part for part in gpu_parts.parts(place)}
    limits = {n: (p.about, p.least_s, p.most_s, p.alone) for n, p in parts.items()}
    pipe.send({"machine": describe_machine(torch.device(device)), "parts": limits})
    while name := _next(pipe):
        try:
            pipe.send(parts[name].run(place))
        except Exception as error:
            pipe.send({"problem": f"{type(error).__name__}: {first_sentence(error)}"})
        gc.collect()  # trainers are cycles, which hold tensors of the device
        if device == "cuda":
            torch.cuda.empty_cache()


def _next(pipe: Connection) -> str | None:
    try:
        return pipe.recv()
    except EOFError:
        return None


def run(options: Options) -> Result:
    """Measure all parts for which there is time; write what is there after each.

    Raises:
        InputError: there is no such device, or no such part.
    """
    end = time.monotonic() + options.budget_s
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        worker = Worker(options.device, Path(folder))
        try:
            result = _described(options, worker)
            limits = worker.facts["parts"]
            for name in options.parts or limits:
                started, (about, least_s, most_s, alone) = time.monotonic(), limits[name]
                measured = _measure(worker, name, least_s, most_s, end)
                if alone or "problem" in measured:  # the next part starts in a sound process
                    worker.end()
                measured["seconds"] = time.monotonic() - started
                result["parts"][name] = {"about": about} | measured
                write(options.out, result)
                print(f"{name}: {_verdict(measured)}; {measured['seconds']:.0f} s", flush=True)
            return result
        finally:
            worker.end()


def _described(options: Options, worker: Worker) -> Result:
    """The machine and the versions; no part yet."""
    if problem := worker.facts.get("refused") or worker.facts.get("problem"):
        raise InputError(f"device={options.device}: {problem}")
    for name in options.parts:
        check_choice("parts", name, worker.facts["parts"])
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"machine": worker.facts["machine"], "versions": versions, "parts": {}}


def _measure(worker: Worker, name: str, least_s: float, most_s: float, end: float) -> Result:
    if (left_s := end - time.monotonic()) < least_s:
        return EMPTY | {"problem": f"not measured: {max(0, left_s):.0f} s were left"}
    worker.revive()
    if problem := worker.facts.get("problem") or worker.facts.get("refused"):
        return EMPTY | {"problem": f"no process: {problem}"}
    return worker.measure(name, max(0.0, min(most_s, end - time.monotonic())))


def _verdict(measured: Result) -> str:
    from benchmarks.rounds import describe_target

    if "problem" in measured:
        return measured["problem"]
    lines = [describe_target(target) for target in measured["targets"]]
    return "; ".join(lines) or "done"


def write(folder: Path, result: Result) -> None:
    """`gpu.json`, and `gpu.md` with a table for each part."""
    from fluoroscope.atomic_write import write_atomically

    for name, text in (
        ("gpu.json", json.dumps(result, indent=2, default=str) + "\n"),
        ("gpu.md", "\n".join(_markdown(result)) + "\n"),
    ):
        with write_atomically(folder / name) as part:
            part.write_text(text)


def _markdown(result: Result) -> Iterator[str]:
    machine, versions = result["machine"], result["versions"]
    yield f"{machine['device']}, {machine['cpu']}, {machine['cores']} cores; " + ", ".join(
        f"{name} {number}" for name, number in versions.items()
    )
    for name, part in result["parts"].items():
        yield f"\n### {part['about'].capitalize()} (`{name}`, {part['seconds']:.0f} s)\n"
        if "problem" in part:
            yield part["problem"]
        if part["arms"] or part["note"]:
            yield from _table(part)


def _table(part: Result) -> Iterator[str]:
    from benchmarks.rounds import cell, describe_target

    if part["arms"]:
        yield "| arm | " + " | ".join(column.head for column in part["columns"]) + " |"
        yield "| --- |" + " --- |" * len(part["columns"])
    for arm, numbers in part["arms"].items():
        cells = [cell(numbers[column.key], column.form) for column in part["columns"]]
        cells = [text.replace("|", "\\|") for text in cells]
        yield f"| {arm} | " + " | ".join(cells) + " |"
    for line in [part["note"], *map(describe_target, part["targets"])]:
        yield f"\n{line}" if line else ""


def main() -> None:
    """Measure, and end with code 1 if a target was missed or a part failed."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((__doc__ or "").strip())
        return
    try:
        options = read_options(sys.argv[1:])
        result = run(options)
    except InputError as error:
        run_one.print_error(error)
        sys.exit(BAD_INPUT)
    print(f"results: {options.out / 'gpu.md'}")
    ends = result["parts"].values()
    sys.exit(any("problem" in e or not all(t["met"] for t in e["targets"]) for e in ends))


if __name__ == "__main__":
    main()
