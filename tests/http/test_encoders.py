"""Encoders over HTTP: embeddings, similarity, rerank and classification, with
the real MiniLM, small classifiers of our own, and the null engine."""

import base64
import concurrent.futures
import json
import math
import os
import socket
import struct
import time

import openai
import pytest

from conftest import model_path
from encoders import make_classifier
from nginx import TOP, Nginx, command_of
from test_api import error_of

LABELS = ["quiet", "loud \"x\" <é>", "中性" * 10]
MINI_LENGTH = 256
INPUTS_MAX = 2048

HTTP = """
    infer_model emb  { file @MODELS@/minilm; queue 64 timeout=120s; }
    infer_model half { file @MODELS@/minilm; precision bfloat16; }
    infer_model null { file @MODELS@/minilm; null; }
    infer_model slow { file @MODELS@/minilm; null delay=50ms; sequences 4; }
    infer_model cls  { file %(folder)s/cls; precision float32; }
    infer_model rank { file %(folder)s/rank; precision float32; }
    infer_model gen  { file @MODELS@/smollm2.gguf; null; threads 1; }
"""

SERVER = """
        client_max_body_size  4m;
        location /v1/       { infer_pass emb half null slow cls rank gen; }
        location /          { infer_pass emb; }
        location /rank/     { infer_pass rank; }
        location /cls/      { infer_pass cls; }
        location /late/     { infer_pass slow; infer_timeout 500ms; }
        location = /readyz  { infer_pass emb half null slow cls rank gen; }
        location = /status  { infer_status; }
        location = /metrics { infer_metrics; }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model_path("minilm")
    model_path("smollm2.gguf")
    folder = str(tmp_path_factory.mktemp("models"))
    make_classifier(os.path.join(folder, "cls"), LABELS)
    make_classifier(os.path.join(folder, "rank"), ["LABEL_0"])
    nginx = Nginx(http=HTTP % {"folder": folder}, server=SERVER, workers=2,
                  ready="/readyz")
    yield nginx
    nginx.stop()


@pytest.fixture
def client(server):
    return server.openai()


def norm(v):
    return math.sqrt(sum(x * x for x in v))


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / norm(a) / norm(b)


def embed(server, text, **more):
    answer = server.post("/v1/embeddings", dict({"model": "emb",
                                                 "input": text}, **more))
    assert answer.status == 200, answer.body
    return answer.json()


# ---- embeddings

def golden():
    # sentence-transformers' own vectors, float32
    path = os.path.join(TOP, "tests", "golden", "encoder", "minilm.jsonl")
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if row["text"]]
    assert len(rows) > 10
    return rows


@pytest.mark.parametrize("model", ("emb", "half"))
def test_golden(server, model):
    rows = golden()
    body = embed(server, [row["text"] for row in rows], truncate=True,
                 model=model)
    assert body["usage"]["prompt_tokens"] == sum(row["n_tokens"]
                                                 for row in rows)
    for row, got in zip(rows, body["data"]):
        assert cosine(got["embedding"], row["vec"]) >= 0.9999, row["text"]
        assert abs(norm(got["embedding"]) - 1) < 1e-3


def test_bfloat16(server):
    # near float32 and not the same; alone as among others
    texts = [row["text"] for row in golden()[:8]]
    exact = embed(server, texts, truncate=True)["data"]
    all_of = embed(server, texts, truncate=True, model="half")["data"]
    for text, want, got in zip(texts, exact, all_of):
        assert got["embedding"] != want["embedding"]
        assert cosine(got["embedding"], want["embedding"]) >= 0.9999
        alone = embed(server, text, truncate=True, model="half")["data"][0]
        assert alone["embedding"] == got["embedding"]


def test_object(server):
    body = embed(server, ["one", "two three"])
    assert body["object"] == "list" and body["model"] == "emb"
    assert [d["index"] for d in body["data"]] == [0, 1]
    assert {d["object"] for d in body["data"]} == {"embedding"}
    assert [len(d["embedding"]) for d in body["data"]] == [384, 384]
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_openai_client(client):
    # base64 and floats are the same numbers, alone or with others
    texts = ["Bees matter.", "nginx", "x " * 200]
    many = client.embeddings.create(model="emb", input=texts)
    for i, text in enumerate(texts):
        one = client.embeddings.create(model="emb", input=text,
                                       encoding_format="float")
        floats = [struct.unpack("f", struct.pack("f", x))[0]
                  for x in one.data[0].embedding]
        assert floats == list(many.data[i].embedding)


def test_base64(server):
    one = embed(server, "hello", encoding_format="base64")
    two = embed(server, "hello", encoding_format="float")
    data = base64.b64decode(one["data"][0]["embedding"], validate=True)
    floats = struct.unpack("<384f", data)
    for a, b in zip(floats, two["data"][0]["embedding"]):
        assert a == struct.unpack("f", struct.pack("f", b))[0]


def test_token_arrays(server):
    text = embed(server, "hello world")
    ids = server.post("/v1/embeddings", {"model": "emb", "input": [
        101, 7592, 2088, 102]})
    assert ids.json()["data"][0]["embedding"] == text["data"][0]["embedding"]
    two = embed(server, [[101, 7592, 2088, 102], [101, 102]])
    assert two["data"][0]["embedding"] == text["data"][0]["embedding"]
    assert two["usage"]["prompt_tokens"] == 6


def test_dimensions(server):
    whole = embed(server, "hello")["data"][0]["embedding"]
    some = embed(server, "hello", dimensions=64)["data"][0]["embedding"]
    assert len(some) == 64 and abs(norm(some) - 1) < 1e-5
    assert cosine(some, whole[:64]) > 0.999999
    raw = embed(server, "hello", dimensions=64, normalize=False)
    assert norm(raw["data"][0]["embedding"]) != pytest.approx(1, abs=1e-3)


def test_many_inputs(server):
    texts = ["text number %d of many" % (i % 7) for i in range(INPUTS_MAX)]
    answer = server.post("/v1/embeddings", {"model": "null", "input": texts},
                         timeout=60)
    assert answer.status == 200
    data = answer.json()["data"]
    assert [d["index"] for d in data] == list(range(INPUTS_MAX))
    assert {len(d["embedding"]) for d in data} == {384}
    few = embed(server, texts[:70])["data"]
    for i in range(70):
        assert few[i]["embedding"] == few[i % 7]["embedding"]


def test_together_as_alone(server):
    # the same vector to the last bit, whatever else is in the batch
    texts = ["word " * (1 + i % 11) + str(i) for i in range(40)]
    alone = [embed(server, t)["data"][0]["embedding"] for t in texts]
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        together = list(threads.map(
            lambda t: embed(server, t)["data"][0]["embedding"], texts))
    assert together == alone


# ---- what is refused

@pytest.mark.parametrize("more, code, param", [
    ({"input": ""}, "invalid_value", "input"),
    ({"input": []}, "empty_array", "input"),
    ({"input": [""]}, "invalid_value", "input"),
    ({"input": ["a", ""]}, "invalid_value", "input"),
    ({"input": [[]]}, "invalid_value", "input"),
    ({"input": ["a"] * (INPUTS_MAX + 1)}, "array_above_max_length", "input"),
    ({"input": [[101]] * (INPUTS_MAX + 1)}, "array_above_max_length",
     "input"),
    ({"input": 5}, "invalid_type", "input"),
    ({"input": {"a": 1}}, "invalid_type", "input"),
    ({"input": ["a", 5]}, "invalid_type", "input"),
    ({"input": ["a", [101]]}, "invalid_value", "input"),
    ({"input": [101, "a"]}, "invalid_type", "input"),
    ({"input": [-1]}, "invalid_value", "input"),
    ({"input": [1 << 40]}, "invalid_value", "input"),
    ({"input": [30522]}, "invalid_value", "input"),
    ({"input": [1.5]}, "invalid_value", "input"),
    ({}, "missing_required_parameter", "input"),
    ({"input": None}, "missing_required_parameter", "input"),
    ({"input": "a", "encoding_format": "hex"}, "invalid_value",
     "encoding_format"),
    ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
    ({"input": "a", "dimensions": 385}, "invalid_value", "dimensions"),
    ({"input": "a", "dimensions": 1 << 33}, "invalid_value", "dimensions"),
    ({"input": "a", "dimensions": "8"}, "invalid_type", "dimensions"),
    ({"input": "a", "truncate": 1}, "invalid_type", "truncate"),
    ({"input": "word " * 20000}, "context_length_exceeded", "input"),
    ({"input": list(range(1000, 1257))}, "context_length_exceeded", "input"),
    ({"input": "a", "model": "rank"}, "unsupported_value", "model"),
    ({"input": "a", "model": "gen"}, "unsupported_value", "model"),
    ({"input": "a", "model": "none"}, "model_not_found", "model"),
])
def test_bad_input(server, more, code, param):
    answer = server.post("/v1/embeddings", dict({"model": "emb"}, **more))
    error_of(answer, 404 if code == "model_not_found" else 400, code, param)


def test_openai_client_errors(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="emb", input="word " * 20000)
    assert caught.value.code == "context_length_exceeded"
    assert " 256 " in caught.value.message
    assert " 20002 " in caught.value.message


def test_truncation_is_asked_for(server):
    long = "start " + "word " * 20000
    body = embed(server, long, truncate=True)
    assert body["usage"]["prompt_tokens"] == MINI_LENGTH
    same = embed(server, "start " + "word " * (MINI_LENGTH - 3))
    assert body["data"][0]["embedding"] == same["data"][0]["embedding"]
    left = embed(server, long, truncate=True, truncation_direction="Left")
    same = embed(server, "word " * (MINI_LENGTH - 2))
    assert left["data"][0]["embedding"] == same["data"][0]["embedding"]


def test_unknown_fields(server):
    body = embed(server, "a", user="me", nonsense={"x": [1]}, truncate=None)
    assert len(body["data"]) == 1


@pytest.mark.parametrize("path, body", [
    ("/v1/chat/completions", {"messages": [{"role": "user",
                                            "content": "x"}]}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ("/v1/classify", {"input": "a"}),
])
def test_another_kind_of_model(server, path, body):
    error_of(server.post(path, dict(body, model="emb")), 400,
             "unsupported_value")


# ---- text-embeddings-inference

def test_embed(server):
    want = embed(server, "hello")["data"][0]["embedding"]
    for inputs in ("hello", ["hello"]):
        answer = server.post("/embed", {"inputs": inputs})
        assert answer.status == 200 and answer.json() == [want]
    raw = server.post("/embed", {"inputs": "hello", "normalize": False})
    assert cosine(raw.json()[0], want) > 0.999999
    assert norm(raw.json()[0]) > 1.5


def test_tokenize(server):
    answer = server.post("/v1/tokenize", {"model": "emb",
                                          "prompt": "hello world",
                                          "return_offsets": True}).json()
    assert answer["tokens"] == [101, 7592, 2088, 102]
    assert answer["offsets"][1:3] == [[0, 5], [6, 11]]
    assert answer["max_model_len"] == MINI_LENGTH
    long = server.post("/v1/tokenize", {"model": "emb",
                                        "prompt": "word " * 20000}).json()
    assert long["count"] == 20002


def test_similarity(server):
    answer = server.post("/similarity", {"inputs": {
        "source_sentence": "a cat", "sentences": [
            "a kitten", "nuclear physics", "a cat"]}})
    kitten, physics, same = answer.json()
    assert physics < 0.3 < 0.6 < kitten < same
    assert same == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("path, body", [
    ("/embed", {"inputs": ""}), ("/embed", {"inputs": []}), ("/embed", {}),
    ("/embed", {"inputs": "word " * 300}),
    ("/embed", {"inputs": "a", "prompt_name": "query"}),
    ("/similarity", {"inputs": "a"}),
    ("/similarity", {"inputs": {"source_sentence": "a"}}),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}),
    ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["a"]}}),
    ("/predict", {"inputs": "a"}),
    ("/rank/rerank", {"query": "a", "texts": []}),
    ("/rank/rerank", {"query": "", "texts": ["a"]}),
    ("/cls/predict", {"inputs": ["a", "b", "c"]}),
    ("/cls/predict", {"inputs": []}),
    ("/cls/predict", {"inputs": [["a"], "b"]}),
    ("/cls/predict", {"inputs": [[]]}),
    ("/cls/predict", {"inputs": [["a", ""]]}),
])
def test_native_errors(server, path, body):
    answer = server.post(path, body)
    assert answer.status == 400, answer.body
    error = answer.json()
    assert sorted(error) == ["error", "error_type"]
    assert error["error"] and error["error_type"] == "Validation"


def test_info(server):
    info = server.get("/info").json()
    assert info["model_id"] == "emb"
    assert info["model_type"] == {"embedding": {}}
    assert info["max_input_length"] == MINI_LENGTH
    assert info["max_client_batch_size"] == INPUTS_MAX
    assert server.get("/rank/info").json()["model_type"] == {"reranker": {}}
    assert server.get("/cls/info").json()["model_type"] == {"classifier": {}}


# ---- rerank and classification

TEXTS = ["first text", "second", "the third of them", "first text"]


def test_rerank(server):
    answer = server.post("/rank/rerank", {"query": "which", "texts": TEXTS})
    ranks = answer.json()
    assert sorted(r["index"] for r in ranks) == [0, 1, 2, 3]
    scores = [r["score"] for r in ranks]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < s < 1 for s in scores)
    by_index = {r["index"]: r["score"] for r in ranks}
    assert by_index[0] == by_index[3] != by_index[1]
    order = [r["index"] for r in ranks]
    assert order.index(0) < order.index(3)      # equal ones as they came

    raw = server.post("/rank/rerank", {
        "query": "which", "texts": TEXTS, "raw_scores": True,
        "return_text": True}).json()
    for r in raw:
        assert r["text"] == TEXTS[r["index"]]
        assert 1 / (1 + math.exp(-r["score"])) == pytest.approx(
            by_index[r["index"]], abs=1e-5)


def test_v1_rerank(server):
    answer = server.post("/v1/rerank", {
        "model": "rank", "query": "which", "top_n": 2,
        "documents": ["a \"b\"\n", {"text": "cé"}, "d"],
        "return_documents": True}).json()
    assert answer["model"] == "rank" and answer["id"].startswith("rerank-")
    assert answer["usage"]["total_tokens"] > 10
    results = answer["results"]
    assert len(results) == 2
    assert results[0]["relevance_score"] >= results[1]["relevance_score"]
    for r in results:
        assert r["document"]["text"] == ["a \"b\"\n", "cé", "d"][r["index"]]
    for body in ({"query": "a", "documents": []}, {"query": "a"},
                 {"documents": ["a"]}, {"query": "a", "documents": [{}]},
                 {"query": "a", "documents": ["b"], "top_n": 0},
                 {"query": "a", "documents": ["b"] * (INPUTS_MAX + 1)},
                 {"query": "a", "documents": ["word " * 100]}):
        error_of(server.post("/v1/rerank", dict(body, model="rank")), 400)
    cut = server.post("/v1/rerank", {"model": "rank", "query": "a",
                                     "documents": ["word " * 100],
                                     "truncate": True}).json()
    assert cut["usage"]["total_tokens"] == 64


def test_predict(server):
    one = server.post("/cls/predict", {"inputs": "hello"}).json()
    assert sorted(p["label"] for p in one) == sorted(LABELS)
    scores = [p["score"] for p in one]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert server.post("/cls/predict", {"inputs": ["hello"]}).json() == one
    pair = server.post("/cls/predict", {"inputs": ["hello", "you"]}).json()
    assert pair != one and len(pair) == 3
    batch = server.post("/cls/predict", {"inputs": [
        ["hello"], ["hello", "you"]]}).json()
    assert batch == [one, pair]
    raw = server.post("/cls/predict", {"inputs": "hello",
                                       "raw_scores": True}).json()
    top = [math.exp(p["score"]) for p in raw]
    assert [p["label"] for p in raw] == [p["label"] for p in one]
    assert top[0] / sum(top) == pytest.approx(scores[0], abs=1e-5)


def test_classify(server):
    answer = server.post("/v1/classify", {
        "model": "cls", "input": ["hello", "you"]}).json()
    assert answer["object"] == "list" and answer["model"] == "cls"
    assert [d["index"] for d in answer["data"]] == [0, 1]
    one = server.post("/cls/predict", {"inputs": "hello"}).json()
    first = answer["data"][0]
    assert first["label"] == one[0]["label"]
    assert first["num_classes"] == 3
    assert max(first["probs"]) == one[0]["score"]
    assert answer["usage"]["prompt_tokens"] == 6


# ---- under way

def settled(server, name="slow", timeout_s=15):
    deadline = time.monotonic() + timeout_s
    while True:
        model, = [m for m in server.get("/status").json()["models"]
                  if m["name"] == name]
        worker, = model["workers"]
        used = [model["slots_used"], worker["running"], worker["waiting"],
                worker["waiting_tokens"], worker["backlog"],
                worker["inflight"]]
        if not any(used):
            return worker
        assert time.monotonic() < deadline, model
        time.sleep(0.05)


def descriptors(server):
    return {pid: len(os.listdir("/proc/%d/fd" % pid))
            for pid in server.children()
            if "worker process" in command_of(pid)
            or "--worker" in command_of(pid)}


def test_clients_that_leave(server):
    settled(server)
    before = descriptors(server)
    body = json.dumps({"model": "slow", "input": ["a b c"] * 500}).encode()
    socks = []
    for _ in range(30):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        socks.append(sock)
    time.sleep(0.3)
    for sock in socks:
        sock.close()
    assert settled(server)["incarnation"] == 1
    # fewer than before are none that leak: the request of settled() may still
    # have had its connection then
    deadline = time.monotonic() + 10
    while True:
        more = {pid: (n, before.get(pid)) for pid, n in
                descriptors(server).items() if n > before.get(pid, 0)}
        if not more:
            break
        assert time.monotonic() < deadline, more
        time.sleep(0.1)


def test_timeout(server):
    answer = server.post("/late/embeddings", {"input": ["a"] * 100})
    error_of(answer, 504, "timeout")
    settled(server)


@pytest.mark.slow                   # a sanitizer keeps what was freed
@pytest.mark.slow                   # sanitizers keep what is freed
def test_memory_of_nginx(server):
    # 12 large answers one after another leave nothing behind
    body = {"model": "null", "input": ["a"] * INPUTS_MAX}

    def rss():
        return sum(int(open("/proc/%d/statm" % pid).read().split()[1])
                   for pid in server.children("worker process"))

    server.post("/v1/embeddings", body, timeout=60)
    server.post("/v1/embeddings", body, timeout=60)
    before = rss()
    for _ in range(12):
        assert server.post("/v1/embeddings", body,
                           timeout=60).status == 200
    assert rss() - before < 16 << 8             # 16 MiB in pages


def test_a_large_request_lets_others_pass(server):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        large = threads.submit(server.post, "/v1/embeddings", {
            "model": "slow", "input": ["a"] * 160}, timeout=60)
        time.sleep(0.3)
        answer = server.post("/v1/embeddings", {"model": "slow",
                                                "input": "b"})
        assert answer.status == 200 and not large.done()
        assert len(large.result().json()["data"]) == 160


def test_killed_worker(server):
    # what was under way is answered by the successor, once
    server.allow("worker 0 .*(signal 9|ended)")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(server.post, "/v1/embeddings", {
            "model": "slow", "input": ["a"] * 40, "dimensions": 2},
            timeout=60) for _ in range(4)]
        time.sleep(0.3)
        model, = [m for m in server.get("/status").json()["models"]
                  if m["name"] == "slow"]
        os.kill(model["workers"][0]["pid"], 9)
        for answer in answers:
            assert answer.result().status == 200, answer.result().body
            assert len(answer.result().json()["data"]) == 40
    assert settled(server)["incarnation"] == 2


def test_counters(server):
    before = server.get("/metrics").body.decode()
    embed(server, "hello world")
    after = server.get("/metrics").body.decode()
    name = 'nginx_infer_requests_total{model="emb"'
    assert name in before and before != after


# ---- models that cannot be served

@pytest.mark.parametrize("damage, text", [
    ({"hidden_size": 48}, ""),
    ({"intermediate_size": 128}, "tensor"),
    ({"num_hidden_layers": 3}, "tensor"),
    ({"model_type": "nosuch"}, ""),
])
def test_damaged_folder(nginx, tmp_path, damage, text):
    folder = make_classifier(str(tmp_path / "m"), LABELS)
    config = os.path.join(folder, "config.json")
    with open(config) as file:
        values = json.load(file)
    values.update(damage)
    with open(config, "w") as file:
        json.dump(values, file)
    server = nginx(start=False, http="infer_model m { file %s; }" % folder,
                   server="location / { infer_pass m; }")
    status, said = server.test_conf()
    assert status != 0 and '"infer_model" "m"' in said
    assert text in said


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json",
                                  "model.safetensors"])
def test_missing_file(nginx, tmp_path, name):
    folder = make_classifier(str(tmp_path / "m"), LABELS)
    os.unlink(os.path.join(folder, name))
    server = nginx(start=False, http="infer_model m { file %s; }" % folder,
                   server="location / { infer_pass m; }")
    status, said = server.test_conf()
    assert status != 0 and '"infer_model" "m"' in said
