"""Read the boxes and masks of findings that public collections come with, told apart by content."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fluoroscope.errors import InputError
from fluoroscope.explanation.regions import Box, Mask, Region, Regions
from fluoroscope.files.images import read_image
from fluoroscope.phantom.truth import stored_films
from fluoroscope.sources.reading.csv_cells import refuse_cells
from fluoroscope.sources.reading.csv_files import read_csv, read_header, read_text
from fluoroscope.sources.reading.tree import film_key

FRAME = (1024, 1024)  # of the boxes of NIH and RSNA and the masks of SIIM
MASK_FOLDER = "png_masks"  # of the PNG copy of SIIM
# By source, the tables that `boxes=auto` reads: of each group the first that exists.
TABLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "nih14": (("BBox_List_2017.csv",),),
    "rsna": (("stage_2_train_labels.csv",), ("stage_1_train_labels.csv",)),
    "vindr": (
        ("annotations/annotations_train.csv", "train.csv"),
        ("annotations/annotations_test.csv",),
    ),
    "siim_pneumothorax": (("train-rle.csv", "stage_2_train.csv", MASK_FOLDER),),
}
NIH_SPELLING = {"Infiltrate": "Infiltration"}  # the boxes' spelling, and that of the labels
NOTHING = "no finding"
SIZED = ("x", "y", "width", "height")


class Drawn(NamedTuple):
    """The regions of a collection.

    Attributes:
        regions: by film and finding.
        source: whose spelling the findings have, see `sources.findings`.
    """

    regions: Regions
    source: str


class _Row(NamedTuple):
    film: str
    finding: str
    region: Region


def find_boxes(source: str, root: Path) -> Drawn:
    """The regions that a collection comes with (`boxes=auto`).

    Raises:
        InputError: its source has none, or their file is missing.
    """
    if source == "phantom":
        return Drawn(_by_film(_lesions(root)), source)
    groups = TABLES.get(source, ())
    found = [next((root / n for n in names if (root / n).exists()), None) for names in groups]
    files = [file for file in found if file is not None]
    if not files:
        known = f": there is no {' or '.join(n for g in groups for n in g)} in {root}"
        raise InputError(
            f"boxes=auto: data={source} has no boxes{known if groups else ''}; give boxes=FILE, or "
            "leave boxes out"
        )
    read = [read_boxes(file) for file in files]
    return Drawn(_by_film(row for each in read for row in _rows_of(each.regions)), source)


def read_boxes(place: Path) -> Drawn:
    """The regions in a table, or in the mask folder of SIIM's PNG copy.

    Raises:
        InputError: the file cannot be read, has none of the known sets of columns, or holds an
            invalid number.
    """
    if place.is_dir():
        masks = sorted(place.glob("*.png"))
        rows = [_Row(file.name, "Pneumothorax", Mask(partial(_png_mask, file))) for file in masks]
        if not rows:
            raise InputError(
                f"boxes: {place} holds no masks (*.png); give a table or such a folder"
            )
        return Drawn(_by_film(rows), "siim_pneumothorax")
    if not place.is_file():
        raise InputError(f"boxes: there is no file {place}")
    columns = [str(name).strip() for name in read_header(place).columns]
    for source, (needed, read) in FORMATS.items():
        if {*needed} <= {*columns}:
            regions = _by_film(read(place))
            if not regions:
                raise InputError(f"boxes: {place} holds no boxes; give another table")
            return Drawn(regions, source)
    wanted = "; ".join(", ".join(needed) for needed, _ in FORMATS.values())
    raise InputError(
        f"boxes: {place} has the columns {', '.join(columns)}, but one of these sets is needed: "
        f"{wanted}"
    )


def _lesions(root: Path) -> Iterator[_Row]:
    for name, film in stored_films(root).items():
        for finding in film.findings:
            yield _Row(name, finding, Mask(partial(film.lesion, finding)))


def _by_film(rows: Iterable[_Row]) -> Regions:
    regions: Regions = {}
    for film, finding, region in rows:
        regions.setdefault(film_key(film), {}).setdefault(finding, []).append(region)
    return regions


def _rows_of(regions: Regions) -> Iterator[_Row]:
    for film, findings in regions.items():
        for finding, drawn in findings.items():
            yield from (_Row(film, finding, region) for region in drawn)


def _read_nih(file: Path) -> Iterator[_Row]:
    """Six cells per row; the header has commas within a name, so that it has more of them."""
    rows = [row for row in csv.reader(read_text(file).splitlines()[1:]) if row]
    short = next((number for number, row in enumerate(rows, 2) if len(row) < 6), None)
    if short:
        raise InputError(f"{file}: row {short} has fewer than 6 cells; download the file again")
    cells = pd.DataFrame([row[:6] for row in rows], columns=["film", "finding", *"xywh"])
    numbers = _numbers(cells, list("xywh"), file)
    columns = cells["film"], cells["finding"], numbers
    for film, finding, (x, y, width, height) in zip(*columns, strict=True):
        box = Box(x, y, width, height, FRAME)
        yield _Row(film, NIH_SPELLING.get(finding, finding), box)


def _read_rsna(file: Path) -> Iterator[_Row]:
    cells = read_csv(file)
    kept = cells[cells["Target"].str.strip().isin(["1", "1.0"])]
    columns = kept["patientId"], _numbers(kept, SIZED, file)
    for film, (x, y, width, height) in zip(*columns, strict=True):
        yield _Row(film, "Lung Opacity", Box(x, y, width, height, FRAME))


def _read_vindr(file: Path) -> Iterator[_Row]:
    """Boxes of all readers; of a resized copy the columns `width`, `height` are the original's."""
    cells = read_csv(file)
    kept = cells[cells["class_name"].str.strip().str.lower() != NOTHING]
    framed = {"width", "height"} <= {*cells}
    frames = _numbers(kept, ["height", "width"], file) if framed else [None] * len(kept)
    corners = _numbers(kept, ["x_min", "y_min", "x_max", "y_max"], file)
    films, named = kept["image_id"], kept["class_name"].str.strip()
    for film, finding, (left, top, right, bottom), frame in zip(
        films, named, corners, frames, strict=True
    ):
        yield _Row(film, finding, Box(left, top, right - left, bottom - top, frame))


