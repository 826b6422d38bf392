"""The comparison of runs: read, compare, draw, write, tell."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.table import Table

from fluoroscope.config.report import Job
from fluoroscope.console import Progress, make_console
from fluoroscope.errors import InputError
from fluoroscope.reporting import page, tables
from fluoroscope.reporting.collect import Collection, collect
from fluoroscope.reporting.comparison import Comparison, compare
from fluoroscope.reporting.pictures import Tick, draw_overview, draw_setting, looks_of
from fluoroscope.reporting.verdict import Verdict, verdict

HTML, MARKDOWN, CSV = "report.html", "report.md", "table.csv"
PLAIN = str.maketrans("−–", "--")  # not every terminal has them
SHORT = tables.MAIN[:9]  # what of it stands on a terminal


def main(job: Job) -> None:
    """Entry of `scripts/report.py`."""
    console = make_console()
    with console.status("reading runs"):
        collection = _collect(job)
    console.print(f"{len(collection.runs)} runs read")
    with console.status("comparing"):
        comparison = compare(collection, job.reference, job.incomplete, job.resamples, job.by)
        decided = verdict(comparison)
    folder = _folder(job)
    with Progress("drawing figures") as progress:
        write(comparison, decided, folder, lambda name: progress.advance())
    _print(console, comparison, decided, folder)
    if job.target is not None:
        from fluoroscope.tracking import wandb_report

        place = wandb_report.publish(comparison, decided, folder, **job.target._asdict())
        console.print(f"online {place}", soft_wrap=True)


def write(comparison: Comparison, decided: Verdict, folder: Path, tick: Tick) -> None:
    """Page, Markdown, table and figures; the same comparison gives the same bytes.

    Args:
        comparison: what is reported.
        decided: the verdict on it.
        folder: made if need be.
        tick: called with the name of each figure that is done.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        looks = looks_of(comparison)
        overview = draw_overview(comparison, folder, tick)
        numbers = range(1, len(comparison.settings) + 1)
        drawn = [draw_setting(comparison, n, looks, folder, tick) for n in numbers]
        parts = (comparison, decided, overview, drawn)
        (folder / HTML).write_text(page.html(*parts), encoding="utf-8")
        (folder / MARKDOWN).write_text(page.markdown(*parts), encoding="utf-8")
        tables.frame(comparison).to_csv(folder / CSV, index=False)
    except OSError as error:
        raise InputError(
            f"out: cannot write the report to {folder} ({error.strerror}); give another folder "
            "with out=DIR"
        ) from None


def _collect(job: Job) -> Collection:
    if job.source is None:
        return collect(job.places, job.incomplete)
    from fluoroscope.tracking import wandb_runs

    return wandb_runs.collect(*job.source, incomplete=job.incomplete)


def _folder(job: Job) -> Path:
    """Where the report goes: beside the runs, where they lie in one folder."""
    if job.out is not None:
        return job.out
    if len(job.places) == 1:
        return job.places[0] / "report"
    return Path(HydraConfig.get().runtime.output_dir)


def _print(console: Console, comparison: Comparison, decided: Verdict, folder: Path) -> None:
    console.print(decided.headline, style="bold")
    for line in decided.because:
        console.print(f"- {line}")
    console.print(_short_table(comparison))
    for line in decided.advice:
        console.print(f"advice: {line}")
    for line in comparison.left_out:
        console.print(f"note: {line}")
    for name in (HTML, MARKDOWN, CSV, "figures"):
        console.print(f"wrote {folder / name}", soft_wrap=True)


def _short_table(comparison: Comparison) -> Table:
    """The scores of the one setting, or a row for each of several."""
    shown = tables.table(comparison.settings[0], SHORT, comparison.reference)
    if len(comparison.settings) > 1:
        shown = tables.best(comparison)
    table = Table(box=None, pad_edge=False)
    for i, title in enumerate(shown.titles):
        table.add_column(title, justify="left" if i == 0 else "right", no_wrap=i > 0)
    for row in shown.rows:
        table.add_row(*(cell.translate(PLAIN) for cell in row))
    return table
