"""NumPy files to pixels."""

import io
import math

import numpy as np

from fluoroscope.files.pixels import UnreadableError, check_size, luma, scale_range

NUMPY_START = np.lib.format.MAGIC_PREFIX
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def decode_array(data: bytes) -> np.ndarray:
    """Gray pixels of a `.npy` file, uint8 [H, W].

    Supports shapes [H, W], [H, W, 1], [H, W, 3 or 4] (RGB, alpha dropped) and [1, H, W] of
    booleans, integers or floating-point numbers. Nothing is unpickled, and no memory is allocated
    for a shape that the file cannot fill.

    Raises:
        UnreadableError: for another shape or type, a damaged header, too little data, and values
            that are not finite.
    """
    return gray_array(load_array(data))


def gray_array(array: np.ndarray) -> np.ndarray:
    """Gray pixels of an array in memory, uint8 [H, W], as `decode_array`; a copy.

    Raises:
        UnreadableError: for another shape or type, no or too many pixels, and values that are not
            finite.
    """
    if array.dtype.kind not in "biuf":
        raise UnreadableError(f"it holds {array.dtype} values, not numbers")
    shape = array.shape
    if array.ndim == 3 and shape[0] == 1 and shape[2] not in (3, 4):
        array = array[0]
    elif array.ndim == 3 and shape[2] in (1, 3, 4):
        array = array[..., 0] if shape[2] == 1 else luma(array)
    if array.ndim != 2:
        raise UnreadableError(
            f"its shape is {shape}; supported are (H, W), (H, W, 1 or 3 or 4) and (1, H, W)"
        )
    check_size(array.shape[1], array.shape[0])
    return scale_range(array.astype(np.uint8) * 255 if array.dtype == bool else array).copy()


def load_array(data: bytes) -> np.ndarray:
    """A view of the array in a `.npy` file, without a copy.

    Raises:
        UnreadableError: for a type without numbers, a damaged header, and too little data.
    """
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the header is parsed as Python code, so any error can come
        raise UnreadableError("its NumPy header is damaged") from error
    if dtype.kind not in "biuf":
        raise UnreadableError(f"it holds {dtype} values, not numbers")
    if len(shape) in (2, 3):
        check_size(math.prod(shape[1:]), shape[0])
    count = math.prod(shape)
    if len(data) - file.tell() < count * dtype.itemsize:
        raise UnreadableError("the file is truncated: its shape needs more data than it holds")
    array = np.frombuffer(data, dtype, count, file.tell())
    return array.reshape(shape, order="F" if fortran else "C")
