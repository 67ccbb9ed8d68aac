"""What `nginx -t` refuses, and how it says so: file, field, directive line."""

import os
import signal
import subprocess
import time

import pytest

from conftest import model_path
from nginx import build_dir

SERVER = "location /v1/ { infer_pass m; }"


def model_block(more="", file="@MODELS@/smollm2.gguf"):
    return """
    infer_model m {
        file  %s;
        null;
        %s
    }""" % (file, more)


@pytest.fixture
def check(nginx):
    model_path("smollm2.gguf")

    def run(http, server=SERVER, main=""):
        return nginx(http=http, server=server, main=main,
                     start=False).test_conf()
    return run


def test_three_lines_are_enough(check):
    status, text = check("infer_model m { file @MODELS@/smollm2.gguf; }")
    assert status == 0, text


def test_every_directive(check):
    status, text = check(model_block("""
        workers 2; threads 1; context 2048; batch 256; sequences 8;
        batch_delay 100us;
        kv_cache 64m q8_0; queue 32 tokens=8k timeout=5s; cache off;
        prefix_cache off; speculate prompt_lookup;
        precision exact; nice 5; spin 50us; affinity 0; io_uring off;
        slots 100; payload 4m;""") + """
        infer_timeout 30s; infer_max_tokens 100; infer_buffer_size 8k;
        infer_ignore_client_abort on; infer_scope $remote_addr;
        infer_fallback off;""")
    assert status == 0, text


@pytest.mark.parametrize("more,words", [
    ("workers 0;", ["workers", '"0"', "1 to 32"]),
    ("workers 33;", ["workers", "1 to 32"]),
    ("threads x;", ["threads", '"x"']),
    ("context 2000000;", ["context"]),
    ("sequences 1025;", ["sequences"]),
    ("kv_cache 5;", ["kv_cache"]),
    ("kv_cache;", ["kv_cache"]),
    ("kv_cache 64m 32m;", ["32m"]),
    ("kv_cache f16 q8_0;", ["q8_0"]),
    ("kv_cache q4_0;", ["kv_cache", "q4_0"]),
    ("queue;", ["queue"]),
    ("queue 5 tokens=x;", ["queue tokens"]),
    ("queue 5 timeout=0;", ["timeout=0"]),
    ("queue 5 other=1;", ["other=1"]),
    ("null tokens=-1;", ["null tokens"]),
    ("null delay=5;", ["null delay"]),
    ("precision double;", ["precision", "double"]),
    ("prefix_cache maybe;", ["prefix_cache", "maybe"]),
    ("speculate on;", ["speculate", "on"]),
    ("spin 2s;", ["spin"]),
    ("nice 20;", ["nice"]),
    ("affinity a;", ["affinity"]),
    ("io_uring maybe;", ["io_uring", "maybe"]),
    ("slots 5000;", ["slots"]),
    ("payload 1k;", ["payload"]),
    ("wurkers 1;", ["unknown directive", "wurkers"]),
    ("workers 1 2;", ["invalid number of arguments", "workers"]),
])
def test_bad_value(check, more, words):
    status, text = check(model_block(more))
    assert status != 0
    line = [x for x in text.split("\n") if "[emerg]" in x][0]
    assert "nginx.conf:" in line
    for word in words:
        assert word in line, line


def test_no_file(check):
    status, text = check("infer_model m { workers 1; }")
    assert status != 0 and 'has no "file"' in text


def test_absent_file(check):
    status, text = check(model_block(file="/nonexistent.gguf"))
    assert status != 0
    assert '"m"' in text and "/nonexistent.gguf" in text
    assert "nginx.conf:" in text


def test_damaged_file(check, tmp_path):
    with open(model_path("smollm2.gguf"), "rb") as file:
        head = file.read(100000)
    for cut in (0, 3, 4, 8, 20, 24, 100, 5000, 99999):
        path = tmp_path / "cut.gguf"
        path.write_bytes(head[:cut])
        os.chmod(tmp_path, 0o755)
        status, text = check(model_block(file=str(path)))
        assert status != 0, cut
        assert "cut.gguf" in text and "nginx.conf:" in text, text
        assert "does it crash" not in text


def test_unknown_model(check):
    status, text = check(model_block(), "location / { infer_pass x; }")
    assert status != 0
    assert 'unknown model "x"' in text and "nginx.conf:" in text


def test_double_model(check):
    status, text = check(model_block() + model_block())
    assert status != 0 and "duplicate" in text


def test_bad_model_name(check):
    status, text = check("infer_model a/b { file x; }")
    assert status != 0 and "a/b" in text


def test_bad_fallback(check):
    status, text = check(model_block() + "infer_fallback other;")
    assert status != 0 and "infer_fallback" in text


def test_no_worker_binary(check):
    # the fixture's own infer_worker stands before this one
    status, text = check("infer_worker /nonexistent;")
    assert status != 0 and "duplicate" in text


def test_long_run_path(nginx):
    model_path("smollm2.gguf")
    server = nginx(http=model_block(), server=SERVER, start=False)
    with open(server.conf) as file:
        text = file.read()
    text = text.replace(server.prefix + "/infer;",
                        server.prefix + "/" + "x" * 90 + ";")
    with open(server.conf, "w") as file:
        file.write(text)
    status, said = server.test_conf()
    assert status != 0 and "infer_run_path" in said


def test_check_leaves_nothing(nginx):
    # nginx -t starts no pool and makes no process that stays
    model_path("smollm2.gguf")
    server = nginx(http=model_block(), server=SERVER, start=False)
    assert server.test_conf()[0] == 0
    done = subprocess.run(["pgrep", "-f", server.prefix], text=True,
                          stdout=subprocess.PIPE)
    assert done.stdout == ""


def test_without_models(nginx):
    server = nginx(server="location / { return 204; }"
                          "location = /s { infer_status; }"
                          "location = /m { infer_metrics; }")
    assert server.get("/").status == 204
    assert server.get("/s").json()["models"] == []
    assert server.get("/m").status == 200
    assert server.children("cache manager") == []


@pytest.mark.slow
def test_slow_verdict(check, nginx, tmp_path):
    """A worker that takes long, one that hangs, and a machine that stands
    still: only the second is nobody's to wait for."""
    model_path("smollm2.gguf")

    def begin(name, wait):
        path = tmp_path / name
        path.write_text('#!/bin/sh\n%s\nexec %s/nginx-infer-worker "$@"\n'
                        % (wait, build_dir()))
        path.chmod(0o755)
        tmp_path.chmod(0o755)
        server = nginx(http=model_block(), server=SERVER, start=False)
        with open(server.conf) as file:
            text = file.read()
        old = build_dir() + "/nginx-infer-worker;"
        assert old in text
        with open(server.conf, "w") as file:
            file.write(text.replace(old, str(path) + ";"))
        return subprocess.Popen(
            server.command("-t"), env=server.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)

    began = time.monotonic()
    slow = begin("slow", "sleep 15")
    hung = begin("hung", "exec sleep 100")
    still = begin("still", "sleep 2")
    time.sleep(1)
    os.killpg(still.pid, signal.SIGSTOP)
    said, _ = hung.communicate(timeout=90)
    assert hung.returncode != 0
    assert 30 <= time.monotonic() - began < 80
    assert 'gave no verdict on "infer_model" "m" within 30 s: ' in said, said
    assert "smollm2.gguf" in said and "nginx.conf:" in said

    time.sleep(max(0, began + 34 - time.monotonic()))
    os.killpg(still.pid, signal.SIGCONT)
    for process in (slow, still):
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
