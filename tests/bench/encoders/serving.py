#!/usr/bin/env python3
"""What serving an encoder costs over HTTP, with and without its arithmetic.

MiniLM behind /v1/embeddings: with the null engine (everything but the matrix
products), with a simulated accelerator (a fixed time for each batch), and with
the model itself; floats and base64.  Alternating rounds, medians, and the CPU
time of all server processes a request.

    serving.py [--rounds N] [--seconds N] [--connections N] [--tokens N]
               [--delay MS] [--real] [--json]

Needs wrk (Debian package wrk) and a build (make all).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))
sys.path.insert(0, os.path.join(TOP, "tests", "bench", "overhead"))

from nginx import Nginx, descendants  # noqa: E402
from overhead import SCRIPT, measure  # noqa: E402

WORDS = ("the weather on the moon is always cold at night and hot by day "
         "because there is no air to carry any heat around ").split()

HTTP = """
    infer_model null {
        file @MODELS@/minilm; null; queue 4096 tokens=0; slots 1024;
        batch 16384; sequences 256;
    }
    infer_model delay {
        file @MODELS@/minilm; null delay=%dms; queue 4096 tokens=0;
        slots 1024; batch 65536; sequences 256;
    }
    infer_model real {
        file @MODELS@/minilm; threads 2; queue 4096 tokens=0; slots 1024;
    }
    keepalive_requests  1000000;
    access_log  off;
"""

SERVER = """
        location /v1/      { infer_pass null delay real; }
        location = /readyz { infer_pass null delay real; }
"""


def text_of(tokens):
    """A text of so many tokens: each word is one, and two are added."""
    return " ".join(WORDS[i % len(WORDS)] for i in range(tokens - 2))


def case(model, text, encoding):
    script = tempfile.NamedTemporaryFile("w", suffix=".lua")
    script.write(SCRIPT % json.dumps({
        "model": model, "input": text, "encoding_format": encoding}))
    script.flush()
    return script


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--delay", type=int, default=20)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    text = text_of(args.tokens)
    names = [("null", "float"), ("null", "base64"), ("delay", "float")]
    if args.real:
        names.append(("real", "float"))
    scripts = {name: case(*name[:1], text, name[1]) for name in names}
    found = {name: [] for name in names}

    server = Nginx(http=HTTP % args.delay, server=SERVER, workers=1,
                   ready="/readyz")
    try:
        answer = server.post("/v1/embeddings", {"model": "null",
                                                "input": text})
        tokens = answer.json()["usage"]["prompt_tokens"]
        pids = descendants(server.process.pid)
        pids = [server.process.pid, *pids]
        for _ in range(args.rounds):
            for name in names:
                found[name].append(measure(
                    server, "/v1/embeddings", scripts[name].name, args,
                    pids))
    finally:
        server.stop()

    rows = {"%s %s" % name: {key: statistics.median(r[key] for r in rounds)
                             for key in rounds[0]}
            for name, rounds in found.items()}
    if args.json:
        print(json.dumps({"tokens": tokens, "rows": rows}))
        return
    print("%d tokens, %d connections, %d rounds of %d s" % (
        tokens, args.connections, args.rounds, args.seconds))
    print("%-14s %9s %8s %8s %10s %7s" % ("", "requests/s", "p50 ms",
                                          "p99 ms", "CPU us", "errors"))
    for name, row in rows.items():
        print("%-14s %9.0f %8.2f %8.2f %10.1f %7d" % (
            name, row["rps"], row["p50_ms"], row["p99_ms"], row["cpu_us"],
            row["errors"]))


if __name__ == "__main__":
    main()
