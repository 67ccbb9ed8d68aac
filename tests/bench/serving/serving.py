#!/usr/bin/env python3
"""What serving costs beside the model's arithmetic, ours and its peers'.

One stack and one way at a time, so that a measurement takes seconds; results
gather in a file, and `table` prints the medians.

    serving.py run STACK HOW [--tokens N] [--answer N] [--seconds N]
               [--connections N] [--rate N] [--precision P] [--out FILE]
    serving.py start STACK [--rounds N] [--cache DIR]
               exec to the first answer; of nginx-infer with what an earlier
               start has left in DIR (made for the run, with a first start
               that is not counted, unless told)
    serving.py table [--out FILE]

STACK: nginx-infer, candle, ort, tokenizers, transformers (T5-small; ort and
minilm: MiniLM's embeddings behind axum and behind nginx-infer).
HOW: null (a fixed result after everything but the forward pass), delay (20 ms
a step instead of one; latencies are then what lies beyond a request's own
steps and the rest of the step that ran when it came), real.  Closed loop
unless --rate is there.

Peers: PEERS is cargo's target/release folder of peers/, PYTHON one with
fastapi, uvicorn, tokenizers, transformers and torch, ORT_DYLIB_PATH ONNX
Runtime's library and ORT_MODEL a folder with tokenizer.json and model.onnx.
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))

from nginx import (Nginx, build_dir, descendants, free_port,  # noqa: E402
                   models_dir)

WORDS = ("the weather on the moon is always cold at night and hot by day "
         "there is no air to carry any heat around it ").split()
WAITED = "        add_header X-Queue-Time $infer_queue_time;"
WAIT_S = 120
STEP_US = 20000
EMBEDS = ("ort", "minilm")

HTTP = """
    infer_model model {
        file @MODELS@/%s; queue 4096 tokens=0; slots 1024;
        %s %s
    }
    keepalive_requests  10000000;
    access_log  off;
"""
SERVER = """
        location / { infer_pass model; }
        location = /readyz { infer_pass model; }
"""


def settings(stack, how, answer):
    """Of nginx-infer: what a user would set for many short requests; as
    nice as its peers, which are not."""
    if stack == "minilm":
        limits = "batch 16384; sequences 256;"
        null = "null"
    else:
        limits = "batch 4096; sequences 256; kv_cache 512m;"
        null = "null tokens=%d" % answer
    return {"null": limits + null + ";",
            "delay": limits + null + " delay=20ms;",
            "real": limits + "threads 2; nice 0;"}[how]


class Ours:
    def __init__(self, stack, how, answer, more=""):
        self.nginx = Nginx(
            http=HTTP % ("minilm" if stack == "minilm" else "t5-small",
                         settings(stack, how, answer), more),
            server=(WAITED if how == "delay" else "") + SERVER, ready=None,
            start=False)
        self.port = self.nginx.port

    def start(self):
        self.nginx.start()

    def pids(self):
        return [self.nginx.pid, *descendants(self.nginx.pid)]

    def stop(self):
        self.nginx.stop()


def t5_folder():
    """The test model's, with what the published config.json says besides."""
    folder = tempfile.mkdtemp(prefix="serving-")
    model = os.path.join(models_dir(), "t5-small")
    for name in ("model.safetensors", "tokenizer.json"):
        os.symlink(os.path.join(model, name), os.path.join(folder, name))
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    config.update(dropout_rate=0.1, initializer_factor=1.0)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    return folder


class Peer:
    def __init__(self, stack, how):
        self.port = free_port()
        self.env = dict(os.environ, OMP_NUM_THREADS="2")
        if stack in ("candle", "ort"):
            folder = os.environ["ORT_MODEL"] if stack == "ort" \
                else t5_folder()
            self.command = [os.path.join(os.environ["PEERS"], stack), how,
                            folder, str(self.port)]
        else:
            self.env.update(SERVING=how, KIND=stack,
                            MODEL=os.path.join(models_dir(), "t5-small"))
            self.command = [os.environ.get("PYTHON", sys.executable), "-m",
                            "uvicorn", "server:app", "--port",
                            str(self.port), "--no-access-log",
                            "--log-level", "warning"]

    def start(self):
        self.process = subprocess.Popen(
            self.command, env=self.env, stdin=subprocess.DEVNULL,
            cwd=os.path.join(HERE, "peers"))

    def pids(self):
        return [self.process.pid, *descendants(self.process.pid)]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_ours(stack):
    return stack in ("nginx-infer", "minilm")


def open_stack(stack, how, answer, more=""):
    return Ours(stack, how, answer, more) if is_ours(stack) \
        else Peer(stack, how)


def request_of(stack, tokens, answer):
    """(path, body); words of one token, but for what is added at the end."""
    added = 2 if stack in EMBEDS else 1
    text = " ".join(WORDS[i % len(WORDS)] for i in range(tokens - added))
    if stack in EMBEDS:
        return "/v1/embeddings", {"input": text}
    return "/generate", {"inputs": text,
                         "parameters": {"max_new_tokens": answer}}


