"""The model's files change under the paths that the configuration names: a
reload takes the new ones, and leaves the pool alone when nothing changed."""

import array
import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from conftest import model_path
from encoders import make_classifier
from nginx import command_of, descendants

CHAT = "/v1/chat/completions"
SERVER = """
        location /v1/      { infer_pass m; }
        location /m/       { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /status { infer_status; }
"""
SYSTEM = b"You are a helpful AI assistant named SmolLM, trained by"
OTHER = b"Be zxq zxq zxq zxq zxq zxq zxq zxq zxq zxq zxq zxq zxq "


def wait_for(what, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def supervisors(server):
    return sorted(pid for pid in descendants(os.getpid())
                  if "--supervise" in command_of(pid)
                  and server.prefix in command_of(pid))


def one(server):
    return server.get("/status").json()["models"][0]


def reload(server):
    """Until nobody of the former configuration answers."""
    old = server.children("worker process")
    server.reload()
    wait_for(lambda: not set(old) & set(server.children("worker process")))


class Askers:
    """Requests all the time, plain and streamed; keeps what they counted."""

    def __init__(self, server):
        self.server, self.failed, self.counts = server, [], []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(i % 2 == 0,))
                        for i in range(8)]
        for thread in self.threads:
            thread.start()

    def ask(self, stream):
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        if stream:
            body.update(stream=True, stream_options={"include_usage": True})
        while not self.over.is_set():
            try:
                if stream:
                    events = list(self.server.stream(CHAT, body))
                    assert events[-1] == "[DONE]", events
                    usage = json.loads(events[-2])["usage"]
                else:
                    answer = self.server.post(CHAT, body, timeout=20)
                    assert answer.status == 200, answer.body
                    usage = answer.json()["usage"]
                self.counts.append(usage["prompt_tokens"])
            except Exception as problem:
                self.failed.append(repr(problem))

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.failed, self.failed[:3]