def _read_siim(file: Path) -> Iterator[_Row]:
    cells = read_csv(file).rename(columns=str.strip)
    runs = cells["EncodedPixels"].str.strip()
    usable = runs.str.fullmatch(r"-1|\d{1,7}( +\d{1,7})*")
    refuse_cells(cells["EncodedPixels"], usable, "a mask is pairs of numbers, or -1", file)
    for film, text in zip(cells["ImageId"].str.strip(), runs, strict=True):
        if text != "-1":
            yield _Row(film, "Pneumothorax", Mask(partial(run_length_mask, text)))


def _read_own(file: Path) -> Iterator[_Row]:
    cells = read_csv(file)
    films, named = cells["image"].str.strip(), cells["label"].str.strip()
    for names in (films, named):
        refuse_cells(names, names != "", "a box needs an image and a label", file)
    places = films.map(film_key)
    if (places.groupby(places.map(lambda place: Path(place).name)).nunique() > 1).any():
        raise InputError(
            f"{file}: films of different folders have the same name, so it is not known whose a "
            "box is; give each film a name of its own"
        )
    for film, finding, box in zip(films, named, _numbers(cells, SIZED, file), strict=True):
        yield _Row(Path(film).name, finding, Box(*box))


FORMATS: Mapping[str, tuple[Sequence[str], Callable[[Path], Iterator[_Row]]]] = {
    "nih14": (("Image Index", "Finding Label"), _read_nih),
    "rsna": (("patientId", *SIZED, "Target"), _read_rsna),
    "vindr": (("image_id", "class_name", "x_min", "y_min", "x_max", "y_max"), _read_vindr),
    "siim_pneumothorax": (("ImageId", "EncodedPixels"), _read_siim),
    "table": (("image", "label", *SIZED), _read_own),
}


def _numbers(cells: pd.DataFrame, columns: Sequence[str], file: Path) -> list[tuple[Any, ...]]:
    """The columns as one tuple of numbers per row."""
    values = {name: pd.to_numeric(cells[name], errors="coerce") for name in columns}
    for name, numbers in values.items():
        refuse_cells(cells[name], np.isfinite(numbers), "a box needs four numbers", file)
    return list(zip(*(numbers.tolist() for numbers in values.values()), strict=True))


def run_length_mask(text: str, frame: tuple[int, int] = FRAME) -> np.ndarray:
    """A mask of SIIM-ACR, bool `[H, W]`: pairs of a gap and a length, down the columns.

    Args:
        text: each gap counts from the end of the run before it.
        frame: height and width.

    Raises:
        InputError: the runs do not fit the frame.
    """
    numbers = np.array(text.split(), dtype=np.int64)
    height, width = frame
    if len(numbers) % 2 or numbers.sum() > height * width:
        raise InputError(
            f"boxes: a mask of {len(numbers)} numbers does not fit {height} x {width} pixels; "
            "download the table of masks again"
        )
    inside = np.tile([False, True], len(numbers) // 2)
    pixels = np.zeros(height * width, bool)
    pixels[: numbers.sum()] = np.repeat(inside, numbers)
    return pixels.reshape(width, height).T


def _png_mask(file: Path) -> np.ndarray:
    return read_image(file) > 127
