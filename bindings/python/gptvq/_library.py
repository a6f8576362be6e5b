"""libgptvq through ctypes, which releases the GIL while a function of it runs. The structs are those of include/gptvq: each begins with its size, and the library
goes by that, so that a newer library works with these."""
from __future__ import annotations

import ctypes as c
import operator
import os
from pathlib import Path
from typing import Any, Callable, Optional


class Error(Exception):
    """What a call of the library came to. `status` is its number, which the command line tool exits with; subclasses stand for one each."""

    status = 1


class ArgumentError(Error, ValueError):
    status = 2


class IOFailure(Error, OSError):
    status = 3


class FormatError(Error, ValueError):
    status = 4


class UnsupportedError(Error, NotImplementedError):
    status = 5


class NumericError(Error, ArithmeticError):
    status = 6


class OutOfMemory(Error, MemoryError):
    status = 7


class DataError(Error, ValueError):
    status = 8


class Cancelled(Error):
    status = 130


_ERRORS = {kind.status: kind for kind in (Error, ArgumentError, IOFailure, FormatError, UnsupportedError, NumericError, OutOfMemory, DataError, Cancelled)}


class CError(c.Structure):
    _fields_ = [("status", c.c_int), ("message", c.c_char * 1024)]


class Sized(c.Structure):
    """A struct that begins with its size, which is filled in."""

    def __init__(self, *args: Any, **members: Any) -> None:
        super().__init__(*args, **members)
        self.size = c.sizeof(self)


class CProgress(c.Structure):
    _fields_ = [("size", c.c_size_t), ("phase", c.c_char_p), ("item", c.c_char_p), ("done", c.c_size_t), ("total", c.c_size_t), ("value", c.c_double)]


LOG = c.CFUNCTYPE(None, c.c_void_p, c.c_int, c.c_char_p)
PROGRESS = c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(CProgress))


class CCallbacks(Sized):
    _fields_ = [("size", c.c_size_t), ("user", c.c_void_p), ("log", LOG), ("progress", PROGRESS)]


class CModelOptions(Sized):
    _fields_ = [("size", c.c_size_t), ("compute", c.c_int), ("head_bits", c.c_uint), ("callbacks", c.c_void_p)]


class CModelInfo(Sized):
    _fields_ = [("size", c.c_size_t), ("architecture", c.c_char * 64), ("layers", c.c_size_t), ("hidden", c.c_size_t), ("intermediate", c.c_size_t),
                ("heads", c.c_size_t), ("kv_heads", c.c_size_t), ("head_dim", c.c_size_t), ("vocab", c.c_size_t), ("max_positions", c.c_size_t),
                ("experts", c.c_size_t), ("parameters", c.c_uint64), ("linear_values", c.c_uint64), ("linear_bytes", c.c_uint64), ("other_bytes", c.c_uint64),
                ("bits_per_value", c.c_double), ("model_bits_per_value", c.c_double), ("packed", c.c_int), ("bos", c.c_int32), ("eos", c.POINTER(c.c_int32)),
                ("eos_count", c.c_size_t), ("compute", c.c_int), ("head_bits", c.c_uint), ("family", c.c_char_p), ("beside_bytes", c.c_uint64)]


class CLayerInfo(Sized):
    _fields_ = [("size", c.c_size_t), ("name", c.c_char_p), ("format", c.c_char_p), ("method", c.c_char_p), ("rows", c.c_size_t), ("cols", c.c_size_t),
                ("dim", c.c_uint), ("index_bits", c.c_uint), ("group_rows", c.c_size_t), ("group_cols", c.c_size_t), ("codebook_bits", c.c_uint),
                ("scale_block", c.c_uint), ("bytes", c.c_uint64), ("bits_per_value", c.c_double), ("error", c.c_double), ("svd_rank", c.c_uint)]


class CEvalOptions(Sized):
    _fields_ = [("size", c.c_size_t), ("ctx", c.c_size_t), ("max_windows", c.c_size_t), ("score_from", c.c_size_t), ("bos", c.c_int), ("name", c.c_char_p),
                ("device", c.c_void_p)]


class CEvalResult(Sized):
    _fields_ = [("size", c.c_size_t), ("nll", c.c_double), ("perplexity", c.c_double), ("tokens", c.c_uint64), ("windows", c.c_size_t), ("ctx", c.c_size_t),
                ("score_from", c.c_size_t), ("seconds", c.c_double)]


class CSampler(Sized):
    _fields_ = [("size", c.c_size_t), ("temperature", c.c_float), ("top_p", c.c_float), ("top_k", c.c_size_t), ("state", c.c_uint64), ("min_p", c.c_float),
                ("repetition_penalty", c.c_float), ("history", c.POINTER(c.c_int32)), ("history_count", c.c_size_t)]


