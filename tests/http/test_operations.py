"""What conf-examples/ has for monitoring and Kubernetes: every metric and
label that it names is one that a running nginx shows, the files can be read by
what they are for, and the ConfigMap's nginx.conf serves."""

import glob
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import model_path
from nginx import TOP, Nginx, build_dir

EXAMPLES = os.path.join(TOP, "conf-examples")
ALERTS = os.path.join(EXAMPLES, "prometheus", "alerts.yml")
DASHBOARD = os.path.join(EXAMPLES, "grafana", "nginx-infer.json")
KUBERNETES = os.path.join(EXAMPLES, "kubernetes", "nginx-infer.yaml")
ADAPTER = os.path.join(EXAMPLES, "kubernetes", "adapter.yaml")
YAMLS = sorted(glob.glob(os.path.join(EXAMPLES, "*", "*.y*ml")))
SERIES = re.compile(r"\b(nginx_infer_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
# Prometheus adds these to what it scrapes.
ADDED = {"job", "instance"}

HTTP = """
    infer_model null {
        file     @MODELS@/smollm2.gguf;
        null     tokens=2;
        threads  1;
    }
"""
SERVER = """
        location /v1/        { infer_pass null; }
        location = /readyz   { infer_pass null; }
        location = /metrics  { infer_metrics; }
"""


def read(path):
    with open(path) as file:
        return file.read()


def dashboard_expressions():
    dashboard = json.loads(read(DASHBOARD))
    found = [target["expr"] for panel in dashboard["panels"]
             for target in panel["targets"]]
    return found + [variable["query"]["query"]
                    for variable in dashboard["templating"]["list"]
                    if variable["type"] == "query"]


def alert_expressions():
    return [rule["expr"] for group in yaml.safe_load(read(ALERTS))["groups"]
            for rule in group["rules"]]


def scaling_metrics():
    [scaler] = [doc for doc in yaml.safe_load_all(read(KUBERNETES))
                if doc["kind"] == "HorizontalPodAutoscaler"]
    return [metric["pods"]["metric"]["name"]
            for metric in scaler["spec"]["metrics"]]


@pytest.fixture(scope="module")
def shown():
    """{metric: {label: values}} of a server that has answered once."""
    model_path("smollm2.gguf")
    server = Nginx(http=HTTP, server=SERVER, ready="/readyz")
    try:
        answer = server.post("/v1/completions", '{"prompt": "Hello"}', headers={
            "Content-Type": "application/json"})
        assert answer.status == 200, answer.body
        text = server.get("/metrics").body.decode()
    finally:
        server.stop()
    found = {}
    for line in text.split("\n"):
        match = SERIES.match(line)
        if match:
            labels = found.setdefault(match.group(1), {})
            for name, _, value in LABEL.findall(match.group(2) or ""):
                labels.setdefault(name, set()).add(value)
    return found, text


def problems_of(expression, shown):
    used = SERIES.findall(expression)
    if not used:
        yield "names no metric: %s" % expression
    known = set(ADDED)
    for name, selector in used:
        if name not in shown:
            yield "no metric %s" % name
            continue
        known |= set(shown[name])
        for label, operator, value in LABEL.findall(selector):
            if label in ADDED:
                continue
            if label not in shown[name]:
                yield "%s has no label %s" % (name, label)
            elif operator == "=" and value not in shown[name][label]:
                yield '%s has no %s="%s"' % (name, label, value)
    for names in GROUPED.findall(expression):
        for label in names.replace(" ", "").split(","):
            if label not in known:
                yield "no label %s in: %s" % (label, expression)


def test_alerts_name_what_is_there(shown):
    expressions = alert_expressions()
    assert len(expressions) >= 9
    assert [problem for expression in expressions
            for problem in problems_of(expression, shown[0])] == []


def test_dashboard_names_what_is_there(shown):
    expressions = dashboard_expressions()
    assert len(expressions) >= 20
    assert [problem for expression in expressions
            for problem in problems_of(expression, shown[0])] == []


@pytest.mark.parametrize("wrong", [
    "nginx_infer_no_such_total > 1", "up == 0",
    'nginx_infer_requests_total{finish="lost"}',
    'nginx_infer_requests_total{reason="stop"}',
    "sum by (worker) (nginx_infer_requests_total)"])
def test_wrong_names_are_found(shown, wrong):
    assert list(problems_of(wrong, shown[0]))


def test_dashboard_shows_every_family(shown):
    text = read(DASHBOARD)
    families = re.findall(r"^# TYPE (\S+) ", shown[1], re.M)
    left_out = {"nginx_infer_context_tokens", "nginx_infer_worker_io_uring"}
    assert [name for name in families
            if name not in text and name not in left_out] == []


def test_dashboard_is_whole():
    dashboard = json.loads(read(DASHBOARD))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_autoscaler_names_what_is_there(shown):
    rule = yaml.safe_load(read(ADAPTER))["rules"][0]
    pattern = re.search(r'__name__=~"([^"]*)"', rule["seriesQuery"]).group(1)
    names = scaling_metrics()
    assert names
    for name in names:
        assert name in shown[0] and re.fullmatch(pattern, name), name


@pytest.mark.parametrize("path", YAMLS, ids=os.path.basename)
def test_yaml(path):
    documents = list(yaml.safe_load_all(read(path)))
    assert documents and all(documents)


def test_kubernetes_fits_together():
    kinds = {doc["kind"]: doc
             for doc in yaml.safe_load_all(read(KUBERNETES))}
    deployment = kinds["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    labels = deployment["template"]["metadata"]["labels"]
    conf = kinds["ConfigMap"]["data"]["nginx.conf"]

    assert deployment["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    target = kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == kinds["Deployment"]["metadata"]["name"]
    assert {m["name"] for m in container["volumeMounts"]} \
        == {v["name"] for v in pod["volumes"]}
    for probe in "startupProbe", "readinessProbe", "livenessProbe":
        assert "location = %s " % container[probe]["httpGet"]["path"] in conf
    assert "listen  %d;" % container["ports"][0]["containerPort"] in conf
    drain = int(re.search(r"worker_shutdown_timeout +(\d+)s", conf).group(1))
    pause = int(re.search(r"sleep (\d+);", container["lifecycle"]["preStop"]
                          ["exec"]["command"][2]).group(1))
    assert drain + pause < pod["terminationGracePeriodSeconds"]


def test_kubernetes_configuration_serves(nginx):
    """As it is, but for its paths."""
    [text] = [doc["data"]["nginx.conf"]
              for doc in yaml.safe_load_all(read(KUBERNETES))
              if doc["kind"] == "ConfigMap"]
    server = nginx(start=False)
    user = re.search(r"^user .*$", read(server.conf), re.M)
    os.mkdir(server.prefix + "/cache")
    for old, new in (
            ("modules/ngx_http", build_dir() + "/ngx_http"),
            ("/usr/lib/nginx/nginx-infer-worker", build_dir()
             + "/nginx-infer-worker"),
            ("/var/lib/models/smollm2.gguf", model_path("smollm2.gguf")),
            ("/var/cache/nginx-infer", server.prefix + "/cache"),
            ("/run/nginx", server.prefix), ("/var/lib/nginx", server.prefix),
            ("error_log                stderr", "error_log " + server.log_path),
            ("/dev/stdout", server.prefix + "/access.log"),
            ("listen  8080;", "listen 127.0.0.1:%d;" % server.port)):
        assert old in text, old
        text = text.replace(old, new)
    with open(server.conf, "w") as file:
        file.write((user.group() if user else "") + "\ndaemon off;\n" + text)
    server.start()
    server.wait_log(r"model smollm2: worker 0 ready")
    assert server.get("/healthz").status == 200
    assert server.get("/readyz").status == 200
    answer = server.post("/v1/chat/completions", json.dumps({
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}),
        headers={"Content-Type": "application/json"})
    assert answer.status == 200, answer.body
    assert answer.json()["choices"][0]["message"]["content"]


@pytest.mark.skipif(shutil.which("promtool") is None,
                    reason="no promtool: Debian's package prometheus has it")
def test_promtool(shown):
    subprocess.run(["promtool", "check", "rules", ALERTS], check=True)
    subprocess.run(["promtool", "check", "metrics"], check=True,
                   input=shown[1], text=True)
