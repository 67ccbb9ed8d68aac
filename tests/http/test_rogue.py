"""A pool that was taken over: whatever it writes into shared memory, nginx
answers every request within a bounded time, serves its other locations, and
is well again as soon as the pool is.  tests/tools/shr_rogue.c is the pool."""

import concurrent.futures
import http.client
import json
import os
import subprocess
import time

import pytest

from conftest import model_path
from nginx import build_dir, command_of

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TIMEOUT_S = 2
BODIES = [
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/chat/completions", {"messages": HELLO, "stream": True}),
    ("/v1/chat/completions", {"messages": HELLO, "n": 3, "logprobs": True}),
    ("/v1/chat/completions", {"messages": HELLO, "stream": True,
                              "logprobs": True, "top_logprobs": 3}),
    ("/v1/completions", {"prompt": ["a", "b"], "logprobs": 2}),
    ("/v1/completions", {"prompt": "a", "stream": True, "logprobs": 2}),
    ("/v1/tokenize", {"prompt": "a", "return_offsets": True}),
    ("/v1/detokenize", {"tokens": [1, 2]}),
    ("/v1/embeddings", {"input": ["a", "b"]}),
    ("/v1/embeddings", {"input": "a", "encoding_format": "base64"}),
    ("/v1/similarity", {"inputs": {"source_sentence": "a",
                                   "sentences": ["b", "c"]}}),
    ("/v1/predict", {"inputs": [["a"], ["b", "c"]]}),
    ("/v1/classify", {"input": "a"}),
    ("/v1/rerank", {"query": "a", "documents": ["b", "c"]}),
    ("/v1/generate", {"inputs": "a", "parameters": {"details": True}}),
    ("/v1/generate_stream", {"inputs": "a"}),
]


class Rogue:
    def __init__(self, server, seed):
        path = os.path.join(build_dir(), "tools", "shr_rogue")
        assert os.path.exists(path), "make tests"
        self.process = subprocess.Popen(
            [path, "--socket", server.prefix + "/rogue.sock", "--seed",
             str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)

    def mode(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def rogue(nginx):
    model_path("smollm2.gguf")
    server = nginx(start=False, workers=1, http="""
        infer_model m {
            file     @MODELS@/smollm2.gguf;
            socket   @PREFIX@/rogue.sock;
            workers  2;
            slots    16;
        }""", server="""
        infer_timeout  %ds;
        location /v1/  { infer_pass m; }
        location = /readyz   { infer_pass m; }
        location = /static   { return 200 "static"; }
        location = /status   { infer_status; }
        location = /metrics  { infer_metrics; }""" % TIMEOUT_S)
    pool = Rogue(server, 1)
    try:
        server.ready = "/readyz"
        server.start()
        yield server, pool
        server.stop()
    finally:
        pool.end()


def ask(server, path, body):
    """(status, seconds); a stream that breaks counts as an answer."""
    begin = time.monotonic()
    try:
        status = server.post(path, body, timeout=TIMEOUT_S + 20).status
    except http.client.IncompleteRead:
        status = 200
    return status, time.monotonic() - begin


def workers_of(server):
    return [pid for pid in server.children() if "worker process"
            in command_of(pid)]


def cpu_s(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * 4096


def is_served(server):
    for path in ("/static", "/v1/models", "/metrics"):
        assert server.get(path, timeout=5).status == 200
    status = server.get("/status", timeout=5)
    assert status.status == 200 and json.loads(status.body)


def well_again(server, pool):
    """The pool's workers have ended and others are in their place."""
    pool.mode("honest")
    deadline = time.monotonic() + 10
    while True:
        answer = server.post(CHAT, {"messages": HELLO}, timeout=10)
        if answer.status == 200:
            break
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.05)
    text = answer.json()["choices"][0]["message"]["content"]
    assert text == "honest"
    [model] = server.get("/status").json()["models"]
    assert model["slots_used"] == 0


def test_honest(rogue):
    server, pool = rogue
    well_again(server, pool)


@pytest.mark.parametrize("mode", ["frames", "words", "garbage", "silent"])
def test_hostile_memory(rogue, mode):
    server, pool = rogue
    before = workers_of(server)
    pool.mode(mode)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, server, *BODIES[i % len(BODIES)])
                   for i in range(24 if mode == "silent" else 160)]
        while not all(a.done() for a in answers):
            is_served(server)
            time.sleep(0.2)
    for answer in answers:
        status, seconds = answer.result()
        assert status in (200, 400, 413, 429, 500, 502, 503, 504)
        assert seconds < TIMEOUT_S + 5
    assert workers_of(server) == before
    well_again(server, pool)


def test_broken_pool_costs_nothing(rogue):
    # a ring that stays broken is not polled for ever
    server, pool = rogue
    pool.mode("garbage")
    for path, body in BODIES:
        ask(server, path, body)
    pool.mode("silent")
    [worker] = workers_of(server)
    time.sleep(0.5)
    before = cpu_s(worker)
    time.sleep(1)
    assert cpu_s(worker) - before < 0.3
    well_again(server, pool)


def test_flood(rogue):
    # what one answer may make nginx keep has a limit, in streams too; as a
    # client may ask for that much, no worker is given up for it
    server, pool = rogue
    pool.mode("flood")
    [worker] = workers_of(server)
    for stream in (True, False):
        before = rss_bytes(worker)
        status, seconds = ask(server, CHAT, {
            "messages": HELLO, "stream": stream, "logprobs": True})
        assert status in (400, 504) and seconds < TIMEOUT_S + 5
        assert rss_bytes(worker) - before < 1 << 30
    [model] = server.get("/status").json()["models"]
    assert [w["retired"] for w in model["workers"]] == [False, False]
    well_again(server, pool)