class CReport(Sized):
    _fields_ = [("size", c.c_size_t), ("linear_values", c.c_uint64), ("linear_bytes", c.c_uint64), ("bits_per_value", c.c_double), ("mean_error", c.c_double),
                ("seconds", c.c_double), ("peak_bytes", c.c_uint64), ("layers", c.c_size_t), ("blocks_resumed", c.c_size_t), ("finetune_before", c.c_double),
                ("finetune_after", c.c_double), ("cpu_seconds", c.c_double)]


class CField(c.Structure):
    _fields_ = [("size", c.c_size_t), ("name", c.c_char_p), ("type", c.c_int), ("offset", c.c_size_t), ("min", c.c_double), ("max", c.c_double),
                ("initial", c.c_double), ("paper", c.c_double), ("derived", c.c_char_p), ("choices", c.POINTER(c.c_char_p)), ("identity", c.c_int),
                ("section", c.c_char_p), ("flag", c.c_char_p), ("argument", c.c_char_p), ("help", c.c_char_p)]


class CArray(Sized):
    _fields_ = [("size", c.c_size_t), ("name", c.c_char_p), ("type", c.c_char_p), ("rank", c.c_size_t), ("dims", c.c_size_t * 4), ("data", c.c_void_p)]


def _load() -> c.CDLL:
    own = Path(__file__).with_name("libgptvq.so")
    path = os.environ.get("GPTVQ_LIBRARY") or (str(own) if own.exists() else "libgptvq.so.0")
    try:
        return c.CDLL(path)
    except OSError as failure:
        raise ImportError(f"gptvq: the library cannot be loaded ({failure}); the packages that scripts/install-deps.sh names have to be there") from failure


lib = _load()
_V, _P = c.c_void_p, c.POINTER
_FUNCTIONS = {  # result, arguments without the error; fallible ones have a trailing True
    "gptvq_version": (c.c_char_p, []),
    "gptvq_set_threads": (None, [c.c_int]),
    "gptvq_get_threads": (c.c_int, []),
    "gptvq_free": (None, [_V]),
    "gptvq_compute_name": (c.c_char_p, [c.c_int]),
    "gptvq_compute_from_name": (c.c_int, [c.c_char_p, _P(c.c_int)], True),
    "gptvq_model_open": (c.c_int, [c.c_char_p, _P(CModelOptions), _P(_V)], True),
    "gptvq_model_close": (None, [_V]),
    "gptvq_model_get_info": (None, [_V, _P(CModelInfo)]),
    "gptvq_model_layer_count": (c.c_size_t, [_V]),
    "gptvq_model_get_layer": (None, [_V, c.c_size_t, _P(CLayerInfo)]),
    "gptvq_model_quantization_json": (c.c_char_p, [_V]),
    "gptvq_model_multiply": (c.c_int, [_V, c.c_size_t, c.c_int, c.c_size_t, _V, _V], True),
    "gptvq_session_create": (c.c_int, [_V, c.c_size_t, _P(_V)], True),
    "gptvq_session_destroy": (None, [_V]),
    "gptvq_session_forward": (c.c_int, [_V, _V, c.c_size_t, _V, c.c_int], True),
    "gptvq_sample": (c.c_int, [_P(CSampler), _V, c.c_size_t, _P(c.c_int32)], True),
    "gptvq_tokenizer_open": (c.c_int, [c.c_char_p, _P(_V)], True),
    "gptvq_tokenizer_close": (None, [_V]),
    "gptvq_tokenizer_encode": (c.c_int, [_V, c.c_char_p, c.c_size_t, c.c_int, _P(_P(c.c_int32)), _P(c.c_size_t)], True),
    "gptvq_tokenizer_decode": (c.c_int, [_V, _V, c.c_size_t, c.c_int, _P(_V), _P(c.c_size_t)], True),
    "gptvq_tokenizer_vocab_size": (c.c_size_t, [_V]),
    "gptvq_tokenizer_token_to_id": (c.c_int32, [_V, c.c_char_p]),
    "gptvq_tokenizer_bos": (c.c_int32, [_V]),
    "gptvq_tokenizer_eos": (c.c_int32, [_V]),
    "gptvq_text_stream_create": (c.c_int, [_V, c.c_int, _P(_V)], True),
    "gptvq_text_stream_push": (c.c_int, [_V, c.c_int32, _P(_V), _P(c.c_size_t)], True),
    "gptvq_text_stream_flush": (c.c_int, [_V, _P(_V), _P(c.c_size_t)], True),
    "gptvq_text_stream_destroy": (None, [_V]),
    "gptvq_eval_text": (c.c_int, [_V, _V, c.c_char_p, c.c_size_t, _P(CEvalOptions), _P(CCallbacks), _P(CEvalResult)], True),
    "gptvq_recipe_from_name": (c.c_int, [c.c_char_p, _P(c.c_int)], True),
    "gptvq_quantize_options_fill": (None, [_V, c.c_int]),
    "gptvq_quantize_options_set": (c.c_int, [_V, c.c_char_p, c.c_char_p], True),
    "gptvq_quantize_options_get": (c.c_int, [_V, c.c_char_p, c.c_char_p, c.c_size_t], True),
    "gptvq_quantize_field": (_P(CField), [c.c_size_t]),
    "gptvq_quantize": (c.c_int, [c.c_char_p, c.c_char_p, _V, _P(CCallbacks), _P(CReport)], True),
    "gptvq_input_hessian": (c.c_int, [c.c_size_t, c.c_size_t, _V, _V], True),
    "gptvq_pack_layer": (c.c_int, [c.c_char_p, c.c_size_t, c.c_size_t, _V, _V, _V, _P(CCallbacks), _P(_V)], True),
    "gptvq_packed_layer_open": (c.c_int, [c.c_char_p, c.c_char_p, c.c_size_t, _P(CArray), c.c_size_t, _P(_V)], True),
    "gptvq_packed_layer_destroy": (None, [_V]),
    "gptvq_packed_layer_get_info": (None, [_V, _P(CLayerInfo)]),
    "gptvq_packed_layer_get_array": (c.c_int, [_V, c.c_size_t, _P(CArray)]),
    "gptvq_packed_layer_decode": (None, [_V, _V]),
    "gptvq_packed_layer_rows": (c.c_int, [_V, c.c_size_t, _V, _V], True),
    "gptvq_packed_layer_multiply": (c.c_int, [_V, c.c_int, c.c_size_t, _V, _V], True),
}
for _name, (_result, _arguments, *_fallible) in _FUNCTIONS.items():
    _function = getattr(lib, _name)
    _function.restype = _result
    _function.argtypes = _arguments + ([_P(CError)] if _fallible else [])


