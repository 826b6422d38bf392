"""A source of data in a package of the user's own; light, as all that declares keys."""

from typing import Any

from fluoroscope.config.data_keys import Data
from fluoroscope.errors import InputError
from fluoroscope.own_code import imported


def own_source(path: str) -> Any:
    """The module with `Keys` and `read` that an import path names.

    Raises:
        InputError: the path is not trusted or cannot be imported, or the module is no source.
    """
    module = imported("data.source", path)
    keys = getattr(module, "Keys", None)
    if not (isinstance(keys, type) and issubclass(keys, Data)):
        raise InputError(
            f"data.source={path} has no class Keys; write class Keys(Data) in it, a dataclass with "
            "the source's own keys"
        )
    if not callable(getattr(module, "read", None)):
        raise InputError(
            f"data.source={path} has no function read(root, labels, **keys); write one that "
            "returns a Collection"
        )
    return module
