#!/usr/bin/env python3
"""A static file's latency while the model works at full load, against its
latency when nothing else runs: the engine must leave nginx room.

    static.py [--rounds N] [--seconds N] [--streams N] [--rate N]

Rounds alternate idle, control and loaded; medians.  Control: as many niced
processes that only count as there are CPUs, so that what any load does to
latency on this machine can be told from what the engine does.  nginx runs as
a daemon, as it is installed: a session, and so a group of the scheduler, of
its own.  Needs make all
bench, and the default model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import http.client

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))

from nginx import Nginx, build_dir  # noqa: E402

HTTP = "infer_model m { file @MODELS@/smollm2.gguf; }"
SERVER = """
        location /v1/      { infer_pass m; }
        location = /readyz { infer_pass m; }
        location /static/  { alias @PREFIX@/static/; }
"""


def paced(port, args):
    out = subprocess.run(
        [os.path.join(build_dir(), "bench", "static", "bench_paced"),
         str(port), "/static/file.txt", str(args.rate), str(args.seconds)],
        capture_output=True, text=True, check=True).stdout
    return json.loads(out)


def chat(port, stop, tokens):
    body = json.dumps({"max_tokens": 150, "temperature": 1.0, "messages": [
        {"role": "user", "content": "Tell me a long story about a ship."}]})
    while not stop.is_set():
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        conn.request("POST", "/v1/chat/completions", body,
                     {"Content-Type": "application/json"})
        answer = json.loads(conn.getresponse().read())
        tokens.append(answer["usage"]["completion_tokens"])
        conn.close()


def counting():
    """Control load: nothing but arithmetic, at the workers' niceness."""
    os.setsid()
    os.nice(10)
    try:
        with open("/proc/self/autogroup", "w") as f:
            f.write("10")
    except OSError:
        pass                        # a kernel without automatic groups


def control(port, args):
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"],
                              preexec_fn=counting)
             for _ in range(os.cpu_count())]
    try:
        return paced(port, args)
    finally:
        for load in loads:
            load.kill()
            load.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--rate", type=int, default=200)
    args = parser.parse_args()

    server = Nginx(http=HTTP, server=SERVER, level="error", ready="/readyz",
                   daemon=True)
    os.mkdir(os.path.join(server.prefix, "static"))
    with open(os.path.join(server.prefix, "static", "file.txt"), "w") as f:
        f.write("x" * 1000)
    rows = {"idle": [], "control": [], "loaded": []}
    tokens = []
    try:
        paced(server.port, args)
        for _ in range(args.rounds):
            rows["idle"].append(paced(server.port, args))
            rows["control"].append(control(server.port, args))
            stop = threading.Event()
            threads = [threading.Thread(target=chat, args=(server.port, stop,
                                                           tokens))
                       for _ in range(args.streams)]
            for thread in threads:
                thread.start()
            rows["loaded"].append(paced(server.port, args))
            stop.set()
            for thread in threads:
                thread.join()
    finally:
        server.stop()

    print("GET of 1,000 bytes, %d a second, %d rounds of %d s, medians; "
          "loaded: %d chats at once, %d tokens made"
          % (args.rate, args.rounds, args.seconds, args.streams, sum(tokens)))
    found = {name: {key: statistics.median(row[key] for row in some)
                    for key in some[0]} for name, some in rows.items()}
    for name, row in found.items():
        print("%-7s p50 %8.1f us  p99 %8.1f us  max %8.1f us"
              % (name, row["p50_us"], row["p99_us"], row["max_us"]))
    for base in ("idle", "control"):
        print("loaded / %-7s: p50 %.2f, p99 %.2f"
              % (base, found["loaded"]["p50_us"] / found[base]["p50_us"],
                 found["loaded"]["p99_us"] / found[base]["p99_us"]))


if __name__ == "__main__":
    main()
