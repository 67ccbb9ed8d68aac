"""infer_classify: labels and scores as variables before the content phase;
infer_input and infer_output: locations whose input are variables."""

import asyncio
import concurrent.futures
import os
import signal
import socket
import subprocess
import time
import urllib.parse

import httpx
import pytest

from conftest import model_path
from encoders import make_classifier
from nginx import Nginx

LABELS = ["quiet", "loud", "odd"]

HTTP = """
    infer_model cls   { file %(folder)s/cls; precision float32; }
    infer_model emb   { file @MODELS@/minilm; }
    infer_model slow  { file %(folder)s/cls; null delay=400ms; }
    infer_model late  { file %(folder)s/cls; null delay=60s; }
    infer_model t5    { file @MODELS@/smollm2.gguf; null tokens=5; }

    map $label $served { quiet "calm"; loud "noise"; default "other"; }
    map $request_method $posted { POST $request_body; default ""; }
    log_format verdict "$uri $status [$label] [$score]";
    limit_req_zone $limited zone=odd:1m rate=1r/m;
    map $limit_label $limited { slow $binary_remote_addr; default ""; }

    server {
        listen 127.0.0.1:%(h2)d http2;
        location = /slow {
            infer_classify $sl slow $arg_q timeout=30s;
            return 200 "[$sl]";
        }
    }

    server {
        listen 127.0.0.1:%(gate)d;
        infer_classify $gate cls $arg_q score=$gate_score;
        if ($gate_score = "") { return 418 "$gate"; }
        if ($arg_want = $gate) { rewrite ^ /deep last; }
        location / { return 200 "top $gate"; }
        location = /deep { return 200 "deep $gate"; }
    }
"""

SERVER = """
        access_log  @PREFIX@/verdicts.log verdict;
        client_body_buffer_size  1k;
        location /v1/ { infer_pass cls t5 emb slow; }
        location = /readyz { infer_pass cls t5 emb slow; }
        location = /status { infer_status; }
        location = /label {
            infer_classify $label cls $arg_q unescape score=$score;
            return 200 "$label $score $served";
        }
        location = /if {
            infer_classify $quiet cls $arg_q class=quiet over=0.5;
            infer_classify $of_quiet cls $arg_q class=quiet;
            if ($quiet) { return 403 "$of_quiet"; }
            return 200 "$quiet $of_quiet";
        }
        location = /meaning {
            infer_classify $way emb $arg_q unescape score=$score timeout=30s
                "like=bill:invoice, payment and refund"
                "like=bill:money was taken from my credit card"
                "like=tech:the program crashes with an error";
            return 200 "$way $score";
        }
        location = /distant {
            infer_classify $way emb $arg_q unescape over=0.9 timeout=30s
                default=none
                "like=bill:invoice, payment and refund";
            return 200 "$way";
        }
        location = /none {
            infer_classify $of_none slow $arg_q class=absent default=unknown;
            return 200 "[$of_none]";
        }
        location = /body {
            infer_classify $of_body cls $request_body truncate
                           default=failed;
            return 200 "$of_body";
        }
        location = /posted {
            infer_classify $of_body cls $posted body truncate fail=413;
            return 200 "[$of_body]";
        }
        location = /passed/classify {
            infer_classify $of_body cls $request_body truncate;
            infer_pass cls;
        }
        location = /proxied {
            infer_classify $of_body cls $request_body truncate;
            proxy_pass http://127.0.0.1:$server_port/v1/classify;
        }
        location = /long  {
            infer_classify $of_long cls $arg_q default=too-long;
            return 200 "$of_long";
        }
        location = /slow {
            infer_classify $sl slow $arg_q timeout=30s;
            return 200 "[$sl]";
        }
        location = /both {
            infer_classify $b1 slow $arg_q timeout=30s;
            infer_classify $b2 slow $arg_q timeout=30s class=label_1;
            return 200 "[$b1][$b2]";
        }
        location = /open {
            infer_classify $op late $arg_q timeout=100ms default=nothing;
            return 200 "[$op]";
        }
        location = /closed {
            infer_classify $cl late $arg_q timeout=100ms fail=closed;
            return 200 "[$cl]";
        }
        location = /status451 {
            infer_classify $cl late $arg_q timeout=100ms fail=451;
            error_page 451 = /sorry;
        }
        location = /sorry { return 200 "sorry [$cl]"; }
        location = /wait {
            infer_classify $wa late $arg_q timeout=50s;
            return 200 "[$wa]";
        }
        location = /limited {
            infer_classify $limit_label cls $arg_q over=1 default=slow;
            limit_req zone=odd;
            try_files /nothing @fine;
        }
        location @fine { return 200 "fine"; }
        location = /guarded {
            auth_request /check;
            auth_request_set $seen $guard;
            try_files /nothing @guarded;
        }
        location @guarded { return 200 "let in as $seen"; }
        location = /check {
            internal;
            infer_classify $guard cls $http_x_text;
            if ($guard = $http_x_deny) { return 403; }
            return 204;
        }
        location = /say {
            infer_pass t5;
            infer_input $arg_q unescape;
            infer_field max_tokens 3;
            infer_field temperature 0;
            infer_output text;
        }
        location = /say.json {
            infer_pass t5;
            infer_input "Say: $arg_q" unescape;
        }
        location = /which {
            infer_pass cls;
            infer_input $arg_q unescape;
            infer_output text;
        }
        location = /which.json { infer_pass cls; infer_input $arg_q; }
        location = /vector { infer_pass emb; infer_input $arg_q; }
        location = /of-body {
            infer_pass cls;
            infer_input $request_body;
            infer_output text;
        }
        location /pages/ { root @PREFIX@; ssi on; default_type text/html; }
"""

