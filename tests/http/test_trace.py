"""Trace context, the variables that describe a request, signs of life."""

import http.client
import json
import os
import re
import signal
import time

import pytest

from conftest import model_path

CHAT = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GOOD = "00-%s-%s-01" % (TRACE, PARENT)
LOG = """
    log_format trace '$infer_traceparent|$infer_trace_id|$infer_span_id|'
                     '$infer_parent_id|$infer_tracestate';
    log_format what '$infer_operation|$infer_response_id|$infer_max_tokens|'
                    '$infer_temperature|$infer_top_p|$infer_choices|'
                    '$infer_stream|$infer_priority|$infer_status|$infer_model';
    access_log @PREFIX@/trace.log trace;
    access_log @PREFIX@/what.log what;
"""
SERVER = """
        location /v1/ { infer_pass m; infer_priority $http_x_priority; %s }
        location = /readyz { infer_pass m; access_log off; }
        location = /show { return 200 "$infer_traceparent
$infer_span_id"; }
        location /up { proxy_pass http://127.0.0.1:$server_port/seen;
                       proxy_set_header traceparent $infer_traceparent; }
        location /seen { return 200 "$http_traceparent $infer_parent_id"; }
        location = /status { infer_status; access_log off; }
"""


@pytest.fixture
def start(nginx):
    def run(null="tokens=2", location="", model="", **more):
        model_path("smollm2.gguf")
        return nginx(http=LOG + "infer_model m { file @MODELS@/smollm2.gguf; "
                          "threads 1; null %s; %s }" % (null, model),
                     server=SERVER % location, ready="/readyz", **more)
    return run


def body(**more):
    return dict({"messages": [{"role": "user", "content": "Hello"}]}, **more)


def last(server, name):
    time.sleep(0.1)                 # the log comes after the answer
    with open(os.path.join(server.prefix, name)) as file:
        return file.read().split("\n")[-2].split("|")


# ---- traceparent

def test_trace_goes_on(start):
    server = start()
    assert server.post(CHAT, body(), headers={
        "traceparent": GOOD, "tracestate": "a=1,b=2"}).status == 200
    whole, trace, span, parent, state = last(server, "trace.log")
    assert (trace, parent, state) == (TRACE, PARENT, "a=1,b=2")
    assert re.fullmatch("[0-9a-f]{16}", span) and span != PARENT
    assert whole == "00-%s-%s-01" % (TRACE, span)


def test_span_is_the_same_in_all_places(start):
    server = start()
    shown, span = server.get("/show", headers={
        "traceparent": GOOD}).body.decode().split("\n")
    logged = last(server, "trace.log")
    assert shown == logged[0] and span == logged[2]
    # and another one for another request
    assert server.get("/show").body.decode().split("\n")[1] != span


def test_it_is_passed_on(start):
    server = start()
    seen, parent = server.get("/up", headers={
        "traceparent": GOOD}).body.decode().split()
    assert seen.startswith("00-%s-" % TRACE) and seen.endswith("-01")
    assert seen.split("-")[2] == parent != PARENT


@pytest.mark.parametrize("value", [
    "00-%s-%s-00" % (TRACE, PARENT), "cc-%s-%s-01-what" % (TRACE, PARENT),
    "01-%s-%s-09" % (TRACE, PARENT)])
def test_good_values(start, value):
    server = start()
    server.get("/show", headers={"traceparent": value})
    whole, trace, _, parent, _ = last(server, "trace.log")
    assert (trace, parent) == (TRACE, PARENT)
    assert whole.startswith("00-") and whole[-2:] == value[53:55]


@pytest.mark.parametrize("value", [
    "", "x", GOOD + "-x", GOOD + "x", GOOD[:-1], GOOD.upper(), "ff" + GOOD[2:],
    "00-%s-%s-01" % ("0" * 32, PARENT), "00-%s-%s-01" % (TRACE, "0" * 16),
    "00-%sg-%s-01" % (TRACE[:-1], PARENT), GOOD.replace("-", "_"),
    "0x-%s-%s-01" % (TRACE, PARENT), "01-%s-%s-01x" % (TRACE, PARENT),
    "00-%s-%s-0g" % (TRACE, PARENT), "-" * 55, "\x7f" * 60])
def test_bad_values_begin_a_trace(start, value):
    server = start()
    server.get("/show", headers={"traceparent": value, "tracestate": "a=1"})
    whole, trace, span, parent, state = last(server, "trace.log")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", whole)
    assert trace != TRACE and (parent, state) == ("-", "-")


def test_two_headers_are_none(start):
    server = start()
    conn = http.client.HTTPConnection("127.0.0.1", server.port)
    conn.putrequest("GET", "/show")
    conn.putheader("traceparent", GOOD)
    conn.putheader("traceparent", GOOD)
    conn.endheaders()
    assert conn.getresponse().status == 200
    conn.close()
    assert last(server, "trace.log")[1] != TRACE


# ---- what was asked

def test_variables(start):
    server = start()
    answer = server.post(CHAT, body(max_tokens=7, temperature=0.5, top_p=0.9,
                                    n=2), headers={"X-Priority": "3"})
    assert last(server, "what.log") == [
        "chat", answer.json()["id"], "7", "0.500", "0.900", "2", "false", "3",
        "ok", "m"]
    list(server.stream("/v1/completions", {"prompt": "Hello",
                                           "stream": True}))
    got = last(server, "what.log")
    assert got[0] == "text_completion" and got[2] == "16"
    assert got[6:8] == ["true", "0"]


