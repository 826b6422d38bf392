"""The same images by different readers, and one core to read them on."""

import os
from collections.abc import Iterator
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
from fluoroscope.prepare.image_copy import SUFFIXES, copy_image


class Files(NamedTuple):
    """Images of a study table, by their paths."""

    paths: list[str]
    image_px: int
    batch_size: int
    seed: int


class Draws:
    """A given number of draws from the files, repeated as needed; each pass is another epoch."""

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


def prepare(files: Files, folder: Path, kind: str) -> Files:
    """A copy of every image, as `scripts/prepare.py size=IMAGE_PX format=KIND` makes it."""
    folder.mkdir()
    paths = [str(folder / f"{number}{SUFFIXES[kind]}") for number in range(len(files.paths))]
    for path, raw in zip(paths, files.paths, strict=True):
        copy_image(raw, Path(path), files.image_px, kind)
    return files._replace(paths=paths)


def make_loader(
    files: Files, images: int, augmentation: Augmentation | None, workers: int
) -> DataLoader:
    """The data set and the loader of a run; a single loader process is bound to one core."""
    target, index = np.zeros((len(files.paths), 1), np.float32), np.arange(len(files.paths))
    dataset = XrayDataset(files.paths, target, index, files.image_px, augmentation, seed=files.seed)
    options = loading(workers, processes=1)
    options |= {"worker_init_fn": _use_last_core} if workers == 1 else {}
    draws: Any = Draws(len(files.paths), images)
    return Loader(dataset, batch_size=files.batch_size, sampler=draws, **options)


def _use_last_core(worker: int) -> None:
    """Leave the other cores to the process that collects the batches."""
    cv2.setNumThreads(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@contextmanager
def one_core() -> Iterator[None]:
    """Run this process on one core and with one thread inside the `with` block."""
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(1)
    try:
        _use_last_core(0)
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)


class Torchxrayvision(Dataset):
    """Files read as torchxrayvision's documentation does: scikit-image, `normalize`,
    `XRayCenterCrop`, `XRayResizer`; no augmentation.
    """

    def __init__(self, files: Files) -> None:
        import torchxrayvision as xrv
        from skimage.io import imread
        from torchvision.transforms import Compose

        self.paths, self.read, self.normalize = files.paths, imread, xrv.datasets.normalize
        crop, resize = xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(files.image_px)
        self.transform = Compose([crop, resize])

    def __getitem__(self, draw: Draw) -> torch.Tensor:
        image = self.normalize(self.read(self.paths[draw[0]]), maxval=255, reshape=True)
        return torch.from_numpy(self.transform(image))


def torchxrayvision_loader(files: Files, images: int) -> DataLoader | None:
    """Torchxrayvision's loader; None, and a line with the reason, if it cannot read the files."""
    if find_spec("torchxrayvision") is None:
        print("torchxrayvision is not installed: left out")
        return None
    dataset = Torchxrayvision(files)
    try:
        dataset[0, 0, 0]
    except (OSError, ValueError):
        print("torchxrayvision reads no DICOM and no more than 8 bits: left out")
        return None
    draws: Any = Draws(len(files.paths), images)
    return DataLoader(dataset, batch_size=files.batch_size, sampler=draws)
