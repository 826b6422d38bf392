"""Numbers of one image: size, gray levels, polarity, and hashes that find copies of it."""

import hashlib

import cv2
import numpy as np

SMALL_PX, THUMBNAIL_PX, SMALLEST_PX = 64, 256, 64  # the last: shorter films show no finding
AIR_FRAC = 0.08  # share of the gray range that counts as black at the border
DARK, BRIGHT = 16, 239  # the lowest and highest sixteenth of the range
MEASURES = np.dtype(
    [
        *((name, np.int32) for name in ("height", "width")),
        *((name, np.uint8) for name in ("low", "high", "orientation")),
        *((name, np.float32) for name in ("mean", "std", "dark_frac", "bright_frac", "polarity")),
        ("exact", np.int64),
        ("perceptual", np.uint64, 4),
    ]
)
PERCEPTUAL_BITS = 256
SIDE = 16  # bits per side of the perceptual hash


def measure(pixels: np.ndarray) -> np.ndarray:
    """Size, gray levels, polarity and hashes of an image uint8 [H, W], one record of `MEASURES`."""
    square = thumbnail(pixels)
    score = polarity(_shrink(square, SMALL_PX))
    found = np.zeros((), MEASURES)
    found["height"], found["width"] = pixels.shape
    found["low"], found["high"] = cv2.minMaxLoc(pixels)[:2]
    found["mean"], found["std"] = np.ravel(cv2.meanStdDev(pixels))
    found["dark_frac"], found["bright_frac"] = (square <= DARK).mean(), (square >= BRIGHT).mean()
    found["polarity"], found["exact"] = score, exact_hash(pixels)
    found["perceptual"] = perceptual_hash(_shrink(trim(square, negative=score < 0), SMALL_PX))
    return found


def contrast(pixels: np.ndarray) -> float:
    """Gray levels, 0 to 255, within which 95% of the pixels lie, without the outer 2.5%."""
    low, high = np.percentile(pixels, (2.5, 97.5))
    return float(high - low)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Image of any shape as a square, uint8 [256, 256]."""
    return _shrink(pixels, THUMBNAIL_PX)


def trim(square: np.ndarray, negative: bool = False) -> np.ndarray:
    """Crop the black border of a thumbnail (white for a negative): copies differ in its width.

    A row or column belongs to the border if 9 of 10 pixels are black. Nothing is cropped if less
    than a quarter of the rows or columns would be left.
    """
    film = ~square if negative else square
    low, high = int(film.min()), int(film.max())
    body = film > low + AIR_FRAC * (high - low)
    return np.ascontiguousarray(square[_span(body.mean(axis=1)), _span(body.mean(axis=0))])


def _span(body_frac: np.ndarray) -> slice:
    inside = np.flatnonzero(body_frac > 0.1)
    return slice(inside[0], inside[-1] + 1) if len(inside) > len(body_frac) / 4 else slice(None)


def _shrink(pixels: np.ndarray, side_px: int) -> np.ndarray:
    return cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_AREA)


def polarity(small: np.ndarray) -> float:
    """Score of a thumbnail [64, 64]: positive for a frontal film, minus that for its negative.

    The sum of two differences in standard deviations: spine minus lungs, and upper abdomen minus
    air in the upper corners; 0 for a constant image.
    """
    spread = float(small.std())
    spine, lungs = small[16:48, 27:37].mean(), small[16:38, [*range(12, 25), *range(39, 52)]].mean()
    belly, corners = small[52:, 13:51].mean(), small[:6, [*range(6), *range(58, 64)]].mean()
    return float(spine - lungs + belly - corners) / spread if spread else 0.0


def exact_hash(pixels: np.ndarray) -> int:
    """64 bits of shape and pixels, as a signed integer.

    The probability that any two of 400,000 different images share a hash is 4e-9.
    """
    digest = hashlib.sha256(f"{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


def perceptual_hash(small: np.ndarray) -> np.ndarray:
    """256 bits of a square thumbnail, uint64 [4]: the signs of its low cosine frequencies.

    Brightness and contrast change no sign. A film and its negative differ in every bit. A film and
    its mirror image differ in the 128 bits of waves that are odd in x; see `mirrored`.

    Args:
        small: uint8 [S, S], at least 17 a side.

    Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010),
        section 3.2.1, which uses 64 bits, too few for films, and compares with the median.
    """
    waves = cv2.dct(small.astype(np.float32))[1 : SIDE + 1, 1 : SIDE + 1]
    return np.packbits(waves > 0, bitorder="little").view(np.uint64)


def hash_signs(hashes: np.ndarray) -> np.ndarray:
    """Hashes uint64 [N, 4] as -1 and 1, float32 [N, 256]; a dot product is 256 - 2 * distance."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1, bitorder="little")
    return bits.astype(np.float32) * 2 - 1


def mirrored(signs: np.ndarray) -> np.ndarray:
    """Signs [N, 256] of the mirror images."""
    odd = np.where(np.arange(1, SIDE + 1) % 2, -1, 1).astype(signs.dtype)
    return signs * np.tile(odd, SIDE)
