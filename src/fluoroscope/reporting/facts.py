"""What was compared, in words."""

from typing import Any

from fluoroscope.reporting.comparison import Comparison
from fluoroscope.reporting.rows import plural_of

RULE = (
    "{name} counts as destructive here only if it blacks out images (some image closes every unit, "
    "the only event in which the backbone receives nothing), or if its dead share grows at a "
    "tuned learning rate and another activation scores better at the same order, initial spread "
    "and learning rate. Dead units alone are no damage: they cost the head width, not the backbone "
    "its gradient. A linear head (identity) is always in the comparison, since where it scores no "
    "worse, no nonlinearity was needed."
)


RULE_OF_OTHERS = (
    "Each is compared with {name} over the same seeds and patients. Better or worse needs an "
    "adjusted p below 0.05 and a 95 % interval on one side of zero."
)


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Terms and their texts: data, images, patients, backbone, seeds, epochs, runs."""
    told = dict(comparison.common)
    runs = sum(len(setting.runs) for setting in comparison.settings)
    names = dict.fromkeys(run.row for s in comparison.settings for run in s.runs)
    labels = told.pop("labels", [])
    shown = {
        "Data": f"{told.pop('source', 'unknown')}: {_text(labels)}",
        **_splits(told),
        "Image side": f"{told.pop('image_px', '?')} px",
        "Backbone": _backbone(told),
        "Head": f"{told.pop('width', 'various')} hidden units",
        "Epochs": _text(told.pop("epochs", "various")),
        "Seeds": _text(told.pop("seeds", [])),
        plural_of(comparison.by): f"{len(names)}: {', '.join(names)}",
        "Runs": f"{runs} in {len(comparison.settings)} setting"
        + ("s" if len(comparison.settings) > 1 else ""),
    }
    told.pop("runs", None)
    rest = {str(key).replace("_", " ").capitalize(): _text(value) for key, value in told.items()}
    return [*shown.items(), *rest.items()]


def _splits(told: dict[str, Any]) -> dict[str, str]:
    """`<split> images` and `<split> patients` as one line a split."""
    shown = {}
    for split in ("train", "val", "test"):
        images, patients = (told.pop(f"{split} {what}", None) for what in ("images", "patients"))
        if images is not None:
            name = {"train": "Training", "val": "Validation", "test": "Test"}[split]
            shown[name] = f"{images} images of {patients} patients"
    return shown


def _backbone(told: dict[str, Any]) -> str:
    name, weights = told.pop("backbone", "unknown"), told.pop("weights", None)
    frozen = told.pop("frozen", None)
    how = {True: "frozen", False: "trained with the head"}.get(frozen, "")
    source = {
        "package": "ImageNet weights of the package",
        "hub": "weights of the hub",
        "file": "weights of a file",
        "none": "no pretrained weights",
    }.get(str(weights), "")
    return ", ".join(part for part in (str(name), source, how) if part)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
