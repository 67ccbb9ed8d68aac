"""Queues, limits, clients that leave or do not read, fallbacks, filters."""

import concurrent.futures
import json
import socket
import time

import httpx
import pytest

from conftest import model_path

CHAT = "/v1/chat/completions"
SLOW = "null tokens=200 delay=20ms"
COMMON = """
        location /v1/ { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /status { infer_status; }
"""


def body(**more):
    return dict({"messages": [{"role": "user", "content": "Hello"}]}, **more)


@pytest.fixture
def start(nginx):
    def run(null=SLOW, model="", server="", http="", **more):
        model_path("smollm2.gguf")
        more.setdefault("ready", "/readyz")
        return nginx(http="infer_model m { file @MODELS@/smollm2.gguf; "
                          "threads 1; %s; %s }" % (null, model) + http,
                     server=COMMON + server, **more)
    return run


def worker_of(server):
    return server.get("/status").json()["models"][0]["workers"][0]


def wait_for(what, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send(server, request, path=CHAT):
    data = json.dumps(request).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                 % (path.encode(), len(data)) + data)
    return sock


def idle(server):
    worker = worker_of(server)
    used = server.get("/status").json()["models"][0]["slots_used"]
    return used == 0 and worker["running"] == 0 and worker["waiting"] == 0


# ---- clients that leave

@pytest.mark.parametrize("stream", [False, True])
def test_client_leaves_in_decode(start, stream):
    server = start()
    sock = send(server, body(stream=stream, max_tokens=200))
    wait_for(lambda: worker_of(server)["running"] == 1)
    sock.close()
    wait_for(lambda: idle(server), 2)
    assert worker_of(server)["cancelled_decode"] == 1
    if not stream:                  # else its 200 was sent already
        wait_for(lambda: " 499 " in open(server.prefix
                                         + "/access.log").read())


def test_client_leaves_in_queue(start):
    server = start(model="sequences 1;")
    first = send(server, body(max_tokens=200))
    wait_for(lambda: worker_of(server)["running"] == 1)
    second = send(server, body(max_tokens=200))
    wait_for(lambda: worker_of(server)["waiting"] == 1)
    second.close()
    wait_for(lambda: worker_of(server)["waiting"] == 0, 2)
    assert worker_of(server)["cancelled_waiting"] == 1
    first.close()
    wait_for(lambda: idle(server), 2)


def test_ignore_client_abort(start):
    server = start("null tokens=20 delay=20ms",
                   http="infer_ignore_client_abort on;")
    sock = send(server, body())
    wait_for(lambda: worker_of(server)["running"] == 1)
    sock.close()
    wait_for(lambda: idle(server))
    assert worker_of(server)["cancelled_decode"] == 0
    assert worker_of(server)["tokens"] >= 20


def test_slow_reader_pauses_alone(start):
    # more text than ring and socket buffers hold; others are not delayed
    server = start("null tokens=100000", "context 120000;",
                   "send_timeout 60s;")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    data = json.dumps(body(stream=True, logprobs=True,
                           top_logprobs=20)).encode()
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                 b"Content-Length: %d\r\n\r\n" % (CHAT.encode(), len(data))
                 + data)
    wait_for(lambda: worker_of(server)["running"] == 1)
    paused = -1
    while worker_of(server)["tokens"] != paused:
        paused = worker_of(server)["tokens"]
        time.sleep(0.5)
    assert worker_of(server)["running"] == 1
    assert server.post(CHAT, body(max_tokens=5)).status == 200
    answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.rstrip().endswith(b"data: [DONE]\n\n\r\n0".rstrip()) \
        or b"data: [DONE]" in answer[-200:]
    assert answer.count(b"data: {") > 5000
    wait_for(lambda: idle(server))


def test_client_that_does_not_read(start):
    server = start("null tokens=100000", "context 120000;",
                   "send_timeout 1s;")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    data = json.dumps(body(stream=True)).encode()
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                 % (CHAT.encode(), len(data)) + data)
    wait_for(lambda: worker_of(server)["running"] == 1)
    wait_for(lambda: idle(server), 15)
    sock.close()


