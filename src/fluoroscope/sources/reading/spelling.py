"""Read a collection with labels in the user's spelling, which may be that of another source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from fluoroscope.data.study_table import UnknownLabelError, label_columns
from fluoroscope.errors import InputError, nearest
from fluoroscope.sources.findings import Name, names_of, pair, reasons

if TYPE_CHECKING:
    from fluoroscope.data.study_table import Collection

    Read = Callable[..., Collection]  # with the argument `labels`

NO_LABEL = "\0"  # no collection has a label of this name


def read_spelled(
    read: Read,
    labels: Sequence[str] | None,
    refusal: UnknownLabelError | None,
    source: str | None,
    label_map: Mapping[str, str],
) -> Collection:
    """The collection with its labels for the findings that the user named.

    Args:
        read: reads the collection with labels in its own spelling.
        labels: `data.labels`; None reads the default ones.
        refusal: of these labels by `read`; None if they were not tried.
        source: whose spelling the collection has; None if it is not known.
        label_map: the finding of each label of the collection that has a name of its own.

    Raises:
        UnknownLabelError: the collection has no label for a finding.
        InputError: it has several for one; `label_map` names a label that it lacks.
    """
    available = labels_of(read) if refusal is None else list(refusal.available)
    check_map(label_map, available)
    if labels is None:
        return read(labels=None)
    spelt = {label: label for label in labels if label in available}
    others = {label: Name(label) for label in labels if label not in spelt}
    spelt |= pair(others, names_of(available, source, label_map))
    if missing := [label for label in labels if label not in spelt]:
        _refuse(read, missing, refusal if missing == list(labels) else None)
    return read(labels=list(dict.fromkeys(spelt[label] for label in labels)))


def origin_of(
    source: str, root: Any, label_map: Mapping[str, str]
) -> tuple[str | None, Mapping[str, str]]:
    """The source whose spelling the labels have, and the findings of labels with other names.

    Args:
        source, root, label_map: keys of `data`.
    """
    if source != "prepared":
        return source, label_map
    from fluoroscope.sources.prepared import origin

    copied, known = origin(root)
    return copied, {**known, **label_map}


def check_map(label_map: Mapping[str, str], available: Sequence[str]) -> None:
    """Refuse a label of `data.label_map` that the collection lacks."""
    for label in label_map:
        if label not in available:
            raise InputError(
                f"data.label_map: the collection has no label {label!r}"
                f"{nearest(label, available)}; it has {listed(available)}"
            )


def labels_of(read: Read) -> list[str]:
    """All labels of a collection in its own spelling: those that its refusal of a label lists."""
    try:
        return label_columns(read(labels=[NO_LABEL]).table)  # a source that chooses no labels
    except UnknownLabelError as unknown:
        return list(unknown.available)


def listed(labels: Sequence[str], most: int = 30) -> str:
    """The first labels of a collection, and the number of the others."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def _refuse(read: Read, missing: Sequence[str], refusal: UnknownLabelError | None) -> NoReturn:
    """Refuse labels without a counterpart in the words of the source, with the known reasons."""
    try:
        if refusal is None:
            read(labels=missing)
    except UnknownLabelError as unknown:
        refusal = unknown
    assert refusal is not None, "a source refuses labels that it does not know"
    raise UnknownLabelError(f"{refusal}{reasons(missing)}", refusal.available) from None
