"""The parts of the page that an evaluation has only if they were asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fluoroscope.errors import plural
from fluoroscope.evaluation import forests, page_tables
from fluoroscope.evaluation.wording import Values, known, number, point_name
from fluoroscope.reporting.drawings import Picture, picture
from fluoroscope.reporting.tables import Table


class Part(NamedTuple):
    """A table with its caption and, if there is one, its figure; `title` names the label."""

    title: str
    caption: str
    table: Table
    picture: Picture | None = None


class Section(NamedTuple):
    """A part of the page; of several parts the first is shown, the others can be opened.

    Attributes:
        id: on the page; unique.
        lines: findings, without full stops.
        notes: how to read the tables, as sentences.
    """

    id: str
    title: str
    lines: Sequence[str]
    notes: Sequence[str]
    parts: Sequence[Part]


def sections(content: Values) -> Iterator[Section]:
    """Those that the evaluation has, in the order of the page. Draws figures."""
    kinds: dict[str, Callable[[Values], Section]] = {
        "ensemble": _ensemble,
        "subgroups": _subgroups,
        "against": _against,
        "collection": _collection,
        "probes": _probes,
    }
    for name, section in kinds.items():
        if content[name] is not None:
            yield section(content)


def _ensemble(content: Values) -> Section:
    found = content["ensemble"]
    models = zip(found["fingerprints"], found["auroc"], strict=True)
    rows = [[f"weights {name}", number(known(score))] for name, score in models]
    count = len(rows)
    notes = [f"The operating points are {found['thresholds']}."]
    if found["left_out"]:
        notes.append(f"Left out, seen in a training: {plural(found['left_out'], 'image')}.")
    lines = [f"the scores are those of the mean probability of {count} calibrated models"]
    table = Table.of(["Model", "AUROC alone"], rows)
    part = Part("", "Each model alone on the same images (mean over labels)", table)
    return Section("ensemble", "Ensemble", lines, notes, [part])


def _subgroups(content: Values) -> Section:
    found = content["subgroups"]
    labels = dict.fromkeys(group["label"] for group in found["groups"])
    parts = [_groups(content, name, n) for n, name in enumerate(labels, start=1)]
    notes = [
        f"All gaps hold together with a probability of {100 * found['level']:g} %.",
        "A group has too few images if it has fewer than 10 images or patients of either class.",
        "Positive images of fewer than 10 patients are not counted, nor those of a further group "
        "whose number would give them away.",
    ]
    if found["point"]:
        point = point_name(found["point"])
        notes.append(f"Sensitivity and specificity are those of the operating point {point}.")
    unknown = [f"{name} of {plural(n, 'image')}" for name, n in found["unknown"].items() if n]
    if unknown:
        notes.append(f"Not known: {', '.join(unknown)}.")
    return Section("groups", "Subgroups", found["sentences"], notes, parts)


def _groups(content: Values, name: str | None, number: int) -> Part:
    """Figure and table of the groups of a label; None is the mean."""
    own = [group for group in content["subgroups"]["groups"] if group["label"] == name]
    title = "mean over labels" if name is None else name
    whole = content["macro"] if name is None else content["labels"][name]
    chart = forests.group_forest(own, whole["auroc"], title)
    drawn = picture(f"groups-{number}-forest", f"AUROC of groups, {title}", chart)
    caption = f"Groups of images, {title}; gap: difference to the compared group"
    return Part(title, caption, page_tables.groups(own), drawn)


def _against(content: Values) -> Section:
    found = content["against"]
    notes = [
        f"Both models scored {plural(found['images'], 'image')} that neither has seen in its "
        f"training. A difference of up to {found['margin']:g} does not matter; all intervals of "
        "differences hold together with a probability of 95 %.",
    ]
    if found["left_out"]:
        notes.append(f"Left out, seen by the other model: {plural(found['left_out'], 'image')}.")
    if found["labels_not_compared"]:
        notes.append(f"Not compared: {', '.join(found['labels_not_compared'])}.")
    caption = f"AUROC of this model and of the model with the weights {found['fingerprint']}"
    part = Part("", caption, page_tables.pairs(found["pairs"]))
    return Section("against", "Against another model", found["sentences"], notes, [part])


def _collection(content: Values) -> Section:
    found = content["collection"]
    names = page_tables.prevalences(found)
    parts = [Part("", "Share of positive images here and in the model's validation", names)]
    notes, again = [], found["recalibration"]
    if again is not None:
        fitted = page_tables.recalibrated(again["labels"])
        caption = "Quality of the probabilities before and after recalibration on this collection"
        parts.insert(0, Part("Recalibration", caption, fitted))
        notes.append(
            f"Recalibration used {plural(again['images'], 'image')} of "
            f"{plural(again['patients'], 'patient')} of this collection, {100 * again['share']:g} "
            "% of its patients. These images are in no score of this page."
        )
    return Section("collection", "Another collection", found["sentences"], notes, parts)


def _probes(content: Values) -> Section:
    found = content["probes"]
    labels = sorted(found["labels"], key=lambda name: name != "macro")  # the mean first
    parts = [_label_probes(name, found["labels"][name]) for name in labels]
    notes = [
        found["lungs_words"],
        "Change: AUROC on the changed images minus that on the unchanged ones; all intervals of "
        "changes hold together with a probability of 95 %.",
    ]
    lines = [found["summary"], *found["called_out"]]
    return Section("probes", "Shortcut probes", lines, notes, [p for p in parts if p.table.rows])


def _label_probes(name: str, label: Values) -> Part:
    title = "mean over labels" if name == "macro" else name
    return Part(title, f"AUROC on changed images, {title}", page_tables.probes(label))
