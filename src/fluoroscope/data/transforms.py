"""Random augmentation of training images, the same for the same seed on any number of workers."""

import os
import random
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import contacts a server

import albumentations
import numpy as np
from pydantic import ValidationError

from fluoroscope.errors import InputError, nearest

BASES = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
TRANSFORMS: dict[str, type[albumentations.BasicTransform]] = {
    name: value
    for name, value in vars(albumentations).items()
    if isinstance(value, type) and issubclass(value, BASES) and value not in BASES
}


class Augmentation:
    """Transforms of albumentations, applied in turn.

    The random streams of albumentations are equal in all loader workers and in every epoch. A
    seeded `Compose` gives all its transforms the same seed, so their draws are correlated. Here
    each call has a seed for one stream, from which the transforms draw in turn.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], size_px: int | None = None):
        """Build the transforms.

        Args:
            transforms: each with `name`, a class of albumentations, and its arguments.
            size_px: side of the images; if given, each transform is tried once, so that one that
                needs colour or changes the size is refused here and not in a worker.

        Raises:
            InputError: for an unknown name or argument, and an invalid value.
        """
        self.transforms = [_build_transform(mapping) for mapping in transforms]
        if size_px is not None:
            for transform in self.transforms:
                _try_transform(transform, size_px)

    def __call__(self, image: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Augmented image, uint8 [H, W]; it depends on `image` and `seed` alone.

        Args:
            image: uint8 [H, W].
            seed: non-negative integers, such as (run seed, epoch, index, repeat).
        """
        generator = np.random.default_rng(seed)
        py_random = random.Random(int(generator.integers(2**63)))
        for transform in self.transforms:
            transform.set_random_state(generator, py_random)
            image = transform(image=image)["image"]
        return image


def _build_transform(mapping: Mapping[str, Any]) -> albumentations.BasicTransform:
    arguments = dict(mapping)
    name = str(arguments.pop("name", ""))
    if name not in TRANSFORMS:
        raise InputError(
            f"augmentation {name!r} is not an image transform of albumentations "
            f"{albumentations.__version__}{nearest(name, TRANSFORMS)}; each entry is "
            "{name: Affine, rotate: [-7, 7], p: 0.9}"
        )
    known = [key for key in signature(TRANSFORMS[name]).parameters if key != "kwargs"]
    for key in arguments:
        if key not in known:  # albumentations only warns and ignores it
            raise InputError(
                f"augmentation {name} has no argument {key!r}{nearest(key, known)}; "
                f"it takes {', '.join(known)}"
            )
    try:
        return TRANSFORMS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"augmentation {name}: {_first_reason(error)}") from error


def _first_reason(error: Exception) -> str:
    if not isinstance(error.__cause__, ValidationError):
        return str(error).splitlines()[0]
    first = error.__cause__.errors()[0]
    return f"{first['loc'][0]}: {first['msg'].lower()}"


def _try_transform(transform: albumentations.BasicTransform, size_px: int) -> None:
    name = type(transform).__name__
    image = np.add.outer(np.arange(size_px), np.arange(size_px)).astype(np.uint8)
    try:
        result = transform(image=image, force_apply=True)["image"]
    except Exception as error:
        raise InputError(
            f"augmentation {name} does not work on gray {size_px} px images: {_first_reason(error)}"
        ) from error
    if result.shape != image.shape or result.dtype != image.dtype:
        raise InputError(
            f"augmentation {name} turns uint8 images of {image.shape} into {result.dtype} of "
            f"{tuple(result.shape)}; use a transform that keeps type and shape"
        )
