"""What the soak tests share: a server under load, its figures, its kills."""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "http"))

from nginx import (Nginx, build_dir, command_of, descendants,  # noqa: E402
                   models_dir)

LOG = 'log_format marks "$http_x_request_id $status";'
SHUTDOWN_S = 30         # worker_shutdown_timeout
SERVER = """
        access_log         @PREFIX@/marks.log marks;
        add_header         X-Worker $pid always;
        keepalive_requests 100000;
        keepalive_timeout  300s;
        client_header_timeout 300s;
        client_body_timeout 300s;
        send_timeout       300s;
        location /v1/      { infer_pass m; }
        location = /readyz { infer_pass m; }
        location = /status { infer_status; }
        location = /file   { root @PREFIX@; }
"""


def model(null="null tokens=64 delay=2ms;", more="workers 2;"):
    """The block of the model that is asked; "" for null: a real one."""
    return """
    infer_model m {
        file     @MODELS@/smollm2.gguf;
        %s
        %s
        threads  1;
        slots    256;
        queue    1024 tokens=0 timeout=300s;
    }
    """ % (null, more)


class Clock(threading.Thread):
    """Time in which this machine ran: where every process was stopped for a
    while (a snapshot of the machine, say), nobody is to blame."""

    STALL_S = 0.7

    def __init__(self):
        super().__init__(daemon=True)
        self.stalls, self.stalled = 0, 0.0
        self.last = time.monotonic()
        self.start()

    def run(self):
        while True:
            time.sleep(0.05)
            now = time.monotonic()
            if now - self.last > self.STALL_S:
                self.stalls += 1
                self.stalled += now - self.last
            self.last = now

    def now(self):
        time.sleep(0)
        current = time.monotonic()
        if current - self.last > self.STALL_S:
            time.sleep(0.2)             # the thread sees it now
            current = time.monotonic()
        return current - self.stalled


CLOCK = Clock()


def say(*words):
    print("%s %s" % (time.strftime("%H:%M:%S"), " ".join(map(str, words))),
          flush=True)


class Server(Nginx):
    conf_name = "nginx.conf"

    def __init__(self, workers=2, **parts):
        if not os.path.exists(os.path.join(models_dir(), "smollm2.gguf")):
            say("no model file in", models_dir())
            sys.exit(77)
        parts["http"] = LOG + parts.get("http", model())
        parts.setdefault("server", SERVER)
        parts.setdefault("level", "notice")
        super().__init__(workers=workers, ready="/readyz", start=False,
                         main="worker_rlimit_nofile 4096;\n"
                         "worker_shutdown_timeout %ds;" % SHUTDOWN_S, **parts)
        with open(os.path.join(self.prefix, "file"), "w") as file:
            file.write("static\n" * 512)
        os.chmod(self.prefix, 0o755)
        os.chmod(os.path.join(self.prefix, "file"), 0o644)
        self.allow(r"exited on signal 9")
        self.worker = os.path.join(build_dir(), "nginx-infer-worker")
        self.killed = []                # (when, pid, what)
        self.reloaded = []              # when

    def write_conf(self, **changes):
        """Room for the connections of a load, several generations deep; a
        reload finds the old text or the new one."""
        if "http" in changes:
            changes["http"] = LOG + changes["http"]
        conf = self.conf
        self.conf_name = "nginx.conf.new"
        super().write_conf(**changes)
        with open(self.conf) as file:
            text = file.read()
        with open(self.conf, "w") as file:
            file.write(text.replace("worker_connections  512",
                                    "worker_connections  2048"))
        os.rename(self.conf, conf)
        self.conf_name = "nginx.conf"

    @property
    def conf(self):
        return os.path.join(self.prefix, self.conf_name)

    def marks(self):
        """How often each request is in the access log."""
        with open(os.path.join(self.prefix, "marks.log")) as file:
            return collections.Counter(line.split()[0] for line in file)

    def status(self):
        return self.get("/status", timeout=10).json()

    def model(self):
        return self.status()["models"][0]

    def supervisors(self):
        return [pid for pid in descendants(os.getpid())
                if "--supervise" in command_of(pid)
                and self.prefix in command_of(pid)]

    def inference_workers(self):
        ours = set(self.supervisors())
        return [pid for pid in descendants(os.getpid())
                if "nginx-infer-worker --worker" in command_of(pid)
                and parent_of(pid) in ours]

    def nginx_workers(self):
        return self.children("nginx: worker process")

    def shoot(self, pid, what):
        """kill -9, noted; False when it has gone already."""
        self.killed.append((time.monotonic(), pid, what))
        try:
            os.kill(pid, signal.SIGKILL)
            return True
        except ProcessLookupError:
            self.killed.pop()
            return False

    def idle(self, limit_s=1.0):
        """Seconds until nothing of a request is left anywhere: slots of every
        nginx worker, queues, sequences, KV pages."""
        begin = CLOCK.now()
        clean = set()
        while True:
            # one of before a reload accepts no more, and goes
            alone = {pid for pid in self.nginx_workers()
                     if "shutting down" not in command_of(pid)}
            try:
                status = self.status()
                used = used_of(status)
                if not any(used.values()):
                    clean.add(status["nginx"]["pid"])
                if alone <= clean:
                    return CLOCK.now() - begin
            except OSError as problem:
                used = {"status": str(problem)}
            if CLOCK.now() - begin > limit_s + 10:
                raise AssertionError("left after the load: %r" % used)
            time.sleep(0.01)

    def descriptors(self):
        """How many, of each kind of process, most of that kind."""
        found = {}
        for pid in descendants(os.getpid()):
            command = command_of(pid)
            if self.prefix not in command and "nginx" not in command:
                continue
            for word in ("master process", "worker process", "cache manager",
                         "--supervise", "--worker"):
                if word in command and "shutting down" not in command:
                    found.setdefault(word, []).append(count_fds(pid))
        return {word: max(counts) for word, counts in found.items()}

    def memory(self):
        """KiB of RssAnon and VmSwap: the largest of each kind of process."""
        found = {}
        for pid in descendants(os.getpid()):
            command = command_of(pid)
            for word in ("master process", "worker process", "cache manager",
                         "--supervise", "--worker --name m ",
                         "--worker --name real "):
                if word in command and "shutting down" not in command:
                    found[word] = max(found.get(word, 0), anonymous_kib(pid))
        return found


