"""infer_limit_tokens: reserved before, settled after, returned whoever dies."""

import concurrent.futures
import json
import os
import signal
import socket
import time

import pytest

from conftest import model_path

CHAT = "/v1/chat/completions"
LOG = """
    log_format limits '$status $infer_limit_status $infer_reserved_tokens '
                      '$infer_charged_tokens $infer_prompt_tokens '
                      '$infer_completion_tokens';
    access_log @PREFIX@/limits.log limits;
"""
SERVER = """
        location /v1/ { infer_pass m; %s }
        location = /metrics { infer_metrics; }
        location = /readyz  { infer_pass m; infer_limit_tokens off; }
        location = /status  { infer_status; }
"""
RATE = "infer_limit_tokens zone=z:1m key=$http_x_key rate=6000r/m burst=1000;"
RUNNING = "infer_limit_tokens zone=z:1m key=$http_x_key concurrency=2;"


def body(tokens=10, **more):
    return dict({"messages": [{"role": "user", "content": "Hello"}],
                 "max_tokens": tokens}, **more)


@pytest.fixture
def start(nginx):
    def run(limit, null="tokens=10", model="", http="", **more):
        model_path("smollm2.gguf")
        return nginx(http=LOG + "infer_model m { file @MODELS@/smollm2.gguf; "
                          "threads 1; null %s; %s }" % (null, model) + http,
                     server=SERVER % limit, ready="/readyz", **more)
    return run


def ask(server, tokens=10, key="a", **more):
    return server.post(CHAT, body(tokens, **more), headers={"X-Key": key})


def code(answer):
    return answer.json()["error"]["code"]


def remaining(server, key="a"):
    answer = ask(server, 1, key)
    assert answer.status == 200, answer.body
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def logged(server):
    time.sleep(0.1)                 # the log comes after the answer
    with open(os.path.join(server.prefix, "limits.log")) as file:
        lines = [line.split() for line in file]
    return [line for line in lines if line[1] != "-"]


def wait_for(what, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send(server, request, key="a"):
    data = json.dumps(request).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nX-Key: %s\r\n"
                 b"Content-Length: %d\r\n\r\n"
                 % (CHAT.encode(), key.encode(), len(data)) + data)
    return sock


def used(server):
    return server.get("/status").json()["models"][0]["slots_used"]


# ---- tokens

def test_headers_and_settling(start):
    server = start(RATE)
    answer = ask(server, 900)
    assert answer.status == 200
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    left = int(answer.headers["x-ratelimit-remaining-tokens"])
    assert 0 < left < 100
    assert answer.headers["x-ratelimit-reset-tokens"].startswith("9.")
    # ten tokens were answered: the rest of the 900 is there again
    assert remaining(server) > 850
    usage = answer.json()["usage"]
    line = logged(server)[-2]
    assert line[:2] == ["200", "passed"] and int(line[2]) > 900
    assert int(line[3]) == usage["total_tokens"]


def test_refusal(start):
    server = start(RATE, "tokens=1000")
    first = ask(server, 900)
    assert first.status == 200
    answer = ask(server, 900)
    assert answer.status == 429 and code(answer) == "rate_limit_exceeded"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    # about 930 of 1000 are used, so some 880 must come back, 100 a second
    wait = int(answer.headers["retry-after-ms"])
    assert 6000 < wait < 11000
    assert int(answer.headers["retry-after"]) == -(-wait // 1000)
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    # another key is another budget; a short one still fits
    assert ask(server, 900, "b").status == 200
    assert ask(server, 5).status == 200
    assert logged(server)[1][:2] == ["429", "tokens"]


def test_tokens_come_back(start):
    server = start(RATE, "tokens=1000")
    assert ask(server, 900).status == 200
    answer = ask(server, 200)
    assert answer.status == 429
    time.sleep(int(answer.headers["retry-after-ms"]) / 1000 + 0.05)
    assert ask(server, 200).status == 200


def test_more_than_the_burst(start):
    server = start(RATE)
    answer = ask(server, 1500)
    assert answer.status == 429 and code(answer) == "rate_limit_exceeded"
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    assert logged(server)[-1][:2] == ["429", "too_large"]


def test_far_away_is_not_to_be_retried(start):
    server = start(RATE.replace("6000r/m", "60/h"), "tokens=1000")
    assert ask(server, 900).status == 200
    answer = ask(server, 900)
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) > 3600
    assert answer.headers["x-should-retry"] == "false"


