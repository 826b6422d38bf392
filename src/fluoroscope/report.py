"""The story of a report: read runs, compare them, write the page and print the verdict."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from fluoroscope.config.report import Job
from fluoroscope.console import Progress, fitting_tables, make_console
from fluoroscope.errors import plural
from fluoroscope.reporting import tables
from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.collect import Collection, collect
from fluoroscope.reporting.comparison import Comparison, compare
from fluoroscope.reporting.figures import FOLDER
from fluoroscope.reporting.out_of_fold import FOLDER as OUT_OF_FOLD
from fluoroscope.reporting.out_of_fold import SCORES
from fluoroscope.reporting.page import CSV, HTML, MARKDOWN, write
from fluoroscope.reporting.verdict import Verdict, verdict

PLAIN = str.maketrans("−–", "--")  # some terminals lack these characters
COLUMNS = tables.MAIN[:9]  # of the terminal's table


def main(job: Job) -> None:
    """Entry of `scripts/report.py`."""
    console = make_console()
    with console.status("reading runs"):
        collection = _collect(job)
    console.print(f"{plural(len(collection.runs), 'run')} read")
    with console.status("comparing"):
        comparison = compare(collection, job.reference, job.incomplete, job.rule, job.by)
        decided = verdict(comparison)
    if folds := comparison.common.get("folds"):
        console.print(f"folds {folds}")
    folder = _folder(job)
    with Progress("drawing figures") as progress:
        write(comparison, decided, folder, lambda name: progress.advance())
    _print(console, comparison, decided, folder)
    if job.target is not None:
        from fluoroscope.tracking import wandb_report

        address = wandb_report.publish(comparison, decided, folder, **job.target._asdict())
        console.print(f"published {address}", soft_wrap=True)


def _collect(job: Job) -> Collection:
    if job.source is None:
        return collect(job.places, job.incomplete)
    from fluoroscope.tracking import wandb_runs

    return wandb_runs.collect(*job.source, incomplete=job.incomplete)


def _folder(job: Job) -> Path:
    """Folder of the report: `out`, or `report` in the only folder of runs, or Hydra's folder."""
    if job.out is not None:
        return job.out
    if len(job.places) == 1:
        return job.places[0] / "report"
    return Path(HydraConfig.get().runtime.output_dir)


def _print(console: Console, comparison: Comparison, decided: Verdict, folder: Path) -> None:
    console.print(decided.headline, style="bold")
    shown = _short_table(comparison)
    rows = [[cell.translate(PLAIN) for cell in row] for row in shown.rows]
    console.print(*fitting_tables(shown.titles, rows, console.width), sep="\n")
    if len(comparison.settings) == 1:  # of several only the page has room for it
        for title, fact in basis(comparison).rows:
            console.print(f"{title}: {fact.translate(PLAIN)}")
    for line in comparison.limits:
        console.print(f"limit: {line}")
    for line in decided.advice:
        console.print(f"advice: {line}")
    for line in comparison.left_out:
        console.print(f"note: {line}")
    of_folds = [SCORES, OUT_OF_FOLD] if comparison.settings[0].folds is not None else []
    for name in (HTML, MARKDOWN, CSV, FOLDER, *of_folds):
        console.print(f"wrote {folder / name}", soft_wrap=True)


def _short_table(comparison: Comparison) -> tables.Table:
    """The scores of the only setting, or one row for each of several."""
    if len(comparison.settings) > 1:
        return tables.best(comparison)
    return tables.table(comparison.settings[0], COLUMNS, comparison.reference)
