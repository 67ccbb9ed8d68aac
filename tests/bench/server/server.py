#!/usr/bin/env python3
"""Streaming chats at once, beside llama.cpp's server on the same model file.

    server.py [--rounds N] [--streams 1,4,16,64] [--chats N] [--llama PROGRAM]
              [--prefix] [--speculate] [--set "DIRECTIVES"] [--boost] [--json]

Each of N clients asks one chat after another: about 93 tokens of prompt, 64
of answer, greedy, streamed, every prompt different from its beginning on.
Rounds alternate between the servers; medians over rounds of output tokens a
second, time to the first token (median, worst), time between tokens, and the
memory (PSS) of all processes of a server at the end.  A chat that is not
answered whole is an error.

--prefix: instead, the first token of a prompt of about 1,000 tokens, cold and
when all but its end was asked before.

--speculate: instead, ours without and with `speculate prompt_lookup`, for an
answer that repeats its prompt and for free text.

--boost: on a machine with other work, more weight for the servers and the
client (root only), the same for both servers.

Needs make all; without --llama only ours is measured.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))

from nginx import Nginx, descendants, models_dir  # noqa: E402

# as nice as its peer, which is not
HTTP = "infer_model m { file @MODELS@/smollm2.gguf; threads 2; nice 0; %s }"
SERVER = """
        location /v1/      { infer_pass m; }
        location = /readyz { infer_pass m; }
