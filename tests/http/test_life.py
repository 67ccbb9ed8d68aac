"""Reload, upgrade, end, and kill -9 of every process of the tree."""

import concurrent.futures
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import model_path
from nginx import build_dir, command_of, descendants

CHAT = "/v1/chat/completions"
SERVER = """
        location /v1/      { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /status { infer_status; }
        location = /static { return 200 "static"; }
"""


def body(**more):
    return dict({"messages": [{"role": "user", "content": "Hello"}]}, **more)


def block(null="null tokens=50 delay=20ms", model=""):
    return ("infer_model m { file @MODELS@/smollm2.gguf; threads 1; %s; %s }"
            % (null, model))


@pytest.fixture
def start(nginx):
    def run(null="null tokens=50 delay=20ms", model="", **more):
        model_path("smollm2.gguf")
        more.setdefault("ready", "/readyz")
        more.setdefault("workers", 2)
        server = nginx(http=block(null, model), server=SERVER, **more)
        server.allow(r"exited on signal 9")
        return server
    return run


def wait_for(what, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def model_of(server):
    return server.get("/status").json()["models"][0]


def pool_pids(server):
    return [w["pid"] for w in model_of(server)["workers"] if w["pid"] > 0]


def supervisors(server):
    """Of this prefix, wherever they hang in the tree."""
    return [pid for pid in descendants(os.getpid())
            if "--supervise" in command_of(pid)
            and server.prefix in command_of(pid)]


class Background:
    """One request in a thread."""

    def __init__(self, server, request, stream=False):
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        if stream:
            self.first = threading.Event()
            self.future = self.pool.submit(self.read, server, request)
        else:
            self.future = self.pool.submit(server.post, CHAT, request)

    def read(self, server, request):
        events = []
        for event in server.stream(CHAT, request):
            events.append(event)
            self.first.set()
        return events

    def result(self):
        try:
            return self.future.result(30)
        finally:
            self.pool.shutdown()


def running(server, n=1):
    wait_for(lambda: sum(w["running"] for w in model_of(server)["workers"])
             >= n)


def load(server, stop, results):
    """Asks until told to stop; statuses and wrong bytes are counted."""
    want = None
    while not stop.is_set():
        try:
            answer = server.post(CHAT, body(), timeout=30)
        except OSError as problem:
            results.append(repr(problem))
            continue
        if answer.status == 200:
            content = answer.json()["choices"][0]["message"]["content"]
            want = want or content
            if content != want:
                results.append("wrong bytes")
                continue
        results.append(answer.status)


# ---- start and end

@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM,
                                    signal.SIGINT])
def test_ends(start, number):
    server = start()
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    server.stop(number)


def test_daemon(start):
    server = start(daemon=True)
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    server.stop()


def test_quit_lets_requests_finish(start):
    server = start()
    request = Background(server, body())
    running(server)
    server.kill(signal.SIGQUIT)
    answer = request.result()
    assert answer.status == 200
    assert answer.json()["usage"]["completion_tokens"] > 40


def test_single_process(start):
    server = start(main="master_process off;")
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    server.stop()


def test_unprivileged(nginx):
    model_path("smollm2.gguf")
    if os.geteuid() != 0:
        pytest.skip("already is")
    server = nginx(http=block(), server=SERVER, ready="/readyz", start=False)
    server.destroy()
    os.makedirs(server.prefix)
    server.write_conf()
    with open(server.conf) as file:
        text = file.read()
    with open(server.conf, "w") as file:
        file.write("\n".join(line for line in text.split("\n")
                             if not line.startswith("user ")))
    for path in (server.prefix, server.conf):
        os.chown(path, 65534, 65534)
    command = server.command
    server.command = lambda *more: [
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
        *command(*more)]
    if subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", "cat",
                       model_path("smollm2.gguf")],
                      stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("nobody cannot read the model")
    server.start()
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    server.stop()


def test_workers_are_sandboxed(start):
    if os.path.basename(build_dir()) != "build":
        pytest.skip("builds with sanitizers stay outside")
    server = start()
    for pid in pool_pids(server):
        with open("/proc/%d/status" % pid) as file:
            status = file.read()
        assert "\nNoNewPrivs:\t1\n" in status
        assert "\nSeccomp:\t2\n" in status
    assert server.post(CHAT, body(max_tokens=3)).status == 200


def test_sandbox_off(start):
    server = start(model="sandbox off;", level="notice")
    assert "no sandbox" in server.log()
    assert server.post(CHAT, body(max_tokens=3)).status == 200


