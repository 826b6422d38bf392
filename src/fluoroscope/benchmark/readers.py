"""Ways to bring the same images to a batch, one core at a time."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fluoroscope.data.datamodule import Draw, XrayDataset
from fluoroscope.data.loader import Loader
from fluoroscope.data.prefetch import loading
from fluoroscope.data.transforms import Augmentation
from fluoroscope.prepare.images import SUFFIXES, copy_image


class Files(NamedTuple):
    """Images of a study table, by one path each."""

    paths: list[str]
    image_px: int
    batch_size: int
    seed: int


def prepare(files: Files, folder: Path, kind: str) -> Files:
    """A copy of every image, as `scripts/prepare.py size=IMAGE_PX format=KIND` makes it."""
    folder.mkdir()
    paths = [str(folder / f"{number}{SUFFIXES[kind]}") for number in range(len(files.paths))]
    for path, raw in zip(paths, files.paths, strict=True):
        copy_image(raw, Path(path), files.image_px, kind)
    return files._replace(paths=paths)


def loader(
    files: Files, images: int, augmentation: Augmentation | None, workers: int
) -> DataLoader:
    """Our dataset behind the loader of a run; one worker alone is bound to one core."""
    target, index = np.zeros((len(files.paths), 1), np.float32), np.arange(len(files.paths))
    dataset = XrayDataset(files.paths, target, index, files.image_px, augmentation, seed=files.seed)
    own = loading(workers, processes=1)
    own |= {"worker_init_fn": _on_the_last_core} if workers == 1 else {}
    draws: Any = Draws(len(files.paths), images)
    return Loader(dataset, batch_size=files.batch_size, sampler=draws, **own)


class Draws:
    """So many images, over and over through the files, as another epoch each time."""

    def __init__(self, size: int, images: int) -> None:
        self.size, self.images, self.epoch = size, images, 0

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[Draw]:
        self.epoch += 1
        order = np.random.default_rng(self.epoch).permutation(self.size)
        return iter(
            [(int(order[i % self.size]), self.epoch, i // self.size) for i in range(self.images)]
        )


def torchxrayvision_loader(files: Files, images: int) -> DataLoader | None:
    """What torchxrayvision's data sets do to the same files; None, and a line that says why, where
    it is not installed or cannot read them.

    Reading by scikit-image, `normalize`, `XRayCenterCrop` and `XRayResizer` as its documentation
    has them; no augmentation.
    """
    if find_spec("torchxrayvision") is None:
        print("torchxrayvision is not installed: left out")
        return None
    import torchxrayvision as xrv
    from skimage.io import imread
    from torchvision.transforms import Compose

    steps = [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(files.image_px)]
    dataset = _Read(files.paths, imread, xrv.datasets.normalize, Compose(steps))
    try:
        dataset[0, 0, 0]
    except (OSError, ValueError):
        print("torchxrayvision reads images of 8 bits, and no DICOM: left out")
        return None
    draws: Any = Draws(len(files.paths), images)
    return DataLoader(dataset, batch_size=files.batch_size, sampler=draws)


class _Read(Dataset):
    def __init__(
        self,
        paths: list[str],
        read: Callable[[str], np.ndarray],
        normalize: Callable[..., np.ndarray],
        transform: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.paths, self.read = paths, read
        self.normalize, self.transform = normalize, transform

    def __getitem__(self, draw: Draw) -> torch.Tensor:
        image = self.normalize(self.read(self.paths[draw[0]]), maxval=255, reshape=True)
        return torch.from_numpy(self.transform(image))


def _on_the_last_core(worker: int) -> None:
    """The process that collects the batches stays on the others."""
    cv2.setNumThreads(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@contextmanager
def one_core() -> Iterator[None]:
    """This process on one core and with one thread, for as long as it lasts."""
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)
