"""Models, original and packed."""
from __future__ import annotations

import ctypes as c
import json
import os
import threading
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, List, Optional, Union

import numpy as np

from ._library import ArgumentError, Callbacks, CEvalOptions, CEvalResult, CLayerInfo, CModelInfo, CModelOptions, CSampler, Handle, call, lib, path_of, size_of, text_of
from .quantizing import Progress, progress_of
from .tokenizer import Tokenizer, as_ids


@dataclass(frozen=True)
class ModelInfo:
    """Sizes of a model. parameters: values, tied tensors once; linear_…: of the matrices that are quantized; bytes as in the files."""

    architecture: str
    family: str
    packed: bool
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    experts: int
    parameters: int
    linear_values: int
    linear_bytes: int
    other_bytes: int
    bits_per_value: float
    model_bits_per_value: float
    compute: str
    head_bits: int


@dataclass(frozen=True)
class LayerInfo:
    """One matrix as it is stored: "vq", "trellis" or "uniform" where it is packed. error: relative layer error when it was quantized, NaN: unknown."""

    name: str
    format: str
    method: str
    rows: int
    cols: int
    dim: int
    index_bits: int
    group_rows: int
    group_cols: int
    codebook_bits: int
    scale_block: int
    bytes: int
    bits_per_value: float
    error: float
    svd_rank: int


@dataclass(frozen=True)
class Perplexity:
    """nll: mean negative log likelihood per scored token, nats; perplexity: its exponential."""

    perplexity: float
    nll: float
    tokens: int
    windows: int
    ctx: int
    score_from: int
    seconds: float


def _members(kind: Any, struct: Any) -> Any:
    values = {name: getattr(struct, name) for name in kind.__dataclass_fields__ if hasattr(struct, name)}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def layer_info(struct: CLayerInfo) -> LayerInfo:
    return LayerInfo(**_members(LayerInfo, struct))


def compute_number(name: str) -> int:
    number = c.c_int()
    call("gptvq_compute_from_name", text_of("compute", name), c.byref(number))
    return number.value


class Session:
    """Keys and values of a running text, of at most max_tokens tokens; for one thread at a time (calls wait for each other)."""

    def __init__(self, model: "Model", max_tokens: int) -> None:
        self._model, self._lock = model, threading.Lock()
        self._handle = Handle("gptvq_session_destroy", "gptvq_session_create", model._handle, size_of("max_tokens", max_tokens), keeps=model._handle)

    def forward(self, ids: Iterable[int], all_logits: bool = False) -> np.ndarray:
        """Appends tokens. Returns logits as float32, [vocab] after the last token, or [count, vocab] after each, written by the library where they are."""
        tokens = as_ids(ids)
        if tokens.size == 0:
            raise ArgumentError("logits after the last of no tokens")
        vocab = self._model.info.vocab
        out = np.empty((tokens.size, vocab) if all_logits else vocab, np.float32)
        with self._lock:
            call("gptvq_session_forward", self._handle, tokens.ctypes.data, tokens.size, out.ctypes.data, int(all_logits))
        return out