def used_of(status):
    used = {}
    for one in status["models"]:
        used["slots"] = used.get("slots", 0) + one["slots_used"]
        for worker in one["workers"]:
            for name in ("waiting", "waiting_tokens", "running", "kv_used",
                         "backlog", "inflight"):
                used[name] = used.get(name, 0) + worker[name]
            used["loading"] = (used.get("loading", 0)
                               + (worker["state"] != "ready"))
    return used


def parent_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def count_fds(pid):
    try:
        return len(os.listdir("/proc/%d/fd" % pid))
    except OSError:
        return 0


def anonymous_kib(pid):
    try:
        with open("/proc/%d/status" % pid) as file:
            text = file.read()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.split("\n")
               if line.startswith(("RssAnon:", "VmSwap:")))


class Load:
    """load.py in a process of its own."""

    def __init__(self, server, **options):
        command = [sys.executable, os.path.join(HERE, "load.py"),
                   str(server.port)]
        for name, value in options.items():
            command += ["--" + name] + ([] if value is True else [str(value)])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.problems = []
        self.said = {}
        self.news = threading.Condition()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        self.wait("ready", 600)

    def read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            with self.news:
                if "how" in said:
                    self.problems.append(said)
                else:
                    self.said.update(said)
                self.news.notify_all()
        with self.news:
            self.said["ended"] = 1
            self.news.notify_all()

    def wait(self, word, limit_s):
        with self.news:
            done = self.news.wait_for(
                lambda: word in self.said or "ended" in self.said, limit_s)
            assert done and word in self.said, "the load said no " + word
            return self.said.pop(word)

    def command(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def pause(self):
        """Sums so far, when nothing runs any more."""
        self.command("pause")
        return self.wait("paused", 600)

    def resume(self):
        self.command("resume")

    def stop(self):
        self.command("stop")
        sums = self.wait("sums", 600)
        self.process.stdin.close()
        self.thread.join(10)
        self.process.wait(10)
        self.process.stdout.close()
        return sums

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wrong(self):
        return [one for one in self.problems if one["how"] == "wrong"]


def ended(sums):
    """How many requests there were, in how many ways they ended."""
    return {name: number for name, number in sums.items()
            if isinstance(number, int) and not name.endswith("_n")}


def outside(server, problems, margin_s=0.5):
    """Cuts that neither a kill of an nginx worker explains nor the time that
    workers of before a reload have for their last requests."""
    found = []
    for one in problems:
        if one["how"] != "cut":
            continue
        killed = any(
            (one["pid"] in (0, pid)) and one["begin"] - margin_s <= when
            <= one["end"] for when, pid, what in server.killed
            if what in ("nginx worker", "master"))
        late = any(one["begin"] - margin_s <= when
                   <= one["end"] - SHUTDOWN_S + margin_s
                   for when in server.reloaded)
        if not killed and not late:
            found.append(one)
    return found
