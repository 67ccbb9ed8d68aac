"""Metrics as Prometheus takes them; skipped where it is not installed."""

import json
import os
import shutil
import subprocess
import time
import urllib.request

import pytest

from conftest import model_path
from nginx import TOP, Nginx, free_port

PROMETHEUS = os.path.join(TOP, "conf-examples", "prometheus")
HTTP = """
    infer_model m {
        file  @MODELS@/smollm2.gguf; threads 1; null tokens=3;
    }
    infer_limit_tokens zone=z:1m key=$remote_addr rate=100000/m;
"""
SERVER = """
        location /v1/        { infer_pass m; }
        location = /readyz   { infer_pass m; }
        location = /metrics  { infer_metrics; }
        location = /vllm     { infer_metrics vllm; }
"""


def tool(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip("no %s here" % name)
    return path


@pytest.fixture(scope="module")
def server():
    model_path("smollm2.gguf")
    one = Nginx(http=HTTP, server=SERVER, ready="/readyz")
    for _ in range(3):
        assert one.post("/v1/completions", {"prompt": "Hello"}).status == 200
    yield one
    one.stop()


def promtool(*args, text=None):
    done = subprocess.run([tool("promtool"), *args], input=text,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=60)
    return done.returncode, done.stdout.decode()


def test_metrics_are_well_formed(server):
    assert promtool("check", "metrics",
                    text=server.get("/metrics").body) == (0, "")


def test_alerts_and_configuration():
    status, said = promtool("check", "rules",
                            os.path.join(PROMETHEUS, "alerts.yml"))
    assert status == 0 and "SUCCESS" in said, said
    status, said = promtool("check", "config", "--syntax-only",
                            os.path.join(PROMETHEUS, "prometheus.yml"))
    assert status == 0, said


def test_names_of_vllm(server):
    text = server.get("/vllm").body.decode()
    assert text.startswith("# HELP nginx_infer_requests_total")
    assert "vllm:" not in server.get("/metrics").body.decode()
    for line in (
            'vllm:num_requests_running{model_name="m"} 0',
            'vllm:num_requests_waiting{model_name="m"} 0',
            'vllm:kv_cache_usage_perc{model_name="m"} 0.000000',
            'vllm:generation_tokens_total{model_name="m"} 12',
            'vllm:request_success_total{model_name="m",'
            'finished_reason="stop"} 3',
            'vllm:time_to_first_token_seconds_count{model_name="m"} 3',
            'vllm:e2e_request_latency_seconds_bucket{model_name="m",'
            'le="+Inf"} 3'):
        assert line + "\n" in text, line
    # its names have colons, which the tool does not like; all else it does
    status, said = promtool("check", "metrics", text=text.encode())
    assert all("colon" in line or "vllm:" in line
               for line in said.strip().split("\n")), said


def test_a_real_prometheus_scrapes(server, tmp_path):
    program, port = tool("prometheus"), free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text("""
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [ "%s/alerts.yml" ]
scrape_configs:
  - job_name: nginx-infer
    metrics_path: /vllm
    static_configs: [ { targets: [ "127.0.0.1:%d" ] } ]
""" % (PROMETHEUS, server.port))
    process = subprocess.Popen(
        [program, "--config.file=%s" % config,
         "--storage.tsdb.path=%s" % (tmp_path / "data"),
         "--web.listen-address=127.0.0.1:%d" % port],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path):
        with urllib.request.urlopen("http://127.0.0.1:%d/api/v1/%s"
                                    % (port, path), timeout=5) as answer:
            return json.load(answer)["data"]

    def value(query):
        try:
            found = ask("query?query=" + query)["result"]
        except OSError:
            return None
        return found[0]["value"][1] if found else None

    try:
        deadline = time.monotonic() + 60
        while value("nginx_infer_generation_tokens_total") != "12":
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert value("vllm:generation_tokens_total") == "12"
        assert value("up") == "1"
        rules = [rule for group in ask("rules")["groups"]
                 for rule in group["rules"]]
        assert len(rules) >= 9
        assert all(rule["health"] in ("ok", "unknown") for rule in rules)
    finally:
        process.terminate()
        process.wait(30)
