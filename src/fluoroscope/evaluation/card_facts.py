"""What is known about a trained model from the files of its run and of its evaluation.

Nothing here names a place or a person: of the configuration only the part that checkpoints hold is
read (`config.shareable`).
"""

import math
from contextlib import suppress

from fluoroscope import __version__
from fluoroscope.errors import plural
from fluoroscope.evaluation.card_scores import evaluation_facts, own_test
from fluoroscope.evaluation.card_sources import Sources
from fluoroscope.evaluation.wording import Values, point_name
from fluoroscope.run import closing
from fluoroscope.trained.calibration import Calibration, LabelCalibration

START = {
    "package": "ImageNet weights that come in a package",
    "hub": "pretrained weights from timm's hub",
    "file": "weights from a file",
    "none": "random weights",
}
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD", "lion": "Lion", "lamb": "LAMB"}  # by timm's name
LEVEL = {
    "all": "patients: no patient is in two splits",
    "some": "patients, but those of some images are unknown",
    "none": "images: patients are unknown",
}
POLICIES = 6  # that are listed


def facts(sources: Sources) -> dict[str, str]:
    """A short text per fact, without a full stop; unknown facts are left out."""
    found = {
        **_model(sources),
        **_data(sources),
        **_training(sources),
        **_calibration(sources),
        **_software(sources),
        **(evaluation_facts(sources.evaluation) if sources.evaluation else own_test(sources)),
    }
    return {name: text for name, text in found.items() if text}


def _model(sources: Sources) -> dict[str, str]:
    config, head = sources.config, sources.config["head"]
    backbone = config["backbone"]["name"]
    side = config["data"]["image_px"]
    units = f"{head['width']} {head['activation']} units"
    norm = "" if head["norm"] == "none" else f", {head['norm']} norm"
    layers = [f"dense{norm}, {units}", f"dense, {units}{norm}"][head["order"] != "norm-activation"]
    frozen = ", which stayed frozen" if config["backbone"]["frozen"] else ""
    return {
        "technology": f"deep learning: the network {backbone} of timm with a dense head of {units}",
        "model": f"{backbone}{frozen}, then {layers}, and one logit per label; "
        f"{sources.parameters:,} weights, fingerprint {sources.fingerprint}",
        "predictors": "one chest x-ray; no other data of the patient",
        "input": f"gray pixels, uint8, {side} x {side}; 0 is dark (air), 255 bright (bone)",
        "output": "per label the probability of the finding"
        + _thresholds(sources.calibration, sources.labels),
        "preprocessing": f"DICOM: modality LUT, VOI window, MONOCHROME1 inverted; more than 8 bits "
        f"scaled by the image's own range; longer side to {side} px, centred on black; scaled to "
        "[0, 1] and normalised inside the network",
    }


def _thresholds(calibration: Calibration | None, labels: tuple[str, ...]) -> str:
    if calibration is None:
        return ", not calibrated"
    points = calibration.labels[labels[0]].points
    return ", calibrated; thresholds " + ", ".join(map(point_name, points))


def _data(sources: Sources) -> dict[str, str]:
    data, run = sources.config["data"], sources.run
    source = run.get("source", data["source"])
    kind = " (synthetic x-rays)" if source == "phantom" else ""
    split = run.get("split_fingerprint", "")
    views = data["views"]
    return {
        "source": f"{source}{kind}" + (f", split fingerprint {split}" if split else ""),
        "eligibility": _policies(sources),
        "subset": f"views {', '.join(views)}" if views else "all views",
        "missing": "an unknown label counts neither in the loss nor in a score",
        "partition": _partition(data),
        "disjoint": LEVEL[run.get("patients_known", "all")] if run else "",
        "counts": _counts(run),
    }


def _policies(sources: Sources) -> str:
    """What reading the collection left out or changed, without the names of files and columns."""
    skipped = sources.run.get("skipped_images")
    found = [] if skipped is None else [f"{plural(skipped, 'unusable image')} left out"]
    for decision in sources.provenance.get("decisions", [])[:POLICIES]:
        total = sum(count for count in decision["counts"].values() if isinstance(count, int))
        found.append(f"{decision['policy']} ({total:,})")
    return "; ".join(found)


