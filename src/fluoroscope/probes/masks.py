"""Where the lungs of an image are: from a folder of masks, from the phantom, or an ellipse."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np

from fluoroscope.console import show_progress
from fluoroscope.errors import InputError, plural
from fluoroscope.files.images import decode, fit_square
from fluoroscope.files.pixels import UnreadableError
from fluoroscope.phantom.truth import StoredFilm
from fluoroscope.probes.regions import ELLIPSE_AXES, Region, around_lungs, ellipse

ENDING = "_mask"  # of a mask's name, as in the Montgomery and Shenzhen sets
SIDES_DIFFER = 0.02  # of the ratio of the sides, for a copy whose sides were rounded


class Lungs:
    """The region around the lungs of each image of a collection.

    Args:
        paths: of the images, by row of the study table.
        size_px: S, side of the network's input.
        masks: folder of masks; None for the phantom's own masks, or else the ellipse.
        phantom: whether the images are films of the phantom.
        ratios: by row, height by width of the image, to compare with its mask's.

    Attributes:
        source: `masks`, `phantom` or `ellipse`.
        useless: rows whose mask leaves nothing inside or nothing outside; these images get the
            ellipse. Known after `check`.

    Raises:
        InputError: if images have no mask, or two have the same.
    """

    def __init__(
        self,
        paths: Mapping[int, str],
        size_px: int,
        masks: Path | None = None,
        phantom: bool = False,
        ratios: Mapping[int, float] | None = None,
    ) -> None:
        self.paths, self.size_px, self.ratios = paths, size_px, ratios
        self.folder = masks
        self.masks: dict[int, Path] | None = None
        if masks is not None:
            self.masks = dict(zip(paths, match_masks(list(paths.values()), masks), strict=True))
        self.source = "masks" if masks else "phantom" if phantom else "ellipse"
        self.ellipse = ellipse(size_px)
        self.useless: set[int] = set()

    def check(self) -> None:
        """Read all masks of a folder once, so that none is refused after hours of scoring.

        Raises:
            InputError: a mask cannot be read, has another shape than its image, or most are
                useless, for example dark in the lungs.
        """
        if self.masks is None:
            return
        for row in show_progress(list(self.masks), "reading masks", len(self.masks)):
            self.region(row)
        if len(self.useless) > len(self.masks) / 2:
            raise InputError(
                f"{len(self.useless)} of {plural(len(self.masks), 'mask')} in masks={self.folder} "
                "are dark, or bright everywhere but in the lungs; give masks that are bright in "
                "the lungs and dark elsewhere"
            )

    def region(self, row: int) -> Region:
        """Lungs, heart and mediastinum of the image of this row, bool [S, S].

        Raises:
            InputError: the mask cannot be read, or has another shape than its image.
        """
        if self.source == "ellipse":
            return self.ellipse
        if self.masks is None:
            lungs = StoredFilm.find(self.paths[row]).lungs()
        else:
            lungs = self._read(self.masks[row], row)
        region, film = around_lungs(self._fit(lungs)), self._fit(np.ones_like(lungs))
        if region.any() and not region[film].all():
            return region
        self.useless.add(row)
        return self.ellipse

    def _fit(self, part: Region) -> Region:
        return fit_square(255 * part.astype(np.uint8), self.size_px) > 127

    def _read(self, mask: Path, row: int) -> Region:
        try:
            pixels = decode(mask)
        except UnreadableError as error:
            raise InputError(f"a mask in masks={self.folder} cannot be read: {error}") from None
        if self.ratios is not None:
            image, own = self.ratios[row], pixels.shape[0] / pixels.shape[1]
            if abs(own / image - 1) > SIDES_DIFFER:
                raise InputError(
                    f"a mask in masks={self.folder} has another shape than its image (height by "
                    f"width {own:.2f} and {image:.2f}); give masks of the whole images"
                )
        return pixels > pixels.max() // 2

    @property
    def words(self) -> str:
        """Where the lungs were taken from, in a sentence."""
        if self.source == "ellipse":
            axes = " x ".join(f"{200 * axis:.0f} %" for axis in ELLIPSE_AXES)
            return (
                f"The lungs are taken to lie in a central ellipse of {axes} of the image; lung "
                "bases may lie outside it, so give lung masks with masks=DIR to be sure."
            )
        known = {
            "phantom": "The lungs are the phantom's own, with heart and mediastinum",
            "masks": "The lungs are those of the given masks, with heart and mediastinum",
        }[self.source]
        count = plural(len(self.useless), "mask")
        missing = f"; {count} with nothing inside or nothing outside: an ellipse instead"
        return known + (missing if self.useless else "") + "."


def match_masks(paths: Sequence[str], folder: Path) -> list[Path]:
    """The mask of each image: a file of the same name, whatever its type.

    The name may end in `_mask`. Of several masks of this name, the one is taken whose folders agree
    with most of the image's folders, from the innermost on.

    Raises:
        InputError: if an image has no mask, or has the same one as another image.
    """
    known: dict[str, list[Path]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        known.setdefault(file.stem.removesuffix(ENDING), []).append(file)
    named = [known.get(Path(path).stem, []) for path in paths]
    if missing := named.count([]):
        raise InputError(
            f"{missing} of {plural(len(paths), 'image')} have no mask in {folder}; a mask has the "
            "name of its image, such as a/00001.png or a/00001_mask.png for a/00001.dcm"
        )
    masks = [
        max(candidates, key=partial(_shared_folders, Path(path)))
        for candidates, path in zip(named, paths, strict=True)
    ]
    if shared := len(masks) - len(set(masks)):
        raise InputError(
            f"{plural(shared, 'image')} would get the mask of another image in {folder}; arrange "
            "the masks in the folders of their images"
        )
    return masks


def _shared_folders(image: Path, mask: Path) -> int:
    """How many folders agree, from the innermost on."""
    pairs = zip(reversed(mask.parts[:-1]), reversed(image.parts[:-1]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