def call(name: str, *arguments: Any) -> None:
    """A fallible function; what it fails with is raised."""
    error = CError()
    status = getattr(lib, name)(*arguments, c.byref(error))
    if status != 0:
        kind = _ERRORS.get(status, Error)
        failure = kind(error.message.decode("utf-8", "replace"))
        failure.status = status
        raise failure


class Handle:
    """What a function of the library makes, until nothing has it any more: copies of an object share it. keeps: what it needs as long."""

    def __init__(self, destroy: str, make: str, *arguments: Any, keeps: Any = None) -> None:
        self._as_parameter_, self._destroy, self._keeps = c.c_void_p(), getattr(lib, destroy), keeps
        call(make, *arguments, c.byref(self._as_parameter_))

    def __del__(self) -> None:
        made, self._as_parameter_ = getattr(self, "_as_parameter_", None), None
        if made:
            self._destroy(made)


def text_of(name: str, text: Any) -> bytes:
    """As C has it, where a NUL would be its end."""
    if not isinstance(text, (str, bytes)):
        raise ArgumentError(f"{name}: {text!r} is no text")
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if b"\0" in data:
        raise ArgumentError(f"{name}: {text!r} has a NUL in it")
    return data


def path_of(path: Any) -> bytes:
    return text_of("a path", os.fsencode(os.fspath(path)))


def size_of(name: str, number: Any) -> int:
    """A number of things, which the library takes modulo 2^64."""
    try:
        size = operator.index(number)
    except TypeError:
        raise ArgumentError(f"{name}: {number!r} is no whole number") from None
    if not 0 <= size < 2**63:
        raise ArgumentError(f"{name}: {size} is out of range")
    return size


class Callbacks:
    """`progress` and `log` of a caller as the library calls them; what they raise stops the call and is raised by `run`."""

    def __init__(self, progress: Optional[Callable[[Any], Any]], log: Optional[Callable[[str, str], Any]], make: Callable[[Any], Any]) -> None:
        self.failure: Optional[BaseException] = None

        def on_progress(_user: Any, step: Any) -> int:
            try:
                if self.failure is None and progress is not None and progress(make(step.contents)) is False:
                    return 1
            except BaseException as failure:  # KeyboardInterrupt too
                self.failure = failure
            return 0 if self.failure is None else 1

        def on_log(_user: Any, level: int, line: bytes) -> None:
            try:
                if log is not None:
                    log("warning" if level == 1 else "info", line.decode("utf-8", "replace"))
            except BaseException as failure:
                self.failure = failure

        self.struct = CCallbacks(log=LOG(on_log), progress=PROGRESS(on_progress))

    def run(self, name: str, *arguments: Any) -> None:
        try:
            call(name, *arguments)
        except Error:
            if self.failure is not None:
                raise self.failure from None
            raise
        if self.failure is not None:
            raise self.failure