# (an include with a stub comes first: nginx sends the stub of a subrequest
# twice when another one before it is still under way)
PAGE = """<!--# block name="none" -->nothing<!--# endblock -->
<p><!--# include virtual="/which?q=" stub="none" --></p>
<p><!--# include virtual="/which?q=$arg_q" --></p>
<p><!--# include virtual="/say?q=hello" --></p>
<i><!--# include virtual="/label?q=$arg_q" --></i>
<i><!--# include virtual="/label?q=$arg_q" --></i>
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model_path("minilm")
    model_path("smollm2.gguf")
    folder = str(tmp_path_factory.mktemp("models"))
    make_classifier(os.path.join(folder, "cls"), LABELS)
    ports = {"folder": folder, "h2": free_port(), "gate": free_port()}
    nginx = Nginx(http=HTTP % ports, server=SERVER, workers=2, start=False)
    nginx.ports = ports
    os.mkdir(os.path.join(nginx.prefix, "pages"))
    with open(os.path.join(nginx.prefix, "pages", "page.html"), "w") as file:
        file.write(PAGE)
    nginx.ready = "/readyz"
    nginx.start()
    yield nginx
    nginx.stop()


def predicted(server, text):
    """label: probability, the likeliest first."""
    answer = server.post("/v1/predict", {"model": "cls", "inputs": text})
    assert answer.status == 200, answer.body
    return {one["label"]: one["score"] for one in answer.json()}


def get(server, path, q="", **more):
    path += "?" + urllib.parse.urlencode({"q": q, **more})
    answer = server.get(path)
    return answer.status, answer.body.decode()


TEXTS = ["hello", "good morning", "nginx is a web server", "x y z",
         "caf\u00e9 \u4e2d\u6587", "a b c d e f g h", "1 2 3", "why?"]


# ---- labels and scores

@pytest.mark.parametrize("text", TEXTS)
def test_label(server, text):
    want = predicted(server, text)
    best = next(iter(want))
    status, body = get(server, "/label", text)
    label, score, mapped = body.split()
    assert (status, label) == (200, best)
    assert abs(float(score) - want[best]) < 2e-6
    assert mapped == {"quiet": "calm", "loud": "noise"}.get(best, "other")


@pytest.mark.parametrize("text", TEXTS)
def test_if(server, text):
    word = text.split()[0]
    path = "/if?q=" + (word if word.isascii() else "w")
    want = predicted(server, word if word.isascii() else "w")["quiet"]
    answer = server.get(path)
    if want > 0.5:
        assert answer.status == 403
        assert abs(float(answer.body) - want) < 2e-6
    else:
        flag, score = answer.body.split()
        assert flag == b"0" and abs(float(score) - want) < 2e-6


def test_empty_text(server):
    assert server.get("/label").body == b"  other"


def test_broken_utf8(server):
    answer = server.get("/label?q=%ff%fe%c3")
    want = predicted(server, "\ufffd\ufffd\ufffd")
    assert answer.body.decode().split()[0] == next(iter(want))


def test_meaning(server):
    for text, want in (("I want my money back", "bill"),
                       ("it stops with a segmentation fault", "tech"),
                       ("where is my invoice", "bill")):
        status, body = get(server, "/meaning", text)
        way, score = body.split()
        assert (status, way) == (200, want), (text, body)
        assert 0 < float(score) <= 1.001
    assert get(server, "/distant", "a fish") == (200, "none")
    assert get(server, "/distant", "invoice, payment and refund") == (
        200, "bill")


def test_unknown_label(server):
    assert get(server, "/none", "hello") == (200, "[unknown]")
    server.wait_log(r"\$of_none was not computed: unknown_label: .*absent")


def test_too_long(server):
    assert get(server, "/long", "a " * 300) == (200, "too-long")
    server.wait_log(r"\$of_long was not computed: context_length_exceeded")


def test_log_has_the_value(server):
    status, body = get(server, "/label", "logged now")
    label, score, _ = body.split()
    path = os.path.join(server.prefix, "verdicts.log")
    want = "/label 200 [%s] [%s]" % (label, score)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with open(path) as file:
            if want in file.read():
                return
        time.sleep(0.02)
    raise AssertionError(want)


# ---- bodies

def test_body(server):
    best = next(iter(predicted(server, "some words")))
    assert server.post("/body", "some words").body.decode() == best
    assert server.post("/posted", "some words").body.decode() == (
        "[%s]" % best)
    assert server.get("/posted").body == b"[]"
    assert server.get("/body").body == b""


def test_body_too_large(server):
    # larger than client_body_buffer_size: not in memory, so not computed
    assert server.post("/body", "x " * 2000).body == b"failed"
    assert server.post("/posted", "x " * 2000).status == 413
    server.wait_log("does not fit into \"client_body_buffer_size\"")


def test_chunked_body(server):
    best = next(iter(predicted(server, "some words")))
    for text, status in (("some words", 200), ("x " * 2000, 413)):
        parts = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (
            text[:5].encode(), text[5:].encode()))
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"POST /posted HTTP/1.1\r\nHost: x\r\nConnection: "
                         b"close\r\nTransfer-Encoding: chunked\r\n\r\n"
                         + parts + b"0\r\n\r\n")
            data = sock.makefile("rb").read()
        assert data.startswith(b"HTTP/1.1 %d" % status), data
        assert status != 200 or b"[%s]" % best.encode() in data


@pytest.mark.parametrize("path", ["/passed/classify", "/proxied"])
def test_body_is_kept(server, path):
    answer = server.post(path, {"input": "hello there"})
    assert answer.status == 200, answer.body
    assert answer.json()["data"][0]["label"] == next(iter(predicted(
        server, "hello there")))


# ---- failures, time, ends

def test_fail_open(server):
    start = time.monotonic()
    assert get(server, "/open", "x") == (200, "[nothing]")
    assert 0.09 < time.monotonic() - start < 5
    server.wait_log(r"\$op was not computed: timeout")


def test_fail_closed(server):
    assert get(server, "/closed", "x")[0] == 503
    assert get(server, "/closed", "") == (200, "[]")
    assert get(server, "/status451", "x") == (200, "sorry []")


def test_both_at_once(server):
    start = time.monotonic()
    status, body = get(server, "/both", "x")
    assert status == 200 and body.count("[]") == 0
    assert time.monotonic() - start < 10


def test_client_leaves(server):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /wait?q=x HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
    deadline = time.monotonic() + 10
    path = os.path.join(server.prefix, "verdicts.log")
    while time.monotonic() < deadline:
        with open(path) as file:
            if "/wait 499" in file.read():
                return
        time.sleep(0.05)
    raise AssertionError("nobody noticed that the client left")


def test_keepalive_and_pipelining(server):
    best = next(iter(predicted(server, "hello")))
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        one = (b"GET /label?q=hello HTTP/1.1\r\nHost: x\r\n\r\n"
               b"POST /posted HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
               b"\r\nhello")
        last = (b"GET /slow?q=x HTTP/1.1\r\nHost: x\r\nConnection: close"
                b"\r\n\r\n")
        sock.sendall(one * 3 + last)
        data = sock.makefile("rb").read()
    assert data.count(b"HTTP/1.1 200") == 7
    assert data.count(b"[%s]" % best.encode()) == 3


def test_http2(server):
    async def ask_all():
        url = "http://127.0.0.1:%d/slow?q=" % server.ports["h2"]
        async with httpx.AsyncClient(http1=False, http2=True,
                                     timeout=60) as client:
            return await asyncio.gather(*(client.get(url + str(i))
                                          for i in range(16)))

    for answer in asyncio.run(ask_all()):
        assert answer.http_version == "HTTP/2"
        assert answer.status_code == 200 and answer.text != "[]"


def test_http2_client_leaves(server):
    url = "http://127.0.0.1:%d/slow?q=x" % server.ports["h2"]
    done = subprocess.run(["curl", "-s", "--http2-prior-knowledge", "-m",
                           "0.1", url], timeout=60)
    assert done.returncode == 28
    status, body = get(server, "/slow", "after")
    assert status == 200 and body != "[]"


def test_killed_worker(server):
    server.allow("worker 0 .*(signal 9|ended)")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(get, server, "/slow", "x")
                   for _ in range(4)]
        time.sleep(0.2)
        model, = [m for m in server.get("/status").json()["models"]
                  if m["name"] == "slow"]
        os.kill(model["workers"][0]["pid"], signal.SIGKILL)
        for answer in answers:
            # the successor's verdict, or after a second what is without it
            assert answer.result()[0] == 200
    deadline = time.monotonic() + 20
    while get(server, "/slow", "x")[1] == "[]":
        assert time.monotonic() < deadline


def test_reload_waits(server):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(get, server, "/slow", "x")
                   for _ in range(4)]
        time.sleep(0.1)
        server.reload()
        for answer in answers:
            status, body = answer.result()
            assert status == 200 and body != "[]", body
    server.wait_ready()


# ---- with other directives

def test_server_level(server):
    url = "http://127.0.0.1:%d/" % server.ports["gate"]
    best = next(iter(predicted(server, "hello")))

    def ask(more):
        return subprocess.check_output(["curl", "-s", url + more],
                                       timeout=60).decode()

    assert ask("?q=hello") == "top " + best
    assert ask("?q=hello&want=" + best) == "deep " + best
    assert ask("") == ""


def test_auth_request(server):
    best = next(iter(predicted(server, "hello")))
    # a subrequest has no arguments, but the headers
    for deny, status in (("none", 200), (best, 403)):
        answer = server.get("/guarded", headers={"X-Text": "hello",
                                                 "X-Deny": deny})
        assert answer.status == status
        assert status != 200 or answer.body.decode() == "let in as " + best


def test_limit_req(server):
    # no score is over 1: the default, which is the zone's key
    assert get(server, "/limited", "hello") == (200, "fine")
    assert get(server, "/limited", "hello")[0] == 503
    assert get(server, "/limited", "") == (200, "fine")


# ---- input from variables, plain text out

def test_text_of_labels(server):
    for text in TEXTS:
        assert get(server, "/which", text) == (
            200, next(iter(predicted(server, text))))
    answer = server.get("/which?q=hello")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert server.post("/of-body", "hello").body.decode() == next(iter(
        predicted(server, "hello")))


def test_json_of_labels(server):
    assert server.get("/which.json?q=hello").json() == [
        {"score": score, "label": label}
        for label, score in predicted(server, "hello").items()]


def test_vector(server):
    body = server.get("/vector?q=hello").json()
    assert len(body["data"][0]["embedding"]) == 384


def test_chat(server):
    plain = server.get("/say?q=hello")
    assert plain.status == 200 and plain.body
    assert b"{" not in plain.body
    whole = server.get("/say.json?q=%22quoted%22%0a%5c").json()
    assert whole["object"] == "chat.completion"
    assert whole["usage"]["completion_tokens"] > 0


def test_input_errors(server):
    answer = server.get("/which")
    assert answer.status == 400
    assert answer.body == b"The input of this location is empty.\n"
    assert server.get("/which.json").json()["error"]["code"] == (
        "missing_required_parameter")
    answer = server.request("DELETE", "/which?q=x")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    assert server.get("/which?q=" + "a+" * 300).status == 400
    assert server.post("/of-body", "x" * 3000).status == 413
    assert server.request("HEAD", "/which?q=x").body == b""


def test_ssi(server):
    best = next(iter(predicted(server, "hello")))
    for _ in range(3):
        body = server.get("/pages/page.html?q=hello").body.decode()
        rows = body.split("\n")[1:]
        assert rows[0] == "<p>nothing</p>"
        assert rows[1] == "<p>%s</p>" % best
        assert rows[2].startswith("<p>") and len(rows[2]) > len("<p></p>")
        assert rows[3] == rows[4] and best in rows[3]


# ---- the configuration

@pytest.mark.parametrize("directive,message", [
    ("infer_classify spam cls $uri;", 'invalid variable name "spam"'),
    ("infer_classify $a none $uri;", 'unknown model "none" in "infer_cl'),
    ("infer_classify $a emb $uri;", "is no classifier"),
    ("infer_classify $a cls $uri like=a:b;", "is no sentence encoder"),
    ("infer_classify $a emb $uri like=a:b class=c;", 'has no "like=" with'),
    ("infer_classify $a emb $uri like=:b;", "a label, a colon and a text"),
    ("infer_classify $a cls $uri over=1.5;", "a number from 0 to 1"),
    ("infer_classify $a cls $uri fail=200;", "a status from 400 to 599"),
    ("infer_classify $a cls $uri timeout=0;", "a time from 1ms to 600s"),
    ("infer_classify $a cls $uri other;", "no such parameter"),
    ("infer_classify $a cls $uri other=1;", "no such parameter"),
    ("infer_classify $a cls $uri score=b;", "a variable of its own"),
    ("infer_classify $uri cls x;", 'the duplicate "uri" variable'),
    ("infer_pass cls; infer_output text;", 'need "infer_input"'),
    ("infer_pass cls; infer_input a; infer_input b;", "duplicate"),
    ("infer_pass cls; infer_input a b;", 'it may be "unescape"'),
    ("infer_pass emb; infer_input a; infer_output text;", "has no words"),
    ("infer_pass cls; infer_input a; infer_output html;", '"text" or "json"'),
    ("infer_pass cls; infer_input a; infer_field stream true;",
     'invalid field "stream"'),
    ("infer_pass cls; infer_input a; infer_field top_k '1,\"a\":2';",
     "is not one JSON value"),
], ids=range(20))
def test_refused(tmp_path, nginx, directive, message):
    make_classifier(str(tmp_path / "cls"), LABELS)
    server = nginx(http="infer_model cls { file %s/cls; null; }\n"
                   "infer_model emb { file @MODELS@/minilm; null; }"
                   % tmp_path, server="location / { %s }" % directive,
                   start=False)
    status, said = server.test_conf()
    assert status != 0 and message in said, said


def test_labels_are_known_beforehand(tmp_path, nginx):
    """The null engine has labels of its own: nothing is said of those."""
    make_classifier(str(tmp_path / "cls"), LABELS)

    def check(label, more=""):
        return nginx(http="infer_model cls { file %s/cls; %s }" % (
            tmp_path, more), server="location / { infer_classify $a cls $uri "
            "'class=%s'; }" % label, start=False).test_conf()

    for label in LABELS:
        assert check(label)[0] == 0
    for label in ("absent", LABELS[0] + "x", LABELS[0][:-1]):
        status, said = check(label)
        assert status != 0
        assert 'has no such label as "class=" names in ' in said, said
    assert check("absent", "null;")[0] == 0

    many = ["%04d %s" % (i, "x" * 58) for i in range(1024)]
    make_classifier(str(tmp_path / "cls"), many)
    assert check(many[0])[0] == check(many[-1])[0] == 0
    assert check("1024 " + "x" * 58)[0] != 0
