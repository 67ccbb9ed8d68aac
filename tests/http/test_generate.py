"""generate and generate_stream in the words of text-generation-inference."""

import json

import pytest

from conftest import model_path
from nginx import Nginx

HTTP = """
    infer_model null { file @MODELS@/smollm2.gguf; null tokens=6; threads 1; }
    infer_model real { file @MODELS@/smollm2.gguf; context 1024; }
"""

SERVER = """
        location /         { infer_pass null real; }
        location /v1/      { infer_pass real null; }
        location /capped/  { infer_pass null; infer_max_tokens 3; }
        location = /readyz { infer_pass null real; }
"""


@pytest.fixture(scope="module")
def server():
    model_path("smollm2.gguf")
    nginx = Nginx(http=HTTP, server=SERVER, workers=1, ready="/readyz")
    yield nginx
    nginx.stop()


def generate(server, text="Bees are", path="/v1/generate", **parameters):
    answer = server.post(path, {"inputs": text, "parameters": parameters})
    assert answer.status == 200, answer.body
    return answer.json()


def events(server, body, path="/v1/generate_stream"):
    import http.client
    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    conn.request("POST", path, json.dumps(body),
                 {"Content-Type": "application/json"})
    answer = conn.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.headers["Content-Type"] == "text/event-stream"
    found = [json.loads(part[5:]) for part in
             answer.read().decode().split("\n\n") if part]
    conn.close()
    return found


def test_plain(server):
    body = generate(server, max_new_tokens=8)
    assert list(body) == ["generated_text"]
    same = server.post("/v1/completions", {
        "prompt": "Bees are", "max_tokens": 8, "temperature": 0}).json()
    assert body["generated_text"] == same["choices"][0]["text"]


def test_details(server):
    body = generate(server, max_new_tokens=8, details=True)
    details = body["details"]
    assert details["finish_reason"] == "length"
    assert details["generated_tokens"] == len(details["tokens"]) == 8
    assert details["input_length"] > 1 and details["prefill"] == []
    assert "".join(t["text"] for t in details["tokens"]) == \
        body["generated_text"]
    assert all(t["logprob"] <= 0 and t["special"] is False
               for t in details["tokens"])


def test_stream(server):
    whole = generate(server, max_new_tokens=12)["generated_text"]
    found = events(server, {"inputs": "Bees are",
                            "parameters": {"max_new_tokens": 12}})
    assert [e["index"] for e in found] == list(range(1, 14))
    assert "".join(e["token"]["text"] for e in found) == whole
    *rest, last = found
    assert all(e["generated_text"] is None and e["details"] is None
               for e in rest)
    assert last["generated_text"] == whole
    assert last["details"]["generated_tokens"] == 12
    assert last["token"]["special"] is True
    again = events(server, {"inputs": "Bees are", "stream": True,
                            "parameters": {"max_new_tokens": 12}},
                   "/v1/generate")
    assert again == found


def test_stream_of_parts_of_characters(server):
    # no event has half a character, and every token has its event
    text = "Repeat: 🐝🐝🐝🐝🐝 é 漢字漢字 🐝🐝🐝🐝🐝 é 漢字"
    body = {"inputs": text, "parameters": {"max_new_tokens": 40}}
    found = events(server, body)
    whole = generate(server, text, max_new_tokens=40)["generated_text"]
    assert "".join(e["token"]["text"] for e in found) == whole
    assert len(found) == found[-1]["details"]["generated_tokens"] + 1


def test_sampling(server):
    greedy = {generate(server, max_new_tokens=12)["generated_text"]
              for _ in range(3)}
    assert len(greedy) == 1
    sampled = {generate(server, max_new_tokens=12, do_sample=True,
                        temperature=1.5, seed=i)["generated_text"]
               for i in range(5)}
    assert len(sampled) > 1
    seeded = [generate(server, max_new_tokens=12, temperature=1.5, seed=3)
              for _ in range(2)]
    assert seeded[0] == seeded[1]


def test_stop_and_full_text(server):
    whole = generate(server, max_new_tokens=24)["generated_text"]
    stop = whole.strip().split(" ")[2]
    body = generate(server, max_new_tokens=24, stop=[stop], details=True)
    assert body["generated_text"] == whole[:whole.index(stop)]
    assert body["details"]["finish_reason"] == "stop_sequence"
    full = generate(server, max_new_tokens=24, return_full_text=True)
    assert full["generated_text"] == "Bees are" + whole


def test_end_and_cap(server):
    body = generate(server, path="/generate", details=True)
    assert body["details"]["finish_reason"] == "eos_token"
    assert body["details"]["generated_tokens"] == 6 + 1
    body = generate(server, path="/capped/generate", details=True)
    assert body["details"]["generated_tokens"] == 3


@pytest.mark.parametrize("body", [
    {}, {"inputs": ""}, {"inputs": ["a"]}, {"inputs": 5},
    {"inputs": "a", "parameters": []},
    {"inputs": "a", "parameters": {"max_new_tokens": 0}},
    {"inputs": "a", "parameters": {"max_new_tokens": "8"}},
    {"inputs": "a", "parameters": {"temperature": -1}},
    {"inputs": "a", "parameters": {"top_p": 2}},
    {"inputs": "a", "parameters": {"best_of": 2}},
    {"inputs": "a", "parameters": {"grammar": {"type": "json"}}},
    {"inputs": "a", "parameters": {"watermark": True}},
    {"inputs": "a", "parameters": {"stop": [""]}},
    {"inputs": "word " * 5000},
    {"inputs": "a", "parameters": {"max_new_tokens": 100000}},
])
def test_refusals(server, body):
    answer = server.post("/v1/generate", body)
    assert answer.status == 422, answer.body
    error = answer.json()
    assert sorted(error) == ["error", "error_type"]
    assert error["error"] and error["error_type"] == "validation"


def test_ignored(server):
    assert generate(server, max_new_tokens=2, watermark=False, truncate=None,
                    typical_p=None, unknown=[1], best_of=1)