def _partition(data: Values) -> str:
    shares = f"{data['val_frac']:g} of the patients for validation, {data['test_frac']:g} for test"
    if data["fold"]:
        return f"fold {data['fold']} of the patients is tested"
    given = "the split of the collection, if it has one, else " if data["splits"] == "given" else ""
    return f"{given}by patient: {shares}"


def _counts(run: Values) -> str:
    parts = []
    for split in run.get("splits", []):
        patients = split["patients"]
        known = isinstance(patients, int)
        of = f" of {plural(patients, 'patient')}" if known else ""
        parts.append(f"{split['split']} {plural(split['images'], 'image')}{of}")
    return ", ".join(parts)


def _training(sources: Sources) -> dict[str, str]:
    config, run = sources.config, sources.run
    optimizer, loss, data = config["optimizer"], config["loss"], config["data"]
    augment = ", ".join(str(step["name"]) for step in data["augment"] or []) or "none"
    done = (
        f"{plural(run['epochs'], 'epoch')}, {plural(run['steps'], 'step')} of "
        f"{data['batch_size']} images per process; "
        if "steps" in run
        else ""
    )
    rate = "frozen" if config["backbone"]["frozen"] else f"{optimizer['backbone_lr']:g}"
    best, name = run.get("best_epoch"), str(optimizer.get("name", "adamw"))
    weight = loss["pos_weight"]
    return {
        "initial": f"backbone: {START.get(str(config['backbone']['weights']), 'unknown')}; head: "
        f"{head_init(config)}; seed {config['seed']}",
        "training": f"{done}{OPTIMIZERS.get(name, name)}, learning rate {optimizer['lr']:g} "
        f"(backbone {rate}), weight decay {optimizer['weight_decay']:g}; loss "
        f"{loss['name']}; augmentation {augment}",
        "selection": f"the epoch with the best validation AUROC: {best} of {run['epochs']}"
        if best
        else "",
        "imbalance": f"weight of positive labels {'1' if weight is None else weight}; sampling "
        f"{data['sampler']}",
        "ensemble": "none: one network",
    }


def head_init(config: Values) -> str:
    """The initialisation of the head in words."""
    return {"keras": "Glorot uniform, zero bias", "he": "He"}.get(
        config["head"]["init"], f"{config['head']['init']}'s default"
    )


def _calibration(sources: Sources) -> dict[str, str]:
    calibration = sources.calibration
    if calibration is None:
        return {}
    own = calibration.labels[sources.labels[0]]
    temperatures = ", ".join(
        f"{label} {fitted.temperature:.3g}{bounds(fitted)}"
        for label, fitted in calibration.labels.items()
    )
    poor = "predict.py flags input unlike the training's" if calibration.inputs else ""
    return {
        "calibration": "temperature per label, fitted on "
        f"{plural(own.images, 'validation image')}: {temperatures}",
        "poor_input": poor,
    }


def bounds(fitted: LabelCalibration) -> str:
    """` (1.4 to 2.6)`, the interval of the temperature; empty if it is not known."""
    low, high = fitted.temperature_bounds
    return "" if math.isnan(low) else f" ({low:.3g} to {high:.3g})"


def _software(sources: Sources) -> dict[str, str]:
    run, origin = sources.run, sources.provenance
    packages = [f"{name} {of}" for name, of in origin.get("packages", {}).items()]
    python = f"Python {origin['python']}" if "python" in origin else ""
    software = [f"fluoroscope {__version__}", python, *packages]
    commit = origin.get("commit")
    changed = " with uncommitted changes" if origin.get("uncommitted_changes") else ""
    device = str(origin.get("device", ""))
    time = f"; {run['total_s']:.0f} s in total" if "total_s" in run else ""
    census = {}
    with suppress(KeyError, TypeError):  # a run without diagnostics, or of an earlier version
        if run.get("units"):
            census["census"] = closing.units_sentence(dict(run)).rstrip(".")
            census["gradient"] = closing.gradient_sentence(dict(run)).rstrip(".")
    return {
        "software": ", ".join(part for part in software if part) if origin else "",
        "code": f"fluoroscope {__version__}" + (f", commit {commit}{changed}" if commit else ""),
        "hardware": device and f"{device}{time}",
        "started": str(origin.get("started", "")),
        **census,
    }
