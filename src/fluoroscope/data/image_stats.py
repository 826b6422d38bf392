"""Images as numbers to compare: equal for equal pixels, near for pictures that look alike."""

import hashlib

import cv2
import numpy as np

PERCEPTUAL_BITS = 256
SIDE = 16  # bits a side


def exact_hash(pixels: np.ndarray) -> int:
    """64 bits of shape and pixels, as a signed integer.

    Among 400,000 different images two share a number with a probability of 4e-9.
    """
    digest = hashlib.sha256(f"{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


def perceptual_hash(small: np.ndarray) -> np.ndarray:
    """256 bits of a square thumbnail, uint64 [4]: the signs of its slow waves.

    Brightness and contrast change no sign. Film and negative differ in every bit, film and mirror
    image in the 128 bits of the waves that are odd from left to right; see `mirrored`.

    Args:
        small: uint8 [S, S], at least 17 a side.

    Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010),
        section 3.2.1, which takes 64 bits, too few for films, and compares with their median.
    """
    waves = cv2.dct(small.astype(np.float32))[1 : SIDE + 1, 1 : SIDE + 1]
    return np.packbits(waves > 0, bitorder="little").view(np.uint64)


def hash_signs(hashes: np.ndarray) -> np.ndarray:
    """Hashes uint64 [N, 4] as -1 and 1, float32 [N, 256]: 256 minus two distances is a product."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1, bitorder="little")
    return bits.astype(np.float32) * 2 - 1


def mirrored(signs: np.ndarray) -> np.ndarray:
    """Signs [N, 256] of the same images, left and right exchanged."""
    odd = np.where(np.arange(1, SIDE + 1) % 2, -1, 1).astype(signs.dtype)
    return signs * np.tile(odd, SIDE)