# ---- limits

def test_queue_full(start):
    server = start(model="sequences 1; queue 2;")
    socks = [send(server, body(max_tokens=200))]
    wait_for(lambda: worker_of(server)["running"] == 1)
    for n in (1, 2):
        socks.append(send(server, body(max_tokens=200)))
        wait_for(lambda: worker_of(server)["waiting"] == n)
    begin = time.monotonic()
    refused = server.post(CHAT, body())
    assert time.monotonic() - begin < 5         # it did not wait
    assert refused.status == 429
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["Retry-After"]) >= 1
    assert int(refused.headers["retry-after-ms"]) >= 1
    assert refused.headers["x-should-retry"] == "true"
    for sock in socks:
        sock.close()
    wait_for(lambda: idle(server))


def test_queue_timeout(start):
    server = start(model="sequences 1; queue 9 timeout=300ms;")
    sock = send(server, body(max_tokens=200))
    wait_for(lambda: worker_of(server)["running"] == 1)
    begin = time.monotonic()
    refused = server.post(CHAT, body())
    assert 0.25 < time.monotonic() - begin < 5
    assert refused.status == 503
    assert refused.json()["error"]["code"] == "queue_timeout"
    assert refused.headers["x-should-retry"] == "true"
    sock.close()


def test_timeout(start):
    server = start(server="infer_timeout 500ms;")
    begin = time.monotonic()
    answer = server.post(CHAT, body(max_tokens=200))
    assert 0.4 < time.monotonic() - begin < 5
    assert answer.status == 504
    assert answer.headers["x-should-retry"] == "false"
    wait_for(lambda: idle(server), 2)


def test_timeout_of_stream(start):
    server = start(server="infer_timeout 500ms;")
    events = list(server.stream(CHAT, body(stream=True, max_tokens=200)))
    assert "error" in json.loads(events[-1])
    assert "[DONE]" not in events
    error = json.loads(events[-1])["error"]
    assert sorted(error) == ["code", "message", "param", "type"]


def test_many_at_once(start):
    server = start("null tokens=8", model="sequences 8;", workers=2)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda i: server.post(
            CHAT, body(stream=i % 2 == 0)), range(400)))
    assert {a.status for a in answers} == {200}
    assert len({a.body for i, a in enumerate(answers) if i % 2}) > 100
    wait_for(lambda: idle(server))


