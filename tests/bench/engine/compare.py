#!/usr/bin/env python3
"""Our engine beside llama.cpp: alternating rounds, medians, ratios.

  tests/bench/engine/compare.py -m MODEL.gguf --python PYTHON [--infer BIN]
      [--threads N] [--rounds N] [--peer-model FILE] [--json]
      [--cpu-time] [--isa LEVEL] [--precision exact] [--kv-cache q8_0]

PYTHON is an interpreter that has llama-cpp-python.  The cache-line
ping-pong time stands beside the figures: on machines where it jumps, memory
bandwidth does too, and only rounds close in time compare.  --cpu-time, with
--threads 1, counts CPU seconds of either process instead of the clock's: on a
machine that others use, too.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS = [("prompt", "128"), ("prompt", "512"),
        ("generate", "1"), ("generate", "4"), ("generate", "16")]


def run(cmd):
    p = subprocess.run(cmd, stdout=subprocess.PIPE, check=True)
    return json.loads(p.stdout.decode().strip().splitlines()[-1])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("-m", "--model", required=True)
    ap.add_argument("--peer-model")
    ap.add_argument("--infer", default="build/infer")
    ap.add_argument("--python", default=sys.executable)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--json", action="store_true")
    ap.add_argument("--cpu-time", action="store_true")
    for name in ("isa", "precision", "kv-cache"):
        ap.add_argument("--" + name)
    a = ap.parse_args()
    more = ["--cpu-time"] if a.cpu_time else []
    for name in ("isa", "precision", "kv_cache"):
        if getattr(a, name):
            more += ["--" + name.replace("_", "-"), getattr(a, name)]

    ours, theirs = [], []
    for _ in range(a.rounds):
        ours.append(run([a.infer, "bench", "-m", a.model, "-t", str(a.threads),
                         "--rounds", "1", "--json"] + more))
        theirs.append(run([a.python, os.path.join(HERE, "llama_bench.py"),
                           a.peer_model or a.model, str(a.threads)]
                          + (["cpu"] if a.cpu_time else [])))

    rows = []
    for kind, n in KEYS:
        o = [r[kind][n] for r in ours]
        t = [r[kind][n] for r in theirs]
        ratio = statistics.median(x / y for x, y in zip(o, t))
        rows.append({"what": f"{kind} {n}",
                     "ours": statistics.median(o),
                     "llama_cpp": statistics.median(t),
                     "ratio": round(ratio, 2),
                     "least": round(min(x / y for x, y in zip(o, t)), 2)})
    ping = [r["ping_us"] for r in ours]
    if a.json:
        print(json.dumps({"rows": rows, "ping_us": ping}))
        return
    print(f"tokens/s, {a.threads} threads, medians of {a.rounds} rounds")
    print(f"{'':14}{'ours':>10}{'llama.cpp':>12}{'ratio':>8}{'least':>8}")
    for r in rows:
        print(f"{r['what']:14}{r['ours']:10.1f}{r['llama_cpp']:12.1f}"
              f"{r['ratio']:8.2f}{r['least']:8.2f}")
    print("ping-pong us per round:", " ".join(f"{p:.3f}" for p in ping))


main()
