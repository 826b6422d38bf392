"""The story of a prediction: list the images, predict them in batches, write one row for each."""

import errno
import hashlib
import json
import os
import sys
from collections import Counter
from math import isnan
from pathlib import Path

from fluoroscope import __version__
from fluoroscope.atomic_write import only_writer
from fluoroscope.commands import called
from fluoroscope.config.predict import Predict
from fluoroscope.console import Progress, short_path
from fluoroscope.errors import NO_ROOM, UNWRITABLE, InputError, plural
from fluoroscope.prediction.image_list import ImageList, list_images
from fluoroscope.prediction.journal import Journal
from fluoroscope.prediction.predictor import Predictor, load
from fluoroscope.prediction.rows import SEPARATOR, UNCALIBRATED, columns, row
from fluoroscope.trained.film_loader import film_loader
from fluoroscope.trained.inputs import FLAGS

FAILED = 1  # the exit code of `strict` if a file cannot be read


def main(cfg: Predict) -> None:
    """Entry of `scripts/predict.py`."""
    out = Path(cfg.out)
    predictor = load(cfg.checkpoint, cfg.point, cfg.trainer.accelerator)
    images = list_images(Path(cfg.images), cfg.path_column)
    _print_start(predictor, images)
    lock = out.with_name(f".{out.name}.lock")
    busy = f"out: another process writes {out}; wait for it, or choose another file"
    try:
        with only_writer(lock, busy):
            counts = write_predictions(predictor, images, cfg)
    except OSError as error:
        if error.errno not in {*NO_ROOM, *UNWRITABLE, errno.EACCES, errno.EPERM}:
            raise
        raise InputError(
            f"out: cannot write {error.filename or out} ({error.strerror}); make room or choose "
            "another file, and repeat the command"
        ) from error
    _print_end(counts, out)
    if counts["unreadable"] and cfg.strict:
        raise SystemExit(FAILED)


def write_predictions(predictor: Predictor, images: ImageList, cfg: Predict) -> Counter[str]:
    """Predict the images that have no row yet, and write the table.

    Returns:
        The number of images, of those that are `unreadable` or `flagged`, and of each flag.

    Raises:
        InputError: a loader process ended.
        OSError: the table cannot be written.
    """
    names = columns(predictor.labels, images.root is None)
    size = cfg.data.batch_size
    journal = Journal(Path(cfg.out), job_of(predictor, images), names, size)
    if journal.done:
        print(f"continuing after {plural(journal.done, 'image')}")
    try:
        _predict(predictor, images, journal, cfg)
        counts = _count(journal)
        journal.finish()
    except BaseException:
        if journal.done:
            kept = plural(journal.done, "row")
            print(f"{kept} kept; repeat the command to continue", file=sys.stderr)
        raise
    finally:
        journal.close()
    return counts


def _predict(predictor: Predictor, images: ImageList, journal: Journal, cfg: Predict) -> None:
    left = images.paths[journal.done :]
    if not left:
        return
    keys = cfg.data
    is_calibrated = predictor.calibration is not None
    loader = film_loader(left, predictor.trained.image_px, keys.batch_size, keys.num_workers)
    with Progress("predicting images", len(left)) as progress:
        for films in loader:
            found = predictor.predict_films(films)
            first = journal.done
            names = [images.name(first + i) for i in range(len(found))]
            rows = zip(names, found, strict=True)
            journal.write([row(*each, is_calibrated) for each in rows])
            progress.advance(len(found))


def job_of(predictor: Predictor, images: ImageList) -> str:
    """16 hexadecimal digits that differ if the rows of the table may differ."""
    known, trained = predictor.calibration, predictor.trained
    temperatures = known and [label.temperature for label in known.labels.values()]
    facts = [__version__, trained.fingerprint, images.root is None, temperatures]
    facts += [predictor.thresholds, predictor.inputs.limits]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for path in images.paths:
        digest.update(f"{path}\0{_version(path)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _version(path: str) -> str:
    """Size and time of a file, which change with its content; empty if it cannot be opened."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a table's cell holds a null character
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _count(journal: Journal) -> Counter[str]:
    counts = Counter[str]()
    for record in journal.records():
        named = record[-2].split(SEPARATOR) if record[-2] else []
        flags = [flag for flag in named if flag != UNCALIBRATED]  # it is not about the film
        counts.update(["images", *flags])
        counts.update({"flagged": bool(flags), "unreadable": bool(record[-1])})
    return counts


def _print_start(predictor: Predictor, images: ImageList) -> None:
    place = predictor.trained.device.type
    print(f"{plural(len(images.paths), 'image')} to predict on {place}, point {predictor.point}")
    if images.others:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(images.others.items()))
        print(f"left out {plural(sum(images.others.values()), 'other file')}: {kinds}")
    if predictor.calibration is None:
        print(f"uncalibrated: the run has no calibration; run {called('evaluate')} checkpoint=RUN")
    elif not predictor.is_measured:
        print(
            "input not compared with the training's: the run has no input statistics; run "
            f"{called('evaluate')} checkpoint=RUN"
        )
    unknown = [label for label, threshold in predictor.thresholds.items() if isnan(threshold)]
    if unknown:
        print(f"no decisions for {', '.join(unknown)}: validation lacked a class")


def _print_end(counts: Counter[str], out: Path) -> None:
    flags = [f"{name} {counts[name]:,}" for name in FLAGS if counts[name]]
    print(
        f"{plural(counts['images'], 'image')}: {counts['unreadable']:,} cannot be read, "
        f"{counts['flagged']:,} with flags" + (f" ({', '.join(flags)})" if flags else "")
    )
    print(f"wrote {short_path(out)}")
