"""Damaged model files: refused by name at nginx -t, and what happens to a
file after it was loaded does nothing to who answers from it."""

import os
import shutil
import tempfile

import pytest

from conftest import model_path

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4,
         "temperature": 0}


@pytest.fixture
def folder():
    path = tempfile.mkdtemp(prefix="infer-model-")
    yield path
    shutil.rmtree(path)


def start(nginx, path, **more):
    return nginx(http="infer_model m { file %s; }" % path, server="""
        location /v1/      { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /static { return 200 "static"; }""", **more)


def cut(size):
    return lambda data: data[:size]


def put(at, new):
    return lambda data: data[:at] + new + data[at + len(new):]


DAMAGE = {
    "empty": cut(0), "magic": cut(3), "header": cut(20), "keys": cut(4000),
    "tensors": cut(1 << 20), "other": put(0, b"ABCD"),
    "version": put(4, b"\xff\xff\xff\xff"),
    "many tensors": put(8, b"\xff" * 8), "many keys": put(16, b"\xff" * 8),
    "long key": put(24, b"\xff" * 8), "sign": put(8, b"\0" * 7 + b"\x80"),
    "no keys": put(16, b"\0" * 8), "noise": put(24, bytes(range(256)) * 16),
}


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_refused_by_name(nginx, folder, kind):
    path = os.path.join(folder, "damaged.gguf")
    with open(model_path("smollm2.gguf"), "rb") as file:
        data = file.read(8 << 20)
    with open(path, "wb") as file:
        file.write(DAMAGE[kind](data))
    server = start(nginx, path, start=False)
    status, said = server.test_conf()
    assert status != 0
    assert path in said and "infer_model" in said and "[emerg]" in said, said
    assert "nginx.conf:" in said
    assert "AddressSanitizer" not in said and "runtime error" not in said


@pytest.mark.slow
@pytest.mark.parametrize("how", ["replaced", "removed", "cut", "overwritten"])
def test_after_load(nginx, folder, how):
    path = os.path.join(folder, "model.gguf")
    shutil.copy(model_path("smollm2.gguf"), path)
    server = start(nginx, path, ready="/readyz")
    before = server.post(CHAT, HELLO).json()["choices"]
    if how == "replaced":
        with open(path + ".new", "wb") as file:
            file.write(b"GGUF" + b"\0" * 100)
        os.rename(path + ".new", path)
    elif how == "removed":
        os.remove(path)
    elif how == "cut":
        os.truncate(path, 100000)
    else:
        with open(path, "r+b") as file:
            file.write(b"\xff" * (64 << 20))
    for _ in range(3):
        answer = server.post(CHAT, HELLO)
        assert server.get("/static").status == 200
        assert answer.status == 200, answer.body
        assert answer.json()["choices"] == before
