"""Beam search over HTTP: a small T5 answers as transformers does, alone and
beside others, whole and streamed; what it cannot do is refused by name."""

import concurrent.futures
import http.client
import json
import os
import sys
import time

import pytest

import tiny_t5
from conftest import model_path
from nginx import TOP, Nginx
from test_api import error_of

sys.path.insert(0, os.path.join(TOP, "tests", "fuzz"))
import http_fuzz    # noqa: E402  (it lies in another folder)

NAME, EOS = "t5-relu-tied", 69

SERVER = """
        location /          { infer_pass t5; }
        location /v1/       { infer_pass t5 few null; }
        location = /readyz  { infer_pass t5 few null; }
        location = /status  { infer_status; }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model_path("smollm2.gguf")
    path = tiny_t5.make(str(tmp_path_factory.mktemp("beams")), NAME, EOS)
    nginx = Nginx(http="""
        infer_model t5   { file %s; precision float32; sequences 24;
                           queue 128 timeout=120s; }
        infer_model few  { file %s; precision float32; sequences 3; }
        infer_model null { file @MODELS@/smollm2.gguf; null tokens=6; }
        """ % (path, path), server=SERVER, workers=2,
        ready="/readyz")
    yield nginx
    nginx.stop()


@pytest.fixture(scope="module")
def cases():
    found = tiny_t5.golden("beams.json", NAME, eos=EOS)["cases"]
    assert len(found) > 30
    return found


def fields(case):
    return {"prompt": case["ids"], "max_tokens": case["max"],
            "num_beams": case["beams"], "length_penalty": case["penalty"],
            "early_stopping": case["early"]}


def text_of(tokens):
    return " ".join("w%d" % t if t != 1 else "w1" for t in tokens
                    if t not in (0, 2, EOS))


def complete(server, body):
    answer = server.post("/v1/completions", body, timeout=60)
    assert answer.status == 200, answer.body
    return answer.json()


def check(body, case):
    choice = body["choices"][0]
    assert choice["text"] == text_of(case["tokens"])
    assert body["usage"]["completion_tokens"] == len(case["tokens"])
    assert choice["finish_reason"] == (
        "stop" if case["tokens"][-1] == EOS else "length")


def idle(server, timeout_s=15):
    """Every worker has nothing left; their objects."""
    deadline = time.monotonic() + timeout_s
    while True:
        models = server.get("/status").json()["models"]
        workers = [w for m in models for w in m["workers"]]
        if not any(m["slots_used"] for m in models) and not any(
                w["running"] or w["waiting"] or w["kv_used"]
                for w in workers):
            return workers
        assert time.monotonic() < deadline, models
        time.sleep(0.05)


def test_golden(server, cases):
    for case in cases:
        check(complete(server, fields(case)), case)
    assert sum(c["tokens"][-1] == EOS for c in cases) > 3
    assert idle(server)


def test_together_as_alone(server, cases):
    greedy = {"prompt": cases[0]["ids"], "max_tokens": 60, "temperature": 0}
    want = complete(server, greedy)["choices"][0]["text"]

    def one(i):
        if i % 3 == 0:
            body = complete(server, greedy)
            assert body["choices"][0]["text"] == want
        case = cases[i % len(cases)]
        check(complete(server, fields(case)), case)

    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        list(threads.map(one, range(2 * len(cases))))
    assert idle(server)


def test_several_prompts(server, cases):
    same = [c for c in cases if c["beams"] == 4 and c["max"] == 30]
    assert len(same) == 4
    body = complete(server, dict(fields(same[0]),
                                 prompt=[c["ids"] for c in same]))
    assert [c["text"] for c in body["choices"]] == [
        text_of(c["tokens"]) for c in same]
    assert body["usage"]["completion_tokens"] == sum(
        len(c["tokens"]) for c in same)


def test_stream(server, cases):
    for case in cases[:9]:
        *events, done = server.stream("/v1/completions", dict(
            fields(case), stream=True,
            stream_options={"include_usage": True}))
        assert done == "[DONE]"
        *events, usage = [json.loads(event) for event in events]
        assert "".join(e["choices"][0]["text"] for e in events) == \
            text_of(case["tokens"])
        reasons = [e["choices"][0]["finish_reason"] for e in events]
        assert not any(reasons[:-1]) and reasons[-1] in ("stop", "length")
        assert usage["usage"]["completion_tokens"] == len(case["tokens"])


def test_log_probabilities(server, cases):
    case = cases[1]
    body = complete(server, dict(fields(case), logprobs=0))
    logprobs = body["choices"][0]["logprobs"]["token_logprobs"]
    assert len(logprobs) == len(case["tokens"])
    assert sum(logprobs) / len(logprobs) == pytest.approx(case["score"],
                                                          abs=0.01)


def test_stop(server, cases):
    case = next(c for c in cases if len(set(c["tokens"])) > 2)
    words = text_of(case["tokens"]).split()
    stop = next(w for w in words if w != words[0])
    body = complete(server, dict(fields(case), stop=[stop]))
    choice = body["choices"][0]
    assert choice["text"] == text_of(case["tokens"]).split(stop)[0]
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == words.index(stop) + 1


# ---- the dialect of text-generation-inference

def generate(server, stream=False, **parameters):
    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    conn.request("POST", "/generate_stream" if stream else "/generate",
                 json.dumps({"inputs": "w17 w5 w40",
                             "parameters": parameters}),
                 {"Content-Type": "application/json"})
    answer = conn.getresponse()
    body = answer.read().decode()
    conn.close()
    return answer.status, body


def test_generate(server):
    plain = complete(server, {
        "prompt": "w17 w5 w40", "max_tokens": 12, "num_beams": 4,
        "length_penalty": 2})["choices"][0]["text"]
    want = {"max_new_tokens": 12, "num_beams": 4, "length_penalty": 2,
            "early_stopping": False, "do_sample": False}
    status, body = generate(server, details=True, **want)
    assert status == 200, body
    body = json.loads(body)
    assert body["generated_text"] == plain
    tokens = body["details"]["tokens"]
    assert " ".join("w%d" % t["id"] for t in tokens) == plain
    assert all(t["logprob"] < 0 for t in tokens)

    status, body = generate(server, stream=True, **want)
    assert status == 200, body
    *events, last = [json.loads(part[5:]) for part in body.split("\n\n")
                     if part]
    assert [e["token"]["id"] for e in events] == [t["id"] for t in tokens]
    assert "".join(e["token"]["text"] for e in events) == plain
    assert last["generated_text"] == plain


@pytest.mark.parametrize("more, word", [
    ({"do_sample": True}, "do_sample"), ({"temperature": 0.5}, "temperature"),
    ({"top_k": 5}, "top_k"), ({"num_beams": 17}, "num_beams"),
    ({"num_beams": 1, "early_stopping": True}, "early_stopping"),
    ({"early_stopping": "never"}, "early_stopping"),
    ({"repetition_penalty": 2}, "repetition_penalty"),
])
def test_generate_refusals(server, more, word):
    status, body = generate(server, **dict({"num_beams": 4}, **more))
    assert status == 422, body
    assert word in json.loads(body)["error"]


# ---- refusals

@pytest.mark.parametrize("more, param", [
    ({"num_beams": 0}, "num_beams"), ({"num_beams": 17}, "num_beams"),
    ({"num_beams": -1}, "num_beams"), ({"num_beams": 2.5}, "num_beams"),
    ({"num_beams": "2"}, "num_beams"), ({"num_beams": True}, "num_beams"),
    ({"length_penalty": 11}, "length_penalty"),
    ({"length_penalty": -1e300}, "length_penalty"),
    ({"length_penalty": "1"}, "length_penalty"),
    ({"early_stopping": "never"}, "early_stopping"),
    ({"early_stopping": 1}, "early_stopping"),
    ({"num_beams": 1, "length_penalty": 2}, "length_penalty"),
    ({"num_beams": None, "early_stopping": True}, "early_stopping"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"temperature": 0.5}, "temperature"), ({"temperature": 1}, "temperature"),
    ({"top_p": 0.5}, "top_p"), ({"top_k": 5}, "top_k"),
    ({"min_p": 0.5}, "min_p"), ({"n": 2}, "n"), ({"best_of": 2}, "best_of"),
    ({"presence_penalty": 1}, "presence_penalty"),
    ({"frequency_penalty": 1}, "frequency_penalty"),
    ({"repetition_penalty": 2}, "repetition_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"), ({"logprobs": 2}, "logprobs"),
    ({"ignore_eos": True}, "ignore_eos"), ({"echo": True}, "echo"),
], ids=lambda v: str(v)[:40])
def test_refusals(server, more, param):
    body = dict({"prompt": [2, 17], "num_beams": 4}, **more)
    error_of(server.post("/v1/completions", body), 400, None, param)


def test_chat_refusals(server):
    body = {"model": "null", "num_beams": 4,
            "messages": [{"role": "user", "content": "w17"}]}
    error = error_of(server.post("/v1/chat/completions", body), 400, None,
                     "num_beams")
    assert "text-to-text" in error["message"]
    error_of(server.post("/v1/chat/completions", dict(
        body, temperature=0.7)), 400, "invalid_value", "temperature")
    error_of(server.post("/v1/chat/completions", dict(
        body, model="t5", top_logprobs=2, logprobs=True)), 400,
        None, "top_logprobs")


def test_nothing_to_refuse(server):
    body = {"prompt": [2, 17], "num_beams": 4, "temperature": 0, "top_p": 1,
            "n": 1, "best_of": 1, "seed": 5, "use_beam_search": False}
    assert complete(server, body)["choices"][0]["text"]
    one = complete(server, {"prompt": [2, 17], "num_beams": 1,
                            "temperature": 0})
    assert one == dict(complete(server, {"prompt": [2, 17],
                                         "temperature": 0}),
                       id=one["id"], created=one["created"])


def test_too_many_beams(server):
    body = {"model": "few", "prompt": [2, 17], "num_beams": 4}
    error = error_of(server.post("/v1/completions", body), 400, None,
                     "num_beams")
    assert "4 beams" in error["message"] and "has 3" in error["message"]
    assert complete(server, dict(body, num_beams=3))["choices"]


def test_models_that_only_decode(server):
    body = {"model": "null", "prompt": "a", "num_beams": 2}
    error = error_of(server.post("/v1/completions", body), 400,
                     "unsupported_value", "num_beams")
    assert "text-to-text" in error["message"]
    assert complete(server, dict(body, num_beams=1))["choices"]


# ---- ends

def test_clients_that_leave(server, cases):
    for i in range(30):
        conn = http.client.HTTPConnection("127.0.0.1", server.port)
        conn.request("POST", "/v1/completions", json.dumps({
            "prompt": cases[i]["ids"], "max_tokens": 500,
            "num_beams": (16, 4, 2)[i % 3], "length_penalty": 10,
            "stream": i % 2 == 0}), {"Content-Type": "application/json"})
        time.sleep(0.01 * (i % 4))
        conn.close()
    assert all(w["incarnation"] == 1 for w in idle(server))
    check(complete(server, fields(cases[0])), cases[0])


def test_damaged_requests(server, cases):
    seconds = int(os.environ.get("INFER_FUZZ_SECONDS") or 4)
    seed = int(os.environ.get("INFER_FUZZ_SEED") or 1)
    number, counts = http_fuzz.run(server.port, seconds, seed,
                                   http_fuzz.SEARCHES)
    assert number and counts.get(400, 0) and counts.get(200, 0), counts
    assert all(w["incarnation"] == 1 for w in idle(server))
    check(complete(server, fields(cases[0])), cases[0])
