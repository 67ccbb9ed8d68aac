#!/usr/bin/env python3
"""From nginx's exec to the first token, with a warm page cache; sizes and
memory beside it.

    startup.py [--rounds N] [--restart]

Each round starts nginx with the default model and asks for one streamed
token as soon as the port is open. Needs make, and the default model.

--restart: instead, each round kills the inference worker and asks for a token
of the next one: its exec to ready, by its own log, and from the request to the
token.  The supervisor's wait before it starts one is not in either.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))

from nginx import (Nginx, become_subreaper, build_dir,  # noqa: E402
                   command_of, descendants)

KV_KIB = 500 << 10       # no other mapping without a name is as large
READY = re.compile(r"worker \d+ ready in ([\d.]+) ms")
HTTP = "infer_model m { file @MODELS@/smollm2.gguf; }"
SERVER = """
        location /v1/      { infer_pass m; }
        location = /status { infer_status; }
"""
BODY = json.dumps({"max_tokens": 1, "stream": True, "messages": [
    {"role": "user", "content": "Hello, who are you?"}]}).encode()
REQUEST = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
           b"Content-Type: application/json\r\nConnection: close\r\n"
           b"Content-Length: %d\r\n\r\n" % len(BODY)) + BODY


def launch(server):
    """nginx's exec; its port is tried every millisecond."""
    server.stderr = open(os.path.join(server.prefix, "stderr.log"), "ab")
    begin = time.monotonic()
    if server not in Nginx.live:
        Nginx.live.append(server)
    server.process = subprocess.Popen(
        server.command(), env=server.environment(),
        stdin=subprocess.DEVNULL, stdout=server.stderr, stderr=server.stderr)
    while not server.answers():
        if server.process.poll() is not None:
            raise RuntimeError("nginx has ended:\n" + server.log())
        time.sleep(0.001)
    return begin


def first_token(server):
    """Starts nginx; ms to the open port, and to the first token."""
    begin = launch(server)
    opened = time.monotonic()
    end = ask(server)
    return (opened - begin) * 1e3, (end - begin) * 1e3


def ask(server):
    """Asks for one token; the time when it was there."""
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(REQUEST)
    got = b""
    while b'"content":"' not in got.replace(b'"content":""', b""):
        part = sock.recv(65536)
        if not part:
            raise RuntimeError("no token came: %r" % got)
        got += part
    end = time.monotonic()
    sock.close()
    return end


def restarts(server, rounds):
    """ms from a worker's exec to ready, and from a request to its token."""
    ready, token = [], []
    for turn in range(rounds):
        if turn % 5 == 0:         # or the supervisor waits longer and longer
            if turn:
                server.end(signal.SIGQUIT)
            launch(server)
            ask(server)
        seen = len(READY.findall(server.log()))
        for pid in server.children():
            if "--worker" in command_of(pid):
                os.kill(pid, signal.SIGKILL)
        while len(READY.findall(server.log())) == seen:
            time.sleep(0.001)
        ready.append(float(READY.findall(server.log())[-1]))
        begin = time.monotonic()
        token.append((ask(server) - begin) * 1e3)
    return ready, token


def main_restart(rounds):
    server = Nginx(http=HTTP, server=SERVER, level="notice", start=False)
    server.before = descendants(os.getpid())
    try:
        ready, token = restarts(server, rounds)
        server.end(signal.SIGQUIT)
    finally:
        server.destroy()
    both = [a + b for a, b in zip(ready, token)]
    for name, rows in (("exec to ready", ready), ("request to token", token),
                       ("both", both)):
        print("worker again: %-17s median %6.1f ms  (min %.1f, max %.1f, %d "
              "rounds)" % (name, statistics.median(rows), min(rows),
                           max(rows), rounds))


def many(server, clients=64):
    """So many requests at once, so that all that is used is touched."""
    body = json.dumps({"max_tokens": 4, "prompt": "A ship " * 8})

    def one():
        conn = http.client.HTTPConnection("127.0.0.1", server.port)
        conn.request("POST", "/v1/completions", body,
                     {"Content-Type": "application/json"})
        answer = conn.getresponse()
        if answer.status != 200:
            raise RuntimeError(answer.read())
        answer.read()
        conn.close()

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(one) for _ in range(clients)]:
            done.result()


def memory_mb(pid):
    """Of a process, in MB: private pages that were written, its part of
    shared memory, and what of both are weights, keys and values."""
    private = shared = model = 0
    at = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")
    with open("/proc/%d/smaps" % pid) as file:
        for line in file:
            if at.match(line):
                name = line.split(None, 5)[5:]
                name = name[0] if name else ""
                shmem = name.startswith(("/memfd:", "/dev/zero"))
                continue
            key, value = line.split(":", 1)
            if not value.endswith(" kB\n"):
                continue
            kib = int(value.split()[0])
            if key == "Size":
                weights = "infer-weights" in name or (not name
                                                      and kib >= KV_KIB)
            elif key == "Private_Dirty" and not shmem:
                private += kib
                model += kib if weights else 0
            elif key == "Pss" and shmem:
                shared += kib
                model += kib if weights else 0
    return private / 1024, shared / 1024, model / 1024


def memory_of(server):
    """A row for each process; supervisor and worker are known by name."""
    rows = {}
    for pid in [server.pid] + server.children():
        words = command_of(pid)
        for word, name in (("--worker", "inference worker"),
                           ("--supervise", "supervisor"),
                           ("master", "nginx master"),
                           ("worker process", "nginx worker"),
                           ("cache manager", "keeper")):
            if word in words:
                rows[name] = memory_mb(pid)
                break
    return rows


def stripped_bytes(name):
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["strip", "-o", out.name,
                        os.path.join(build_dir(), name)], check=True)
        return os.path.getsize(out.name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--restart", action="store_true")
    args = parser.parse_args()

    become_subreaper()
    if args.restart:
        return main_restart(args.rounds)
    server = Nginx(http=HTTP, server=SERVER, level="error", start=False)
    server.before = descendants(os.getpid())
    ports, tokens, cpu, memory = [], [], [], {}
    try:
        for turn in range(args.rounds + 1):
            before = os.times()
            opened, first = first_token(server)
            if turn == args.rounds:
                many(server)
                memory = memory_of(server)
            problems = server.end(signal.SIGQUIT) + server.bad_lines()
            if problems:
                raise RuntimeError("\n".join(problems))
            if turn == 0:
                print("first start, weights prepared and written to the "
                      "cache: %.0f ms" % first)
                continue
            after = os.times()
            cpu.append((after.children_user + after.children_system
                        - before.children_user - before.children_system)
                       * 1e3)
            ports.append(opened)
            tokens.append(first)
    finally:
        server.destroy()

    print("exec to port open      median %6.1f ms" % statistics.median(ports))
    print("exec to first token    median %6.1f ms  (min %.1f, max %.1f, %d "
          "rounds)" % (statistics.median(tokens), min(tokens), max(tokens),
                       args.rounds))
    print("CPU time of all processes, start to end: median %.0f ms"
          % statistics.median(cpu))
    module = stripped_bytes("ngx_http_infer_module.so")
    worker = stripped_bytes("nginx-infer-worker")
    print("stripped: module %d + worker %d = %.2f MB"
          % (module, worker, (module + worker) / 1e6))
    for name, row in memory.items():
        print("%-17s %5.1f MB private, %5.1f MB of shared memory, %5.1f MB "
              "of it weights, keys and values" % (name, *row))
    print("beside weights, keys and values: %.1f MB in all"
          % sum(private + shared - model
                for private, shared, model in memory.values()))


if __name__ == "__main__":
    main()
