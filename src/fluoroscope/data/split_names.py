"""The words for splits, in the names of folders and in the cells of tables."""

import re

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": (
        *("val", "valid", "validate", "validation", "dev", "devel"),
        *("eval", "evaluation", "tune", "tuning"),
    ),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
}
SPLIT_NAMES = {word: split for split, words in _WORDS.items() for word in words}
# Words beside that of the split, as in `train_images` and `Test Data`.
_BESIDE = re.compile(
    r"images?|imgs?|films?|pictures?|photos?|xrays?|cxrs?|pngs?|jpe?gs?|dicoms?|dcm|data|dataset|"
    r"set|split|subset|folder"
)


def split_of(name: str) -> str | None:
    """The split that a folder or a cell of a table names: train, val or test; None for none.

    >>> [split_of(name) for name in ("Validation", "train_images", "hold-out", "testis")]
    ['val', 'train', 'test', None]
    """
    words = re.split(r"[\W_]+", name.strip().lower())
    joined = "".join(word for word in words if not _BESIDE.fullmatch(word))
    return SPLIT_NAMES.get(joined) or SPLIT_NAMES.get(re.sub("(?:set|data|images?)$", "", joined))
