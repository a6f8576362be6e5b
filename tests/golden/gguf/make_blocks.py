#!/usr/bin/env python3
"""Writes blocks.bin: blocks of random bytes of every ggml type that gptvq reads, and the values that the `gguf` package makes of them, which
tests/unit/test_gguf.c compares bit by bit.

    python3 tests/golden/gguf/make_blocks.py       needs gguf and numpy

"GPTVQGB1", the number of types; of each: its number, values, bytes, the bytes, the values (fp32)."""
import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

TYPES = (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS)
BYTES = {T.F32: (1, 4), T.F16: (1, 2), T.BF16: (1, 2), T.Q4_0: (32, 18), T.Q4_1: (32, 20), T.Q5_0: (32, 22), T.Q5_1: (32, 24), T.Q8_0: (32, 34), T.Q2_K: (256, 84),
         T.Q3_K: (256, 110), T.Q4_K: (256, 144), T.Q5_K: (256, 176), T.Q6_K: (256, 210), T.IQ4_NL: (32, 18), T.IQ4_XS: (256, 136)}


def main():
    random = np.random.default_rng(1)
    out = b"GPTVQGB1" + struct.pack("<I", len(TYPES))
    for kind in TYPES:
        values, size = BYTES[kind]
        blocks, numbers = b"", []
        while len(numbers) * values < 512:
            block = random.bytes(size)
            with np.errstate(all="ignore"):
                got = np.asarray(dequantize(np.frombuffer(block, np.uint8) if values > 1 or kind == T.BF16 else np.frombuffer(block, "<f4" if kind == T.F32 else "<f2"), kind), "<f4")
            if np.isfinite(got).all():  # a NaN has no bits of its own
                blocks += block
                numbers.append(got.tobytes())
        out += struct.pack("<III", kind, len(numbers) * values, len(blocks)) + blocks + b"".join(numbers)
    Path(__file__).with_name("blocks.bin").write_bytes(out)


if __name__ == "__main__":
    main()
