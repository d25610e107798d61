#!/usr/bin/env python3
"""Write samplers.json: what the samplers that mlx-lm does not have must give, on small inputs.

    tests/data/samplers.py > tests/data/samplers.json

Plain Python after the papers and llama.cpp's documentation, in double precision, sorting where the
program selects and searching where it has an algorithm. Rows whose outcome hangs on rounding are
left out.

top_n_sigma  logits, n -> kept ids (arXiv:2411.07641)
typical      logits, p -> kept ids (arXiv:2202.00666)
dynatemp     logits, temp, range, exponent -> temperature
mirostat     logits, temp, mu -> kept ids, the surprise of each in bits (arXiv:2007.14966)
dry          history, breakers, multiplier, base, allowed_length, last_n -> penalty of each token
"""
import json
import math
import random

TINY = 1e-5


def softmax(logits):
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [w / sum(weights) for w in weights]


def entropy(p):
    return -sum(q * math.log(q) for q in p if q > 0)


def top_n_sigma(logits, n):
    finite = [x for x in logits if x > -math.inf]
    mean = sum(finite) / len(finite)
    sigma = math.sqrt(sum((x - mean) ** 2 for x in finite) / len(finite))
    line = max(finite) - n * sigma
    if min(abs(x - line) for x in finite) < TINY:
        return None
    return [i for i, x in enumerate(logits) if x >= line]


def typical(logits, p):
    probabilities = softmax(logits)
    h = entropy(probabilities)
    far = {i: abs(-math.log(q) - h) for i, q in enumerate(probabilities) if q > 0}
    kept, mass = [], 0.0
    for i in sorted(far, key=far.get):
        if mass >= p and (not kept or far[i] - far[kept[-1]] > TINY):
            break
        if mass >= p and far[i] != far[kept[-1]]:
            return None
        kept.append(i)
        mass += probabilities[i]
        if abs(mass - p) < TINY:
            return None
    return sorted(kept)


def dynatemp(logits, temp, reach, exponent):
    low, high = max(0.0, temp - reach), temp + reach
    if len(logits) < 2:
        return low
    return low + (high - low) * (entropy(softmax(logits)) / math.log(len(logits))) ** exponent


def mirostat(logits, temp, mu):
    p = softmax([x / temp for x in logits])
    surprise = [-math.log2(q) if q > 0 else math.inf for q in p]
    if min(abs(s - mu) for s in surprise) < TINY:
        return None, None
    kept = [i for i, s in enumerate(surprise) if s <= mu] or [p.index(max(p))]
    total = sum(p[i] for i in kept)
    return kept, [-math.log2(p[i] / total) for i in kept]


def dry(history, breakers, multiplier, base, allowed_length, last_n):
    """Try every token that could come next, and every earlier place of it."""
    window = history if last_n < 0 else history[len(history) - min(last_n, len(history)):]
    if last_n == 0 or len(window) <= allowed_length:
        return {}
    limit = len(window)
    for i in range(len(window)):
        here = [b for b in breakers if window[len(window) - 1 - i:][:len(b)] == b]
        if here:
            limit = i + 1 - max(map(len, here))
            break
    penalties = {}
    for token in sorted(set(window)):
        longest = -1
        for place in range(1, len(window)):
            n = 0
            while n < place and window[place - 1 - n] == window[len(window) - 1 - n]:
                n += 1
            if window[place] == token:
                longest = max(longest, min(n, limit))
        if longest >= allowed_length and limit >= allowed_length and [token] not in breakers:
            penalties[token] = multiplier * base ** (longest - allowed_length)
    return penalties


def rows(r):
    vectors = [[1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 1.0, -math.inf, 0.5], [9.0] + [0.0] * 20,
               [5.0, 5.0, 1.0, 0.0, -1.0, -2.0]]
    vectors += [[round(r.gauss(0, s), 3) for _ in range(n)]
                for n in (2, 7, 40, 300) for s in (0.5, 2.0, 6.0)]
    vectors.append([round(r.gauss(0, 3), 3) for _ in range(2000)])
    text = [["-inf" if x == -math.inf else x for x in v] for v in vectors]
    out = {"vectors": text, "top_n_sigma": [], "typical": [], "dynatemp": [], "mirostat": [],
           "dry": []}
    for v, logits in enumerate(vectors):
        for n in (0.05, 0.5, 1.0, 2.5):
            kept = top_n_sigma(logits, n)
            if kept:
                out["top_n_sigma"].append({"vector": v, "n": n, "kept": kept})
        for p in (0.1, 0.5, 0.9, 0.995):
            kept = typical(logits, p)
            if kept:
                out["typical"].append({"vector": v, "p": p, "kept": kept})
        finite = [x for x in logits if x > -math.inf]
        for temp, reach, exponent in ((0.8, 0.5, 1.0), (0.3, 0.7, 1.0), (1.5, 1.0, 2.5)):
            out["dynatemp"].append({"vector": v, "temp": temp, "range": reach,
                                    "exponent": exponent,
                                    "temperature": dynatemp(finite, temp, reach, exponent)})
        for temp, mu in ((1.0, 0.01), (1.0, 3.0), (0.7, 5.0), (1.3, 10.0)):
            kept, surprise = mirostat(logits, temp, mu)
            if kept:
                out["mirostat"].append({"vector": v, "temp": temp, "mu": mu, "kept": kept,
                                        "surprise": surprise})
    for case in range(160):
        history = [r.randrange(2 + case % 5) for _ in range(r.randrange(60))]
        if case % 4 == 0:
            history = (history[:7] or [1]) * (1 + r.randrange(6))
        breakers = [[r.randrange(6) for _ in range(1 + r.randrange(3))]
                    for _ in range(r.randrange(3))]
        row = {"history": history, "breakers": sorted({tuple(b) for b in breakers}),
               "multiplier": r.choice((0.8, 2.0)), "base": r.choice((1.0, 1.75, 3.0)),
               "allowed_length": r.choice((0, 1, 2, 4)), "last_n": r.choice((-1, -1, 0, 10, 30))}
        penalties = dry(history, [list(b) for b in row["breakers"]], row["multiplier"],
                        row["base"], row["allowed_length"], row["last_n"])
        row["penalties"] = {str(t): p for t, p in penalties.items()}
        out["dry"].append(row)
    return out


def main():
    out = rows(random.Random(6))
    lists = ",\n".join('"%s": [\n%s\n]' % (name, ",\n".join(json.dumps(row) for row in table))
                       for name, table in out.items())
    print("{\n%s\n}" % lists)


main()
