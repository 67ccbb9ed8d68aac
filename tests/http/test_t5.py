"""Text to text over HTTP: T5 as completions."""

import concurrent.futures
import json
import os
import time

import pytest

from conftest import model_path
from nginx import TOP, Nginx
from test_api import error_of

SERVER = """
        location /v1/       { infer_pass t5; }
        location = /readyz  { infer_pass t5; }
        location = /status  { infer_status; }
"""

PROMPTS = ["translate English to German: bees", "summarize: " + "word " * 150,
           "a", "stsb sentence1: The rhino grazed.", "x y z " * 60]


@pytest.fixture(scope="module")
def server():
    path = model_path("t5-small")
    nginx = Nginx(http="infer_model t5 { file %s; precision float32; "
                       "batch 64; }" % path,
                  server=SERVER, workers=2, ready="/readyz")
    yield nginx
    nginx.stop()


def complete(server, prompt, **more):
    answer = server.post("/v1/completions", dict({
        "prompt": prompt, "max_tokens": 12, "temperature": 0}, **more))
    assert answer.status == 200, answer.body
    return answer.json()


def text_of(body):
    return [c["text"] for c in body["choices"]]


@pytest.mark.slow
def test_golden(server):
    # transformers' own greedy answers and log probabilities
    path = os.path.join(TOP, "tests", "golden", "encoder", "t5-small.json")
    with open(path) as file:
        cases = json.load(file)["cases"]
    assert len(cases) > 5
    for case in cases:
        want = server.post("/v1/detokenize", {
            "tokens": case["tokens"]}).json()["prompt"]
        body = complete(server, case["text"], logprobs=1,
                        max_tokens=len(case["tokens"]))
        assert body["usage"]["prompt_tokens"] == len(case["input_ids"])
        assert text_of(body) == [want]
        got = body["choices"][0]["logprobs"]["token_logprobs"]
        for lp, step in zip(got, case["steps_top5"]):
            assert lp == pytest.approx(step[0][1], abs=0.01)


@pytest.mark.slow
def test_together_as_alone(server):
    alone = [text_of(complete(server, p)) for p in PROMPTS]
    assert len({t for [t] in alone}) > 3
    with concurrent.futures.ThreadPoolExecutor(15) as threads:
        together = list(threads.map(
            lambda p: text_of(complete(server, p)), PROMPTS * 4))
    assert together == alone * 4


def test_several_answers(server):
    # the prompts are encoded once for all answers to them
    one = complete(server, PROMPTS[:2], n=1, temperature=1, seed=5)
    many = complete(server, PROMPTS[:2], n=6, temperature=1, seed=5)
    texts = text_of(many)
    assert len(texts) == 12 and len(set(texts)) > 6
    assert many["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    greedy = text_of(complete(server, PROMPTS[0], n=4))
    assert len(set(greedy)) == 1


def test_stream(server):
    whole = text_of(complete(server, PROMPTS[0]))
    parts = [json.loads(data)["choices"][0]["text"]
             for data in server.stream("/v1/completions", {
                 "prompt": PROMPTS[0], "max_tokens": 12, "temperature": 0,
                 "stream": True}) if data != "[DONE]"]
    assert "".join(parts) == whole[0] and len(parts) > 3


@pytest.mark.parametrize("more, code", [
    ({"prompt": "word " * 600}, "context_length_exceeded"),
    ({"prompt": "a", "max_tokens": 600}, "context_length_exceeded"),
    ({"prompt": "a", "echo": True}, "unsupported_value"),
])
def test_refusals(server, more, code):
    error_of(server.post("/v1/completions", more), 400, code)


def test_info(server):
    info = server.get("/v1/info").json()
    assert info["max_total_tokens"] == 1024


def test_clients_that_leave(server):
    for i in range(20):
        stream = server.stream("/v1/completions", {
            "prompt": PROMPTS[1], "max_tokens": 300, "temperature": 0,
            "stream": True, "ignore_eos": True})
        if i % 2:
            next(stream)
        stream.close()
    deadline = time.monotonic() + 15
    while True:
        [model] = server.get("/status").json()["models"]
        [worker] = model["workers"]
        if not any((model["slots_used"], worker["running"],
                    worker["waiting"], worker["kv_used"])):
            break
        assert time.monotonic() < deadline, model
        time.sleep(0.05)
    assert worker["incarnation"] == 1
    assert text_of(complete(server, PROMPTS[0]))
