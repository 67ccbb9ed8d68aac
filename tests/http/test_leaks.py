"""After storms of clients that leave, wait too long, send nonsense or do not
read, everything is back: slots, KV pages, descriptors."""

import json
import os
import random
import socket
import time

import pytest

from conftest import model_path
from nginx import command_of

CHAT = "/v1/chat/completions"
COMMON = """
        client_max_body_size  1m;
        send_timeout          1s;
        location /v1/         { infer_pass m; }
        location /short/      { infer_pass m; infer_timeout 50ms; }
        location = /readyz    { infer_pass m; }
        location = /status    { infer_status; }
"""


def body(**more):
    return dict({"messages": [{"role": "user", "content": "Hello"}]}, **more)


def send(server, request, path=CHAT, receive=None):
    data = request if isinstance(request, bytes) else json.dumps(
        request).encode()
    sock = socket.socket()
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                 % (path.encode(), len(data)) + data)
    return sock


def descriptors(server):
    """{pid: open descriptors} of nginx's workers and the pool's."""
    counts = {}
    for pid in server.children():
        command = command_of(pid)
        if "worker process" in command or "--worker" in command:
            counts[pid] = len(os.listdir("/proc/%d/fd" % pid))
    return counts


def settled(server, timeout_s=15):
    """Waits until nothing is in use; the worker's words about itself."""
    deadline = time.monotonic() + timeout_s
    while True:
        [model] = server.get("/status").json()["models"]
        [worker] = model["workers"]
        used = [model["slots_used"], worker["running"], worker["waiting"],
                worker["waiting_tokens"], worker["kv_used"],
                worker["backlog"], worker["inflight"]]
        if not any(used):
            return worker
        assert time.monotonic() < deadline, model
        time.sleep(0.05)


def more(after, before):
    return set(after) != set(before) \
        or any(after[pid] > before[pid] for pid in before)


def descriptors_as(server, before, timeout_s=10):
    # fewer is fine: a connection of the start may have been counted
    deadline = time.monotonic() + timeout_s
    while more(descriptors(server), before):
        assert time.monotonic() < deadline, (before, descriptors(server))
        time.sleep(0.05)


STORMS = {
    "leave": lambda server, i: send(server, body(
        max_tokens=200, stream=i % 2 == 0)).close(),
    "prefill": lambda server, i: send(server, body(
        messages=[{"role": "user", "content": "word " * 3000}])).close(),
    "late": lambda server, i: send(server, body(max_tokens=200),
                                   path="/short/chat/completions"),
    "nonsense": lambda server, i: send(server, random.Random(i).randbytes(
        100 + i)),
    "half": lambda server, i: send(server, b"{" * 10).close(),
    "deaf": lambda server, i: send(server, body(
        stream=True, logprobs=True, top_logprobs=20), receive=4096),
}


def run_storm(nginx, storm, null):
    model_path("smollm2.gguf")
    server = nginx(ready="/readyz", server=COMMON, http="""
        infer_model m {
            file       @MODELS@/smollm2.gguf;
            %s
            threads    1;
            sequences  8;
            queue      64;
        }""" % null)
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    settled(server)
    before = descriptors(server)
    socks = []
    for i in range(12 if storm == "deaf" else 60):
        socks.append(STORMS[storm](server, i))
        if i % 7 == 0:
            time.sleep(0.01)
    time.sleep(0.3)
    for sock in socks:
        if sock is not None and storm != "deaf":
            sock.close()
    # who does not read is sent away by send_timeout
    worker = settled(server, 30)
    for sock in socks:
        if sock is not None:
            sock.close()
    assert worker["incarnation"] == 1
    descriptors_as(server, before)
    assert server.post(CHAT, body(max_tokens=2)).status == 200


@pytest.mark.parametrize("storm", sorted(STORMS))
def test_storm(nginx, storm):
    run_storm(nginx, storm, "null tokens=100000;" if storm == "deaf"
              else "null tokens=3000 delay=1ms;")


@pytest.mark.slow
@pytest.mark.parametrize("storm", ["late", "leave", "prefill"])
def test_storm_on_real_model(nginx, storm):
    run_storm(nginx, storm, "")
