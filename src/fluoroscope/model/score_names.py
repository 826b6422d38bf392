"""The key `scores`, checked before anything heavy is imported."""

from fluoroscope.errors import InputError, shown
from fluoroscope.own_code import check_findable, is_path, is_trusted

KEY = "scores"
# What `val/NAME` and `test/NAME` already mean.
TAKEN = (
    *("auroc", "auprc", "accuracy", "sensitivity", "specificity", "brier", "loss", "threshold"),
    *("auroc_low", "auroc_high", "interval_too_narrow", "images", "patients"),
)


def name_of(path: str) -> str:
    """The name under which a score is logged.

    >>> name_of("mypkg.scores.f2")
    'f2'
    """
    return path.rpartition(".")[2]


def check_scores(key: str, value: object) -> None:
    """Check a list of import paths whose last parts differ.

    Raises:
        InputError: names the entry and what to do.
    """
    if value is None:
        return
    paths = value if isinstance(value, list) else [value]
    names = [name_of(str(path)) for path in paths]
    for path, name in zip(paths, names, strict=True):
        if not is_path(path):
            raise InputError(
                f"{key} takes import paths of your own functions, such as [mypkg.scores.f2]; got "
                f"{shown(path)}"
            )
        if is_trusted(path):  # a stored one need not be here
            check_findable(key, path)
        if name in TAKEN or names.count(name) > 1:
            raise InputError(
                f"{key}: {name} would be the name of two numbers; give the function of {path} "
                "another name"
            )
