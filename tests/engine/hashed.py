"""Tensors whose numbers follow from their names, as in hashed.h, and what headers of recorded cases are made of."""

import json
import textwrap

import numpy as np

LEFT_OUT = {"dtype", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "use_cache",
            "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"}


def value(name, shape):
    """Bytes hashed from the name and the place: of vectors that are weights 0.5 to 1.5, of others -1 to 1, of matrices
    -0.25 to 0.25."""
    h = 2166136261
    for c in name.encode():
        h = (h ^ c) * 16777619 & 0xFFFFFFFF
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) * 2654435761 & 0xFFFFFFFF ^ h
    x = (x ^ x >> 15) * 2246822519 & 0xFFFFFFFF
    byte = ((x ^ x >> 13) >> 16 & 0xFF).astype(np.float32)
    if len(shape) > 1:
        return ((byte - 128) / 512).reshape(shape)
    return 0.5 + byte / 256 if name.endswith("weight") else (byte - 128) / 128


def listed(shapes):
    """Names and shapes as hashed_write takes them."""
    return " ".join(n + "".join(f":{d}" for d in s) for n, s in sorted(shapes.items()))


def strings(text):
    """Parts short enough for a string of C."""
    return ", ".join(map(json.dumps, textwrap.wrap(text, 4000, break_long_words=False, break_on_hyphens=False)))


def floats(numbers):
    return ", ".join(f"{x:.7g}f" if "." in f"{x:.7g}" or "e" in f"{x:.7g}" else f"{x:.7g}.0f" for x in numbers)
