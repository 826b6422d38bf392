"""Code of the user's own, named by an import path such as `mypkg.acts.Snake`.

An import runs the module. A name can come from a checkpoint or a run folder of a stranger, so
`imported` refuses every name that nobody trusts: only `trusting` adds names, and its callers are
today's command (what it names itself, and `trust=[mypkg]`) and `fluoroscope.load(RUN, trust=...)`.
A package is trusted with what it defines, and not with what it imports: `mypkg.acts.torch.load`
would open a file of the stranger's choice.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from fluoroscope.errors import InputError, first_sentence, nearest

_TRUSTED: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


def is_path(name: object) -> bool:
    """Whether a name is that of the user's own code, and not of a table: it has a dot.

    >>> is_path("mypkg.acts.Snake"), is_path("relu")
    (True, False)
    """
    return isinstance(name, str) and "." in name


@contextmanager
def trusting(names: str | Iterable[str]) -> Iterator[None]:
    """Allow the import of these packages, modules or objects, and of what they define."""
    listed = [names] if isinstance(names, str) else names
    token = _TRUSTED.set(_TRUSTED.get() | frozenset(listed))
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def trusted_names() -> frozenset[str]:
    """The names that are trusted here, to be trusted in another process too."""
    return _TRUSTED.get()


def is_trusted(path: str) -> bool:
    """Whether the path or its beginning is trusted: `my` trusts `my.acts`, but not `mypkg.acts`."""
    parts = path.split(".")
    return any(name.split(".") == parts[: name.count(".") + 1] for name in _TRUSTED.get())


def check_trusted(key: str, path: str, place: object = None) -> None:
    """Refuse a path that is not trusted.

    Args:
        place: the file that names it.

    Raises:
        InputError: `RUN/config.yaml: head.activation names code, 'mypkg.acts.Snake', ...; if you
            trust it, add trust=[mypkg.acts.Snake]`.
    """
    where = f"{place}: " if place is not None else ""
    _check_form(f"{where}{key}", path)
    if not is_trusted(path):
        raise InputError(
            f"{where}{key} names code, {path!a}, which runs when it is imported, and this "
            f"command does not name it; if you trust it, add trust=[{path}]"
        )


def check_findable(key: str, path: str) -> None:
    """Refuse a path that cannot be imported, as far as can be seen without running anything.

    Raises:
        InputError: it is not made of names, or there is no such package.
    """
    _check_form(key, path)
    first, here = path.partition(".")[0], [str(Path.cwd())]
    try:
        found = first in sys.modules or find_spec(first) or PathFinder.find_spec(first, here)
    except (ImportError, ValueError):
        found = None
    if not found:
        raise _missing_module(key, path, first, here)


def _check_form(key: str, path: str) -> None:
    """Refuse what is not made of names, or has one of Python's own, such as `__globals__`."""
    for part in path.split("."):
        if not part.isidentifier() or iskeyword(part) or part.startswith("__"):
            raise InputError(
                f"{key} must be the import path of a class or function, such as mypkg.acts.Snake; "
                f"got {path!a}"
            )


def imported(key: str, path: str) -> Any:
    """The object that a path names; modules beside the working folder are found, as by `python -m`.

    Args:
        key: the key of the configuration, for the refusal.
        path: modules, then a name in the last of them, which may be nested in a class.

    Raises:
        InputError: the path is not trusted, there is no such module or name, the module's own code
            fails, or a package that is trusted has the object from elsewhere.
    """
    check_trusted(key, path)
    check_findable(key, path)
    _see_working_folder()
    first, *others = path.split(".")
    found = _module(key, path, first)
    for place, part in enumerate(others, 1):
        inside = ".".join([first, *others[: place - 1]])
        if not _has(key, path, found, part):
            if not isinstance(found, ModuleType):
                raise _missing_name(key, path, inside, part, found)
            _submodule(key, path, found, inside, part)
        found = getattr(found, part)
    _check_home(key, path, found)
    return found


def check_called(key: str, path: str) -> None:
    """Refuse to call a function with the arguments of a file, unless its whole name is trusted.

    Raises:
        InputError: only its package is trusted, which may hold functions for anything.
    """
    if path not in _TRUSTED.get():
        raise InputError(
            f"{key} names a function, {path}, that would be called with the arguments of the "
            f"model; if you trust it, add trust=[{path}]"
        )


def _check_home(key: str, path: str, found: Any) -> None:
    """Refuse what a trusted package has imported itself; a whole path can be trusted anywhere."""
    home = getattr(found, "__name__" if isinstance(found, ModuleType) else "__module__", None)
    if path not in _TRUSTED.get() and not is_trusted(str(home)):
        raise InputError(
            f"{key} names code, {path}, which {path.partition('.')[0]} has from "
            f"{home or 'elsewhere'}; if you trust it, add trust=[{path}]"
        )


def _see_working_folder() -> None:
    """Put the working folder first, where `python -m` has it and a script has its own folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
        invalidate_caches()


def _module(key: str, path: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        raise _broken(key, path, name, error) from None


def _submodule(key: str, path: str, package: ModuleType, inside: str, part: str) -> None:
    """Import a module that its package has not imported itself.

    Raises:
        InputError: there is none, or its own code fails.
    """
    name = f"{inside}.{part}"
    folders = list(getattr(package, "__path__", []))
    try:
        found = bool(folders) and find_spec(name) is not None
    except (Exception, SystemExit) as error:
        raise _broken(key, path, inside, error) from None
    if not found:
        raise _missing_name(key, path, inside, part, package)
    _module(key, path, name)


def _has(key: str, path: str, holder: Any, name: str) -> bool:
    """Whether an object has a name; a module's own `__getattr__` may fail like its import."""
    try:
        return hasattr(holder, name)
    except (Exception, SystemExit) as error:
        raise _broken(key, path, getattr(holder, "__name__", name), error) from None


def _missing_module(key: str, path: str, name: str, folders: list[str]) -> InputError:
    near = nearest(name, [module.name for module in iter_modules(folders)])
    return InputError(
        f"{key}={path}: there is no module {name}{near}; install it, or start the command in the "
        "folder that holds it"
    )


def _missing_name(key: str, path: str, inside: str, name: str, holder: Any) -> InputError:
    modules = [module.name for module in iter_modules(getattr(holder, "__path__", []))]
    near = nearest(name, [*vars(holder), *modules] if hasattr(holder, "__dict__") else modules)
    return InputError(f"{key}={path}: {inside} has no {name}{near}; correct the path")


def _broken(key: str, path: str, name: str, error: BaseException) -> InputError:
    """The refusal for a module whose own code fails, with the first sentence of its error."""
    if isinstance(error, SystemExit):
        reason = "it exits"
    else:
        reason = f"{type(error).__name__}: {first_sentence(error)}"
    return InputError(f"{key}={path}: {name} cannot be imported ({reason}); correct this module")