def test_first_request_waits_for_the_pool(start):
    # no 503 while the workers load: the request waits in its ring
    server = start(ready=None)
    assert server.post(CHAT, body(max_tokens=2)).status == 200


# ---- reload

def test_reload_leaves_the_pool_alone(start):
    server = start()
    pids = pool_pids(server)
    stream = Background(server, body(stream=True), stream=True)
    stream.first.wait(10)
    for _ in range(3):
        server.reload()
        assert server.post(CHAT, body(max_tokens=2)).status == 200
    assert stream.result()[-1] == "[DONE]"
    assert pool_pids(server) == pids
    assert len(supervisors(server)) == 1


def test_reload_under_load_loses_nothing(start):
    server = start("null tokens=8")
    stop, results = threading.Event(), []
    threads = [threading.Thread(target=load, args=(server, stop, results))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        time.sleep(0.1)
        server.reload()
    stop.set()
    for thread in threads:
        thread.join()
    assert len(results) > 100
    assert set(results) == {200}


def test_reload_with_another_model(start):
    server = start()
    old = supervisors(server)
    pids = pool_pids(server)
    request = Background(server, body())
    running(server)
    old_hash = model_of(server)["hash"]
    server.write_conf(http=block("null tokens=3"))
    server.reload()
    # An old nginx worker may still take a connection that it was told of.
    wait_for(lambda: [model_of(server)["hash"] for _ in range(4)].count(
        old_hash) == 0)
    wait_for(lambda: server.post(CHAT, body()).json()["usage"][
        "completion_tokens"] < 10)
    assert request.result().json()["usage"]["completion_tokens"] > 40
    assert pool_pids(server) != pids
    wait_for(lambda: len(supervisors(server)) == 1)
    assert supervisors(server) != old


def test_reload_with_a_broken_configuration(start):
    server = start()
    pids = pool_pids(server)
    server.allow(r"\[emerg\].*nonexistent")
    server.write_conf(http=block().replace("smollm2", "nonexistent"))
    mark = len(server.log())
    server.kill(signal.SIGHUP)
    server.wait_log(r"nonexistent", mark)
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    assert pool_pids(server) == pids


def test_model_removed_and_added(start):
    server = start()
    request = Background(server, body())
    running(server)
    server.write_conf(http="", server="location = /static { return 200; }")
    server.reload()
    wait_for(lambda: server.get("/static").status == 200)
    assert request.result().status == 200
    wait_for(lambda: supervisors(server) == [])
    server.write_conf(http=block(), server=SERVER)
    server.reload()
    # a worker of the configuration before may still accept and answer 404
    wait_for(lambda: server.post(CHAT, body(max_tokens=2)).status == 200)


def test_descriptors_stay_the_same(start):
    server = start("null tokens=2")

    def descriptors():
        return {pid: len(os.listdir("/proc/%d/fd" % pid)) for pid in
                [server.pid, *supervisors(server), *pool_pids(server)]}

    def settled():
        done = subprocess.run(["pgrep", "-P", str(server.pid), "-f",
                               "shutting down"], stdout=subprocess.PIPE)
        return done.stdout == b""
    for turn in range(6):
        server.reload()
        assert server.post(CHAT, body()).status == 200
        wait_for(settled)
        if turn == 1:
            time.sleep(1)           # of a generation that has just ended
            counts = descriptors()
    wait_for(lambda: descriptors() == counts)


def test_upgrade(start):
    server = start(daemon=True)
    request = Background(server, body())
    running(server)
    old = server.pid
    supervisor = supervisors(server)
    mark = len(server.log())
    server.kill(signal.SIGUSR2)
    wait_for(lambda: os.path.exists(server.prefix + "/nginx.pid.oldbin")
             and os.path.exists(server.prefix + "/nginx.pid"))
    server.wait_log(r"start worker process", mark)
    os.kill(old, signal.SIGQUIT)
    assert request.result().status == 200
    wait_for(lambda: old not in descendants(os.getpid()))
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    assert supervisors(server) == supervisor


# ---- kill -9

def test_kill_inference_worker(start):
    server = start()
    pids = pool_pids(server)
    request = Background(server, body())
    running(server)
    os.kill(pids[0], signal.SIGKILL)
    answer = request.result()
    assert answer.status == 200         # it was run again
    assert pool_pids(server) != pids


def test_kill_inference_worker_under_a_stream(start):
    server = start()
    stream = Background(server, body(stream=True), stream=True)
    stream.first.wait(10)
    os.kill(pool_pids(server)[0], signal.SIGKILL)
    events = stream.result()
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["code"] == "worker_lost"
    assert server.post(CHAT, body(max_tokens=2)).status == 200


def test_kill_nginx_worker(start):
    server = start()
    pids = pool_pids(server)
    requests = [Background(server, body(max_tokens=45)) for _ in range(8)]
    running(server, 8)
    victim = server.children("worker process")[0]
    os.kill(victim, signal.SIGKILL)
    ended = []
    for request in requests:
        try:
            ended.append(request.result().status)
        except OSError:
            ended.append("lost")
    assert set(ended) <= {200, "lost"}
    wait_for(lambda: all(w["running"] == 0
                         for w in model_of(server)["workers"]), 2)
    assert pool_pids(server) == pids
    for _ in range(10):
        assert server.post(CHAT, body(max_tokens=1)).status == 200


def test_kill_supervisor(start):
    server = start()
    request = Background(server, body())
    running(server)
    old = supervisors(server)
    os.kill(old[0], signal.SIGKILL)
    assert request.result().status == 200
    assert supervisors(server) != old and len(supervisors(server)) == 1


def test_kill_keeper(start):
    server = start()
    pids = pool_pids(server)
    request = Background(server, body())
    running(server)
    os.kill(server.children("cache manager")[0], signal.SIGKILL)
    assert request.result().status == 200
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    assert pool_pids(server) == pids
    # the next keeper has taken over
    wait_for(lambda: server.children("cache manager") != [])
    os.kill(supervisors(server)[0], signal.SIGKILL)
    wait_for(lambda: server.get("/readyz").status == 200
             and pool_pids(server) != pids)


def test_kill_master(start):
    server = start()
    children = server.children()
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    # the workers go on serving; the pool ends with the last of them
    assert server.post(CHAT, body(max_tokens=2)).status == 200
    for pid in children:
        if command_of(pid).startswith("nginx:"):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: supervisors(server) == [], 5)


