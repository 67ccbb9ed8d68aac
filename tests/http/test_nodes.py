"""Several nodes: the prefix key and what it is good for; every fallback."""

import json
import os
import re
import socket
import time

import pytest

from conftest import model_path
from nginx import TOP, build_dir

CHAT = "/v1/chat/completions"
KEYS = """
    infer_model m { file @MODELS@/smollm2.gguf; threads 1; null tokens=2; }
    upstream echo { server 127.0.0.1:%d; }
    log_format keys '$infer_prefix_key';
"""
KEY_SERVER = """
        location /up/ {
            access_log  @PREFIX@/keys.log keys;
            client_body_buffer_size  1k;
            proxy_pass  http://127.0.0.1:$server_port/ok;
            proxy_set_header  X-Prefix $infer_prefix_key;
        }
        location /ok { return 200 "ok"; }
        location = /early { return 200 "[$infer_prefix_key]"; }
        location /v1/ { access_log @PREFIX@/keys.log keys; infer_pass m; }
        location = /readyz { infer_pass m; }
"""


def user(text):
    return {"role": "user", "content": text}


def system(text):
    return {"role": "system", "content": text}


@pytest.fixture
def keys(nginx):
    model_path("smollm2.gguf")
    server = nginx(http=KEYS % 1, server=KEY_SERVER, ready="/readyz")

    def key(body, path="/up/"):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        server.post(path, body)
        time.sleep(0.1)             # the log comes after the answer
        with open(os.path.join(server.prefix, "keys.log")) as file:
            return file.read().split("\n")[-2]

    key.server = server
    return key


# ---- the key

def test_turns_of_a_conversation_have_one_key(keys):
    begin = [system("You are kind."), user("What is a cat?")]
    one = keys({"model": "m", "messages": begin})
    assert re.fullmatch("[0-9a-f]{16}", one)
    more = begin + [{"role": "assistant", "content": "An animal."},
                    user("And a dog?")]
    assert keys({"model": "m", "messages": more, "stream": True,
                 "temperature": 0.3, "seed": 7}) == one
    assert keys({"messages": begin, "model": "m"}, CHAT) == one


def test_other_beginnings_have_other_keys(keys):
    base = {"model": "m", "messages": [system("A"), user("B")]}
    found = {keys(base),
             keys(dict(base, model="n")),
             keys(dict(base, tools=[{"type": "function"}])),
             keys(dict(base, messages=[system("B"), user("B")])),
             keys(dict(base, messages=[system("A"), user("C")])),
             keys(dict(base, messages=[user("A"), user("B")])),
             keys(dict(base, messages=[user("AB")])),
             keys({"model": "m", "prompt": "B"}),
             keys({"model": "m", "prompt": "C"})}
    assert len(found) == 9


def test_only_the_beginning_of_a_long_text_counts(keys):
    text = "word " * 400
    assert keys({"prompt": text + "a"}) == keys({"prompt": text + "b"})
    assert keys({"messages": [user(text + "a")]}) \
        == keys({"messages": [user(text + "b")]})
    # but all of what the operator says
    assert keys({"messages": [system(text + "a"), user("x")]}) \
        != keys({"messages": [system(text + "b"), user("x")]})


@pytest.mark.parametrize("body", [
    b"{", b"[]", b"7", b"null", b'{"messages": 5}', b'{"messages": [5]}',
    b'{"messages": [{"role": 5, "content": {}}]}', b'{"messages": []}',
    b'{"prompt": null}', b"\xff\xfe", b'{"messages": [[[[]]]]}',
    b'{"messages": [' + b'{"role":"assistant"},' * 500 + b'{}]}'])
def test_strange_bodies(keys, body):
    assert re.fullmatch("[0-9a-f]{16}", keys(body))
    assert keys.server.get("/early").body == b"[]"


def test_no_body_no_key(keys):
    assert keys(b"") == "-"


# ---- two nodes

def start_nodes(nginx, round_robin):
    model = model_path("smollm2.gguf")
    server = nginx(start=False)
    with open(os.path.join(TOP, "conf-examples", "two-nodes.conf")) as file:
        text = file.read()
    with open(server.conf) as file:
        head = re.search(r"^user .*$", file.read(), re.M)
    for old, new in (
            ("modules/ngx_http", build_dir() + "/ngx_http"),
            ("/usr/lib/nginx/nginx-infer-worker;",
             "%s/nginx-infer-worker;\n    infer_run_path %s/infer;"
             % (build_dir(), server.prefix)),
            ("/var/lib/models/smollm2.gguf", model),
            ("/tmp/nginx-infer", server.prefix),
            ("listen  8080;", "listen 127.0.0.1:%d;" % server.port)):
        assert old in text
        text = text.replace(old, new)
    if round_robin:
        text, n = re.subn(r"\n *hash .*;", "", text)
        assert n == 1
    with open(server.conf, "w") as file:
        file.write((head.group() if head else "") + "\ndaemon off;\n" + text)
    server.start()
    for name in ("one", "two"):
        server.wait_log(r"model %s: worker 0 ready" % name)
    return server


