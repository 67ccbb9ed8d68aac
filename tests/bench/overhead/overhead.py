#!/usr/bin/env python3
"""What a request costs beside the model's arithmetic.

One nginx with three locations: `return 200`, `proxy_pass` with keep-alive to
a minimal C server on a unix socket (bench_upstream), and ours with the null
model: the same JSON, template, tokenizer, queue, batch, detokenizer and
rings as any model, a fixed answer instead of the arithmetic. Alternating
rounds, medians, and the CPU time of all server processes a request.

    overhead.py [--rounds N] [--seconds N] [--connections N] [--json]

Needs wrk (Debian package wrk) and a build (make all bench).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))

from nginx import Nginx, build_dir, descendants  # noqa: E402

BODY = json.dumps({
    "model": "null", "max_tokens": 16,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Say in one sentence what the weather "
                                    "is like on the moon today, please."}]})

HTTP = """
    infer_model null {
        file       @MODELS@/smollm2.gguf;
        null       tokens=%d;
        queue      2048;
        sequences  256;
    }
    upstream best_case {
        server     unix:@PREFIX@/upstream.sock;
        keepalive  256;
    }
    keepalive_requests  1000000;
    access_log  off;
"""

SERVER = """
        location = /return { return 200 '%s'; }
        location = /proxy  {
            proxy_pass          http://best_case;
            proxy_http_version  1.1;
            proxy_set_header    Connection "";
        }
        location /v1/      { infer_pass null; }
        location = /readyz { infer_pass null; }
"""

PATHS = {"return 200": "/return", "proxy_pass": "/proxy",
         "nginx-infer": "/v1/chat/completions"}


def cpu_s(pids):
    ticks = 0
    for pid in pids:
        try:
            with open("/proc/%d/stat" % pid) as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def wrk(url, script, connections, seconds):
    out = subprocess.run(
        ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "-s", script,
         url], capture_output=True, text=True, check=True).stdout
    line = re.search(r"^RESULT (.*)$", out, re.M)
    if line is None:
        raise RuntimeError(out)
    return json.loads(line.group(1))


SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[%s]]
function done(summary, latency, requests)
  print(string.format('RESULT {"requests": %%d, "us": %%d, "p50": %%d, ' ..
    '"p99": %%d, "errors": %%d}', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read +
    summary.errors.write + summary.errors.timeout))
end
"""


def measure(server, path, script, args, pids):
    before = cpu_s(pids)
    result = wrk(server.url + path, script, args.connections, args.seconds)
    used = cpu_s(pids) - before
    return {"rps": result["requests"] * 1e6 / result["us"],
            "p50_ms": result["p50"] / 1e3, "p99_ms": result["p99"] / 1e3,
            "cpu_us": used * 1e6 / max(result["requests"], 1),
            "errors": result["errors"]}


def run(args):
    answer_file = tempfile.NamedTemporaryFile("w", suffix=".json")
    script = tempfile.NamedTemporaryFile("w", suffix=".lua")
    script.write(SCRIPT % BODY)
    script.flush()

    server = Nginx(http=HTTP % args.tokens, server=SERVER % "ready",
                   level="notice", ready="/readyz")
    # all three answer with the same bytes: one real answer of ours
    answer = server.request("POST", "/v1/chat/completions", BODY,
                            {"Content-Type": "application/json"}).body
    text = answer.decode() if isinstance(answer, bytes) else answer
    answer_file.write(text)
    answer_file.flush()
    server.write_conf(server=SERVER % text.replace("'", ""))
    server.reload()
    time.sleep(1)

    upstream = subprocess.Popen(
        [os.path.join(build_dir(), "bench", "overhead", "bench_upstream"),
         os.path.join(server.prefix, "upstream.sock"), answer_file.name])
    time.sleep(0.3)
    pids = list(descendants(server.process.pid)) + [server.process.pid,
                                                     upstream.pid]
    rows = {name: [] for name in PATHS}
    try:
        for _ in range(args.rounds):
            for name, path in PATHS.items():
                rows[name].append(measure(server, path, script.name, args,
                                          pids))
    finally:
        upstream.kill()
        upstream.wait()
        server.stop()
    return {name: {key: statistics.median(row[key] for row in found)
                   for key in found[0]} for name, found in rows.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = run(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print("%d connections, %d rounds of %d s, medians; answers of %d tokens"
          % (args.connections, args.rounds, args.seconds, args.tokens))
    print("%-12s %12s %9s %9s %16s %7s" % ("", "requests/s", "p50 ms",
                                           "p99 ms", "CPU us/request",
                                           "errors"))
    for name, row in result.items():
        print("%-12s %12.0f %9.2f %9.2f %16.1f %7d"
              % (name, row["rps"], row["p50_ms"], row["p99_ms"],
                 row["cpu_us"], row["errors"]))
    ours, proxy = result["nginx-infer"], result["proxy_pass"]
    print("ours / proxy_pass: throughput %.2f, p99 %.2f, CPU %.2f"
          % (ours["rps"] / proxy["rps"], ours["p99_ms"] / proxy["p99_ms"],
             ours["cpu_us"] / proxy["cpu_us"]))


if __name__ == "__main__":
    main()