def test_open_end_reserves_what_is_configured(start):
    server = start(RATE.replace(";", " reserve=300;"))
    answer = server.post(CHAT, {"messages": body()["messages"]},
                         headers={"X-Key": "a"})
    assert answer.status == 200
    assert 300 < int(logged(server)[-1][2]) < 400


def test_choices_count(start):
    server = start(RATE)
    assert ask(server, 400, n=2).status == 200
    assert 800 < int(logged(server)[-1][2]) < 900
    assert ask(server, 400, n=3).status == 429


def test_refused_for_other_reasons_costs_nothing(start):
    server = start(RATE.replace("6000r/m", "1/d"), model="context 256;")
    # the worker refuses it, after tokens were reserved
    answer = ask(server, 900)
    assert answer.status == 400
    assert remaining(server) > 900


def test_no_key_is_not_limited(start):
    server = start(RATE)
    for _ in range(5):
        answer = server.post(CHAT, body(2000))
        assert answer.status == 200
        assert "x-ratelimit-limit-tokens" not in answer.headers


def test_tokenize_is_free(start):
    server = start(RATE)
    answer = server.post("/v1/tokenize", {"prompt": "Hello " * 2000},
                         headers={"X-Key": "a"})
    assert answer.status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_pays_what_was_computed(start, stream):
    server = start(RATE.replace("6000r/m", "1/d"), "tokens=800 delay=20ms")
    sock = send(server, body(800, stream=stream))
    time.sleep(1)
    sock.close()
    wait_for(lambda: used(server) == 0)
    left = remaining(server)
    # about 50 tokens of 800, and the prompt
    assert 750 < left < 960, left


def test_many_at_once_never_exceed(start):
    server = start(RATE.replace("6000r/m", "1/d"), "tokens=50 delay=5ms",
                   workers=2)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: ask(server, 50).status, range(40)))
    passed = got.count(200)
    assert set(got) == {200, 429}
    charged = sum(int(line[3]) for line in logged(server) if line[0] == "200")
    assert charged <= 1000
    # none is refused for nothing: 50 + 30 tokens each
    assert passed >= 7, passed


# ---- requests at once

def test_concurrency(start):
    server = start(RUNNING, "tokens=100 delay=20ms")
    socks = [send(server, body(100)) for _ in range(2)]
    wait_for(lambda: used(server) == 2)
    answer = ask(server)
    assert answer.status == 429
    assert code(answer) == "concurrency_limit_exceeded"
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert answer.headers["x-should-retry"] == "true"
    assert ask(server, key="b").status == 200
    socks[0].close()
    wait_for(lambda: ask(server).status == 200, 3)
    socks[1].close()


def test_two_limits(start):
    server = start(RATE + RUNNING.replace("zone=z", "zone=y"),
                   "tokens=100 delay=20ms")
    socks = [send(server, body(100)) for _ in range(2)]
    wait_for(lambda: used(server) == 2)
    before = ask(server)
    assert before.status == 429
    assert code(before) == "concurrency_limit_exceeded"
    for sock in socks:
        sock.close()
    wait_for(lambda: used(server) == 0)
    # the tokens that the refused one had reserved came back
    assert remaining(server) > 700


# ---- whoever dies

def test_inference_worker_dies(start):
    server = start(RATE.replace("6000r/m", "1/d") + RUNNING.replace(
        "zone=z", "zone=y"), "tokens=800 delay=20ms")
    sock = send(server, body(800, stream=True))
    time.sleep(0.5)
    os.kill(server.get("/status").json()["models"][0]["workers"][0]["pid"],
            signal.SIGKILL)
    while sock.recv(65536):
        if used(server) == 0:
            break
    sock.close()
    wait_for(lambda: ask(server, 1).status == 200)
    assert remaining(server) > 750


def test_nginx_worker_dies(start):
    server = start(RATE.replace("6000r/m", "1/d") + RUNNING.replace(
        "zone=z", "zone=y"), "tokens=800 delay=20ms")
    server.allow(r"exited on signal 9")
    socks = [send(server, body(400)) for _ in range(2)]
    wait_for(lambda: used(server) == 2)
    [worker] = server.children("nginx: worker process")
    os.kill(worker, signal.SIGKILL)
    for sock in socks:
        sock.close()
    wait_for(lambda: server.answers())
    # what it held is back, and so are its two places
    wait_for(lambda: ask(server, 800).status == 200)
    server.wait_log("returned what|start worker process")
    assert remaining(server) > 100