"""
WORDS = ("river stone paper garden window bread market winter engine letter "
         "music bridge candle forest harbour island kitchen lantern mountain "
         "needle orchard pencil quarry ribbon saddle").split()
ANSWER = 64
REST_S = 0.5     # a server's threads may spin for a while after its turn


def words(seed, n):
    out = []
    for i in range(n):
        seed = (seed * 1103515245 + 12345) & 0x7fffffff
        out.append(WORDS[(seed >> 8) % len(WORDS)])
    return " ".join(out)


def chat_body(seed):
    return {"model": "m", "stream": True, "max_tokens": ANSWER,
            "temperature": 0, "ignore_eos": True,
            "stream_options": {"include_usage": True}, "messages": [
                {"role": "system", "content": "Client %d asks." % seed},
                {"role": "user", "content": "Write a story with these words: "
                                            + words(seed, 50)}]}


class Ours:
    name = "nginx-infer"

    def __init__(self, args, more=""):
        self.name = more or self.name
        self.server = Nginx(http=HTTP % (args.set + more), server=SERVER,
                            ready="/readyz")
        self.port = self.server.port

    def pids(self):
        return [self.server.pid] + list(descendants(self.server.pid))

    def stop(self):
        self.server.stop()


class Llama:
    name = "llama.cpp"

    def __init__(self, args):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.child = subprocess.Popen(
            [args.llama, "-m", os.path.join(models_dir(), "smollm2.gguf"),
             "-t", "2", "-tb", "2", "-np", "16", "-c", str(16 * 2048),
             "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = "http://127.0.0.1:%d/health" % self.port
        for _ in range(600):
            try:
                if urllib.request.urlopen(url, timeout=1).status == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("%s does not start" % args.llama)

    def pids(self):
        return [self.child.pid]

    def stop(self):
        self.child.terminate()
        self.child.wait()


def pss_mib(pids):
    total = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid) as file:
                total += sum(int(x.split()[1]) for x in file
                             if x.startswith("Pss:"))
        except OSError:
            pass
    return total / 1024


def boost(pids):
    """By session group where the system has them, else thread by thread."""
    for pid in pids:
        try:
            with open("/proc/%d/autogroup" % pid, "w") as file:
                file.write("-15")
        except OSError:
            pass
        for tid in os.listdir("/proc/%d/task" % pid):
            os.setpriority(os.PRIO_PROCESS, int(tid), -15)


async def ask(port, body):
    """Times of the tokens of one streamed chat, and its usage."""
    data = json.dumps(body).encode()
    begin = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Type: application/json\r\nConnection: close\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(data) + data)
    times, usage, whole = [], None, False
    async for line in reader:
        if line.startswith(b"data: [DONE]"):
            whole = True
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                if choice["delta"].get("content"):
                    times.append(time.monotonic() - begin)
    writer.close()
    if not whole or usage is None or not times:
        raise RuntimeError("a chat was not answered whole")
    return times, usage


async def load(port, streams, chats, seed, chat_body=chat_body):
    results = []

    async def client(i):
        for j in range(chats):
            results.append(await ask(port, chat_body(seed + i * 100 + j)))

    begin = time.monotonic()
    await asyncio.gather(*[client(i) for i in range(streams)])
    took = time.monotonic() - begin
    first = [r[0][0] * 1000 for r in results]
    gaps = [(b - a) * 1000 for r in results for a, b in zip(r[0], r[0][1:])]
    return {"tokens_s": sum(r[1]["completion_tokens"] for r in results) / took,
            "first_ms": statistics.median(first), "first_worst": max(first),
            "gap_ms": statistics.median(gaps) if gaps else 0}


def median_of(runs):
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def measure_load(servers, args):
    report = []
    for streams in args.streams:
        runs = {s.name: [] for s in servers}
        for turn in range(args.rounds):
            for s in servers:
                time.sleep(REST_S)
                runs[s.name].append(asyncio.run(
                    load(s.port, streams, args.chats,
                         (turn * 64 + streams) * 100000)))
        for s in servers:
            row = dict(streams=streams, server=s.name,
                       pss_mib=pss_mib(s.pids()), **median_of(runs[s.name]))
            report.append(row)
            print("%3d streams  %-11s %7.1f tokens/s  first %7.0f ms (worst "
                  "%7.0f)  between %6.1f ms  PSS %5.0f MiB" % (
                      streams, s.name, row["tokens_s"], row["first_ms"],
                      row["first_worst"], row["gap_ms"], row["pss_mib"]),
                  flush=True)
        if len(servers) == 2:
            a, b = (median_of(runs[s.name]) for s in servers)
            print("             ratio       %7.2f           first %7.3f" % (
                a["tokens_s"] / b["tokens_s"], a["first_ms"] / b["first_ms"]),
                flush=True)
    return report


def prefix_body(seed, end):
    return {"model": "m", "stream": True, "max_tokens": 2, "temperature": 0,
            "stream_options": {"include_usage": True}, "messages": [
                {"role": "system", "content": "%d: %s" % (seed,
                                                          words(seed, 985))},
                {"role": "user", "content": "In short: %s?" % end}]}


def measure_prefix(servers, args):
    report = []
    for s in servers:
        cold, warm, tokens = [], [], None
        for turn in range(args.rounds):
            times, usage = asyncio.run(ask(s.port, prefix_body(turn, "why")))
            cold.append(times[0] * 1000)
            times, usage = asyncio.run(ask(s.port, prefix_body(turn, "how")))
            warm.append(times[0] * 1000)
            tokens = usage
        row = {"server": s.name, "cold_ms": statistics.median(cold),
               "cached_ms": statistics.median(warm), "usage": tokens}
        report.append(row)
        print("%-11s cold %7.1f ms, cached %6.1f ms, ratio %.3f; %d prompt "
              "tokens, %s cached" % (
                  s.name, row["cold_ms"], row["cached_ms"],
                  row["cached_ms"] / row["cold_ms"], tokens["prompt_tokens"],
                  (tokens.get("prompt_tokens_details") or {})
                  .get("cached_tokens", "?")), flush=True)
    return report


def copy_body(seed):
    text = words(seed, 40)
    body = chat_body(seed)
    body["max_tokens"] = 96
    body["messages"] = [{"role": "user", "content":
                         "Repeat this text word by word: %s. Now repeat it: "
                         % text}, {"role": "assistant", "content": text},
                        {"role": "user", "content": "Once more: " + text}]
    return body


def measure_speculate(servers, args):
    report = []
    for kind, body in (("copy", copy_body), ("free", chat_body)):
        for streams in args.streams:
            runs = {s.name: [] for s in servers}
            for turn in range(args.rounds):
                for s in servers:
                    runs[s.name].append(asyncio.run(
                        load(s.port, streams, args.chats,
                             (turn * 64 + streams) * 100000, body)))
            rows = [median_of(runs[s.name]) for s in servers]
            report.append({"kind": kind, "streams": streams, "off": rows[0],
                           "prompt_lookup": rows[1]})
            print("%s, %2d streams: %6.1f tokens/s without, %6.1f with: "
                  "%.2f" % (kind, streams, rows[0]["tokens_s"],
                            rows[1]["tokens_s"], statistics.median(
                                b["tokens_s"] / a["tokens_s"] for a, b in
                                zip(*[runs[s.name] for s in servers]))),
                  flush=True)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", default="1,4,16,64")
    parser.add_argument("--chats", type=int, default=1)
    parser.add_argument("--llama")
    parser.add_argument("--set", default="")
    parser.add_argument("--prefix", action="store_true")
    parser.add_argument("--speculate", action="store_true")
    parser.add_argument("--boost", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.streams = [int(x) for x in args.streams.split(",")]

    servers = ([Ours(args), Ours(args, "speculate prompt_lookup;")]
               if args.speculate else [Ours(args)])
    if args.llama:
        servers.append(Llama(args))
    if args.boost:
        boost([os.getpid()] + [p for s in servers for p in s.pids()])
    try:
        measure = (measure_prefix if args.prefix else
                   measure_speculate if args.speculate else measure_load)
        report = measure(servers, args)
    finally:
        for server in servers:
            server.stop()
    if args.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
