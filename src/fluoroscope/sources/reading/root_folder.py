"""The directory of a data set."""

from pathlib import Path

from fluoroscope.errors import InputError


def given_root(root: str | Path | None) -> Path:
    """Absolute.

    Raises:
        InputError: where none is given.
    """
    if not root:
        raise InputError("data.root is not set: name the data set's directory, data.root=DIR")
    return Path(root).expanduser().absolute()


def existing_root(root: str | Path | None) -> Path:
    """As `given_root`.

    Raises:
        InputError: also if it is not a directory.
    """
    directory = given_root(root)
    if not directory.is_dir():
        raise InputError(f"data.root: there is no directory {directory}")
    return directory
