"""The keys of `conf/export.yaml`, checked before anything heavy is imported."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import sources
from fluoroscope.config import schema
from fluoroscope.config.place_checks import check_exists, check_writable, find_checkpoint
from fluoroscope.config.schema import number, one_of, plain
from fluoroscope.errors import InputError, check_file

CARD = "model_card.md"
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}  # by format, the default name
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSETS = 18, 25  # the first and the last that PyTorch writes and onnxruntime reads


@dataclass
class ExportData:
    root: str | None = MISSING


@dataclass
class Export:
    """`conf/export.yaml`."""

    checkpoint: str = MISSING
    format: str = one_of(*FILES)
    out: str | None = MISSING
    opset: int = number(*OPSETS)
    images: Any = MISSING
    card: bool = MISSING
    evaluation: str | None = MISSING
    data: ExportData = field(default_factory=ExportData)


class Job(NamedTuple):
    """A file to write.

    Attributes:
        checkpoint: run folder or checkpoint.
        out: the file.
        images: files and folders of images to compare on; empty: those of the run.
        root: `data.root`, if the run's images were moved.
        card: whether to write a model card.
        evaluation: folder of the evaluation that the card shows.
    """

    checkpoint: Path
    format: str
    out: Path
    opset: int
    images: list[Path]
    root: str | None
    card: bool = False
    evaluation: Path | None = None


def check_export(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """Convert a composed `conf/export.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also for a place that does not exist or cannot be written, and packages that
            are not installed.
    """
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise InputError("checkpoint is not set; add checkpoint=RUN, a run folder or a checkpoint")
    typed: Export = schema.check(cfg, Export())
    place = Path(typed.checkpoint)
    find_checkpoint(place)
    if typed.format == "onnx":
        _check_packages()
    out = _out(place, typed.format) if typed.out is None else Path(typed.out)
    check_writable("out", out)
    _check_replaced(out)
    if typed.card:
        _check_no_card(out.with_name(CARD))
    root = typed.data.root
    if root is not None:
        sources.existing_root(root)
    images = _images(plain(typed.images))
    shown = _evaluation(typed.evaluation, typed.card)
    return Job(place, typed.format, out, typed.opset, images, root, typed.card, shown)


def _evaluation(given: str | None, card: bool) -> Path | None:
    if given is None:
        return None
    if not card:
        raise InputError("evaluation is for the model card alone; add card=true, or remove it")
    check_file("evaluation", Path(given) / "evaluation.json")
    return Path(given)


def _out(place: Path, kind: str) -> Path:
    return (place if place.is_dir() else place.parent) / FILES[kind]


def _check_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(
            f"format=onnx needs {' and '.join(missing)}; install fluoroscope[export] "
            "(pip install -e '.[export]'), or use format=torch"
        )


def _check_replaced(out: Path) -> None:
    """Refuse to replace any file but an earlier export."""
    existing = [file for file in (out, sidecar(out)) if file.exists()]
    if existing and not _is_export(out):
        raise InputError(f"out: {existing[0]} exists and is not an earlier export; choose another")


def _check_no_card(file: Path) -> None:
    """Refuse to replace a model card, which its authors may have completed."""
    if file.exists():
        raise InputError(
            f"card: {file} exists, and its authors may have completed it; move it away, or remove "
            "card=true"
        )


def sidecar(out: Path) -> Path:
    """The JSON file beside an exported file."""
    return out.with_name(f"{out.name}.json")


def _is_export(out: Path) -> bool:
    """Whether a file was written by this command, as the JSON beside it says."""
    try:
        facts = json.loads(sidecar(out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("file") == out.name and "agreement" in facts


def _images(given: Any) -> list[Path]:
    if given is None:
        return []
    places = given if isinstance(given, list) else [given]
    if not places or not all(isinstance(place, str) and place for place in places):
        raise InputError(f"images must be a folder, or a list of files and folders; got {given}")
    for place in places:
        check_exists("images", place)
    return [Path(place) for place in places]