def hit_rate(server, conversations=5, turns=3):
    """Cached tokens of all prompt tokens but those of first turns."""
    cached = prompt = 0
    history = [[system("You answer questions about place number %d, which "
                       "lies beside a river, a wood and a hill." % i),
                user("Tell me something about the %s." % word)]
               for i, word in zip(range(conversations),
                                  ("river", "wood", "hill", "road", "bridge",
                                   "house", "mill"))]
    for turn in range(turns):
        for messages in history:
            answer = server.post(CHAT, {"messages": messages, "max_tokens": 4,
                                        "temperature": 0})
            assert answer.status == 200, answer.body
            usage = answer.json()["usage"]
            if turn > 0:
                prompt += usage["prompt_tokens"]
                cached += usage["prompt_tokens_details"]["cached_tokens"]
            messages += [answer.json()["choices"][0]["message"],
                         user("And what else is there to know?")]
            del messages[-2]["refusal"]
    return cached / prompt


@pytest.mark.slow
def test_hash_keeps_caches_warm(nginx):
    by_hash = start_nodes(nginx, False)
    hashed = hit_rate(by_hash)
    for i in range(20):             # so many that both nodes get some
        by_hash.post(CHAT, {"max_tokens": 1, "messages": [user("%d" % i)]})
    by_turns = start_nodes(nginx, True)
    turned = hit_rate(by_turns)
    print("cached: hash %.2f, round robin %.2f" % (hashed, turned))
    assert hashed > 0.6 and hashed > turned + 0.2, (hashed, turned)
    with open(os.path.join(by_hash.prefix, "access.log")) as file:
        assert len({line.split()[1] for line in file} - {"-"}) == 2


# ---- fallback, for every reason there is

FALLBACK = """
        location /v1/ {
            infer_pass      m;
            infer_fallback  @other;
            infer_deadline  $http_x_timeout;
            %s
        }
        location @other {
            proxy_pass  http://127.0.0.1:$server_port/echo;
        }
        location /echo { client_max_body_size 1m; proxy_pass
                         http://127.0.0.1:$server_port/ok; }
        location /ok { return 200 "elsewhere"; }
        location = /readyz  { infer_pass m; }
        location = /status  { infer_status; }
"""


@pytest.fixture
def start(nginx):
    def run(directives="", model="", null="tokens=200 delay=20ms", **more):
        model_path("smollm2.gguf")
        more.setdefault("ready", "/readyz")
        return nginx(http="infer_model m { file @MODELS@/smollm2.gguf; "
                          "threads 1; null %s; %s }" % (null, model),
                     server=FALLBACK % directives, **more)
    return run


def send(server, request):
    data = json.dumps(request).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                 % (CHAT.encode(), len(data)) + data)
    return sock


def fell_back(server, tokens=200, headers=()):
    answer = server.post(CHAT, {"messages": [user("x" * 30000)],
                                "max_tokens": tokens}, headers=headers)
    return answer.status == 200 and answer.body == b"elsewhere"


def slots(server):
    return server.get("/status").json()["models"][0]["slots_used"]


def wait_slots(server, n):
    deadline = time.monotonic() + 10
    while slots(server) != n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


LONG = {"messages": [user("Hello")], "max_tokens": 200}


def test_fallback_queue_full(start):
    server = start("", "sequences 1; queue 1;")
    socks = []
    for n in (1, 2):
        socks.append(send(server, LONG))
        wait_slots(server, n)
        time.sleep(0.2)
    assert fell_back(server)
    for sock in socks:
        sock.close()


def test_fallback_queue_timeout(start):
    server = start("", "sequences 1; queue 8 timeout=300ms;")
    sock = send(server, LONG)
    wait_slots(server, 1)
    assert fell_back(server)
    sock.close()


def test_fallback_timeout(start):
    server = start("infer_timeout 300ms;")
    assert fell_back(server)
    assert fell_back(server, headers={"X-Timeout": "0.1"})


def test_fallback_token_limit(start):
    server = start("infer_limit_tokens zone=z:1m key=$uri rate=10/d;")
    assert fell_back(server)


def test_fallback_concurrency_limit(start):
    server = start("infer_limit_tokens zone=z:1m key=$uri concurrency=1;")
    sock = send(server, LONG)
    wait_slots(server, 1)
    assert fell_back(server)
    sock.close()


def test_fallback_no_slot(start):
    server = start("", "slots 16; queue 1000; sequences 1;")
    socks = [send(server, LONG) for _ in range(16)]
    wait_slots(server, 16)
    assert fell_back(server)
    for sock in socks:
        sock.close()


def test_fallback_no_worker(start):
    # its socket belongs to nobody
    server = start("", "socket @PREFIX@/nobody.sock;", ready="/ok")
    assert fell_back(server)


def test_fallback_not_for_what_the_request_did_wrong(start):
    server = start()
    answer = server.post(CHAT, {"messages": 5})
    assert answer.status == 400