def test_one_of_two_nginx_workers_dies(start):
    server = start(RUNNING, "tokens=800 delay=20ms", workers=2)
    server.allow(r"exited on signal 9")
    socks = [send(server, body(400)) for _ in range(2)]
    time.sleep(0.5)
    assert ask(server).status == 429
    for worker in server.children("nginx: worker process"):
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.2)
    for sock in socks:
        sock.close()
    wait_for(lambda: ask(server).status == 200, 5)


def test_reload_keeps_what_was_used(start):
    server = start(RATE.replace("6000r/m", "1/d") + RUNNING.replace(
        "zone=z", "zone=y"), "tokens=1000")
    assert ask(server, 900).status == 200
    for _ in range(3):
        server.reload()
        assert ask(server, 900).status == 429
    # another rate applies to what was used before
    server.write_conf(server=server.parts["server"].replace("1/d",
                                                            "1000000/s"))
    server.reload()
    wait_for(lambda: ask(server, 900).status == 200)


def test_reload_with_requests_that_run(start):
    server = start(RUNNING, "tokens=100 delay=20ms")
    socks = [send(server, body(100)) for _ in range(2)]
    wait_for(lambda: used(server) == 2)
    server.reload()
    wait_for(lambda: ask(server).status == 429)
    for sock in socks:
        assert b" 200 " in sock.recv(4096)
        sock.close()
    wait_for(lambda: ask(server).status == 200)


def test_another_key_for_a_zone_is_refused_at_reload(start):
    server = start(RATE)
    server.allow("previously it used the key")
    server.write_conf(server=server.parts["server"].replace(
        "key=$http_x_key", "key=$remote_addr"))
    mark = len(server.log())
    server.kill(signal.SIGHUP)
    server.wait_log('uses the key "\\$remote_addr"', mark)
    assert ask(server).status == 200


# ---- configuration and figures

@pytest.mark.parametrize("directive, said", [
    ("zone=z:1m;", "which no other defines"),
    ("zone=z key=$uri rate=1/m;", "zero size shared memory zone"),
    ("zone=:1m key=$uri rate=1/m;", "invalid zone"),
    ("zone=z:1k key=$uri rate=1/m;", "invalid zone"),
    ("key=$uri rate=1/m;", 'begins with "zone="'),
    ("zone=z:1m key=$uri;", 'needs "key="'),
    ("zone=z:1m rate=1/m;", 'needs "key="'),
    ("zone=z:1m key= rate=1/m;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=0/m;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=1/y;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=/m;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=1;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=-5/m;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=1/m burst=0;", "invalid parameter"),
    ("zone=z:1m key=$uri concurrency=70000;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=1/m what=1;", "invalid parameter"),
    ("zone=z:1m key=$uri rate=1/m; infer_limit_tokens zone=z;", "duplicate"),
    ("zone=z:1m key=$uri rate=1/m; infer_limit_tokens off;", "off beside"),
    ("zone=z:1m key=$nothing rate=1/m;", 'unknown "nothing" variable'),
])
def test_configuration(nginx, directive, said):
    model_path("smollm2.gguf")
    server = nginx(http="infer_model m { file @MODELS@/smollm2.gguf; null; }",
                   server="location / { infer_pass m; infer_limit_tokens %s }"
                          % directive, start=False)
    server.allow(r"emerg")
    status, text = server.test_conf()
    assert status != 0 and said in text, text


def test_defined_outside_named_inside(start):
    server = start("infer_limit_tokens zone=z;",
                   http=RATE + RATE.replace("zone=z", "zone=other")
                   .replace("burst=1000", "burst=500"))
    answer = ask(server, 900)
    assert answer.status == 200
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"


def test_metrics(start):
    server = start(RATE)
    total = ask(server, 900).json()["usage"]["total_tokens"]
    assert ask(server, 1500).status == 429
    text = server.get("/metrics").body.decode()
    assert 'nginx_infer_limit_passed_total{zone="z"} 1\n' in text
    assert ('nginx_infer_limit_refused_total{zone="z",reason="too_large"} 1\n'
            in text)
    assert 'nginx_infer_limit_tokens_total{zone="z"} %d\n' % total in text
    assert 'shed_total{model="m",reason="token_limit"} 1\n' in text
