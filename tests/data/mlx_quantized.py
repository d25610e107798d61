"""Writes mlx_quantized.txt: rows quantised by mlx.core.quantize, and what they stand for.

Run with a Python that has mlx and numpy; the file is kept, so that tests need neither. A case is a line
    mode bits group_size scale_type n_in
and four lines of hexadecimal bytes: data, scales, biases (or "-") and the values as little-endian f32.
The values come from mlx.core.dequantize with scales and biases widened to f32, as products use them.
"""

import pathlib

import mlx.core as mx
import numpy as np

N_IN = 128
TYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


def raw(a):
    if a is None:
        return "-"
    if a.dtype == mx.bfloat16:
        a = a.view(mx.uint16)
    return np.array(a).tobytes().hex()


def case(mode, bits, group_size, scale_type, row):
    x = mx.array(row).astype(TYPES.get(scale_type, mx.float32))[None]
    w, scales, *biases = mx.quantize(x, group_size=group_size, bits=bits, mode=mode)
    bias = biases[0] if biases else None
    if mode == "affine":
        values = mx.dequantize(w, scales.astype(mx.float32), bias.astype(mx.float32),
                               group_size=group_size, bits=bits, mode=mode)
    else:
        values = mx.dequantize(w, scales, group_size=group_size, bits=bits, mode=mode,
                               dtype=mx.float32)
    assert values.dtype == mx.float32
    yield f"{mode} {bits} {group_size} {scale_type} {N_IN}"
    yield from (raw(w), raw(scales), raw(bias), raw(values))


def main():
    random = np.random.default_rng(7)
    lines = []
    for bits in (2, 3, 4, 5, 6, 8):
        for group_size in (32, 64, 128):
            for scale_type in TYPES:
                row = random.normal(0.01, 0.05, N_IN).astype(np.float32)
                lines += case("affine", bits, group_size, scale_type, row)
    for mode, bits, group_size in (("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)):
        for spread in (1e-3, 0.05, 30.0):
            row = random.normal(0, spread, N_IN).astype(np.float32)
            lines += case(mode, bits, group_size, "-", row)
    path = pathlib.Path(__file__).with_suffix(".txt")
    path.write_text("\n".join(lines) + "\n")


main()
