"""Find the folder of the sweep that a command continues, and check that it is the same command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import AUTO, CONFIG

MULTIRUN = "multirun.yaml"  # Hydra's record of a sweep, in its folder
RESUME = "run.resume"


def without_resume(parsed: Sequence[Override]) -> tuple[list[Override], str | None]:
    """The overrides without `run.resume`, and its value.

    Raises:
        InputError: it has several values.
    """
    given = [override for override in parsed if override.key_or_group == RESUME]
    for override in given:
        if override.is_sweep_override():
            raise InputError(f"{override.input_line}: with -m it names one folder, of the sweep")
    value: Any = given[-1].value() if given else None
    text = value.text if isinstance(value, QuotedString) else str(value)
    rest = [override for override in parsed if override not in given]
    return rest, None if value is None else text


def resumed_folder(resume: str, placed: Path, parsed: Sequence[Override], sweeper: Any) -> Path:
    """The folder of the sweep to continue: that of `run.resume`; with `auto` that of
    `hydra.sweep.dir`, which need not exist.

    Args:
        placed: value of `hydra.sweep.dir`.
        parsed: all overrides but `run.resume`.
        sweeper: the section `hydra.sweeper`.

    Raises:
        InputError: the sweep is a search, the folder holds none, or another command started it.
    """
    if sweeper.get("direction") is not None:
        raise InputError(
            "run.resume: a search cannot be resumed; start it with hydra.sweeper.storage="
            "sqlite:///FILE hydra.sweeper.study_name=NAME, and another search of this study learns "
            "from its trials"
        )
    named = any(override.key_or_group == "hydra.sweep.dir" for override in parsed)
    if resume == AUTO and not named:
        raise InputError(
            "run.resume=auto with -m needs the same folder in every call: add "
            "hydra.sweep.dir=FOLDER, or name the sweep's folder with run.resume=FOLDER"
        )
    folder = placed if resume == AUTO else Path(resume)
    if resume == AUTO and not folder.exists():
        return folder
    if named and folder != placed:
        raise InputError(f"run.resume={folder} and hydra.sweep.dir={placed} name two folders")
    if not (folder / MULTIRUN).is_file():
        one = "; it is one run: leave out -m" if (folder / CONFIG).exists() else ""
        raise InputError(f"run.resume: {folder} holds no sweep (it has no {MULTIRUN}){one}")
    _check_same_command(folder, parsed, sweeper)
    return folder


def _check_same_command(folder: Path, parsed: Sequence[Override], sweeper: Any) -> None:
    before, params = _read(folder / MULTIRUN)
    now = [o for o in parsed if not o.key_or_group.startswith(("hydra.", "hydra/"))]
    lines = [str(override.input_line) for override in now]
    lacking = [line for line in before if line not in lines]
    more = [line for line in lines if line not in before]
    repeat = f"repeat the command that started it, and add only run.resume={folder}"
    if lacking or more:
        raise InputError(
            f"run.resume: the sweep in {folder} has {' '.join(lacking) or 'fewer keys'}, but this "
            f"command has {' '.join(more) or 'fewer keys'}; {repeat}"
        )
    swept = [str(override.input_line) for override in now if override.is_sweep_override()]
    if [line for line in before if line in swept] != swept:
        raise InputError(f"run.resume: the sweep in {folder} has another order of keys; {repeat}")
    if params != _plain(sweeper).get("params"):
        raise InputError(
            f"run.resume: hydra.sweeper.params differ from those of the sweep in {folder}; {repeat}"
        )


def _read(file: Path) -> tuple[list[str], Any]:
    """The overrides and the search space in Hydra's record, as written; none is acted on."""
    try:
        hydra = _plain(OmegaConf.load(file))["hydra"]
        overrides = [str(line) for line in hydra["overrides"]["task"]]
        params = hydra["sweeper"].get("params")
    except (
        OSError,
        ValueError,
        YAMLError,
        OmegaConfBaseException,
        LookupError,
        TypeError,
        AttributeError,
    ):
        raise InputError(f"run.resume: cannot read {file}; start a new sweep") from None
    return [line for line in overrides if not line.lstrip("+").startswith(f"{RESUME}=")], params


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)
