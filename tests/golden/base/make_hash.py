"""Prints the expected values of tests/unit/test_hash.c: XXH64 by the xxhash package (python -m pip install xxhash)."""
import xxhash

SEED = 0x123456789ABCDEF0
data = bytes((i * i * 7 + i * 13 + (i >> 3)) & 255 for i in range(300))
for size in (0, 1, 3, 4, 7, 8, 11, 31, 32, 33, 63, 64, 100, 255, 300):
    plain, seeded = (xxhash.xxh64_intdigest(data[:size], seed) for seed in (0, SEED))
    print(f"    {{{size}, 0x{plain:016x}u, 0x{seeded:016x}u}},")
