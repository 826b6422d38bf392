"""Stored values of a gray DICOM image to brightness: modality LUT, then VOI LUT or window."""

import math

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut

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
        UnreadableError: for a LUT of another length than its descriptor says, an unknown VOI LUT
            function, and a window or rescale value that is not a number.

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
    """Values in the unit of the modality, float64 [V], by pydicom."""
    module = Dataset()
    if ds.get("ModalityLUTSequence"):
        item, _ = _checked_lut(ds, ds.ModalityLUTSequence[0], stored, "modality LUT")
        module.ModalityLUTSequence = [item]
    else:
        module.RescaleSlope = _number(ds, "RescaleSlope", 1.0) or 1.0  # a slope of 0: a blank field
        module.RescaleIntercept = _number(ds, "RescaleIntercept", 0.0)
    return apply_modality_lut(stored, module).astype(np.float64)


def apply_voi(ds: Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Values after the VOI LUT or window, in [0, 1], float64 [V], before any inversion."""
    if ds.get("VOILUTSequence"):
        whole = np.rint(values).astype(np.int64)
        item, white = _checked_lut(ds, ds.VOILUTSequence[0], whole, "VOI LUT")
        module = Dataset()
        module.VOILUTSequence = [item]
        return apply_voi_lut(_within(item, whole), module) / white
    if window := _window(ds):
        with np.errstate(over="ignore"):  # of SIGMOID far below its centre
            return apply_voi_lut(values, window)
    low, high = _scale(ds, values, counts)
    return np.clip((values - low) / max(high - low, 1e-300), 0, 1)


def _window(ds: Dataset) -> Dataset | None:
    """The window as pydicom takes it, with an output of [0, 1]; None if there is none."""
    center, width = _number(ds, "WindowCenter"), _number(ds, "WindowWidth")
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnreadableError("its VOI LUT Function is unknown")
    least = 1.0 if function == "LINEAR" else math.ulp(0)
    if not (math.isfinite(center) and least <= width < math.inf):  # NaN means no window
        return None
    module = Dataset()
    module.PhotometricInterpretation, module.VOILUTFunction = "MONOCHROME2", function
    module.BitsStored, module.PixelRepresentation = 1, 0  # the range of the output
    module.WindowCenter, module.WindowWidth = center, width
    return module


def _checked_lut(ds: Dataset, item: Dataset, values: np.ndarray, name: str) -> tuple[Dataset, int]:
    """A LUT as pydicom takes it, in entries of 16 bits, and the entry that is white.

    White is the greatest number of as many bits as the greatest entry has. Writers often declare
    more bits than the entries have, and the film would be nearly black, or fewer.

    Args:
        values: whole numbers that are looked up, [V].

    Raises:
        UnreadableError: if the LUT lacks its descriptor or data, or both differ in length.
    """
    descriptor = np.atleast_1d(item.get("LUTDescriptor") or [])
    if len(descriptor) != 3 or item.get("LUTData") is None:
        raise UnreadableError(f"its {name} has no data, or no descriptor of three numbers")
    written, first, bits = (int(number) for number in descriptor)
    entries = written % 2**16 or 2**16
    table = _lut_entries(ds, item, entries, bits)
    if not entries <= len(table) <= entries + 1:  # one more: padding, or 65,536 written as 65,535
        raise UnreadableError(f"its {name} has {len(table)} entries; its descriptor says {entries}")
    checked = Dataset()
    checked.add_new("LUTDescriptor", "SS", [entries, _first_value(ds, first, entries, values), 16])
    checked.add_new("LUTData", "US", table[:entries].tolist())
    return checked, 2 ** max(1, int(table[:entries].max()).bit_length()) - 1


def _lut_entries(ds: Dataset, item: Dataset, entries: int, bits: int) -> np.ndarray:
    """The entries of a LUT, in [0, 65535]; bytes hold two per entry, or one of up to 8 bits."""
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64)) % 2**16
    if bits <= 8 and entries <= len(data) <= entries + 1:
        return np.frombuffer(data, "u1").astype(np.int64)
    order = "<" if ds.original_encoding[1] is not False else ">"
    return np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.int64)


def _first_value(ds: Dataset, first: int, entries: int, values: np.ndarray) -> int:
    """The value of the first entry, which writers and readers may give the wrong sign.

    A number from 32,768 up is negative if the values are signed. If the LUT then lies beside all
    the values, and with the other sign does not, it has the other sign.
    """
    if first >= 2**15 and (ds.PixelRepresentation or values.min() < 0):
        first -= 2**16
    other = first % 2**16 if first < 0 else first - 2**16 * (first >= 2**15)
    beside = [s > values.max() or s + entries <= values.min() for s in (first, other)]
    return other if beside == [True, False] else first


def _within(item: Dataset, values: np.ndarray) -> np.ndarray:
    """Values beyond a LUT, moved to its ends; pydicom's index of 16 bits would overflow."""
    entries, first, _ = item.LUTDescriptor
    return np.clip(values, first, first + entries - 1)


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
    """The first value of an element; `default` if there is none.

    The decimal mark may be a comma, which programs write in some languages: DICOM numbers have no
    marks of thousands.

    Raises:
        UnreadableError: for text that is not a number.
    """
    value = ds.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return default
    try:
        return float(value.replace(",", ".") if isinstance(value, str) else value)
    except ValueError:
        raise UnreadableError(f"its {dictionary_description(keyword)} is not a number") from None
