"""Damaged requests for a few seconds; tests/fuzz/http_fuzz.py alone runs
longer.  INFER_FUZZ_SECONDS and INFER_FUZZ_SEED change how long and which."""

import os
import sys
import time

import pytest

from conftest import model_path
from nginx import TOP

sys.path.insert(0, os.path.join(TOP, "tests", "fuzz"))
import http_fuzz    # noqa: E402  (it lies in another folder)


@pytest.mark.parametrize("model, corpus", [
    ("smollm2.gguf", http_fuzz.CORPUS),
    ("minilm", http_fuzz.ENCODERS + http_fuzz.CORPUS[:3]),
    ("smollm2.gguf", http_fuzz.ENCODERS),
], ids=["generate", "encode", "mismatch"])
def test_damaged_requests(nginx, model, corpus):
    model_path("smollm2.gguf")
    model_path(model)
    server = nginx(ready="/readyz", http="""
        infer_model null {
            file     @MODELS@/%s;
            null     tokens=6;
            threads  1;
        }""" % model, server="""
        client_max_body_size  256k;
        location /v1/         { infer_pass null; }
        location = /readyz    { infer_pass null; }
        location = /status    { infer_status; }""")
    seconds = int(os.environ.get("INFER_FUZZ_SECONDS") or 10)
    seconds = seconds if corpus is http_fuzz.CORPUS else seconds / 2
    seed = int(os.environ.get("INFER_FUZZ_SEED") or 1)
    number, counts = http_fuzz.run(server.port, seconds, seed, corpus)
    assert number and counts.get(400, 0) > 0, counts
    assert counts.get(200, 0) > 0 or corpus is http_fuzz.ENCODERS, counts

    deadline = time.monotonic() + 5
    while True:
        [model] = server.get("/status").json()["models"]
        [worker] = model["workers"]
        if model["slots_used"] == worker["running"] == worker["waiting"] == 0:
            break
        assert time.monotonic() < deadline, model
        time.sleep(0.05)
    assert worker["incarnation"] == 1 and worker["retired"] is False
    assert worker["kv_used"] == 0
