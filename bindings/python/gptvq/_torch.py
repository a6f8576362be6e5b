"""What gptvq.transformers registers; imported with torch and transformers only."""
from __future__ import annotations

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

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_packed": None, "_made_of": None}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Dict[int, Any]) -> "GptvqLinear":
        copy = GptvqLinear(self.name, self.description, {part: (getattr(self, part).dtype, list(getattr(self, part).shape)) for part in self.parts}, self.bias)
        for part in self.parts:
            setattr(copy, part, getattr(self, part).clone())
        if self.bias is not None:
            copy.bias = torch.nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        copy.compute = self.compute
        return copy

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
            if not isinstance(linear, torch.nn.Linear):
                raise UnsupportedError(f"{name} is packed, but {type(model).__name__} of this transformers has no linear of that name (experts of a layer are one "
                                       f"tensor there): `gptvq export --format hf` makes a folder that it loads")
            shape = _shape_of(name, description)
            if (shape["rows"], shape["cols"]) != (linear.out_features, linear.in_features):
                raise FormatError(f"{name} is packed as {shape['rows']} × {shape['cols']}, but config.json makes it {linear.out_features} × {linear.in_features}")
            setattr(parent, last, GptvqLinear(name, description, parts[name], linear.bias))

    def get_state_dict_and_metadata(self, model: Any) -> Tuple[None, Dict[str, str]]:
        return None, {_KEY + module.name: module.description for module in model.modules() if isinstance(module, GptvqLinear)}

    def _dequantize(self, model: Any, dtype: Optional[torch.dtype] = None) -> Any:
        if isinstance(dtype, str):  # as save_pretrained leaves it in the model's configuration
            dtype = getattr(torch, dtype)
        for name, module in list(model.named_modules()):
            if not isinstance(module, GptvqLinear):
                continue
            above, _, last = name.rpartition(".")
            plain = torch.nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            plain.weight = torch.nn.Parameter(module.decode().to(dtype or torch.float32), requires_grad=False)
            if module.bias is not None:
                plain.bias = module.bias
            setattr(model.get_submodule(above), last, plain)
        return model
