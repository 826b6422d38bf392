"""Account for every file below the root of a collection that was read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.data.study_table import Collection, Decision, first_three
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.tree import MAX_FILES, Tree, film_key, look_through

if TYPE_CHECKING:
    import pandas as pd


def account(
    collection: Collection, root: str | Path | None, follow_links: bool = False
) -> Collection:
    """Look films up by their name, then count the files below the root that no row names.

    A film that is not on disk is looked up by its path without suffix and case: `a.png` of the
    table is `a.PNG`, `a.jpg` or `a` on disk.

    Args:
        collection: as its source read it, with all rows that its table has on disk or not.
        root: `data.root`, below which the files are counted; None means that of the collection.
        follow_links: whether links may lead out of the root.

    Raises:
        InputError: a film that is not on disk may be either of two files.
    """
    directory = Path(root).expanduser() if root and not collection.written else collection.root
    tree = look_through(directory, follow_links=follow_links, most=MAX_FILES)
    collection = _found_by_name(collection, tree)
    named = {*collection.table["path"], *collection.aside}
    unnamed = sum(path not in named for path in tree.images)
    decisions = [Decision("images that no row of the table names: left out", {"images": unnamed})]
    if not collection.written:
        others = dict(sorted((tree.others + tree.helpers).items()))
        decisions.append(Decision("other files below data.root", others))
    said = (decision for decision in decisions if any(decision.counts.values()))
    return collection._replace(decisions=(*collection.decisions, *said))


def _found_by_name(collection: Collection, tree: Tree) -> Collection:
    paths = collection.table["path"]
    missing = paths[~paths.isin(tree.images)]
    missing = missing[[not os.path.exists(path) for path in missing]]
    if missing.empty:
        return collection
    found = _look_up(missing, sorted({*tree.images} - {*paths}))
    paths = paths.copy()
    paths[found.index] = found
    decision = Decision("images found under another suffix or case", {"images": len(found)})
    said = (decision,) if len(found) else ()
    return collection._replace(
        table=collection.table.assign(path=paths), decisions=(*collection.decisions, *said)
    )


def _look_up(missing: pd.Series, images: Sequence[str]) -> pd.Series:
    """The file of each missing film that has one; the index is that of `missing`."""
    import pandas as pd

    by_key: dict[str, list[str]] = defaultdict(list)
    for path in images:
        by_key[film_key(path)].append(path)
    candidates = [by_key.get(film_key(path), []) for path in missing]
    several = [files for files in candidates if len(files) > 1]
    if several:
        raise InputError(
            f"{len(several)} images of the table are not on disk under their name, but under "
            f"several others: {first_three(several[0])}; keep one file per image"
        )
    found = [files[0] if files else None for files in candidates]
    return pd.Series(found, index=missing.index, dtype=object).dropna()
