#!/usr/bin/env python3
"""Our perplexity of a text beside llama.cpp's, on the same token ids.

  tests/bench/engine/perplexity.py -m MODEL.gguf --python PYTHON
      [--infer BIN] [--text FILE] [--window N] [--float F32.gguf]

PYTHON is an interpreter that has llama-cpp-python.  The text (default:
perplexity.txt beside this file) is tokenised by llama.cpp and cut into
windows that are scored each for itself, the first token of a window only
read.  --float: the same model with float weights (requant.py IN OUT F32), for
the value without rounding of activations.  Exit 1 where the default
precision is more than 0.5 % away from llama.cpp.
"""
import argparse
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
WITHIN = 0.005


def ours(infer, model, windows, precision):
    lines = "".join(json.dumps({"ids": w, "top": 1}) + "\n" for w in windows)
    p = subprocess.run([infer, "score", "-m", model, "--precision", precision],
                       input=lines.encode(), stdout=subprocess.PIPE,
                       check=True)
    return [v for line in p.stdout.decode().splitlines()
            for v in json.loads(line)["next"]]


def theirs(python, model, text, window):
    p = subprocess.run([python, os.path.join(HERE, "llama_score.py"), model,
                        text, str(window)], stdout=subprocess.PIPE, check=True)
    answer = json.loads(p.stdout.decode().splitlines()[-1])
    return answer["windows"], answer["next"]


def perplexity(values):
    return math.exp(-sum(values) / len(values))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("-m", "--model", required=True)
    ap.add_argument("--python", default=sys.executable)
    ap.add_argument("--infer", default="build/infer")
    ap.add_argument("--text", default=os.path.join(HERE, "perplexity.txt"))
    ap.add_argument("--window", type=int, default=512)
    ap.add_argument("--float")
    a = ap.parse_args()

    windows, peer = theirs(a.python, a.model, a.text, a.window)
    rows = [("llama.cpp", peer)]
    for precision in ("int8", "exact"):
        rows.append(("ours, " + precision,
                     ours(a.infer, a.model, windows, precision)))
    if a.float:
        rows.append(("ours, float weights",
                     ours(a.infer, a.float, windows, "exact")))

    base = perplexity(peer)
    print("%s: %d tokens in %d windows" % (os.path.basename(a.model),
                                           len(peer), len(windows)))
    for name, values in rows:
        if len(values) != len(peer):
            sys.exit("%s: %d values, %d expected" % (name, len(values),
                                                     len(peer)))
        v = perplexity(values)
        print("  %-20s %9.4f  %+.3f %%" % (name, v, 100 * (v / base - 1)))
    if abs(perplexity(rows[1][1]) / base - 1) > WITHIN:
        sys.exit(1)


main()