def test_variables_of_what_was_never_read(start):
    server = start()
    assert server.post(CHAT, "{").status == 400
    assert last(server, "what.log")[0] == "chat"
    assert server.get("/show").status == 200
    assert last(server, "what.log") == ["-"] * 10


# ---- signs of life

def events(server, request, path=CHAT):
    """(seconds, line) of each line of a stream."""
    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    begin = time.monotonic()
    conn.request("POST", path, json.dumps(request),
                 {"Content-Type": "application/json"})
    answer = conn.getresponse()
    assert answer.status == 200
    for line in answer:
        if line.strip():
            yield time.monotonic() - begin, line.strip().decode()
    conn.close()


def test_pings_while_it_waits(start):
    server = start("tokens=20 delay=100ms", "infer_ping 200ms;",
                   "sequences 1;")
    first = events(server, body(stream=True))
    next(first)
    lines = list(events(server, body(stream=True, max_tokens=2)))
    pings = [at for at, line in lines if line == ": ping"]
    assert len(pings) >= 4 and 0.15 < pings[0] < 1.5
    rest = [line for _, line in lines if line != ": ping"]
    assert rest[-1] == "data: [DONE]" and len(rest) >= 4
    assert all(line.startswith("data: ") for line in rest)
    list(first)


def test_no_pings_between_quick_tokens(start):
    server = start("tokens=20 delay=20ms", "infer_ping 200ms;")
    assert ": ping" not in [line for _, line in
                            events(server, body(stream=True))]


def test_no_pings_by_default_nor_in_one_piece(start):
    server = start("tokens=3 delay=300ms", "infer_ping 100ms;")
    answer = server.post(CHAT, body())
    assert answer.status == 200 and answer.json()["choices"]
    server = start("tokens=3 delay=300ms")
    assert ": ping" not in [line for _, line in
                            events(server, body(stream=True))]


def test_error_after_a_ping_is_an_event(start):
    server = start("tokens=20 delay=200ms", "infer_ping 100ms;",
                   "sequences 1; queue 8 timeout=600ms;")
    first = events(server, body(stream=True))
    next(first)
    lines = [line for _, line in events(server, body(stream=True))]
    assert ": ping" in lines and "[DONE]" not in lines[-1]
    error = json.loads(lines[-1][6:])["error"]
    assert error["code"] in ("queue_timeout", "timeout")
    list(first)


def test_worker_lost_after_a_ping_is_retried(start):
    server = start("tokens=3 delay=700ms", "infer_ping 100ms;")
    lines = events(server, body(stream=True))
    assert next(lines)[1] == ": ping"
    worker = server.get("/status").json()["models"][0]["workers"][0]
    os.kill(worker["pid"], signal.SIGKILL)
    rest = [line for _, line in lines]
    assert rest[-1] == "data: [DONE]"
    assert not any("error" in line for line in rest)


def test_client_leaves_during_pings(start):
    server = start("tokens=3 delay=500ms", "infer_ping 20ms;",
                   "sequences 1;")
    for _ in range(5):
        lines = events(server, body(stream=True))
        next(lines)
        lines.close()
    deadline = time.monotonic() + 10
    while server.get("/status").json()["models"][0]["slots_used"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- logs

def worker_pid(server):
    return server.get("/status").json()["models"][0]["workers"][0]["pid"]


def wait_worker(server, pid):
    deadline = time.monotonic() + 20
    while worker_pid(server) in (pid, 0) \
            or server.get("/readyz").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_errors_name_the_request(start):
    server = start(location="infer_timeout 100ms;", null="tokens=9 delay=1s")
    answer = server.post(CHAT, body())
    assert answer.status == 504
    server.wait_log("infer: 504 timeout: .*request id %s"
                    % answer.headers["x-request-id"])


def test_pool_goes_along_with_rotated_logs(start):
    server = start()
    old = server.log_path + ".1"
    first = worker_pid(server)
    os.rename(server.log_path, old)
    server.kill(signal.SIGUSR1)
    deadline = time.monotonic() + 10
    while not os.path.exists(server.log_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2.5)                     # the keeper looks once a second
    # both processes of the pool: a worker that is killed is the supervisor's
    # line, one that ends by itself has a line of its own
    with open(old) as file:
        before = file.read()
    os.kill(first, signal.SIGKILL)
    wait_worker(server, first)
    server.wait_log(r"infer: model m: worker 0 .*signal 9")
    server.wait_log(r"infer: model m: worker 0 ready")
    for name in os.listdir("/proc/%d/fd" % worker_pid(server)):
        path = os.readlink("/proc/%d/fd/%s" % (worker_pid(server), name))
        assert path != old, "the worker holds the old log"
    with open(old) as file:
        assert "infer: model m: worker 0 " not in file.read()[len(before):]


def test_a_worker_that_lives_writes_to_the_new_log(start):
    server = start()
    pid = worker_pid(server)
    os.rename(server.log_path, server.log_path + ".1")
    server.kill(signal.SIGUSR1)
    deadline = time.monotonic() + 10

    def where():
        return os.readlink("/proc/%d/fd/2" % pid)

    while where() != server.log_path:
        assert time.monotonic() < deadline, where()
        time.sleep(0.05)
    assert server.post(CHAT, body()).status == 200
    assert worker_pid(server) == pid
