#!/usr/bin/env python3
"""Makes types.safetensors with the safetensors package: one tensor of each dtype, an empty one and a scalar.

usage: make_safetensors.py            write types.safetensors beside this script
       make_safetensors.py --check F  read F, a file written by gptvq, with the safetensors package and print its tensors

Element i of a tensor is 3·i − 4 (signed), 3·i (unsigned), i odd (BOOL), i/2 − 1 (floating); tests/unit/test_safetensors.c knows the
same formulas. Needs torch, numpy and safetensors.
"""
import pathlib
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

SIGNED = {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
UNSIGNED = {"U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64}
FLOATING = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
            "F8_E4M3": torch.float8_e4m3fn}


def make(path):
    i = torch.arange(12, dtype=torch.int64)
    tensors = {"t." + name: (3 * i - 4).to(dtype).reshape(3, 4) for name, dtype in SIGNED.items()}
    tensors |= {"t." + name: (3 * i).to(dtype).reshape(2, 1, 6) for name, dtype in UNSIGNED.items()}
    tensors |= {"t." + name: (i.to(torch.float64) / 2 - 1).to(dtype) for name, dtype in FLOATING.items()}
    tensors["t.BOOL"] = (i % 2 == 1)
    tensors["empty"] = torch.zeros(0, 5, dtype=torch.float32)
    tensors["scalar"] = torch.tensor(2.5, dtype=torch.float32)
    tensors["name with \"quotes\", ü and \t tab"] = torch.ones(1, dtype=torch.float32)
    save_file(tensors, path, metadata={"format": "pt", "note": "golden"})


def check(path):
    with safe_open(path, framework="pt") as f:
        print("metadata", dict(sorted(f.metadata().items())))
        for name in sorted(f.keys()):
            tensor = f.get_tensor(name)
            print(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        check(sys.argv[2])
    else:
        make(pathlib.Path(__file__).with_name("types.safetensors"))
