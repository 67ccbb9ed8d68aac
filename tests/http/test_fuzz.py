"""Damaged requests for a few seconds; tests/fuzz/http_fuzz.py alone runs
longer.  INFER_FUZZ_SECONDS and INFER_FUZZ_SEED change how long and which."""

import os
import sys
import time

from conftest import model_path
from nginx import TOP

sys.path.insert(0, os.path.join(TOP, "tests", "fuzz"))
import http_fuzz    # noqa: E402  (it lies in another folder)


def test_damaged_requests(nginx):
    model_path("smollm2.gguf")
    server = nginx(ready="/readyz", http="""
        infer_model null {
            file     @MODELS@/smollm2.gguf;
            null     tokens=6;
            threads  1;
        }""", server="""
        client_max_body_size  256k;
        location /v1/         { infer_pass null; }
        location = /readyz    { infer_pass null; }
        location = /status    { infer_status; }""")
    seconds = int(os.environ.get("INFER_FUZZ_SECONDS") or 10)
    seed = int(os.environ.get("INFER_FUZZ_SEED") or 1)
    number, counts = http_fuzz.run(server.port, seconds, seed)
    assert number > 50
    assert counts.get(200, 0) > 0 and counts.get(400, 0) > 0, counts

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