def test_kills_under_load(start):
    server = start("null tokens=8 delay=2ms", model="workers 2;")
    stop, results = threading.Event(), []
    threads = [threading.Thread(target=load, args=(server, stop, results))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for i in range(8):
        time.sleep(1)
        pids = supervisors(server) if i % 4 == 3 else pool_pids(server)
        try:
            os.kill(pids[i % len(pids)], signal.SIGKILL)
        except (ProcessLookupError, IndexError):
            pass
    stop.set()
    for thread in threads:
        thread.join()
    # killed twice under the same request: that one is given up
    assert set(results) <= {200, 502}
    assert results.count(200) > 10 * (len(results) - results.count(200))
    wait_for(lambda: model_of(server)["slots_used"] == 0)


def test_hung_worker(start):
    server = start(model="workers 2;", ready="/readyz")
    wait_for(lambda: model_of(server)["ready"] == 2)
    pids = pool_pids(server)
    os.kill(pids[0], signal.SIGSTOP)
    try:
        assert server.get("/static").body == b"static"
        answers = [server.post(CHAT, body(max_tokens=1), timeout=100)
                   for _ in range(3)]
        assert [a.status for a in answers].count(200) >= 2
    finally:
        try:
            os.kill(pids[0], signal.SIGCONT)
        except ProcessLookupError:
            pass


def test_worker_binary_that_ends_at_once(nginx, tmp_path):
    # --check is satisfied, --supervise is not: paced, and nginx still serves
    model_path("smollm2.gguf")
    path = tmp_path / "worker"
    count = tmp_path / "count"
    path.write_text('#!/bin/sh\n[ "$1" = --check ] && { cat >/dev/null; '
                    'echo ok; exit 0; }\necho x >>%s\nexit 1\n' % count)
    path.chmod(0o755)
    server = nginx(http=block(), server=SERVER, start=False)
    with open(server.conf) as file:
        text = file.read()
    lines = ["    infer_worker %s;" % path if "infer_worker" in line else line
             for line in text.split("\n")]
    with open(server.conf, "w") as file:
        file.write("\n".join(lines))
    os.chmod(tmp_path, 0o755)
    server.start()
    time.sleep(2)
    assert server.get("/static").body == b"static"
    assert server.get("/readyz").status == 503
    assert 1 <= count.read_text().count("x") <= 4
