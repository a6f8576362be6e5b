"""Quantizing a model, and the options of it."""
from __future__ import annotations

import ctypes as c
import numbers
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Union

from ._library import ArgumentError, Callbacks, CProgress, CReport, call, lib, path_of, text_of

_TYPES = ("switch", "int", "unsigned", "size", "seed", "double", "enum", "text", "bytes", "word")


@dataclass(frozen=True)
class Progress:
    """A step of long work: phase ("quantize", "evaluate", …), the item just finished, how many of how many, and what the phase reports of it (NaN: nothing)."""

    phase: str
    item: str
    done: int
    total: int
    value: float


def progress_of(step: CProgress) -> Progress:
    return Progress(step.phase.decode(), step.item.decode("utf-8", "replace"), step.done, step.total, step.value)


@dataclass(frozen=True)
class Option:
    """An option of the method, as `gptvq quantize --help` has it."""

    name: str
    type: str
    min: float
    max: float
    initial: float
    paper: float
    choices: Optional[List[str]]
    flag: str
    help: str


@dataclass(frozen=True)
class Report:
    """What a run came to; bits_per_value: exact, from the bytes written; mean_error: mean relative layer error."""

    linear_values: int
    linear_bytes: int
    bits_per_value: float
    mean_error: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    layers: int
    blocks_resumed: int
    finetune_before: float
    finetune_after: float


def options() -> Dict[str, Option]:
    """All options by name."""
    found, index = {}, 0
    while True:
        field = lib.gptvq_quantize_field(index)
        if not field:
            return found
        f, choices = field.contents, None
        if f.choices:
            choices = []
            while f.choices[len(choices)] is not None:
                choices.append(f.choices[len(choices)].decode())
        found[f.name.decode()] = Option(f.name.decode(), _TYPES[f.type], f.min, f.max, f.initial, f.paper, choices, f.flag.decode(), f.help.decode())
        index += 1


class CQuantizeOptions:
    """A struct gptvq_quantize_options, filled by name; more room than any library's, which is zero as the library asks for."""

    ROOM = 8192

    def __init__(self, recipe: str, values: Dict[str, Any]) -> None:
        self.buffer = c.create_string_buffer(self.ROOM)
        c.cast(self.buffer, c.POINTER(c.c_size_t))[0] = self.ROOM
        number = c.c_int()
        call("gptvq_recipe_from_name", text_of("recipe", recipe), c.byref(number))
        lib.gptvq_quantize_options_fill(self.buffer, number)
        self.texts = []  # are not copied
        for name, value in values.items():
            if value is None:
                continue
            if isinstance(value, bool):
                text = b"1" if value else b"0"
            elif isinstance(value, (str, bytes, os.PathLike)):
                text = text_of(f"option {name}", os.fsencode(value))
            elif isinstance(value, numbers.Integral):
                text = repr(int(value)).encode()
            elif isinstance(value, float) or (hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0):
                number = float(value)
                text = (repr(int(number)) if number.is_integer() else repr(number)).encode()
            else:
                raise ArgumentError(f"option {name}: {value!r} is neither a number nor a text")
            self.texts.append(text)
            call("gptvq_quantize_options_set", self.buffer, text_of("an option", name), text)


def quantize(model: Union[str, os.PathLike], out: Union[str, os.PathLike], *, recipe: str = "default", progress: Optional[Callable[[Progress], Any]] = None,
             log: Optional[Callable[[str, str], Any]] = None, **values: Any) -> Report:
    """Quantizes the model folder (or GGUF file) `model` into the folder `out`, which appears whole or not at all.

    recipe: "default" or "paper"; values: options by name, such as bits=2.25, dim=2, method="gptvq", calib="text.txt" (or "self"), force=True, resume=True
    (`gptvq.options()` lists them). progress: called after each layer; returning False, or an exception, stops the run, which `resume=True` goes on with.
    log: called with "info" or "warning" and a line."""
    settings, result, calls = CQuantizeOptions(recipe, values), CReport(), Callbacks(progress, log, progress_of)
    calls.run("gptvq_quantize", path_of(model), path_of(out), settings.buffer, c.byref(calls.struct), c.byref(result))
    return Report(**{name: getattr(result, name) for name in Report.__dataclass_fields__})