def test_many_leave_at_random(start):
    server = start("null tokens=50 delay=2ms", model="sequences 4;")
    socks = []
    for i in range(100):
        socks.append(send(server, body(stream=i % 3 == 0)))
        if i % 2:
            socks.pop(len(socks) // 2).close()
    for sock in socks:
        sock.close()
    wait_for(lambda: idle(server), 5)
    assert server.post(CHAT, body(max_tokens=2)).status == 200


# ---- with nginx's own

OTHER = """
        location @other { return 200 "other"; }
        location = /upstream { return 200 "upstream"; }
"""


def test_fallback_when_full(start):
    server = start(model="sequences 1; queue 1;",
                   server="infer_fallback @up; location @up { proxy_pass "
                          "http://127.0.0.1:$server_port/echo/; } "
                          "location /echo/ { return 200 'fell back'; }")
    socks = [send(server, body(max_tokens=200))]
    wait_for(lambda: worker_of(server)["running"] == 1)
    socks.append(send(server, body(max_tokens=200)))
    wait_for(lambda: worker_of(server)["waiting"] == 1)
    answer = server.post(CHAT, body(user="x" * 30000))
    assert answer.status == 200 and answer.body == b"fell back"
    for sock in socks:
        sock.close()


def test_error_page(start):
    server = start(model="sequences 1; queue 1;",
                   server="error_page 429 = @other;" + OTHER)
    socks = [send(server, body(max_tokens=200))]
    wait_for(lambda: worker_of(server)["running"] == 1)
    socks.append(send(server, body(max_tokens=200)))
    wait_for(lambda: worker_of(server)["waiting"] == 1)
    assert server.post(CHAT, body()).body == b"other"
    for sock in socks:
        sock.close()


def test_limits_of_nginx_speak_json(start):
    server = start(
        http="limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;"
             "limit_req_status 429;",
        server="location /l/ { limit_req zone=one; infer_pass m; }")
    assert server.post("/l/chat/completions", body(max_tokens=1)).status == 200
    answer = server.post("/l/chat/completions", body())
    assert answer.status == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["x-request-id"]


def test_auth_request_and_gzip(start):
    server = start(
        "null tokens=60",
        server="location = /yes { return 204; } location = /no { return 401; }"
               "location /a/ { auth_request /yes; gzip on; gzip_min_length 1;"
               " gzip_types application/json; infer_pass m; }"
               "location /b/ { auth_request /no; infer_pass m; }")
    answer = server.post("/a/chat/completions", body(),
                         headers={"Accept-Encoding": "gzip"})
    assert answer.status == 200
    assert answer.headers["Content-Encoding"] == "gzip"
    refused = server.post("/b/chat/completions", body())
    assert refused.status == 401
    assert refused.json()["error"]["type"] == "authentication_error"


def test_as_subrequest(start):
    # the main request's body goes to every include
    server = start(
        "null tokens=4",
        server="location = /page { ssi on; ssi_types *; default_type text/x;"
               " proxy_pass http://127.0.0.1:$server_port/raw; }"
               "location = /raw { return 200 "
               "'<!--#include virtual=\"/v1/models\" -->|"
               "<!--#include virtual=\"/healthz\" -->'; }"
               "location = /healthz { infer_pass m; }")
    answer = server.get("/page")
    parts = answer.body.split(b"|")
    assert json.loads(parts[0])["object"] == "list"
    assert json.loads(parts[1]) == {"status": "ok"}


def test_http2(start):
    server = start("null tokens=30 delay=5ms",
                   http="server { listen 127.0.0.1:@H2@ http2; "
                        "location /v1/ { infer_pass m; } "
                        "location = /status { infer_status; } }"
                   .replace("@H2@", str(h2_port())))
    with httpx.Client(http1=False, http2=True, timeout=20,
                      base_url="http://127.0.0.1:%d" % h2_port()) as client:
        answer = client.post(CHAT, json=body())
        assert answer.http_version == "HTTP/2" and answer.status_code == 200
        with client.stream("POST", CHAT, json=body(stream=True)) as stream:
            lines = [x for x in stream.iter_lines() if x]
        assert lines[-1] == "data: [DONE]"
        # one stream is reset, the connection and its others live on
        with client.stream("POST", CHAT, json=body(stream=True)) as stream:
            next(stream.iter_lines())
        wait_for(lambda: idle(server), 3)
        assert client.post(CHAT, json=body(max_tokens=2)).status_code == 200


_PORT = []


def h2_port():
    if not _PORT:
        from nginx import free_port
        _PORT.append(free_port())
    return _PORT[0]


def test_log_variables(start):
    server = start("null tokens=10", http="""
        log_format infer '$infer_model|$infer_prompt_tokens|'
            '$infer_completion_tokens|$infer_cached_tokens|$infer_queue_time|'
            '$infer_prefill_time|$infer_first_token_time|'
            '$infer_tokens_per_second|$infer_finish_reason|$infer_status|'
            '$infer_worker|$infer_retries';
        access_log @PREFIX@/infer.log infer;""")
    usage = server.post(CHAT, body(max_tokens=5)).json()["usage"]
    server.post(CHAT, "{")

    def lines():
        with open(server.prefix + "/infer.log") as file:
            return [x.split("|") for x in file.read().split("\n") if "|" in x]
    wait_for(lambda: [x for x in lines() if x[9] == "invalid_json"])
    [line] = [x for x in lines() if x[9] == "ok"]
    assert line[0] == "m" and line[8] == "length" and line[11] == "0"
    assert int(line[1]) == usage["prompt_tokens"]
    assert int(line[2]) == usage["completion_tokens"] == 5
    for time_field in line[4:7]:
        assert 0 <= float(time_field) < 10