class Model:
    """A model folder, original or packed, or a GGUF file. Weights stay in the files, mapped; to be shared between threads.

    compute: "auto" (int8 inputs for packed folders, else bf16 where weights and processor have it), "fp32", "bf16" or "int8"; head_bits: 8, 16 or 0 (8 where compute is int8)."""

    def __init__(self, path: Union[str, os.PathLike], compute: str = "auto", head_bits: int = 0) -> None:
        self.path = os.fspath(path)
        options = CModelOptions(compute=compute_number(compute), head_bits=head_bits)
        self._handle = Handle("gptvq_model_close", "gptvq_model_open", path_of(path), c.byref(options))
        info = CModelInfo()
        lib.gptvq_model_get_info(self._handle, c.byref(info))
        self.info = ModelInfo(**{**_members(ModelInfo, info), "packed": bool(info.packed), "compute": lib.gptvq_compute_name(info.compute).decode()})
        self._ends = set(info.eos[: info.eos_count])
        self._bos = info.bos
        self._tokenizer: Optional[Tokenizer] = None

    @classmethod
    def open(cls, path: Union[str, os.PathLike], compute: str = "auto", head_bits: int = 0) -> "Model":
        return cls(path, compute, head_bits)

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self.path)
        return self._tokenizer

    @property
    def layers(self) -> List[LayerInfo]:
        """The matrices that are quantized, in the order of the blocks."""
        found = []
        for i in range(lib.gptvq_model_layer_count(self._handle)):
            struct = CLayerInfo()
            lib.gptvq_model_get_layer(self._handle, i, c.byref(struct))
            found.append(layer_info(struct))
        return found

    @property
    def quantization(self) -> Optional[dict]:
        """quantization_config of config.json; None: an original."""
        text = lib.gptvq_model_quantization_json(self._handle)
        return None if text is None else json.loads(text)

    def multiply(self, layer: int, x: np.ndarray, compute: str = "auto") -> np.ndarray:
        """y[n, rows] = x[n, cols] Wᵀ + bias of matrix number `layer`, decoded on the fly; float32."""
        struct, layer = CLayerInfo(), size_of("layer", layer)
        lib.gptvq_model_get_layer(self._handle, layer, c.byref(struct))
        inputs = np.ascontiguousarray(x, np.float32)
        if inputs.ndim != 2 or inputs.shape[1] != struct.cols:
            raise ArgumentError(f"x is {inputs.shape}, not [n, {struct.cols}]")
        out = np.empty((inputs.shape[0], struct.rows), np.float32)
        call("gptvq_model_multiply", self._handle, layer, compute_number(compute), inputs.shape[0], inputs.ctypes.data, out.ctypes.data)
        return out

    def session(self, max_tokens: int) -> Session:
        return Session(self, max_tokens)

    def _ids(self, prompt: Union[str, Iterable[int]]) -> np.ndarray:
        ids = as_ids(self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        if ids.size == 0:
            bos = self._bos if self._bos >= 0 else self.tokenizer.bos
            if bos is None:
                raise ArgumentError("there is nothing to continue, and the model has no BOS")
            ids = as_ids([bos])
        return ids

    def logits(self, prompt: Union[str, Iterable[int]], all_logits: bool = False) -> np.ndarray:
        """Logits of the next token, [vocab] float32; all_logits: after each token, [count, vocab]."""
        ids = self._ids(prompt)
        return self.session(ids.size).forward(ids, all_logits)

    def generate(self, prompt: Union[str, Iterable[int]], max_tokens: int = 256, temperature: float = 0.8, top_p: float = 0.95, top_k: int = 0, min_p: float = 0.0,
                 repetition_penalty: float = 1.0, seed: int = 0) -> Iterator[str]:
        """The continuation of a text (or of ids), piece by piece as it becomes certain; temperature 0: always the most likely token. Ends with the model's EOS."""
        ids = self._ids(prompt)
        room = self.info.max_positions - ids.size if self.info.max_positions > 0 else max_tokens
        if room < 0:
            raise ArgumentError(f"{ids.size} tokens, but the model's context has {self.info.max_positions}")
        return self._generate(ids, min(size_of("max_tokens", max_tokens), room), CSampler(
            temperature=temperature, top_p=top_p, top_k=size_of("top_k", top_k), min_p=min_p, state=seed, repetition_penalty=repetition_penalty))

    def _generate(self, ids: np.ndarray, count: int, sampler: CSampler) -> Iterator[str]:
        session, ends = self.session(int(ids.size) + count), self._ends | {self.tokenizer.eos}
        history = np.zeros(ids.size + count, np.int32)
        history[: ids.size] = ids
        text = _Stream(self.tokenizer)
        for token in ids:
            text.push(int(token))  # what a token looks like may depend on those before it
        logits = session.forward(ids)
        for at in range(ids.size, ids.size + count):
            token = c.c_int32()
            sampler.history = history.ctypes.data_as(c.POINTER(c.c_int32))
            sampler.history_count = at
            call("gptvq_sample", c.byref(sampler), logits.ctypes.data, logits.size, c.byref(token))
            if token.value in ends:
                break
            history[at] = token.value
            piece = text.push(token.value)
            if piece:
                yield piece
            if at + 1 < history.size:
                logits = session.forward(history[at : at + 1])
        rest = text.flush()
        if rest:
            yield rest

    def perplexity(self, text: Union[str, bytes], ctx: int = 0, max_windows: int = 0, score_from: int = 0, bos: bool = False,
                   progress: Optional[Callable[[Progress], Any]] = None, log: Optional[Callable[[str, str], Any]] = None) -> Perplexity:
        """Perplexity on windows of ctx tokens (0: 2048, or the model's context) that do not overlap. progress: called after each; False stops with Cancelled."""
        data = text.encode() if isinstance(text, str) else bytes(memoryview(text))
        options = CEvalOptions(ctx=size_of("ctx", ctx), max_windows=size_of("max_windows", max_windows), score_from=size_of("score_from", score_from), bos=int(bos))
        result, calls = CEvalResult(), Callbacks(progress, log, progress_of)
        calls.run("gptvq_eval_text", self._handle, self.tokenizer._handle, data, len(data), c.byref(options), c.byref(calls.struct), c.byref(result))
        return Perplexity(**_members(Perplexity, result))


class _Stream:
    """Text of ids as they come."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._handle = Handle("gptvq_text_stream_destroy", "gptvq_text_stream_create", tokenizer._handle, 1, keeps=tokenizer._handle)

    def _take(self, name: str, *arguments: Any) -> str:
        piece, size = c.c_void_p(), c.c_size_t()
        call(name, self._handle, *arguments, c.byref(piece), c.byref(size))
        return c.string_at(piece, size.value).decode("utf-8", "replace")

    def push(self, token: int) -> str:
        return self._take("gptvq_text_stream_push", token)

    def flush(self) -> str:
        return self._take("gptvq_text_stream_flush")
