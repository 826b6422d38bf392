"""Splits and classes by the names of folders; names that mean something else are refused."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fluoroscope.data.split_names import split_of
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.tree import Parts

NORMAL_NAMES = ("normal", "nofinding", "nofindings", "negative", "healthy")
# Names of folders that hold images of all classes, such as `images-224`; `0` and `1` are classes.
_NOT_A_CLASS = re.compile(
    r"(?=.*[a-z])(?:all|raw|cropped|resized|original|processed|cxrs?|(?:chest)?xrays?|images?|imgs?|"
    r"pictures?|photos?|films?|png|jpe?g|tiff?|bmp|dicom|dcm|npy|data|dataset|files?|labels?|\d+)+"
)
_FINDING = re.compile(
    r"pneumon|tubercul|covid|vir(?:al|us)|bacteri|opacit|effusion|nodule|mass|cancer|edema|atelect|"
    r"cardiomegal|abnormal|positive|disease|sick|infect"
)
MOST_CLASSES = 20
LEVELS = 4  # of folders below the root that are searched for class folders


class Placed(NamedTuple):
    """An image, with the split and the class that its folders name."""

    path: str
    split: str | None
    label: str


def place(images: Mapping[str, Parts]) -> list[Placed]:
    """Images in class folders, below split folders if there are any.

    Args:
        images: folders and name below the root, by path. A split folder in one of the same split,
            as of a zip file unpacked into a folder of its name, counts as one folder.
    """
    if _has_splits(images):
        return [
            Placed(path, split, inner[0])
            for path, parts in images.items()
            if (split := split_of(parts[0])) and len(inner := _within_split(parts)) > 1
        ]
    return [Placed(path, None, parts[0]) for path, parts in images.items() if len(parts) > 1]


def second_copy(images: Mapping[str, Parts]) -> list[str]:
    """Images beside split folders whose path, without its first folder, is that of another image.

    The zip of Kaggle's pneumonia set holds such a copy of itself.
    """
    if not _has_splits(images):
        return []
    known = {parts for parts in images.values() if split_of(parts[0])}
    return [
        path
        for path, parts in images.items()
        if not split_of(parts[0]) and any(parts[start:] in known for start in (1, 2))
    ]


def class_labels(root: Path, images: Mapping[str, Parts]) -> list[str]:
    """Label columns of the classes: with two classes, the one that is not normal or the second.

    Raises:
        InputError: for fewer than two classes, if all of them are normal, and for names of splits,
            of collections and of folders of images; names the root that may be meant.
    """
    classes = _classes(images)
    findings = [name for name in classes if not is_normal(name)]
    problem = _problem(images)
    if problem is not None:
        found = ", ".join(classes[:MOST_CLASSES]) or "none"
        raise InputError(
            f"data.root: {root} needs two or more class folders, such as normal and pneumonia, "
            f"with images; found {found}{problem}; {_advice(root, images)}"
        )
    return findings[1:] if len(classes) == len(findings) == 2 else findings


def beside_splits(images: Mapping[str, Parts]) -> list[str]:
    """Names of folders with images next to split folders."""
    names = _folders(images)
    others = [name for name in names if not split_of(name)]
    return others if len(others) < len(names) else []


def _has_splits(images: Mapping[str, Parts]) -> bool:
    return any(split_of(name) for name in _folders(images))


def _within_split(parts: Parts) -> Parts:
    repeated = len(parts) > 2 and split_of(parts[1]) == split_of(parts[0])
    return parts[2:] if repeated else parts[1:]


def _folders(images: Mapping[str, Parts]) -> list[str]:
    return sorted({parts[0] for parts in images.values() if len(parts) > 1})


def _classes(images: Mapping[str, Parts]) -> list[str]:
    return sorted({placed.label for placed in place(images)})


def is_normal(name: str) -> bool:
    """Whether a class or finding says that there is none, such as `No Finding`."""
    return re.sub("[^a-z]", "", name.lower()) in NORMAL_NAMES


def _problem(images: Mapping[str, Parts]) -> str | None:
    """Why the folders are not classes, in words; None if they are."""
    classes = _classes(images)
    for name in classes:
        if split_of(name):
            return f", but {name} looks like a split"
        if _NOT_A_CLASS.fullmatch(re.sub(r"[\W_]", "", name.lower())):
            return f", but {name} does not look like a finding"
    if problem := _inner_problem(images):
        return problem
    if len(classes) > 1 and not all(map(is_normal, classes)):
        return None
    return " in the split folders" if _has_splits(images) else ""


def _inner_problem(images: Mapping[str, Parts]) -> str:
    """What the folders in the class folders show: splits, or classes of several collections."""
    has_splits = _has_splits(images)
    inner: dict[str, set[str]] = defaultdict(set)
    for parts in images.values():
        below = (_within_split(parts) if split_of(parts[0]) else ()) if has_splits else parts
        if len(below) > 2:
            inner[below[0]].add(below[1])
    for name, names in sorted(inner.items()):
        for other in sorted(names):
            if split_of(other) or (is_normal(other) and not is_normal(name)):
                kind = "split" if split_of(other) else "class"
                return f", but {name} contains the folder {other}, which looks like a {kind}"
    common = Counter(other for names in inner.values() for other in names if _is_finding(other))
    shared = sorted(name for name, count in common.items() if count > 1)
    return f", which contain the same classes: {', '.join(shared)}" if len(shared) > 1 else ""


def _is_finding(name: str) -> bool:
    return is_normal(name) or _FINDING.search(name.lower()) is not None


def _advice(root: Path, images: Mapping[str, Parts]) -> str:
    if roots := _roots_below(root, images) or _roots_above(root, images):
        return f"set data.root={' or data.root='.join(map(str, roots[:3]))}"
    if "looks like a split" in (_problem(images) or ""):
        return "move the split folders above the class folders"
    return "move images into class folders, or name their labels in a table (data=table)"


def _roots_below(root: Path, images: Mapping[str, Parts]) -> list[Path]:
    """The uppermost folders, at most `LEVELS` down, that hold class folders."""
    children = _children(images.values())
    right: list[Parts] = []
    likely = [folder for folder in children if folder and _is_likely(folder, children)]
    for folder in sorted(likely, key=lambda parts: (len(parts), parts))[:MOST_CLASSES]:
        within = {p: n[len(folder) :] for p, n in images.items() if n[: len(folder)] == folder}
        is_new = not any(folder[: len(upper)] == upper for upper in right)
        if is_new and _problem(within) is None and not beside_splits(within):
            right.append(folder)
    return [root.joinpath(*folder) for folder in right]


def _children(names: Iterable[Parts]) -> dict[Parts, set[str]]:
    """The folders in each folder, to `LEVELS` below the root."""
    children: dict[Parts, set[str]] = defaultdict(set)
    for parts in names:
        for level in range(min(len(parts) - 1, LEVELS + 1)):
            children[parts[:level]].add(parts[level])
    return children


def _is_likely(folder: Parts, children: Mapping[Parts, set[str]]) -> bool:
    """Whether a folder holds a split or a normal class, or is the only one at each level."""
    inside = children[folder]
    if any(split_of(name) or _is_finding(name) for name in inside):
        return True
    alone = all(len(children[folder[:level]]) == 1 for level in range(len(folder)))
    return alone and 2 <= len(inside) <= MOST_CLASSES


def _roots_above(root: Path, images: Mapping[str, Parts]) -> list[Path]:
    """The folder, one or two levels up, of which the root is a class or a split."""
    for upper in (root.parent.parent, root.parent):
        name = root.relative_to(upper).parts[0] if upper != root else ""
        beside = _subfolders(upper)
        if split_of(name) and any(map(split_of, set(beside) - {name})):
            return [upper]
        if any(map(is_normal, beside)) and len(beside) > 1:
            return [upper]
    alone = bool(images) and not _folders(images)
    return [root.parent] if alone and 1 < len(beside) <= MOST_CLASSES else []


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError:
        return []
