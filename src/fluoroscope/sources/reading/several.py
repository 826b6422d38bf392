"""Several prepared copies as one collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoroscope import sources
from fluoroscope.commands import called
from fluoroscope.data.policies import add_up
from fluoroscope.data.study_table import (
    COLLECTION,
    NOBODY,
    PEOPLE,
    SEVERAL,
    TABLE_COLUMNS,
    Collection,
    Decision,
    UnknownLabelError,
    keep_views,
    label_columns,
    people_columns,
    select_labels,
)
from fluoroscope.errors import InputError, nearest
from fluoroscope.sources.findings import Name, finding, names_of, plain
from fluoroscope.sources.reading.spelling import origin_of, read_spelled

if TYPE_CHECKING:
    import pandas as pd


def load_several(
    source: str,
    roots: Sequence[str | Path],
    labels: Sequence[str] | None,
    views: Sequence[str] | None,
    label_map: Mapping[str, str],
    **keys: Any,
) -> Collection:
    """The rows of all copies; a label is NaN for the images of a copy that does not have it.

    Labels have the names of `sources.findings`. A patient is known by register and number: the same
    number in two copies of one register is one patient. The column `collection` names the source
    of each row, with a number if two copies have the same source.

    Args:
        source: "prepared".
        roots: directories of the copies.
        labels, views, label_map: as in `sources.load`.
        keys: other arguments of `sources.load`.

    Raises:
        InputError: another source; a copy that is listed twice or cannot be read; a copy with two
            labels for one finding.
    """
    if source != "prepared":
        raise InputError(
            f"data.root must be one directory with data={source}; to use several collections, copy "
            f"each with {called('prepare')} and list the copies with data=prepared"
        )
    same = Counter(Path(root).expanduser().resolve() for root in roots)
    if not roots or max(same.values()) > 1:
        raise InputError("data.root must list one or more copies, each once")
    parts = [sources.load(source, root, **keys) for root in roots]
    names = [_names(part, root, label_map) for part, root in zip(parts, roots, strict=True)]
    if stray := sorted(set(label_map).difference(*names)):
        known = list(dict.fromkeys(label for part in names for label in part))
        raise InputError(
            f"data.label_map: no copy has a label {stray[0]!r}{nearest(stray[0], known)}; their "
            f"labels are {', '.join(known)}"
        )
    join = partial(_join, parts, _renamed(names, roots))
    try:
        collection = join(labels=labels)
    except UnknownLabelError as unknown:
        collection = read_spelled(join, labels, unknown, None, {})
    return collection if views is None else keep_views(collection, views)


def _names(part: Collection, root: str | Path, label_map: Mapping[str, str]) -> dict[str, Name]:
    return names_of(label_columns(part.table), *origin_of("prepared", root, label_map))


def _renamed(
    names: Sequence[Mapping[str, Name]], roots: Sequence[str | Path]
) -> list[dict[str, str]]:
    """For each copy, the label of the joined table by the copy's own label."""
    spelt: dict[str, str] = {}  # a name without a finding keeps its first spelling
    renamed = []
    for part, root in zip(names, roots, strict=True):
        found = {label: finding(name) for label, name in part.items()}
        for label, meant in found.items():
            own = part[label].spelling
            spelt.setdefault(meant, own if meant == plain(own) else meant)
        twice = [meant for meant, count in Counter(found.values()).items() if count > 1]
        if twice:
            both = [label for label, meant in found.items() if meant == twice[0]]
            raise InputError(
                f"data.root: the copy in {root} has {len(both)} labels for {spelt[twice[0]]} "
                f"({', '.join(both)}); tell them apart in data.label_map, or copy it again with "
                "one of them in data.labels"
            )
        renamed.append({label: spelt[meant] for label, meant in found.items()})
    return renamed


def _join(
    parts: Sequence[Collection],
    renamed: Sequence[Mapping[str, str]],
    labels: Sequence[str] | None,
) -> Collection:
    import pandas as pd

    available = dict.fromkeys(label for names in renamed for label in names.values())
    chosen = select_labels(available, labels)
    titles = _titles([part.source or "prepared" for part in parts])
    frames = [_frame(*part) for part in zip(parts, titles, renamed, strict=True)]
    table = pd.concat(frames, ignore_index=True)
    people = {name: PEOPLE[name] for frame in frames for name in people_columns(frame)}
    for label in chosen:
        if label in (COLLECTION, *people):
            raise InputError(f"a label of several collections cannot be called {label!r}")
    table = table.reindex(columns=[*TABLE_COLUMNS, *people, COLLECTION, *chosen])
    shared = table.groupby("patient")[COLLECTION].nunique().gt(1).sum()
    decisions = add_up(decision for part in parts for decision in part.decisions)
    if shared:
        decisions += (Decision("patients in several collections: kept", {"patients": int(shared)}),)
    known = any(part.patients_of for part in parts)
    return Collection(
        table.astype(people),
        parts[0].root,
        decisions,
        SEVERAL if known else NOBODY,
        " + ".join(titles),
    )


def _titles(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs several times.

    >>> _titles(["nih14", "table", "table"])
    ['nih14', 'table 1', 'table 2']
    """
    counts, seen = Counter(names), Counter[str]()
    titles = []
    for name in names:
        seen[name] += 1
        titles.append(f"{name} {seen[name]}" if counts[name] > 1 else name)
    return titles


def _frame(part: Collection, title: str, renamed: Mapping[str, str]) -> pd.DataFrame:
    # A patient of no register belongs to this collection alone.
    register = f"{part.patients_of}\t" if part.patients_of else f"{NOBODY}\t{title}\t"
    patients = register + part.table["patient"].astype(str)
    return part.table.assign(patient=patients, **{COLLECTION: title}).rename(columns=dict(renamed))
