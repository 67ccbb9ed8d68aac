"""Overload: what accepted and refused requests feel at ten times capacity.

    INFER_MODELS=... python tests/bench/overload/overload.py
        [--queue N]... [FACTOR...]

A pool without a model (null engine: 16 tokens, 20 ms a step, 8 sequences)
serves 25 requests a second. Its queue takes 8, then 1 (unless --queue says
otherwise): an accepted request waits for those before it, so the longest wait
is the queue's length over 25 a second. For each factor (0.5, 2 and 10 unless
given) clients open streams at that multiple of 25 a second, whatever becomes
of them, for ten seconds. Where that is more than it can serve, another process
asks on one connection, one request after the other, and takes the time of each
refusal, from the first byte sent to the last byte read; it leaves at once
where it is accepted. In turn with these it takes the time of a `return 503` on
the same connection, which shows what the machine and the client add. The
clients' processes are nicer than it, for their threads are no part of what is
measured. One line for each factor.
"""

import argparse
import json
import multiprocessing
import os
import random
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "..", "http"))

from nginx import Nginx  # noqa: E402

SECONDS = 10
CAPACITY = 25.0
HTTP = """
    access_log off;
    infer_model m {
        file       @MODELS@/smollm2.gguf;
        threads    1;
        sequences  8;
        queue      %d;
        null       tokens=16 delay=20ms;
    }
"""
QUEUES = [8, 1]
SERVER = """
        location /v1/ { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /return { return 503 "{}"; }
"""
BODY = json.dumps({"messages": [{"role": "user", "content": "Hello"}],
                   "stream": True}).encode()
HEAD = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n")
REQUEST = HEAD % len(BODY) + BODY
CONTROL = b"GET /return HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def refusal(data):
    """The length of a complete refusal at the beginning of data, or None."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(body) >= int(value):
            return len(body)
    return None


def one(port, begin, out):
    """A stream: when its first text came, or that it was refused."""
    time.sleep(max(0, begin - time.monotonic()))
    start = time.monotonic()
    sock = connect(port)
    sock.sendall(REQUEST)
    data = sock.recv(65536)
    if not data.startswith(b"HTTP/1.1 200"):
        out.append(("refused", data[9:12].decode(), data.lower().count(
            b"\r\nretry-after-ms:")))
        sock.close()
        return
    while b'"content"' not in data:
        data += sock.recv(65536)
    out.append(("accepted", time.monotonic() - start))
    while b"[DONE]" not in data:
        more = sock.recv(65536)
        assert more, "a stream broke off"
        data = data[-16:] + more
    sock.close()


def load(port, rate, seed, queue):
    """Arrivals by chance at this rate, each a thread."""
    import threading
    os.nice(5)
    draw, out, threads = random.Random(seed), [], []
    at = time.monotonic() + 0.1
    end = at + SECONDS
    while at < end:
        at += draw.expovariate(rate)
        time.sleep(max(0, at - time.monotonic() - 0.02))
        threads.append(threading.Thread(target=one, args=(port, at, out)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    queue.put(out)


def ask(sock, request):
    """Seconds until a refusal was read, or None for an accepted request."""
    start = time.perf_counter()
    sock.sendall(request)
    data = sock.recv(65536)
    if data.startswith(b"HTTP/1.1 200"):
        return None
    while refusal(data) is None:
        data += sock.recv(65536)
    return time.perf_counter() - start


def probe(port, stop, queue):
    """Times of refusals and of the control, in turn on one connection."""
    times, controls, sock = [], [], connect(port)
    while not stop.is_set():
        controls.append(ask(sock, CONTROL))
        time.sleep(0.005)
        spent = ask(sock, REQUEST)
        if spent is None:
            sock.close()
            sock = connect(port)
            continue
        times.append(spent)
        time.sleep(0.005)
    queue.put((times, controls))


def at(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)] * 1000


def run(port, factor):
    queue, times = multiprocessing.Queue(), multiprocessing.Queue()
    stop = multiprocessing.Event()
    prober = multiprocessing.Process(target=probe, args=(port, stop, times))
    loader = multiprocessing.Process(target=load, args=(
        port, factor * CAPACITY, int(factor * 100), queue))
    refused = []
    loader.start()
    time.sleep(1)
    if factor > 1:
        prober.start()
    out = queue.get()
    stop.set()
    if factor > 1:
        refused, controls = times.get()
        prober.join()
    loader.join()

    first = [entry[1] for entry in out if entry[0] == "accepted"]
    shed = [entry for entry in out if entry[0] == "refused"]
    assert all(status in ("429", "503") and when == 1
               for _, status, when in shed)
    line = ("%4.1fx: %4d accepted, first token p50 %6.1f ms, p99 %6.1f ms; "
            "%4d refused" % (factor, len(first), at(first, 0.5),
                             at(first, 0.99), len(shed)))
    if len(refused) >= 20:
        line += ("; refusal p50 %.3f ms, p99 %.3f ms (%d), return 503 %.3f "
                 "and %.3f" % (at(refused, 0.5), at(refused, 0.99),
                               len(refused), at(controls, 0.5),
                               at(controls, 0.99)))
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--queue", type=int, action="append")
    parser.add_argument("factor", type=float, nargs="*")
    options = parser.parse_args()
    for queue in options.queue or QUEUES:
        server = Nginx(http=HTTP % queue, server=SERVER, ready="/readyz",
                       level="error")
        try:
            server.allow("infer: 429|infer: 503")
            print("queue %d" % queue, flush=True)
            for factor in options.factor or [0.5, 2.0, 10.0]:
                run(server.port, factor)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
