"""Log a run to W&B again from its run folder, under the same id."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from fluoroscope.config.loaded import load_file
from fluoroscope.config.train import Train
from fluoroscope.diagnostics import gatemap, postmortem
from fluoroscope.diagnostics.media import histogram
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.launch.run_status import CONFIG, RESULT
from fluoroscope.run import run_folder
from fluoroscope.run.csv_logger import STEP, TIME
from fluoroscope.run.wandb_logger import X_AXIS, private_settings, start_run
from fluoroscope.run.wandb_mode import client
from fluoroscope.tracking.offline_runs import OfflineRun, last_step, numbers
from fluoroscope.tracking.wandb_cli import lost_data

START_S, FINISH_S = 20.0, 120.0
VALIDATED, GATES = "units/val/dead_frac", "hist/val/gate_open_share"
FIGURE, TABLE = "gate_open", "postmortem"


def replay(run: OfflineRun) -> str | None:
    """Send the server the rows and media of a run that it lacks; return the error, or None."""
    wandb = client()
    with TemporaryDirectory() as scratch:  # for the client's own copy
        try:
            _send(run, Path(scratch))
            problem = next(lost_data(Path(scratch)), None)
        except (wandb.errors.Error, TimeoutError, ConnectionError) as error:
            problem = first_sentence(error)
        except InputError as refusal:
            problem = str(refusal)
        finally:
            wandb.teardown()  # a client that failed would also fail for the next run
    if problem is None:
        run.note(_shift(run), complete=True)
    return problem


def _send(run: OfflineRun, scratch: Path) -> None:
    config = load_file(run.folder / CONFIG, Train).announced()
    live = start_run(scratch, config, run.provenance["run_id"], _settings())
    before = dict(live.summary)
    first, shift = place(run, live.step, before.get(X_AXIS))
    run.note(shift, complete=False)
    for number, row in enumerate(history(run)):
        if number >= first:
            live.log(row, step=number + shift)
    media = _media(run.folder)
    if media and (first < len(run.rows) or not media.keys() <= before.keys()):
        live.log(media, step=len(run.rows) + shift)
    if run.status == "finished":
        live.summary.update({"result": run_folder.read_json(run.folder / RESULT)})
    if run.status == "stopped":
        live.mark_preempting()
    live.finish(exit_code=0 if run.status == "finished" else 1)


def _settings() -> Any:
    settings = private_settings("online", [])  # this machine is not that of the training
    settings.init_timeout, settings.finish_timeout = START_S, FINISH_S
    settings.x_graphql_retry_max = settings.x_file_stream_retry_max = 3
    settings.x_file_transfer_retry_max, settings.x_graphql_timeout_seconds = 3, 20
    settings.x_disable_stats = True  # system metrics of this machine are not those of the training
    return settings


def place(run: OfflineRun, held: int, step: float | None) -> tuple[int, int]:
    """The first row of `metrics.csv` to send, and W&B's number of row 0.

    A row keeps its number in every attempt, so an interrupted upload continues after the server's
    last row, and no row is sent twice.

    Args:
        held: number of rows on the server.
        step: their last optimizer step, or None if the server does not report it.
    """
    record = run.uploaded
    if record is not None and not record.complete and record.shift is not None:
        return held - record.shift, record.shift
    if held == 0:
        return 0, 0
    if record and record.complete and run.fingerprint(record.rows) == record.fingerprint:
        return record.rows, held - record.rows
    # Rows from another kind of upload, or logged again with other numbers after a resume.
    last = last_step(run.rows) if step is None else step
    first = sum(float(row[STEP]) <= last for row in run.rows)
    return first, held - first


def history(run: OfflineRun) -> Iterator[dict[str, Any]]:
    """The rows as they were logged, each validation's with the histogram of its gates."""
    from wandb import Histogram

    shares = iter(_gates(run.folder))
    for cells in run.rows:
        row: dict[str, Any] = numbers(cells)
        row[X_AXIS] = int(row.pop(STEP))
        if TIME in row:
            row["_timestamp"] = row.pop(TIME)
        if VALIDATED in row and (share := next(shares, None)) is not None:
            row[GATES] = Histogram(np_histogram=histogram(torch.from_numpy(share)))
        yield row


def _gates(folder: Path) -> np.ndarray:
    """The gate-open shares of each validation, none if the run did not reach the end of a fit."""
    file = folder / gatemap.TABLE
    return np.load(file) if file.exists() else np.empty((0, 0), np.float32)


def _media(folder: Path) -> dict[str, Any]:
    from wandb import Image, Table

    media: dict[str, Any] = {}
    if (folder / gatemap.PICTURE).exists():
        media[FIGURE] = Image(str(folder / gatemap.PICTURE))
    if (folder / postmortem.FILE).exists():
        media[TABLE] = Table(dataframe=pd.read_csv(folder / postmortem.FILE))
    return media


def brought(run: OfflineRun) -> set[str]:
    """The keys of W&B's history that a replay of the run sends."""
    keys = {key for row in run.rows[:1] for key in row} | {X_AXIS}
    figures = {FIGURE: gatemap.PICTURE, TABLE: postmortem.FILE, GATES: gatemap.TABLE}
    return keys | {key for key, file in figures.items() if (run.folder / file).exists()}


def _shift(run: OfflineRun) -> int | None:
    record = run.uploaded
    return None if record is None else record.shift
