"""The command line tool `infer`, as scripts call it."""

import json
import lzma
import os
import subprocess

import pytest

from conftest import model_path
from nginx import TOP, build_dir

GOLDEN = os.path.join(TOP, "tests", "golden")


def infer(*args, lines=(), status=0):
    """The lines that it writes, read as JSON."""
    done = subprocess.run(
        [os.path.join(build_dir(), "infer"), *args], text=True,
        input="".join(json.dumps(line, ensure_ascii=False) + "\n"
                      for line in lines),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=240)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def golden(name):
    path = os.path.join(GOLDEN, "tokenizers", name + ".jsonl.xz")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows
            if row.get("text") and row.get("ids") is not None
            and "off" in row and "dec_keep" in row
            and "\ud800" not in row["text"]]


@pytest.fixture(params=["bert", "t5_small"])
def vocabulary(request, tmp_path):
    if request.param == "bert":
        return request.param, os.path.join(model_path("minilm"),
                                           "tokenizer.json")
    path = tmp_path / "tokenizer.json"
    with lzma.open(os.path.join(GOLDEN, "vocabularies",
                                "t5_small.tokenizer.json.xz")) as file:
        path.write_bytes(file.read())
    return request.param, str(path)


def test_tokenize(vocabulary):
    name, path = vocabulary
    rows = golden(name)
    texts = [row["text"] for row in rows]
    whole = ("tokenize", "-t", path, "--no-truncation", "--no-padding")
    assert len(rows) > 100
    plain = infer(*whole, "--no-special", "--offsets", lines=texts)
    assert [a["ids"] for a in plain] == [row["ids"] for row in rows]
    assert [a["offsets"] for a in plain] == [row["off"] for row in rows]
    special = infer(*whole, lines=texts)
    assert [a["ids"] for a in special] == [row["ids_sp"] for row in rows]
    assert "offsets" not in special[0]


def test_detokenize(vocabulary):
    name, path = vocabulary
    rows = golden(name)
    ids = [row["ids_sp"] for row in rows]
    assert infer("detokenize", "-t", path, lines=ids) == [
        row["dec_skip"] for row in rows]
    assert infer("detokenize", "-t", path, "--keep-special",
                 lines=ids) == [row["dec_keep"] for row in rows]


def test_truncation_and_padding():
    path = os.path.join(model_path("minilm"), "tokenizer.json")
    text = ["word " * 300]
    cut = infer("tokenize", "-t", path, lines=text)[0]["ids"]
    whole = infer("tokenize", "-t", path, "--no-truncation",
                  lines=text)[0]["ids"]
    assert len(cut) == 128 and len(whole) == 302
    padded = infer("tokenize", "-t", path, lines=["a"])[0]["ids"]
    assert padded == [101, 1037, 102] + [0] * 125
    assert infer("tokenize", "-t", path, "--no-padding",
                 lines=["a"])[0]["ids"] == [101, 1037, 102]


def test_bad_lines():
    path = os.path.join(model_path("minilm"), "tokenizer.json")
    tool = [os.path.join(build_dir(), "infer"), "tokenize", "-t", path,
            "--no-padding"]
    done = subprocess.run(
        tool, input='"a"\n12\n"\\ud800"\n"a" 1\n\n"a\\u0000"\n', text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert ["error" in a for a in answers] == [False, True, True, True, False]
    assert "line 3" in answers[2]["error"]
    assert infer("detokenize", "-t", path, status=1,
                 lines=["x"])[0]["error"]
    for args in ((), ("-t",), ("-t", path, "--what"), ("-t", "/nowhere")):
        done = subprocess.run([tool[0], "tokenize", *args], text=True,
                              stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, timeout=60)
        assert done.returncode in (1, 2) and "infer: tokenize:" in done.stderr


def test_run():
    tool = os.path.join(build_dir(), "infer")
    args = [tool, "run", "-m", model_path("smollm2.gguf"), "-p",
            "The capital of France is", "-n", "8", "--temp", "0", "--raw"]
    answers = [subprocess.run(args, text=True, stdout=subprocess.PIPE,
                              timeout=240, check=True).stdout
               for _ in range(2)]
    assert "Paris" in answers[0]
    assert answers[0] == answers[1]


def test_score():
    answer = infer("score", "-m", model_path("smollm2.gguf"),
                   lines=[{"ids": [504, 3575, 282, 4649, 314], "top": 3}])[0]
    assert len(answer["top"]) == 5
    for entry in answer["top"]:
        assert len(entry) == 3
        assert entry[0][1] >= entry[1][1] >= entry[2][1]
        assert entry[0][1] <= 0


def test_embed():
    vectors = infer("embed", "-m", model_path("minilm"),
                    lines=["a cat", "a kitten", "the tax office"])
    assert [len(v) for v in vectors] == [384] * 3

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b))
    assert abs(dot(vectors[0], vectors[0]) - 1) < 1e-4
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2


@pytest.mark.slow
def weights_mib(model, *more):
    done = subprocess.run(
        [os.path.join(build_dir(), "infer"), "inspect", "-m",
         model_path(model), *more], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=60)
    if done.returncode != 0:
        return done.stderr
    line, = [line for line in done.stdout.splitlines()
             if line.startswith("memory: weights")]
    return float(line.split()[2])


def test_inspect():
    # MiniLM's layers: 10.6 million weights of four, two and one bytes
    whole, half, byte = [weights_mib("minilm", "--precision", p)
                         for p in ("float32", "bfloat16", "int8")]
    assert 20 < whole - half < 21 and 8 < half - byte < 10
    assert "bfloat16" in weights_mib("minilm", "--precision", "exact")


def test_bench():
    figures = infer("bench", "-m", model_path("smollm2.gguf"), "-t", "2",
                    "--rounds", "1", "--json")[0]
    assert set(figures["prompt"]) == {"128", "512"}
    assert set(figures["generate"]) == {"1", "4", "16"}
    for kind in figures["prompt"], figures["generate"]:
        assert all(value > 0 for value in kind.values())
