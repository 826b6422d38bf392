"""Stored values of a gray DICOM image to brightness: modality LUT, then VOI LUT or window."""

import math

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

from fluoroscope.files.pixels import UnreadableError

PERCENTILES = (0.5, 99.5)  # burned-in letters and collimator edges must not set the scale
INVERTED = ("MONOCHROME1", "INVERSE")


def brightness(ds: Dataset, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Brightness that a viewer shows for each stored value, float64 [V] in [0, 1].

    The modality LUT (sequence, else rescale) comes first, then the first of these: VOI LUT
    sequence, window (the first of several), range of Bits Stored, percentiles of the pixels. The
    range of Bits Stored scales images of at most 8 bits, which usually fill it. Deeper images
    rarely do, and a digital x-ray "for presentation" must have a LUT or a window; without either,
    percentiles scale it. MONOCHROME1, or a presentation LUT of INVERSE, inverts the result once.
    Padding is dark.

    Args:
        ds: image pixel, modality LUT and VOI LUT modules.
        stored: all values from the least to the greatest that occurs, [V].
        counts: pixels with each value, [V].

    Raises:
        UnreadableError: for a LUT shorter than its descriptor says, or an unknown VOI LUT function.

    Source: DICOM PS3.3 C.11.1, C.11.2.1.2, C.7.6.3.1.2, C.7.5.1.1.2, C.8.11.3.
    """
    padding = find_padding(ds, stored)
    values = apply_modality(ds, stored)
    gray = apply_voi(ds, values, np.where(padding, 0, counts))
    if ds.PhotometricInterpretation in INVERTED or ds.get("PresentationLUTShape") in INVERTED:
        gray = 1 - gray
    gray[padding] = 0
    return gray


def find_padding(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """Which stored values are padding: one value, or a range up to a limit; bool [V]."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = ds.get("PixelPaddingRangeLimit")
    ends = [_as_stored(ds, int(end)) for end in (value, value if limit is None else limit)]
    return (stored >= min(ends)) & (stored <= max(ends))


def _as_stored(ds: Dataset, value: int) -> int:
    """A value with the signedness of the pixels: writers confuse the two."""
    bits = ds.BitsAllocated
    value %= 2**bits
    return value - 2**bits if ds.PixelRepresentation and value >= 2 ** (bits - 1) else value


def apply_modality(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """Values in the unit of the modality, float64 [V]."""
    if ds.get("ModalityLUTSequence"):
        return look_up(ds, ds.ModalityLUTSequence[0], stored, "modality LUT")[0]
    slope, intercept = _number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0)
    return stored * (slope or 1.0) + intercept  # a slope of 0 is a blank field


def apply_voi(ds: Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Values after the VOI LUT or window, in [0, 1], float64 [V], before any inversion."""
    if ds.get("VOILUTSequence"):
        table, bits = look_up(ds, ds.VOILUTSequence[0], values, "VOI LUT")
        return table / (2**bits - 1)
    center, width = _number(ds, "WindowCenter"), _number(ds, "WindowWidth")
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnreadableError("its VOI LUT Function is unknown")
    least = 1.0 if function == "LINEAR" else math.ulp(0)
    if math.isfinite(center) and least <= width < math.inf:  # false for NaN, which means no window
        return apply_window(values, center, width, function)
    low, high = _scale(ds, values, counts)
    return np.clip((values - low) / max(high - low, 1e-300), 0, 1)


def apply_window(
    values: np.ndarray, center: float, width: float, function: str = "LINEAR"
) -> np.ndarray:
    """Output of a window in [0, 1], of the same shape as the values.

    Source: DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
    """
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -700, 700)
        return 1 / (1 + np.exp(exponent))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:  # LINEAR of width 1 is a threshold
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def look_up(ds: Dataset, item: Dataset, values: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Entries of a LUT at the values, float64 [V], and the number of bits of an entry.

    Values below the first entry map to the first, values above the last to the last.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries % 2**16 or 2**16
    if first >= 2**15 and (ds.PixelRepresentation or values.min() < 0):
        first -= 2**16  # a negative number, written or read as unsigned
    table = _lut_data(ds, item, entries)
    if len(table) < entries:
        raise UnreadableError(f"its {name} has {len(table)} entries; its descriptor says {entries}")
    index = np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)
    # Some writers declare fewer bits than their entries have.
    return table[index].astype(np.float64), max(bits, int(table[:entries].max()).bit_length())


def _lut_data(ds: Dataset, item: Dataset, entries: int) -> np.ndarray:
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64)) % 2**16
    order = "<" if ds.original_encoding[1] is not False else ">"
    return np.frombuffer(data, "u1" if len(data) < 2 * entries else f"{order}u2")


def _scale(ds: Dataset, values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    if ds.BitsStored <= 8 and not ds.get("ModalityLUTSequence"):
        ends = apply_modality(ds, np.array(stored_range(ds)))
        return float(ends.min()), float(ends.max())
    if not counts.any():
        return 0.0, 0.0
    low, high = np.percentile(values, PERCENTILES, weights=counts, method="inverted_cdf")
    if low == high:
        present = values[counts > 0]
        low, high = present.min(), present.max()
    return float(low), float(high)


def stored_range(ds: Dataset) -> tuple[int, int]:
    """The least and the greatest value of Bits Stored."""
    if ds.PixelRepresentation:
        return -(2 ** (ds.BitsStored - 1)), 2 ** (ds.BitsStored - 1) - 1
    return 0, 2**ds.BitsStored - 1


def _number(ds: Dataset, keyword: str, default: float = math.nan) -> float:
    """The first value of an element; `default` if there is none."""
    value = ds.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    return default if value is None else float(value)
