"""What an inference worker says of a request goes to nginx's error log with
the request's id: a model whose numbers are no numbers makes it speak."""

import array
import math
import os
import re
import struct

from conftest import model_path
from encoders import make_classifier

SERVER = """
        location /v1/      { infer_pass m; }
        location /m/       { infer_pass m; }
        location = /readyz { infer_pass m; }
"""
NAN = array.array("f", [math.nan]).tobytes()


def tensor_at(data, name):
    """(where a tensor of a GGUF file begins, its values)."""
    at = data.index(struct.pack("<Q", 17) + b"token_embd.weight")
    found = None
    for _ in range(struct.unpack_from("<Q", data, 8)[0]):
        length, = struct.unpack_from("<Q", data, at)
        this = bytes(data[at + 8:at + 8 + length])
        at += 8 + length
        dims, = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from("<%dQ" % dims, data, at + 4)
        at += 4 + 8 * dims
        kind, offset = struct.unpack_from("<IQ", data, at)
        at += 12
        if this == name:
            assert kind == 0, "not of floats"
            found = offset, math.prod(shape)
    return found[0] + (at + 31) // 32 * 32, found[1]


def said(server, answer):
    """The one line of the worker, at `error`, with what the answer is named
    by, and with the model and the process."""
    assert answer.status == 500, answer.body
    name = answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", name)
    server.wait_log(r"\[error\] \d+#\d+: infer: model m: request %s failed: "
                    % name)
    lines = [line for line in server.log().split("\n")
             if "request %s failed" % name in line]
    assert len(lines) == 1, lines


def test_generation(nginx, tmp_path):
    path = str(tmp_path / "nan.gguf")
    with open(model_path("smollm2.gguf"), "rb") as file:
        data = bytearray(file.read())
    at, n = tensor_at(data, b"output_norm.weight")
    data[at:at + 4 * n] = NAN * n
    with open(path, "wb") as file:
        file.write(data)
    server = nginx(http="infer_model m { file %s; threads 1; }" % path,
                   server=SERVER, ready="/readyz")
    said(server, server.post("/v1/completions",
                             {"prompt": "secret words", "max_tokens": 4}))
    assert "secret words" not in server.log()


def test_encoder(nginx, tmp_path):
    folder = str(tmp_path / "nan")
    make_classifier(folder, ["bad", "good"])
    weights = os.path.join(folder, "model.safetensors")
    with open(weights, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(NAN * 2)
    server = nginx(http="infer_model m { file %s; threads 1; }" % folder,
                   server=SERVER, ready="/readyz")
    said(server, server.post("/m/predict", {"inputs": "secret words"}))
    assert "secret words" not in server.log()
