"""The story of an export: open, trace, write, compare with the checkpoint, keep."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.export import ExportedProgram

from fluoroscope.atomic_write import write_atomically
from fluoroscope.commands import called
from fluoroscope.config.export import CARD, Job, sidecar
from fluoroscope.console import make_console
from fluoroscope.errors import InputError, plural
from fluoroscope.evaluation.card import make_card
from fluoroscope.evaluation.card_sources import read_evaluation
from fluoroscope.export import onnx_file, torch_file
from fluoroscope.export.agreement import LOG_ODDS, PROBABILITY, Agreement, compare
from fluoroscope.export.calibrated_network import CalibratedNetwork, Run, runner, trace
from fluoroscope.export.description import describe, uncalibrated
from fluoroscope.export.real_images import given_images, run_images
from fluoroscope.export.speed import Speed, measure
from fluoroscope.run.run_folder import write_json, write_text
from fluoroscope.trained.calibration import Calibration, calibrated
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import Trained, open_trained
from fluoroscope.trained.stored_calibration import load_calibration

BATCH = 16  # images of the comparison at a time


def main(job: Job) -> None:
    """Entry of `scripts/export.py`."""
    export(job)


def export(job: Job) -> dict[str, Any]:
    """Write the file and its JSON, if the file agrees with the checkpoint on real images.

    Returns:
        The content of the JSON.

    Raises:
        InputError: there is no calibration, there are too few images, the backbone cannot be
            exported, the file does not agree, or it cannot be written.
    """
    console = make_console()
    trained = open_trained(job.checkpoint, "cpu")  # on a GPU, TF32 would blur the comparison
    calibration = _calibration(trained)
    with console.status("reading images"):
        images = _images(job, trained)
        expected = _expected(trained, calibration, images)
    card = _card(job, trained, calibration) if job.card else ""
    network = CalibratedNetwork(trained.network, calibration).eval()
    about = describe(trained, calibration)
    if job.format == "onnx":
        about["opset"] = job.opset
    with console.status("tracing the network"):
        program = trace(network, trained.image_px)
    beside = sidecar(job.out)
    try:
        with write_atomically(job.out) as part, write_atomically(beside) as note:
            with console.status(f"writing {job.format}"):
                run = _write(job, program, about, part)
            with console.status("comparing with the checkpoint"):
                agreement = _check(run, images, expected, job)
            with console.status("measuring the speed"):
                speeds = measure(runner(network), run, images)
            facts = {"file": job.out.name, "format": job.format, "sha256": _sha256(part), **about}
            facts |= {"agreement": _about(agreement), "speed": _rates(speeds)}
            write_json(note, facts)
        if card:
            write_text(job.out.with_name(CARD), card)
    except OSError as error:
        reason = f"cannot write {job.out} or a file beside it ({error.strerror})"
        raise InputError(f"{reason}; choose another out") from error
    _print(console, job, agreement, speeds)
    for label in uncalibrated(calibration):
        console.print(f"note: {label} lacks a class on validation: it is not calibrated")
    for file in (beside, *([job.out.with_name(CARD)] if card else [])):
        console.print(f"wrote {file}", soft_wrap=True)
    return facts


def _calibration(trained: Trained) -> Calibration:
    calibration = load_calibration(trained)
    if calibration is None:
        raise InputError(
            f"{trained.place} has no calibration (calibration.json or predictions/val.csv), so its "
            f"probabilities cannot be calibrated; run {called('evaluate')} checkpoint=RUN first"
        )
    return calibration


def _card(job: Job, trained: Trained, calibration: Calibration) -> str:
    evaluation = None
    if job.evaluation is not None:
        evaluation = read_evaluation(job.evaluation, trained.fingerprint)
    return make_card(trained, calibration, evaluation)


def _images(job: Job, trained: Trained) -> np.ndarray:
    if job.images:
        return given_images(job.images, trained.image_px)
    return run_images(trained, job.root)


def _expected(trained: Trained, calibration: Calibration, images: np.ndarray) -> np.ndarray:
    """Calibrated probabilities of the checkpoint `[N, K]`, by the code that predicts."""
    batches: Iterable[Tensor] = torch.from_numpy(images).split(BATCH)
    logits = [logits for logits, _ in predict_batches(trained, batches)]
    return calibrated(calibration, torch.cat(logits).numpy())


def _write(job: Job, program: ExportedProgram, about: Mapping[str, Any], file: Path) -> Run:
    """Write the file, and open it."""
    if job.format == "onnx":
        onnx_file.write(program, about, job.opset, file)
        return onnx_file.open_file(file, torch.get_num_threads())
    torch_file.write(program, about, file)
    return torch_file.open_file(file)


def _check(run: Run, images: np.ndarray, expected: np.ndarray, job: Job) -> Agreement:
    """Compare batches of several images, and one image alone.

    Raises:
        InputError: the file does not agree with the checkpoint.
    """
    batches = np.split(images, range(BATCH, len(images), BATCH))
    found = np.concatenate([run(batch) for batch in (*batches, images[:1])])
    agreement = compare(np.concatenate([expected, expected[:1]]), found)
    if not agreement.holds:
        raise InputError(
            f"{job.format}: on real images the probabilities of the file differ from those of the "
            f"checkpoint by up to {agreement.probability:.1g} ({PROBABILITY:.0e} is allowed), "
            f"their log-odds by {agreement.log_odds:.1g} ({LOG_ODDS}); the file is not kept; try "
            f"another {'opset, or format=torch' if job.format == 'onnx' else 'format'}"
        )
    return agreement._replace(images=len(images))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _about(agreement: Agreement) -> dict[str, Any]:
    return {
        "images": agreement.images,
        "largest_difference": agreement.probability,
        "allowed": PROBABILITY,
        "largest_difference_of_log_odds": agreement.log_odds,
        "allowed_of_log_odds": LOG_ODDS,
    }


def _rates(speeds: Sequence[Speed]) -> dict[str, Any]:
    rows = [speed._asdict() for speed in speeds]
    return {"unit": "images per second", "threads": torch.get_num_threads(), "batches": rows}


def _print(console: Console, job: Job, agreement: Agreement, speeds: Sequence[Speed]) -> None:
    console.print(
        f"agreement: {agreement.images} images, largest difference {agreement.probability:.1g} "
        f"({PROBABILITY:.0e} allowed)"
    )
    runtime = {"onnx": "onnxruntime", "torch": "torch.export"}[job.format]
    for batch, before, after in speeds:
        console.print(
            f"speed, {plural(batch, 'image')} at a time: checkpoint {before:.3g}, {runtime} "
            f"{after:.3g} images/s ({after / before:.2f} x)"
        )
    size = job.out.stat().st_size / 2**20
    console.print(f"wrote {job.out} ({size:.1f} MiB)", soft_wrap=True)
