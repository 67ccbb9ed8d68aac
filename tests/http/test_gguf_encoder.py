"""An encoder out of a GGUF file: the vectors of the folder that it was made
of, and damaged files."""

import json
import os

import pytest

from conftest import model_path
from gguf_encoder import convert
from nginx import TOP, Nginx
from test_encoders import cosine


def texts():
    path = os.path.join(TOP, "tests", "golden", "encoder", "minilm.jsonl")
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["text"] and row["n_tokens"] < 250]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = model_path("minilm")
    path = str(tmp_path_factory.mktemp("models") / "minilm.gguf")
    convert(folder, path)
    nginx = Nginx(http="infer_model one { file %s; precision float32; }\n"
                  "infer_model two { file @MODELS@/minilm; precision "
                  "float32; }" % path,
                  server="location /v1/ { infer_pass one two; }\n"
                  "location = /readyz { infer_pass one two; }",
                  ready="/readyz")
    yield nginx
    nginx.stop()


def vectors(server, model, inputs):
    answer = server.post("/v1/embeddings", {"model": model, "input": inputs})
    assert answer.status == 200, answer.body
    body = answer.json()
    return [row["embedding"] for row in body["data"]], body["usage"]


def test_vectors(server):
    rows = texts()
    ours, usage = vectors(server, "one", [row["text"] for row in rows])
    theirs, as_folder = vectors(server, "two", [row["text"] for row in rows])
    assert usage == as_folder
    assert ours == theirs               # the same numbers, bit by bit
    for row, v in zip(rows, ours):
        assert cosine(v, row["vec"]) >= 0.9999, row["text"]


def test_missing_tensor(tmp_path, nginx):
    path = convert(model_path("minilm"), str(tmp_path / "bad.gguf"),
                   without="blk.3.attn_q.weight")
    server = nginx(http="infer_model one { file %s; }" % path, server="",
                   start=False)
    status, said = server.test_conf()
    assert status != 0 and "blk.3.attn_q.weight" in said, said


def test_cut_file(tmp_path, nginx):
    path = convert(model_path("minilm"), str(tmp_path / "cut.gguf"))
    os.truncate(path, os.path.getsize(path) // 2)
    server = nginx(http="infer_model one { file %s; }" % path, server="",
                   start=False)
    status, said = server.test_conf()
    assert status != 0 and "cut.gguf" in said, said
