#!/usr/bin/env python3
"""From nginx's exec to the first token, with a warm page cache; sizes and
memory beside it.

    startup.py [--rounds N]

Each round starts nginx with the default model and asks for one streamed
token as soon as the port is open. Needs make, and the default model.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))

from nginx import Nginx, build_dir, command_of  # noqa: E402

HTTP = """
    infer_model m {
        file   @MODELS@/smollm2.gguf;
        cache  %s;
    }
"""
SERVER = """
        location /v1/      { infer_pass m; }
        location = /status { infer_status; }
"""
BODY = json.dumps({"max_tokens": 1, "stream": True, "messages": [
    {"role": "user", "content": "Hello, who are you?"}]}).encode()
REQUEST = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
           b"Content-Type: application/json\r\nConnection: close\r\n"
           b"Content-Length: %d\r\n\r\n" % len(BODY)) + BODY


def first_token(server):
    """Starts nginx; ms to the open port, and to the first token."""
    begin = time.monotonic()
    server.ready = None
    server.start()
    opened = time.monotonic()
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
    return (opened - begin) * 1e3, (end - begin) * 1e3


def memory_mb(pid):
    fields = {}
    with open("/proc/%d/smaps_rollup" % pid) as file:
        for line in file:
            parts = line.split()
            if len(parts) == 3 and parts[0].endswith(":"):
                fields[parts[0][:-1]] = int(parts[1]) / 1024
    return fields


def stripped_bytes(name):
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["strip", "-o", out.name,
                        os.path.join(build_dir(), name)], check=True)
        return os.path.getsize(out.name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()

    cache = tempfile.mkdtemp(prefix="infer-cache-")
    ports, tokens, memory = [], [], []
    for turn in range(args.rounds + 1):
        server = Nginx(http=HTTP % cache, server=SERVER, level="error",
                       start=False)
        opened, first = first_token(server)
        for pid in server.children("--worker"):
            memory.append((memory_mb(pid), command_of(pid)))
        server.stop()
        if turn == 0:
            print("first start, weights prepared and written to the cache: "
                  "%.0f ms" % first)
            continue
        ports.append(opened)
        tokens.append(first)

    print("exec to port open      median %6.1f ms" % statistics.median(ports))
    print("exec to first token    median %6.1f ms  (min %.1f, max %.1f, %d "
          "rounds)" % (statistics.median(tokens), min(tokens), max(tokens),
                       args.rounds))
    module = stripped_bytes("ngx_http_infer_module.so")
    worker = stripped_bytes("nginx-infer-worker")
    print("stripped: module %d + worker %d = %.2f MB"
          % (module, worker, (module + worker) / 1e6))
    if memory:
        last = memory[-1][0]
        print("inference worker: PSS %.1f MB, of it private %.1f MB, shared "
              "memory %.1f MB" % (last.get("Pss", 0),
                                  last.get("Private_Dirty", 0),
                                  last.get("Pss_Shmem", 0)))


if __name__ == "__main__":
    main()
