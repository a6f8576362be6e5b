"""What gptvq.transformers registers; imported with torch and transformers only."""
from __future__ import annotations

import copy
import json
import threading
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from safetensors import safe_open
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ._library import FormatError, UnsupportedError
from .layer import PackedLayer

_DTYPES = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "U16": torch.uint16, "U32": torch.uint32}
_KEY = "gptvq."


def _shape_of(name: str, description: str) -> Dict[str, Any]:
    """The description of a packed layer, as far as it is read here; libgptvq checks all of it when the layer is first used."""
    try:
        shape = json.loads(description)
    except ValueError:
        shape = None
    if not isinstance(shape, dict) or not all(isinstance(shape.get(key), int) for key in ("rows", "cols")):
        raise FormatError(f"{name}: its description in the file's metadata is damaged: {description[:80]!r}")
    return shape


class GptvqConfig(QuantizationConfigMixin):
    """quantization_config of a packed folder: how the model was made, as it stands in config.json."""

    def __init__(self, **values: Any) -> None:
        self.quant_method = "gptvq"
        for name, value in values.items():
            if name != "quant_method":
                setattr(self, name, value)

    def to_dict(self) -> Dict[str, Any]:
        return dict(self.__dict__)


class _Product(torch.autograd.Function):
    """x [n, cols] float32 -> [n, rows]; gradients reach x, the packed weights have none."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, module: "GptvqLinear") -> torch.Tensor:
        context.module = module
        return torch.from_numpy(module.packed().multiply(x.numpy(), module.compute))

    @staticmethod
    def backward(context: Any, grad: torch.Tensor) -> Tuple[torch.Tensor, None]:
        return grad.float() @ context.module.decode(), None


class GptvqLinear(torch.nn.Module):
    """A linear whose weights are the packed arrays of docs/FORMAT.md, section 4, as buffers under their names there. x [..., in_features] of any float type ->
    [..., out_features] of the same; products in fp32, or int8 (`compute`)."""

    def __init__(self, name: str, description: str, parts: Dict[str, Tuple[torch.dtype, List[int]]], bias: Optional[torch.Tensor] = None) -> None:
        super().__init__()
        shape = _shape_of(name, description)
        self.name, self.description, self.parts, self.compute = name, description, sorted(parts), "fp32"
        self.in_features, self.out_features = shape["cols"], shape["rows"]
        for part, (dtype, dims) in parts.items():
            self.register_buffer(part, torch.empty(dims, dtype=dtype, device="meta"))
        self.bias = None if bias is None else torch.nn.Parameter(torch.empty_like(bias, device="meta"), requires_grad=False)
        self._lock, self._packed, self._made_of = threading.Lock(), None, None

    def __getattr__(self, name: str) -> Any:
        if name == "weight":  # what resize_token_embeddings and the like ask for
            raise AttributeError(f"{self.__dict__.get('name')} is packed and has no weight: model.dequantize() gives it one")
        return super().__getattr__(name)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_packed": None, "_made_of": None}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Dict[int, Any]) -> "GptvqLinear":
        twin = type(self)(self.name, self.description, {part: (getattr(self, part).dtype, list(getattr(self, part).shape)) for part in self.parts}, self.bias)
        for part in self.parts:
            setattr(twin, part, getattr(self, part).clone())
        if self.bias is not None:
            twin.bias = torch.nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        twin.compute = self.compute
        return twin

    def _apply(self, function: Any, recurse: bool = True) -> "GptvqLinear":
        """Types of packed arrays stay: model.float() and the like are for everything else; they move with the model."""
        kept = {part: getattr(self, part) for part in self.parts}
        super()._apply(function, recurse)
        for part, before in kept.items():
            after = getattr(self, part)
            if after.dtype != before.dtype:
                setattr(self, part, before.to(after.device))
        return self

    def packed(self) -> PackedLayer:
        """The layer as libgptvq has it, over the memory of the buffers."""
        buffers = [getattr(self, part) for part in self.parts]
        if any(buffer.device.type != "cpu" for buffer in buffers):
            raise UnsupportedError(f"{self.name}: packed layers run on the CPU, not on {buffers[0].device}; model.dequantize() makes plain linears of them")
        made_of = tuple((buffer.data_ptr(), buffer._version) for buffer in buffers)
        with self._lock:
            if self._packed is None or self._made_of != made_of:
                arrays: Dict[str, np.ndarray] = {}
                for part, buffer in zip(self.parts, buffers):
                    buffer = buffer.detach().contiguous()
                    arrays[part] = (buffer.view(torch.uint16) if buffer.dtype == torch.bfloat16 else buffer).numpy()
                self._packed, self._made_of = PackedLayer.open(self.name, self.description, arrays), made_of
            return self._packed

    def decode(self) -> torch.Tensor:
        """[out_features, in_features] float32."""
        return torch.from_numpy(self.packed().decode())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            raise UnsupportedError(f"{self.name}: packed layers run on the CPU, not on {x.device}; model.dequantize() makes plain linears of them")
        if x.numel() == 0:
            return x.new_zeros(*x.shape[:-1], self.out_features)
        flat = x.reshape(-1, self.in_features).to(torch.float32).contiguous()
        y = _Product.apply(flat, self) if flat.requires_grad and torch.is_grad_enabled() else _Product.forward(_Nothing, flat.detach(), self)
        if self.bias is not None:
            y = y + self.bias.to(torch.float32)
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, {self.packed_text()}"

    def packed_text(self) -> str:
        shape = json.loads(self.description)
        return ", ".join(f"{key}={shape[key]}" for key in ("format", "dim", "index_bits") if key in shape)


class _Nothing:
    """A context for products without gradients."""


class GptvqEmbedding(GptvqLinear):
    """An embedding whose rows are those of a packed matrix: token ids [...] -> [..., in_features] of the type that the model has elsewhere, times `scale`. Packed
    arrays have no gradients. `like` follows the model's type."""

    def __init__(self, name: str, description: str, parts: Dict[str, Tuple[torch.dtype, List[int]]], bias: Any = None, dtype: Optional[torch.dtype] = None,
                 scale: float = 1.0) -> None:
        super().__init__(name, description, parts)
        self.scale = scale
        self.register_buffer("like", torch.empty(0, dtype=dtype or torch.float32, device="cpu"), persistent=False)

    def __deepcopy__(self, memo: Dict[int, Any]) -> "GptvqEmbedding":
        twin = super().__deepcopy__(memo)
        twin.like, twin.scale = self.like.clone(), self.scale
        return twin

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if ids.device.type != "cpu":
            raise UnsupportedError(f"{self.name}: packed layers run on the CPU, not on {ids.device}; model.dequantize() makes a plain embedding of this one")
        rows = torch.from_numpy(self.packed().rows(ids.reshape(-1).numpy())).to(self.like.dtype)
        if self.scale != 1.0:
            rows = rows * torch.tensor(self.scale, dtype=rows.dtype)
        return rows.reshape(*ids.shape, self.in_features)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return GptvqLinear.forward(self, x)