def replace_template(path):
    """Another file of the same size, renamed over the first."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    at = data.index(SYSTEM)
    data[at:at + len(SYSTEM)] = OTHER
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


@pytest.fixture
def start(nginx, tmp_path):
    path = str(tmp_path / "model.gguf")
    shutil.copy(model_path("smollm2.gguf"), path)
    assert len(OTHER) == len(SYSTEM)
    server = nginx(http="infer_model m { file %s; workers 2; threads 1; "
                   "null tokens=16 delay=2ms; }" % path, server=SERVER,
                   ready="/readyz")
    return server, path


def test_replaced_under_load(start):
    server, path = start
    askers = Askers(server)
    try:
        wait_for(lambda: len(askers.counts) > 20)
        old, was = supervisors(server), one(server)["hash"]
        for _ in range(3):
            reload(server)
        assert supervisors(server) == old and one(server)["hash"] == was
        assert len(set(askers.counts)) == 1

        replace_template(path)
        mark = len(askers.counts)
        wait_for(lambda: len(askers.counts) > mark + 40)
        assert len(set(askers.counts)) == 1     # nobody has looked yet

        reload(server)
        server.wait_log("new pool of \"m\" has taken over")
        wait_for(lambda: old[0] not in supervisors(server))
        assert one(server)["hash"] != was
        mark = len(askers.counts) + len(askers.threads)
        wait_for(lambda: len(askers.counts) > mark + 40)
    finally:
        askers.stop()
    assert len(set(askers.counts)) == 2
    assert len(set(askers.counts[mark:])) == 1
    assert askers.counts[-1] != askers.counts[0]

    new = supervisors(server)
    reload(server)
    assert supervisors(server) == new and len(new) == 1


def test_time_and_size_count(start):
    server, path = start
    seen = [one(server)["hash"]]

    def look():
        reload(server)
        wait_for(lambda: one(server)["answered_by"] == "pool")
        seen.append(one(server)["hash"])
        return seen[-1] != seen[-2]

    os.chmod(path, 0o640)
    assert not look()
    os.rename(path, path + ".away")
    os.rename(path + ".away", path)
    assert not look()
    os.utime(path, ns=(1, 1_700_000_000_000_000_001))
    assert look()
    os.utime(path, ns=(1, 1_700_000_000_000_000_002))
    assert look()
    with open(path, "ab") as file:
        file.write(b"\0" * 32)
    os.utime(path, ns=(1, 1_700_000_000_000_000_002))
    assert look()
    assert len(set(seen)) == 4


@pytest.mark.skipif(shutil.which("bindfs") is None or os.geteuid() != 0,
                    reason="needs root and Debian's package bindfs")
def test_fuse(nginx, tmp_path):
    """Where devices and inodes are what the moment brings, they say nothing."""
    model_path("smollm2.gguf")
    (tmp_path / "real").mkdir()
    (tmp_path / "seen").mkdir()
    shutil.copy(model_path("smollm2.gguf"), tmp_path / "real" / "model.gguf")
    command = ["bindfs", "-o", "nonempty", str(tmp_path / "real"),
               str(tmp_path / "seen")]
    path = str(tmp_path / "seen" / "model.gguf")
    subprocess.run(command, check=True)
    try:
        server = nginx(http="infer_model m { file %s; null tokens=4; }" % path,
                       server=SERVER, ready="/readyz")
        was, where = one(server)["hash"], os.stat(path)
        subprocess.run(command, check=True)     # again, over the first
        reload(server)
        assert os.stat(path).st_dev != where.st_dev
        assert one(server)["hash"] == was
        os.utime(path, ns=(1, 1_700_000_000_000_000_001))
        reload(server)
        wait_for(lambda: one(server)["hash"] != was)
    finally:
        while os.path.ismount(command[-1]):
            subprocess.run(["umount", "-l", command[-1]], check=True)


def test_folder(nginx, tmp_path):
    folder = str(tmp_path / "model")
    make_classifier(folder, ["bad", "good"])
    server = nginx(http="infer_model m { file %s; threads 1; }" % folder,
                   server=SERVER, ready="/readyz")

    def score():
        answer = server.post("/m/predict", {"inputs": "Hello",
                                            "raw_scores": True})
        assert answer.status == 200, answer.body
        return {entry["label"]: entry["score"] for entry in answer.json()}

    old, first = supervisors(server), score()
    (tmp_path / "model" / "README.md").write_text("nothing of the model's\n")
    reload(server)
    assert supervisors(server) == old and score() == first

    weights = os.path.join(folder, "model.safetensors")
    with open(weights, "rb") as file:
        data = bytearray(file.read())
    data[-8:] = array.array("f", [5.0, -5.0]).tobytes()
    with open(weights + ".new", "wb") as file:
        file.write(data)
    os.rename(weights + ".new", weights)
    assert score() == first
    reload(server)
    wait_for(lambda: old[0] not in supervisors(server))
    second = score()
    assert second["bad"] > first["bad"] + 4
    assert second["good"] < first["good"] - 4

    # folders in it too, those of sentence-transformers' modules
    old = supervisors(server)
    os.mkdir(os.path.join(folder, "1_Pooling"))
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as file:
        file.write("{}")
    reload(server)
    wait_for(lambda: old[0] not in supervisors(server))
    assert score() == second


def test_template(nginx, tmp_path):
    model_path("smollm2.gguf")
    path = tmp_path / "chat.jinja"
    path.write_text("{{ messages[0]['content'] }}")
    server = nginx(http="infer_model m { file @MODELS@/smollm2.gguf; "
                   "template %s; null tokens=4; }" % path,
                   server=SERVER, ready="/readyz")

    def count():
        answer = server.post(CHAT, {"messages": [
            {"role": "user", "content": "Hello"}]})
        assert answer.status == 200, answer.body
        return answer.json()["usage"]["prompt_tokens"]

    old, first = supervisors(server), count()
    path.write_text("one two three {{ messages[0]['content'] }}")
    reload(server)
    wait_for(lambda: old[0] not in supervisors(server))
    assert count() == first + 3
