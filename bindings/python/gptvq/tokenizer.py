"""Text and token ids."""
from __future__ import annotations

import ctypes as c
import os
from typing import Iterable, List, Optional, Union

import numpy as np

from ._library import Handle, call, lib, path_of, text_of


def as_ids(ids: Iterable[int]) -> np.ndarray:
    """Token ids as a contiguous int32 array, [count]."""
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
    if array.size == 0:
        return np.zeros(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError("token ids are a flat sequence of whole numbers")
    if array.min() < -(2**31) or array.max() >= 2**31:
        raise ValueError("a token id does not fit into 32 bits")
    return np.ascontiguousarray(array, np.int32)


class Tokenizer:
    """The tokenizer of a model folder, a GGUF file or a tokenizer.json. Immutable, to be shared between threads."""

    def __init__(self, path: Union[str, os.PathLike]) -> None:
        self._handle = Handle("gptvq_tokenizer_close", "gptvq_tokenizer_open", path_of(path))

    def encode(self, text: Union[str, bytes], special: bool = True) -> List[int]:
        """Ids of the text. special: with what the tokenizer's template puts around it (BOS, EOS)."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(memoryview(text))
        ids, count = c.POINTER(c.c_int32)(), c.c_size_t()
        call("gptvq_tokenizer_encode", self._handle, data, len(data), int(special), c.byref(ids), c.byref(count))
        try:
            return ids[: count.value]
        finally:
            lib.gptvq_free(ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of the ids; those that are none say nothing."""
        array = as_ids(ids)
        text, size = c.c_void_p(), c.c_size_t()
        call("gptvq_tokenizer_decode", self._handle, array.ctypes.data, array.size, int(skip_special), c.byref(text), c.byref(size))
        try:
            return c.string_at(text, size.value).decode("utf-8", "replace")
        finally:
            lib.gptvq_free(text)

    def id(self, token: str) -> Optional[int]:
        """Id of a token's text, or None."""
        found = lib.gptvq_tokenizer_token_to_id(self._handle, text_of("a token", token))
        return None if found < 0 else found

    @property
    def bos(self) -> Optional[int]:
        found = lib.gptvq_tokenizer_bos(self._handle)
        return None if found < 0 else found

    @property
    def eos(self) -> Optional[int]:
        found = lib.gptvq_tokenizer_eos(self._handle)
        return None if found < 0 else found

    def __len__(self) -> int:
        """The largest id and one."""
        return lib.gptvq_tokenizer_vocab_size(self._handle)