class GptvqTiedHead(torch.nn.Module):
    """The output head of a model whose embedding is its matrix too, packed: nothing of its own."""

    def __init__(self, embedding: GptvqEmbedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # no submodule: its arrays are the embedding's alone

    def __deepcopy__(self, memo: Dict[int, Any]) -> "GptvqTiedHead":
        return GptvqTiedHead(copy.deepcopy(self._embedding[0], memo))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._embedding[0].product(x)


def _scale_of(embedding: Any, name: str) -> float:
    """What some families multiply the rows by, in a class of their own."""
    if type(embedding) is torch.nn.Embedding:
        return 1.0
    scale = getattr(embedding, "scalar_embed_scale", None)
    if scale is None:
        raise UnsupportedError(f"{name} is packed, but this transformers has a {type(embedding).__name__} there, which does more than look up rows: "
                               f"`gptvq export --format hf` makes a folder that it loads")
    return float(scale)


class GptvqQuantizer(HfQuantizer):
    requires_calibration = True  # transformers does not quantize with it: gptvq.quantize does

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    def _process_model_before_weight_loading(self, model: Any, checkpoint_files: Optional[List[str]] = None, **_: Any) -> None:
        """Linears that the files have packed are replaced, with buffers for what the files have of them."""
        if checkpoint_files is None:
            raise UnsupportedError("this transformers does not tell quantizers which files it loads: transformers 5 is needed")
        found: Dict[str, str] = {}
        parts: Dict[str, Dict[str, Tuple[torch.dtype, List[int]]]] = {}
        for file in checkpoint_files:
            with safe_open(file, "pt") as tensors:
                described = {key[len(_KEY):]: text for key, text in (tensors.metadata() or {}).items() if key.startswith(_KEY)}
                for key in tensors.keys():
                    name, _, part = key.rpartition(".")
                    if name in described and part != "bias":
                        view = tensors.get_slice(key)
                        if view.get_dtype() not in _DTYPES:
                            raise FormatError(f"{file}: tensor {key} is {view.get_dtype()}, which packed layers do not have")
                        parts.setdefault(name, {})[part] = (_DTYPES[view.get_dtype()], view.get_shape())
                        found[name] = described[name]
        if not found:
            raise FormatError("no packed layer is in the files, though quant_method is gptvq")
        for name, description in found.items():
            above, _, last = name.rpartition(".")
            try:
                parent = model.get_submodule(above)
                linear = getattr(parent, last)
            except AttributeError:
                linear = None
            if isinstance(linear, torch.nn.Embedding):
                self._replace_embedding(model, name, description, parts[name], linear)
                continue
            if not isinstance(linear, torch.nn.Linear):
                raise UnsupportedError(f"{name} is packed, but {type(model).__name__} of this transformers has no linear of that name (experts of a layer are one "
                                       f"tensor there): `gptvq export --format hf` makes a folder that it loads")
            shape = _shape_of(name, description)
            if (shape["rows"], shape["cols"]) != (linear.out_features, linear.in_features):
                raise FormatError(f"{name} is packed as {shape['rows']} × {shape['cols']}, but config.json makes it {linear.out_features} × {linear.in_features}")
            setattr(parent, last, GptvqLinear(name, description, parts[name], linear.bias))

    def _replace_embedding(self, model: Any, name: str, description: str, parts: Dict[str, Tuple[torch.dtype, List[int]]], embedding: Any) -> None:
        shape = _shape_of(name, description)
        if (shape["rows"], shape["cols"]) != (embedding.num_embeddings, embedding.embedding_dim):
            raise FormatError(f"{name} is packed as {shape['rows']} × {shape['cols']}, but config.json makes it {embedding.num_embeddings} × {embedding.embedding_dim}")
        packed = GptvqEmbedding(name, description, parts, None, embedding.weight.dtype, _scale_of(embedding, name))
        tied = [target for target, source in (getattr(model, "all_tied_weights_keys", None) or {}).items() if source == f"{name}.weight"]
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, packed)
        for target in tied:
            above, _, last = target.rpartition(".")[0].rpartition(".")
            setattr(model.get_submodule(above), last, GptvqTiedHead(packed))
            model.all_tied_weights_keys.pop(target)
        if tied:
            model._tied_weights_keys = {target: source for target, source in (model._tied_weights_keys or {}).items() if target not in tied}

    def get_state_dict_and_metadata(self, model: Any) -> Tuple[None, Dict[str, str]]:
        return None, {_KEY + module.name: module.description for module in model.modules() if isinstance(module, GptvqLinear)}

    def _dequantize(self, model: Any, dtype: Optional[torch.dtype] = None) -> Any:
        if isinstance(dtype, str):  # as save_pretrained leaves it in the model's configuration
            dtype = getattr(torch, dtype)
        for name, module in list(model.named_modules()):
            if not isinstance(module, GptvqLinear):
                continue
            above, _, last = name.rpartition(".")
            if isinstance(module, GptvqEmbedding):
                self._dequantize_embedding(model, name, module, dtype)
                continue
            plain = torch.nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            plain.weight = torch.nn.Parameter(module.decode().to(dtype or torch.float32), requires_grad=False)
            if module.bias is not None:
                plain.bias = module.bias
            setattr(model.get_submodule(above), last, plain)
        return model

    @staticmethod
    def _dequantize_embedding(model: Any, name: str, packed: GptvqEmbedding, dtype: Optional[torch.dtype]) -> None:
        weight = torch.nn.Parameter(packed.decode().to(dtype or torch.float32), requires_grad=False)
        plain = _ScaledEmbedding(weight, packed.scale)
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, plain)
        for other, head in list(model.named_modules()):
            if isinstance(head, GptvqTiedHead):
                linear = torch.nn.Linear(packed.in_features, packed.out_features, False, device="meta")
                linear.weight = weight
                above, _, last = other.rpartition(".")
                setattr(model.get_submodule(above), last, linear)
                model.__dict__.pop("_tied_weights_keys", None)
                model.all_tied_weights_keys[f"{other}.weight"] = f"{name}.weight"


class _ScaledEmbedding(torch.nn.Embedding):
    """A plain embedding, times the family's scale."""

    def __init__(self, weight: torch.nn.Parameter, scale: float) -> None:
        super().__init__(*weight.shape, device="meta")
        self.weight, self.scalar_embed_scale = weight, scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = super().forward(ids)
        return rows if self.scalar_embed_scale == 1.0 else rows * torch.tensor(self.scalar_embed_scale, dtype=rows.dtype, device=rows.device)
