"""Refuse pictures below the root that may not be films, or that may be a film for the second time.

`data.exclude` decides: the refusals name the patterns that leave such pictures out.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fluoroscope.data.study_table import first_three
from fluoroscope.errors import InputError, plural
from fluoroscope.sources.reading.tree import Parts, Tree, film_key

# Names of drawings over a film: `leftMask`, `1_overlay`; `Maskell` is none.
_DRAWINGS = re.compile(
    r"(?:mask|overlay|heat.?map|contour|annotation|ground.?truth|saliency|grad.?cam)(?:s|ed)?"
    r"(?![a-z])|^(?:seg|segmentations?|gt|rois?|labels?)$"
)


def refuse_doubtful(
    root: Path, tree: Tree, images: Mapping[str, Parts], exclude: Sequence[str]
) -> None:
    """Refuse formats that are not read, masks and other drawings, and two files of one film.

    Args:
        root: directory of the tree.
        images: folders and name below the root of each image, by path.
        exclude: the patterns that are set.

    Raises:
        InputError: there are such files; names the patterns that leave them out.
    """
    _refuse_formats(root, tree, exclude)
    _refuse_drawings(root, images.values(), exclude)
    _refuse_twins(root, images.values(), exclude)


def is_drawing(parts: Parts) -> bool:
    """Whether an image is a mask or another drawing by its name or that of a folder."""
    return _drawing(parts) is not None


def exclude_key(patterns: Iterable[str], so_far: Sequence[str] = ()) -> str:
    """The key as a user types it.

    >>> print(exclude_key(["lung masks", "*.dcm"]))
    'data.exclude=["lung masks",*.dcm]'
    """
    words = dict.fromkeys([*so_far, *patterns])
    quoted = [w if re.fullmatch(r"[\w.*@?-]+", w) else '"' + w + '"' for w in words]
    return f"'data.exclude=[{','.join(quoted)}]'"


def _refuse_formats(root: Path, tree: Tree, exclude: Sequence[str]) -> None:
    from fluoroscope.files.file_kinds import NOT_READ

    found = Counter(kind for kind in tree.others.values() if kind in NOT_READ)
    if found:
        files = [os.path.basename(p) for p, kind in tree.others.items() if kind in NOT_READ]
        suffixes = sorted({os.path.splitext(name)[1].lower() for name in files} - {""})
        patterns = [f"*{suffix}" for suffix in suffixes] or files[:3]
        counts = " and ".join(plural(count, f"{kind} file") for kind, count in found.items())
        raise InputError(
            f"data.root: {root} contains {counts}, a format that is not read; save them as PNG, or "
            f"leave them out with {exclude_key(patterns[:3], exclude)}"
        )


def _refuse_drawings(root: Path, images: Iterable[Parts], exclude: Sequence[str]) -> None:
    counts: Counter[str] = Counter()
    for parts in images:
        if pattern := _drawing(parts):
            counts[pattern] += 1
    if counts:
        raise InputError(
            f"data.root: {root} contains {plural(counts.total(), 'image')} that by their names "
            f"({first_three(counts)}) are masks or other drawings, not films; leave them out with "
            f"{exclude_key(counts, exclude)}, or rename them if they are films"
        )


def _drawing(parts: Parts) -> str | None:
    """A pattern for the folder or file by whose name an image is a mask or another drawing."""
    for folder in parts[:-1]:
        if _DRAWINGS.search(folder.lower()):
            return folder.lower()
    found = _DRAWINGS.search(os.path.splitext(parts[-1].lower())[0])
    return f"*{found.group()}*" if found else None


def _refuse_twins(root: Path, images: Iterable[Parts], exclude: Sequence[str]) -> None:
    films: dict[Parts, list[Parts]] = defaultdict(list)
    for parts in images:
        films[(*parts[:-1], film_key(parts[-1]))].append(parts)
    twins = [files for files in films.values() if len(files) > 1]
    if not twins:
        return
    suffixes = Counter(os.path.splitext(file[-1].lower())[1] for files in twins for file in files)
    rarest = min((s for s in suffixes if s), key=lambda s: (suffixes[s], s), default="")
    advice = f"leave one kind out, such as {exclude_key([f'*{rarest}'], exclude)}"
    raise InputError(
        f"data.root: {root} contains {plural(len(twins), 'film')} in several files of one name: "
        f"{first_three(sorted('/'.join(file) for file in twins[0]))}; "
        f"{advice if len(suffixes) > 1 else 'keep one of them'}"
    )
