"""Account for every file below the root of a collection that was read."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.data.study_table import Collection, Decision, first_three
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.doubtful import is_drawing
from fluoroscope.sources.reading.tree import MAX_FILES, Tree, film_key, look_through

if TYPE_CHECKING:
    import pandas as pd

_LONG_NUMBER = re.compile(r"[0-9a-f._-]{8,}")  # `00000001_000`, a UID, a hash


def account(
    collection: Collection, root: str | Path | None, follow_links: bool = False
) -> Collection:
    """Look films up by their name, then count the files below the root that no row names.

    A film that is not on disk is looked up by its path without suffix and case: `a.png` of the
    table is `a.PNG`, `a.jpg` or `a` on disk. If there is none, and its name is a long number as in
    public collections, it is looked up in all folders by its name.

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
        others = Counter(kind for path, kind in tree.others.items() if path not in named)
        decisions.append(Decision("other files below data.root", dict(sorted(others.items()))))
    said = (decision for decision in decisions if any(decision.counts.values()))
    return collection._replace(decisions=(*collection.decisions, *said))


def _found_by_name(collection: Collection, tree: Tree) -> Collection:
    import pandas as pd

    paths = collection.table["path"]
    missing = paths[~paths.isin(tree.images)]
    missing = missing[[not os.path.exists(path) for path in missing]]
    if missing.empty:
        return collection
    free = sorted({*tree.images} - {*paths})
    found = _look_up(missing, free)
    films = [path for path in free if not is_drawing(tree.parts(path))]
    found = pd.concat([found, _by_name(missing.drop(found.index), paths, films)])
    paths = paths.copy()
    paths[found.index] = found
    policy = "images found under another suffix, case or folder than the table has"
    decision = Decision(policy, {"images": len(found)})
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


def _by_name(missing: pd.Series, rows: pd.Series, images: Sequence[str]) -> pd.Series:
    """As `_look_up`, by a name that is a long number, if only one row and one file have it."""
    import pandas as pd

    named = Counter(film_key(os.path.basename(path)) for path in rows)
    files: dict[str, list[str]] = defaultdict(list)
    for path in images:
        files[film_key(os.path.basename(path))].append(path)
    keys = [film_key(os.path.basename(path)) for path in missing]
    found = [
        files[key][0] if _LONG_NUMBER.search(key) and named[key] == len(files[key]) == 1 else None
        for key in keys
    ]
    return pd.Series(found, index=missing.index, dtype=object).dropna()
