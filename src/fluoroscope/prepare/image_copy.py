"""Copy one image: resized, under a neutral name."""

import re
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from fluoroscope.atomic_write import write_atomically
from fluoroscope.files.images import decode

NEUTRAL = re.compile(r"images/([0-9a-f]{2})/\1[0-9a-f]{18}\.(png|jpg)")  # see `neutral_name`
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "stored": ".png"}
JPEG_QUALITY = 95
LEVEL, FILTER = cv2.IMWRITE_PNG_COMPRESSION, cv2.IMWRITE_PNG_FILTER
ENCODING = {
    # The filter that is decoded fastest; OpenCV's default takes 1.5 times as long.
    "png": [LEVEL, 3, FILTER, cv2.IMWRITE_PNG_FILTER_UP],
    "jpeg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
    "stored": [LEVEL, 0, FILTER, cv2.IMWRITE_PNG_FILTER_NONE],
}


def neutral_name(relative: str, suffix: str) -> str:
    """Path of an image in a copy, from its path below the collection's root.

    File names of collections often name patients; those of a copy do not. They stay the same
    wherever the collection is mounted. Each folder holds a 256th of the images.

    >>> neutral_name("images/00000001_000.png", ".jpg")
    'images/08/08d868c8ee97e94bde53.jpg'
    """
    digest = sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    return f"images/{digest[:2]}/{digest}{suffix}"


def shrink(image: np.ndarray, longest_px: int) -> np.ndarray:
    """Scale an image down until its longest side fits, by area means, uint8 [H, W].

    Same result as `files.images.fit_square`: training on a copy of its size has the same pixels.
    """
    longest = max(image.shape)
    if longest <= longest_px:
        return image
    height, width = (max(1, round(side * longest_px / longest)) for side in image.shape)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def copy_image(source: str, target: Path, longest_px: int, kind: str, mode: int = 0o600) -> int:
    """Write the copy of an image, atomically.

    Args:
        mode: permissions of the copy.

    Returns:
        Size of the copy in bytes.

    Raises:
        UnreadableError: the reason why `source` cannot be read.
        OSError: the copy cannot be written.
    """
    image = shrink(decode(source), longest_px)
    done, data = cv2.imencode(SUFFIXES[kind], image, ENCODING[kind])
    assert done
    with write_atomically(target) as part:
        part.write_bytes(data.tobytes())
        part.chmod(mode)
    return len(data)
