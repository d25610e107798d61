#!/usr/bin/env python3
"""Prompt caches of clm go on in mlx-lm, with the logits that mlx-lm has without them.

Skipped where mlx-lm or the shared goldens are not there. Arguments: the command, names of models to
be held to (default: all that clm serves).
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

CLM, NAMES = sys.argv[1], sys.argv[2:]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDENS = os.path.join(os.environ.get("CLM_SHARED", os.path.join(ROOT, "..", "shared")), "goldens", "models")

try:
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.models.cache import load_prompt_cache
    from mlx_lm.utils import load_model
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)
if not os.path.isdir(GOLDENS):
    print("skipped: no shared goldens")
    sys.exit(77)

# Relative to the standard deviation of the logits; see the goldens' README.
LIMIT = 1e-3
# mlx-lm makes keys and values of latents before it caches them; clm keeps latents, which do not
# tell mlx-lm what it needs.
LATENT = {"deepseek_v2", "minicpm3", "youtu_llm"}
# mlx-lm runs them only on Apple's GPUs, or asks for a package that is not to be had any more.
ELSEWHERE = {"bitnet", "muse_spark", "olmo"}
# mlx-lm has another window while it decodes, or none, or lets another base of angles follow.
OTHER = {"plamo3", "mistral_sliding_ignored", "llama_rope_dynamic", "phi3small"}
# BitNet under Llama's name needs Apple's GPUs too; mlx-lm saves no cache of DeepSeek V4.1, and clm
# refuses to.
NOT_HERE = {"hf_bitnet_llama", "deepseek_v41"}


def logits_of(folder, tokens, cache):
    with tempfile.TemporaryDirectory() as out:
        result = subprocess.run([CLM, "logits", "-m", folder, "--exact", "--tokens", ",".join(map(str, tokens)),
                                 "--out", os.path.join(out, "x"), "--save-prompt-cache", cache],
                                capture_output=True, text=True)
    return result.stderr.strip()


def compare(folder, cache):
    """What is wrong, or None."""
    golden = mx.load(os.path.join(folder, "golden.safetensors"))
    if os.path.exists(os.path.join(folder, "adapters")):
        return None
    error = logits_of(folder, golden["prompt"].tolist(), cache)
    if error and not os.path.exists(cache):
        return None if "model_type" in error or "not supported" in error else error
    model = load_model(pathlib.Path(folder))[0]
    model.update(tree_map(lambda x: x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x,
                          model.parameters()))
    state = load_prompt_cache(cache)
    got = []
    for token in golden["decode_tokens"].tolist()[:-1]:
        got.append(model(mx.array([[token]]), cache=state)[0, -1])
    want = golden["decode_logits"][1:]
    # A few models have logits of minus infinity for what is no token.
    off = mx.abs(mx.where(want == mx.stack(got), 0, mx.stack(got) - want)).max() / mx.std(golden["prompt_logits"])
    return None if off.item() <= LIMIT else "off by %.2g deviations" % off.item()


def main():
    failed = count = 0
    for name in NAMES or sorted(os.listdir(GOLDENS)):
        folder = os.path.join(GOLDENS, name)
        if not os.path.exists(os.path.join(folder, "golden.safetensors")):
            continue
        config = json.load(open(os.path.join(folder, "config.json")))
        if config.get("model_type") in LATENT | ELSEWHERE or name in OTHER | NOT_HERE:
            continue
        with tempfile.TemporaryDirectory() as out:
            try:
                wrong = compare(folder, os.path.join(out, "cache.safetensors"))
            except (Exception, SystemExit) as e:  # whatever mlx-lm thinks of it
                wrong = "%s: %s" % (type(e).__name__, e)
        count += 1
        failed += wrong is not None
        if wrong:
            print(name + ":", wrong.splitlines()[0][:200], flush=True)
    print(count, "models,", failed, "differ")
    return failed > 0


sys.exit(main())
