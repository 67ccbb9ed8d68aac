"""A model changed by a reload: the pool of before answers until the new one
is ready, and goes on when that never comes."""

import os
import time

import pytest

from conftest import model_path
from nginx import build_dir, command_of, descendants

CHAT = "/v1/chat/completions"
SERVER = """
        location /v1/      { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /status { infer_status; }
        location = /metrics { infer_metrics vllm; }
"""


def block(tokens, more=""):
    return ("infer_model m { file @MODELS@/smollm2.gguf; threads 1; "
            "null tokens=%d delay=10ms; %s }" % (tokens, more))


def body(**more):
    return dict({"messages": [{"role": "user", "content": "Hello"}]}, **more)


def wait_for(what, timeout_s=15):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def supervisors(server):
    return [pid for pid in descendants(os.getpid())
            if "--supervise" in command_of(pid)
            and server.prefix in command_of(pid)]


def tokens(server):
    answer = server.post(CHAT, body(), timeout=10)
    assert answer.status == 200, answer.body
    return answer.json()["usage"]["completion_tokens"]


def answered_by(server):
    return server.get("/status").json()["models"][0]["answered_by"]


def reload(server):
    """Until nobody of the former configuration answers."""
    old = server.children("worker process")
    server.reload()
    wait_for(lambda: not set(old) & set(server.children("worker process")))


@pytest.fixture
def start(nginx):
    model_path("smollm2.gguf")
    server = nginx(http=block(4), server=SERVER, ready="/readyz")

    def swap(new, supervise):
        """Reloads with a worker binary whose supervisors are run so."""
        path = os.path.join(server.prefix, "worker-%d" % new)
        with open(path, "w") as file:
            file.write('#!/bin/sh\n[ "$1" != --supervise ] || %s\n'
                       'exec %s/nginx-infer-worker "$@"\n'
                       % (supervise, build_dir()))
        os.chmod(path, 0o755)
        server.write_conf(http=block(new))
        with open(server.conf) as file:
            text = file.read()
        text = text.replace(build_dir() + "/nginx-infer-worker;", path + ";")
        with open(server.conf, "w") as file:
            file.write(text)
        reload(server)
    return server, swap


def test_slow_one_takes_over_when_it_is_ready(start):
    server, swap = start
    assert tokens(server) == 5
    old = supervisors(server)
    swap(8, "sleep 3")
    begin = time.monotonic()
    while answered_by(server) == "pool of before":
        asked = time.monotonic()
        assert tokens(server) in (5, 9)
        assert time.monotonic() - asked < 2.5   # it waits for no start
        assert server.get("/readyz").status == 200
    assert 1 < time.monotonic() - begin < 10
    assert tokens(server) == 9
    server.wait_log("new pool of \"m\" has taken over")
    wait_for(lambda: old[0] not in supervisors(server))
    assert tokens(server) == 9


def series(server):
    """{name and labels: value}; each stands there once."""
    lines = [line for line in server.get("/metrics").body.decode().split("\n")
             if line and not line.startswith("#")]
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def test_stream_ends_where_it_began(start):
    server, swap = start
    swap(600, "true")
    wait_for(lambda: answered_by(server) == "pool")
    server.wait_log("taken over")
    mark = len(server.log())
    swap(8, "sleep 2")
    events = server.stream(CHAT, body(stream=True))
    assert next(events)
    assert answered_by(server) == "pool of before"
    assert series(server)['vllm:num_requests_running{model_name="m"}'] == "1"
    wait_for(lambda: answered_by(server) == "pool")
    assert tokens(server) == 9
    assert "taken over" not in server.log()[mark:]
    events = list(events)
    assert events[-1] == "[DONE]" and len(events) > 100
    server.wait_log("taken over", mark)
    wait_for(lambda: len(supervisors(server)) == 1)


@pytest.mark.slow
def test_one_that_cannot_be_loaded(start):
    server, swap = start
    swap(8, "ulimit -v 60000")
    # which of its processes meets the limit first depends on their libraries
    server.wait_log("cannot serve|was ended|ended with status|was refused")
    time.sleep(2)
    for _ in range(5):
        assert tokens(server) == 5
    assert answered_by(server) == "pool of before"

    # the next reload still finds the pool of before ...
    swap(11, "ulimit -v 60000")
    for _ in range(5):
        assert tokens(server) == 5
    # ... until one can be loaded
    swap(14, "true")
    wait_for(lambda: tokens(server) == 15)
    wait_for(lambda: len(supervisors(server)) == 1)
    assert tokens(server) == 15


def test_back_to_the_one_of_before(start):
    server, swap = start
    old = supervisors(server)
    server.allow(r"exited on signal 9")
    swap(8, "kill -STOP $$")
    assert tokens(server) == 5
    server.write_conf(http=block(4))
    reload(server)
    assert tokens(server) == 5 and answered_by(server) == "pool"
    assert old[0] in supervisors(server)
    for pid in supervisors(server):
        if pid != old[0]:
            os.kill(pid, 9)
