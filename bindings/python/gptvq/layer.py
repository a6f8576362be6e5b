"""The method on one matrix."""
from __future__ import annotations

import ctypes as c
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np

from ._library import ArgumentError, Callbacks, CArray, CLayerInfo, call, lib, text_of
from .model import LayerInfo, compute_number, layer_info
from .quantizing import CQuantizeOptions, progress_of

_DTYPES = {"U8": np.uint8, "I8": np.int8, "F16": np.float16, "BF16": np.uint16, "F32": np.float32, "U32": np.uint32}
_TYPES = {np.dtype(np.uint8): "U8", np.dtype(np.int8): "I8", np.dtype(np.float16): "F16", np.dtype(np.uint16): "U16", np.dtype(np.float32): "F32",
          np.dtype(np.uint32): "U32"}


def _matrix(name: str, array: Any, dtype: Any) -> np.ndarray:
    matrix = np.ascontiguousarray(array, dtype)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ArgumentError(f"{name} is no matrix: {matrix.shape}")
    return matrix


def hessian(x: np.ndarray) -> np.ndarray:
    """[cols, cols] float64: the mean of x xᵀ over the rows of the inputs x [n, cols]. More than fit at a time: the mean of results, weighted by n."""
    inputs = _matrix("x", x, np.float32)
    out = np.empty((inputs.shape[1], inputs.shape[1]), np.float64)
    call("gptvq_input_hessian", inputs.shape[0], inputs.shape[1], inputs.ctypes.data, out.ctypes.data)
    return out


class PackedLayer:
    """A packed matrix, immutable. arrays: those of docs/FORMAT.md, section 4, by name, views into the library's memory (BF16 as uint16 bits); error: tr(E H Eᵀ) /
    tr(W H Wᵀ) with E = W − packed W (without a Hessian ‖E‖² / ‖W‖²)."""

    def __init__(self, handle: c.c_void_p) -> None:
        self._handle = handle
        struct = CLayerInfo()
        lib.gptvq_packed_layer_get_info(handle, c.byref(struct))
        self.info: LayerInfo = layer_info(struct)
        self.arrays: Dict[str, np.ndarray] = self._views()

    @classmethod
    def open(cls, name: str, description: str, arrays: Mapping[str, np.ndarray]) -> "PackedLayer":
        """The layer from the arrays of a packed folder, as a program reads them itself: by name ("indices", …), as the files have them (BF16 as uint16 bits), and
        the text under "gptvq.NAME" in the metadata of their file. They are used where they lie and must not change while the layer is there."""
        kept, structs = [], (CArray * max(len(arrays), 1))()
        for struct, (part, given) in zip(structs, arrays.items()):
            array = np.asarray(given)
            if array.dtype not in _TYPES or array.ndim > 4 or not array.flags.c_contiguous:
                raise ArgumentError(f"{name}: the array {part} is {array.dtype} of {array.ndim} dimensions, or not contiguous")
            kind = "BF16" if part == "codebook_scales" and array.dtype == np.uint16 else _TYPES[array.dtype]
            kept += [array, text_of("an array", part)]
            struct.size, struct.name, struct.type = c.sizeof(CArray), kept[-1], kind.encode()
            struct.rank, struct.dims, struct.data = array.ndim, (c.c_size_t * 4)(*array.shape), array.ctypes.data
        text, handle = description.encode(), c.c_void_p()
        call("gptvq_packed_layer_open", text_of("name", name), text, len(text), structs, len(arrays), c.byref(handle))
        layer = cls.__new__(cls)
        layer._owner_of(handle)._arrays = kept  # live as long as the layer, and as views of it
        layer.__init__(handle)
        return layer

    def _owner_of(self, handle: c.c_void_p) -> "_Owner":
        self._handle = handle
        return self._owner()

    def _views(self) -> Dict[str, np.ndarray]:
        found: Dict[str, np.ndarray] = {}
        array = CArray()
        while lib.gptvq_packed_layer_get_array(self._handle, len(found), c.byref(array)):
            dtype = np.dtype(_DTYPES[array.type.decode()])
            dims = tuple(array.dims[: array.rank])
            buffer = (c.c_char * (int(np.prod(dims)) * dtype.itemsize)).from_address(array.data)
            buffer._layer = self._owner()  # the memory lives as long as a view of it
            view = np.frombuffer(buffer, dtype).reshape(dims)
            view.flags.writeable = False
            found[array.name.decode()] = view
        return found

    def _owner(self) -> "_Owner":
        if not hasattr(self, "_own"):
            self._own = _Owner(self._handle)
        return self._own

    @property
    def error(self) -> float:
        return self.info.error

    @property
    def bits_per_value(self) -> float:
        """Everything that is stored, exactly."""
        return self.info.bits_per_value

    def decode(self) -> np.ndarray:
        """[rows, cols] float32, columns in their original order."""
        out = np.empty((self.info.rows, self.info.cols), np.float32)
        lib.gptvq_packed_layer_decode(self._handle, out.ctypes.data)
        return out

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """[n, cols] float32: the rows of these numbers [n], as an embedding looks them up."""
        wanted = np.ascontiguousarray(numbers, np.int64)
        if wanted.ndim != 1:
            raise ArgumentError(f"numbers of rows are {wanted.shape}, not [n]")
        out = np.empty((wanted.shape[0], self.info.cols), np.float32)
        call("gptvq_packed_layer_rows", self._handle, wanted.shape[0], wanted.ctypes.data, out.ctypes.data)
        return out

    def multiply(self, x: np.ndarray, compute: str = "fp32") -> np.ndarray:
        """[n, rows] float32: inputs x [n, cols] times the packed matrix, transposed; compute "fp32" or "int8"."""
        inputs = _matrix("x", x, np.float32)
        if inputs.shape[1] != self.info.cols:
            raise ArgumentError(f"x is {inputs.shape}, not [n, {self.info.cols}]")
        out = np.empty((inputs.shape[0], self.info.rows), np.float32)
        call("gptvq_packed_layer_multiply", self._handle, compute_number(compute), inputs.shape[0], inputs.ctypes.data, out.ctypes.data)
        return out


class _Owner:
    def __init__(self, handle: c.c_void_p) -> None:
        self._handle = handle

    def __del__(self) -> None:
        if lib is not None:
            lib.gptvq_packed_layer_destroy(self._handle)


def solve(weights: np.ndarray, hessian: Optional[np.ndarray] = None, *, name: str = "weights", recipe: str = "default",
          log: Optional[Callable[[str, str], Any]] = None, **values: Any) -> PackedLayer:
    """Packs weights [rows, cols]; y = W x. hessian [cols, cols]: symmetric, of the inputs (`layer.hessian`); None: an identity.

    values: options by name, as of `gptvq.quantize`; those about whole models mean nothing here. The same bytes whatever the number of threads."""
    matrix = _matrix("weights", weights, np.float32)
    own = None
    if hessian is not None:
        own = _matrix("hessian", hessian, np.float64)
        if own.shape != (matrix.shape[1], matrix.shape[1]):
            raise ArgumentError(f"the Hessian is {own.shape}, not [{matrix.shape[1]}, {matrix.shape[1]}]")
    settings, handle, calls = CQuantizeOptions(recipe, values), c.c_void_p(), Callbacks(None, log, progress_of)
    calls.run("gptvq_pack_layer", text_of("name", name), matrix.shape[0], matrix.shape[1], matrix.ctypes.data, None if own is None else own.ctypes.data, settings.buffer,
              c.byref(calls.struct), c.byref(handle))
    return PackedLayer(handle)
