"""MedMNIST's chest x-rays, whose arrays are converted to PNG files once."""

from __future__ import annotations

import hashlib
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias
from zipfile import BadZipFile, ZipFile

from fluoroscope.atomic_write import write_atomically
from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import one_of
from fluoroscope.data.study_table import NOBODY, Collection, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import given_root
from fluoroscope.sources.reading.csv_cells import unknown_patients

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SIZES_PX = (28, 64, 128, 224)


@dataclass
class Keys(Data):
    """Keys of `data=medmnist`."""

    flag: str = one_of("pneumoniamnist", "chestmnist")
    size_px: int = one_of(*SIZES_PX)


FINDINGS = {
    "pneumoniamnist": ("Pneumonia",),
    "chestmnist": (
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule"),
        *("Pneumonia", "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis"),
        *("Pleural_Thickening", "Hernia"),
    ),
}
SPLITS = ("train", "val", "test")
TIMEOUT_S = 15
MIB = 2**20
MOST_LABELS_MIB = 64  # those of ChestMNIST are 1.2
Header: TypeAlias = "tuple[tuple[int, ...], np.dtype[Any]]"


def check_place(data: Mapping[str, Any]) -> None:
    """Refuse a file that is not there and cannot be downloaded."""
    directory, flag, size_px = given_root(data["root"]), data["flag"], data["size_px"]
    if not (directory / f"{flag}_{size_px}" / "studies.csv").is_file():
        file = _npz_file(directory, flag, size_px)
        if not file.is_file() and find_spec("medmnist") is None:
            raise _no_file(file)


def read(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    flag: str = "pneumoniamnist",
    size_px: int = 224,
) -> Collection:
    """The official splits; the collection has no patient numbers.

    Images are written once to `root/FLAG_SIZE/SPLIT/NUMBER.png`, from the .npz file in `root`,
    which is downloaded if it is missing. `studies.csv` is written last. A folder without it is
    incomplete, and the next call continues it.

    Args:
        root: directory; created for a download.
        labels: findings of `FINDINGS[flag]`; None keeps all.
        flag: a key of `FINDINGS`.
        size_px: 28, 64, 128 or 224.

    Raises:
        InputError: if the file cannot be downloaded, is damaged or is not MedMNIST's.
    """
    import pandas as pd

    directory = given_root(root)
    chosen = select_labels(FINDINGS[flag], labels)
    folder = directory / f"{flag}_{size_px}"
    if not (folder / "studies.csv").is_file():
        _write_images(_npz(directory, flag, size_px), folder, FINDINGS[flag], size_px)
    try:
        studies = pd.read_csv(folder / "studies.csv")
        columns = studies["file"], studies[chosen], studies["split"]
    except (OSError, ValueError, KeyError):
        raise InputError(
            f"cannot read {folder / 'studies.csv'}: it is damaged; remove it, and the next run "
            "writes it again"
        ) from None
    paths = [folder / str(file) for file in columns[0]]
    table = study_table(paths, columns[1], splits=columns[2].tolist())
    return Collection(table, folder, unknown_patients(len(table)), NOBODY, written=True)


def _npz(directory: Path, flag: str, size_px: int) -> Path:
    """The file under MedMNIST's name; downloaded if it does not exist."""
    file = _npz_file(directory, flag, size_px)
    if not file.is_file():
        try:
            from medmnist.info import INFO
        except ImportError as error:
            raise _no_file(file) from error
        suffix = _suffix(size_px)
        _download(INFO[flag][f"url{suffix}"], INFO[flag][f"MD5{suffix}"], file)
    return file


def _npz_file(directory: Path, flag: str, size_px: int) -> Path:
    return directory / f"{flag}{_suffix(size_px)}.npz"


def _suffix(size_px: int) -> str:
    return "" if size_px == SIZES_PX[0] else f"_{size_px}"


def _no_file(file: Path) -> InputError:
    return InputError(
        f"there is no {file}; copy it to this place, or run pip install medmnist, after which it "
        "is downloaded"
    )


def _download(url: str, md5: str, file: Path) -> None:
    """Download `file`; it gets its name only if it is complete and its MD5 sum is `md5`."""
    from fluoroscope.console import show_progress

    file.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {file.name}", file=sys.stderr)
    with write_atomically(file, shared=True) as part:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as out:
                size_mib = round(int(answer.headers.get("Content-Length") or 0) / MIB)
                blocks = iter(partial(answer.read, MIB), b"")
                for block in show_progress(blocks, f"downloading {file.name}, MiB", size_mib):
                    out.write(block)
        except OSError as error:
            raise InputError(
                f"there is no {file}, and it cannot be downloaded ({error}); fetch it from {url} "
                "and copy it to this place"
            ) from error
        with part.open("rb") as whole:
            if hashlib.file_digest(whole, "md5").hexdigest() != md5:
                raise InputError(f"the file from {url} is damaged (wrong MD5 sum); try again")


def _write_images(npz: Path, folder: Path, findings: Sequence[str], size_px: int) -> None:
    import pandas as pd

    try:
        with ZipFile(npz) as arrays:
            tables = [_write_split(arrays, split, folder, findings, size_px) for split in SPLITS]
    except (OSError, ValueError, KeyError, BadZipFile, EOFError, MemoryError) as error:
        raise InputError(f"cannot read {npz}: {' '.join(str(error).split())}") from error
    with write_atomically(folder / "studies.csv", shared=True) as part:
        pd.concat(tables).to_csv(part, index=False)


def _write_split(
    arrays: ZipFile, split: str, folder: Path, findings: Sequence[str], size_px: int
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    from fluoroscope.console import show_progress

    if arrays.getinfo(f"{split}_labels.npy").file_size > MIB * MOST_LABELS_MIB:
        raise ValueError(f"{split}_labels inflate to more than {MOST_LABELS_MIB} MiB")
    with arrays.open(f"{split}_labels.npy") as stream:
        labels = np.lib.format.read_array(stream, allow_pickle=False)
    if labels.ndim != 2 or labels.shape[1] != len(findings) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{split}_labels must be [N, {len(findings)}] with values 0 and 1")
    (folder / split).mkdir(parents=True, exist_ok=True)
    files = [f"{split}/{number:06d}.png" for number in range(len(labels))]
    with arrays.open(f"{split}_images.npy") as stream:
        shape, dtype = _header(stream)
        if shape != (len(labels), size_px, size_px) or dtype != np.uint8:
            raise ValueError(
                f"{split}_images must be uint8 {[len(labels), size_px, size_px]}; it is {dtype} "
                f"{list(shape)}"
            )
        images = zip(files, _images(stream, shape), strict=True)
        for file, image in show_progress(images, f"writing {split} images", len(files)):
            _write_png(folder / file, image)
    return pd.DataFrame(labels, columns=list(findings)).assign(file=files, split=split)


def _header(stream: IO[bytes]) -> Header:
    """Shape and type of an .npy file, without reading the array."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, is_fortran, dtype = read(stream)
    if is_fortran:
        raise ValueError("an array is in Fortran order")
    return shape, dtype


def _images(stream: IO[bytes], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """One image at a time: all of them take up to 4 GiB."""
    import numpy as np

    for _ in range(shape[0]):
        pixels = stream.read(shape[1] * shape[2])
        yield np.frombuffer(pixels, np.uint8).reshape(shape[1:])


def _write_png(file: Path, image: np.ndarray) -> None:
    import cv2

    if not file.exists():
        with write_atomically(file, shared=True) as part:
            part.write_bytes(cv2.imencode(".png", image)[1].tobytes())
