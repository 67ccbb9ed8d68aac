"""Every file of conf-examples/ is started as it is, but for its paths."""

import glob
import json
import os
import re

import pytest

from conftest import model_path
from nginx import TOP, build_dir

FILES = sorted(glob.glob(os.path.join(TOP, "conf-examples", "*.conf")))
PAGE = os.path.join(TOP, "conf-examples", "status") + "/"
CHAT = ("smollm2.gguf", "/v1/chat/completions", {
    "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4},
    lambda body: body["choices"][0]["message"]["content"])
# where the model is another one: its file, a request, what must be true
OTHERS = {
    "embeddings.conf": ("minilm", "/v1/embeddings", {"input": "Hello"},
                        lambda body: len(body["data"][0]["embedding"]) == 384),
    "routing.conf": ("minilm", "/ask?q=I+want+a+refund", {},
                     lambda body: body.startswith("/desk/billing, 0.")),
}


@pytest.mark.parametrize("path", FILES, ids=os.path.basename)
def test_example(nginx, path):
    name, endpoint, request, holds = OTHERS.get(os.path.basename(path), CHAT)
    model = model_path(name)
    server = nginx(start=False)
    with open(path) as file:
        text = file.read()
    with open(server.conf) as file:
        user = re.search(r"^user .*$", file.read(), re.M)
    for old, new in (
            ("modules/ngx_http", build_dir() + "/ngx_http"),
            ("/usr/lib/nginx/nginx-infer-worker;",
             "%s/nginx-infer-worker;\n    infer_run_path %s/infer;"
             % (build_dir(), server.prefix)),
            ("/var/lib/models/" + name, model),
            ("/tmp/nginx-infer", server.prefix)):
        assert old in text, old
        text = text.replace(old, new)
    text = text.replace("/usr/share/nginx-infer/status/", PAGE)
    text, found = re.subn(r"listen  (127\.0\.0\.1:)?8080;",
                          "listen 127.0.0.1:%d;" % server.port, text)
    assert found == 1
    with open(server.conf, "w") as file:
        file.write((user.group() if user else "") + "\ndaemon off;\n" + text)
    server.start()
    headers = {"Content-Type": "application/json",
               "Authorization": "Bearer key-of-anna"}
    # without "model": the first of infer_pass.  Where there is a fallback, it
    # answers while that model's pool is loading.
    for name in re.findall(r"infer_model (\w+) {", text):
        server.wait_log(r"model %s: worker 0 ready" % name)
    answer = server.post(endpoint, json.dumps(request), headers=headers)
    assert answer.status == 200, answer.body
    kind = answer.headers["Content-Type"]
    # a value that came too late is left out: on a loaded machine, again
    for _ in range(1 if kind == "application/json" else 10):
        body = answer.json() if kind == "application/json" else \
            answer.body.decode()
        if holds(body):
            break
        answer = server.post(endpoint, json.dumps(request), headers=headers)
    assert holds(body)
    if PAGE in text:
        page = server.get("/infer/")
        assert page.status == 200 and page.headers["Content-Type"] == \
            "text/html"
        assert "script-src 'sha256-" in page.headers[
            "Content-Security-Policy"]
        assert server.get("/infer/status").json()["models"][0]["ready"] == 1
        assert server.post("/infer" + endpoint, request).status == 200