def first_answer(server, path, body):
    """Waits for it; what it says."""
    deadline = time.monotonic() + WAIT_S
    while True:
        conn = http.client.HTTPConnection("127.0.0.1", server.port,
                                          timeout=WAIT_S)
        try:
            conn.request("POST", path, json.dumps(body),
                         {"Content-Type": "application/json"})
            answer = conn.getresponse()
            said = answer.read()
            if answer.status == 200:
                return said
        except OSError:
            said = b""
        finally:
            conn.close()
        if time.monotonic() > deadline:
            raise AssertionError("no answer: %r" % said)
        time.sleep(0.002)


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        try:
            with open("/proc/%d/stat" % pid) as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_mb(pids):
    """Proportional memory of all, and the part that no file backs."""
    total = anon = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid) as file:
                for line in file:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
                    elif line.startswith("Pss_Anon:"):
                        anon += int(line.split()[1])
        except OSError:
            continue
    return round(total / 1024, 1), round(anon / 1024, 1)


def run(args):
    server = open_stack(args.stack, args.how, args.answer,
                        "precision %s;" % args.precision
                        if args.precision else "")
    path, body = request_of(args.stack, args.tokens, args.answer)
    more = [args.rate or 0]
    if args.how == "delay":
        more.append(STEP_US * (1 if args.stack in EMBEDS else args.answer))
    server.start()
    try:
        said = first_answer(server, path, body)
        for _ in range(20):
            first_answer(server, path, body)
        idle = pss_mb(server.pids())
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(body, file)
            file.flush()
            before = cpu_seconds(server.pids())
            done = subprocess.run(
                [os.path.join(build_dir(), "bench/serving/bench_load"),
                 str(server.port), path, file.name, str(args.connections),
                 str(args.seconds), *map(str, more)],
                stdout=subprocess.PIPE, text=True, timeout=args.seconds + 60)
            spent = cpu_seconds(server.pids()) - before
        found = json.loads(done.stdout)
        load = pss_mb(server.pids())
    finally:
        server.stop()
    # the first eighth is served as well, but not counted
    found["cpu_us"] = round(spent * 1e6 / max(1, found["requests"] * 8 / 7))
    found.update(stack=args.stack + (" " + args.precision
                                     if args.precision else ""),
                 how=args.how, tokens=args.tokens,
                 answer=args.answer, connections=args.connections,
                 rate=args.rate, idle_mb=idle[0], load_mb=load[0],
                 anon_mb=load[1], bytes=len(said))
    print(json.dumps(found))
    with open(args.out, "a") as file:
        file.write(json.dumps(found) + "\n")


def start_once(args, cache):
    """Milliseconds from exec to the first answer, memory then, CPU time."""
    path, body = request_of(args.stack, 16, 1)
    more = "cache %s;" % cache
    server = open_stack(args.stack, "real", 1, more)
    if is_ours(args.stack):
        # the test harness's own start waits in steps of 20 ms
        server.nginx.wait_ready = lambda: None
        server.nginx.start()
        began = server.nginx.began
    else:
        began = time.monotonic()
        server.start()
    try:
        first_answer(server, path, body)
        took = time.monotonic() - began
        return round(1000 * took), pss_mb(server.pids()), \
            round(1000 * cpu_seconds(server.pids()))
    finally:
        server.stop()


def start(args):
    """Exec to the first answer, and the memory then."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cache = args.cache or folder
        first = start_once(args, cache) if is_ours(args.stack) else None
        rows = [start_once(args, cache) for _ in range(args.rounds)]
    memory = rows[-1][1]
    found = {"stack": args.stack, "how": "start",
             "ms": [row[0] for row in rows], "cpu_ms": [r[2] for r in rows],
             "pss_mb": memory[0], "anon_mb": memory[1]}
    if first:
        found["first_ms"] = first[0]
    print(json.dumps(found))
    with open(args.out, "a") as file:
        file.write(json.dumps(found) + "\n")


def table(args):
    rows = {}
    with open(args.out) as file:
        for line in file:
            row = json.loads(line)
            if row["how"] == "start":
                print("%s: exec to first answer %s ms, %s MB" % (
                    row["stack"], row["ms"], row["pss_mb"]))
                continue
            key = (row["how"], row["tokens"], row["connections"],
                   row["rate"] or 0, row["stack"])
            rows.setdefault(key, []).append(row)
    print("| | tokens | connections | rate | stack | requests/s | p50 ms | "
          "p99 ms | CPU us | PSS MB | runs |\n" + "|---" * 11 + "|")
    for key in sorted(rows):
        some = rows[key]

        def mid(name):
            return statistics.median(row[name] for row in some)

        how, tokens, connections, rate, stack = key
        print("| %s | %d | %d | %s | %s | %.0f | %.2f | %.2f | %.0f | %.0f | "
              "%d |" % (how, tokens, connections, rate or "", stack,
                        mid("rps"), mid("p50_us") / 1e3, mid("p99_us") / 1e3,
                        mid("cpu_us"), mid("load_mb"), len(some)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "start", "table"))
    parser.add_argument("stack", nargs="?", choices=(
        "nginx-infer", "candle", "ort", "minilm", "tokenizers",
        "transformers"))
    parser.add_argument("how", nargs="?", default="null",
                        choices=("null", "delay", "real"))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--answer", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("float32", "bfloat16",
                                                "int8"))
    parser.add_argument("--cache")
    parser.add_argument("--out", default="serving.jsonl")
    args = parser.parse_args()
    {"run": run, "start": start, "table": table}[args.what](args)


if __name__ == "__main__":
    main()
