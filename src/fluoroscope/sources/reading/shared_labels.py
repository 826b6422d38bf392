"""Read another collection with the labels that a model knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError
from fluoroscope.sources import load_section
from fluoroscope.sources.findings import Name, names_of, pair, reasons
from fluoroscope.sources.reading.read_studies import read_studies
from fluoroscope.sources.reading.spelling import check_map, labels_of, listed, origin_of


def read_shared(
    data: Mapping[str, Any],
    labels: Sequence[str],
    source: str | None,
    label_map: Mapping[str, str],
    split: bool | str = True,
) -> tuple[Studies, dict[str, str]]:
    """As `read_studies`, with the labels of a model, and their names in the collection.

    A label that the collection lacks is unknown for all images, and is not among the names. The
    fingerprint is that of the collection's own spelling.

    Args:
        data: the data section of a configuration.
        labels: of the model.
        source: whose spelling the labels have; None if it is not known.
        label_map: `data.label_map` of the training.

    Raises:
        InputError: the collection has none of the labels, or two for one of them.
    """
    available = available_labels(data)
    spelling = pair(names_of(labels, source, label_map), available)
    if not spelling:
        raise InputError(
            f"the model knows {', '.join(labels)}, and data={data['source']} has none of them; it "
            f"has {listed(list(available))}{reasons([*labels, *available])}; if one of them, NAME, "
            f"means the same, add 'data.label_map={{NAME: {labels[0]}}}'"
        )
    chosen = list(dict.fromkeys(spelling.values()))
    studies = read_studies({**data, "labels": chosen}, split)
    table = studies.table.drop(columns=chosen)
    for label in labels:
        known = label in spelling
        table[label] = studies.table[spelling[label]] if known else float("nan")
    return studies._replace(table=table, labels=list(labels)), spelling


def available_labels(data: Mapping[str, Any]) -> dict[str, Name]:
    """All labels of a collection, with the names that they stand for.

    Args:
        data: the data section of a configuration.
    """
    source, root, given = data["source"], data["root"], data["label_map"]
    if isinstance(root, list | tuple):  # their names are those of the findings already
        return names_of(labels_of(lambda labels: load_section({**data, "labels": labels})), None)
    bare = {**data, "label_map": {}}
    labels = labels_of(lambda labels: load_section({**bare, "labels": labels}))
    check_map(given, labels)
    return names_of(labels, *origin_of(source, root, given))
