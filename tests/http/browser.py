"""A headless Chromium, driven over its debugging pipe: no other package."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

WAIT_S = 60


def chromium():
    return os.environ.get("INFER_CHROMIUM") or shutil.which("chromium")


class Browser:
    def __init__(self, width=1360, height=900):
        self.folder = tempfile.mkdtemp(prefix="infer-")
        to_child, self.out = os.pipe()
        self.input, from_child = os.pipe()
        self.size = "%d,%d" % (width, height)

        def hand_over():                # 3: commands, 4: answers
            low, high = os.dup(to_child), os.dup(from_child)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self.process = subprocess.Popen(
            [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu",
             "--remote-debugging-pipe", "--window-size=" + self.size,
             "--hide-scrollbars", "--no-first-run",
             "--disable-dev-shm-usage", "--user-data-dir=" + self.folder],
            pass_fds=(3, 4), preexec_fn=hand_over,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.number, self.buffer, self.session = 0, b"", None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")
        self.session = self.call("Target.attachToTarget", flatten=True,
                                 targetId=target["targetId"])["sessionId"]
        for domain in "Page", "Runtime", "Log":
            self.call(domain + ".enable")
        self.resize(width, height)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method,
                   "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def read(self):
        while b"\0" not in self.buffer:
            assert select.select([self.input], [], [], WAIT_S)[0], \
                "the browser says nothing"
            part = os.read(self.input, 1 << 16)
            assert part, "the browser has ended"
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width,
                  height=height, deviceScaleFactor=1, mobile=False)

    def colours(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression,
                           returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression, limit_s=WAIT_S):
        deadline = time.monotonic() + limit_s
        while True:
            try:
                value = self.value("!!(%s)" % expression)
            except AssertionError:      # the page is not there yet
                value = None
            if value:
                return value
            assert time.monotonic() < deadline, "never: " + expression
            time.sleep(0.1)

    def press(self, key, **more):
        for kind in "keyDown", "keyUp":
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **more)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def problems(self):
        """Errors of the console, of the network, of the page's own code."""
        self.value("1")
        found = []
        for event in self.events:
            method, what = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(what["exceptionDetails"]))
            elif (method == "Log.entryAdded"
                  and what["entry"]["level"] == "error"):
                found.append(what["entry"]["text"])
        return found

    def close(self):
        os.close(self.out)
        os.close(self.input)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
