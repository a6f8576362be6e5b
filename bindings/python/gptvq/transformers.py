"""Packed folders in transformers: after `import gptvq`, `AutoModelForCausalLM.from_pretrained(folder)` opens them. The packed arrays stay packed in memory, as
buffers of GptvqLinear, whose products libgptvq computes; everything else is transformers'. Needs torch and transformers 5.

Packed layers run on the CPU. For other devices `model.dequantize()` turns them into plain linears. Experts that transformers keeps in one tensor a layer are
refused: `gptvq export --format hf` makes a plain folder of such a model."""
from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from typing import Any

_HOME = "transformers.quantizers.auto"  # where quantizers are registered


class _Hook(importlib.abc.MetaPathFinder):
    """Registers as soon as transformers imports its list of quantizers, so that `import gptvq` need not import transformers."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _HOME or self._searching:
            return None
        self._searching = True  # the other finders find it; this one stays, as not all that is found is imported
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                register(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """What `import gptvq` does."""
    if _HOME in sys.modules:
        register(sys.modules[_HOME])
    elif not any(isinstance(finder, _Hook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Hook())


def register(auto: Any) -> None:
    """Makes the method known to transformers.quantizers.auto."""
    if "gptvq" in auto.AUTO_QUANTIZER_MAPPING:
        return
    try:
        from . import _torch
    except ImportError:  # without torch, transformers has tokenizers alone
        return
    auto.register_quantization_config("gptvq")(_torch.GptvqConfig)
    auto.register_quantizer("gptvq")(_torch.GptvqQuantizer)


def set_compute(model: Any, compute: str) -> None:
    """Precision of the packed products of a loaded model: "fp32" (as loaded) or "int8", faster, as `gptvq generate` computes."""
    from . import _torch
    from .model import compute_number

    compute_number(compute)  # raises
    for module in model.modules():
        if isinstance(module, _torch.GptvqLinear):
            module.compute = compute
