"""A pool without nginx: the supervisor as nginx would start it, and probes
that play nginx's side of the shared memory (tests/tools/shr_probe.c)."""

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
WAIT_S = 60

# What no test may leave in the log.
BAD = re.compile(r"\[alert\]|ERROR: (Address|Leak|Thread)Sanitizer"
                 r"|WARNING: ThreadSanitizer|runtime error: "
                 r"|Assertion .* failed")

# shr_worker_state_t and shr_counter_t of shm/shr_layout.h
NONE, LOADING, READY, DRAINING = range(4)
COUNTERS = ("waiting waiting_tokens running kv_used kv_total context load_us "
            "io_uring isa requests prompt_tokens cached_tokens tokens steps "
            "step_tokens cancelled_waiting cancelled_prefill "
            "cancelled_decode preempted shed expired").split()


def build_dir():
    return os.path.abspath(os.environ.get("INFER_BUILD")
                           or os.path.join(TOP, "build"))


def models_dir():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("INFER_MODELS") or os.path.join(cache,
                                                          "nginx-infer")


def wait_for(condition, what, limit=WAIT_S):
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited %g s for %s" % (limit, what)
        time.sleep(0.01)


def alive(pid):
    """Neither gone nor a zombie."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(name))
            except OSError:
                pass
    return [child for child in found if alive(child)]


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


class Info:
    def __init__(self, line):
        numbers = [int(part) for part in line.split()[1:]]
        self.incarnation, self.state, self.pid, self.beat = numbers[1:5]
        self.counters = dict(zip(COUNTERS, numbers[5:]))


class Probe:
    """One generation of nginx processes; its end is their end."""

    def __init__(self, pool, conf=None, **options):
        self.pool = pool
        command = [os.path.join(build_dir(), "tools/shr_probe"),
                   "--socket", pool.socket, "--conf",
                   pool.write_conf(conf)]
        for name, value in options.items():
            command += ["--" + name, str(value)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            bufsize=0)
        self.buffer = b""

    def send(self, line):
        self.process.stdin.write((line + "\n").encode())

    def line(self, limit=WAIT_S):
        end = time.monotonic() + limit
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            assert left > 0, "the probe says nothing"
            if select.select([self.process.stdout], [], [], left)[0]:
                part = os.read(self.process.stdout.fileno(), 65536)
                assert part, "the probe has ended"
                self.buffer += part
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode("utf-8", "replace")

    def ask(self, line, limit=WAIT_S):
        self.send(line)
        return self.line(limit)

    def attach(self):
        assert wait_for(lambda: self.try_attach(), "attach") == "ok"

    def try_attach(self):
        answer = self.ask("attach")
        return None if answer.startswith("error") else answer

    def info(self, worker=0):
        return Info(self.ask("info %d" % worker))

    def ready(self, worker=0, limit=WAIT_S, incarnation=0):
        def look():
            info = self.info(worker)
            return (info if info.state == READY
                    and info.incarnation > incarnation else None)
        return wait_for(look, "worker %d ready" % worker, limit)

    def submit(self, name, text="hello", tokens=4, worker=0):
        answer = self.ask("submit %s %d %d %s" % (name, worker, tokens, text))
        assert answer == "submitted " + name

    def read(self, ms=20000):
        """Lines until all requests have ended; the last is idle or timeout."""
        self.send("read %d" % ms)
        lines = []
        while not lines or lines[-1] not in ("idle", "timeout"):
            lines.append(self.line(ms / 1000 + WAIT_S))
        return lines

    def answer(self, name, text="hello", tokens=4, worker=0):
        """Text and finish of a request that must go well."""
        self.submit(name, text, tokens, worker)
        lines = self.read()
        assert lines[-1] == "idle", lines
        self.ask("release " + name)
        return check_answer(lines, name)

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(WAIT_S)
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait()


def check_answer(lines, name):
    """An answer has all its frames, in order, once; its text and count."""
    mine = [line.split(" ", 4) for line in lines
            if line.startswith("frame %s " % name)]
    types = [part[2] for part in mine]
    assert types.count("start") == 1 and types[0] == "start", lines
    assert types.count("finish") == 1 and types.count("usage") == 1, lines
    assert types.count("end") == 1 and types[-1] == "end", lines
    assert "error" not in types, lines
    assert "done " + name in lines, lines
    finish = [part for part in mine if part[2] == "finish"][0]
    text = "".join(part[4] for part in mine if part[2] == "text")
    return text, int(finish[4].split()[1])


class Pool:
    def __init__(self, conf, options=()):
        self.conf = conf
        self.options = list(options)
        self.folder = tempfile.mkdtemp(prefix="infer-")
        os.chmod(self.folder, 0o700)
        self.socket = os.path.join(self.folder, "pool")
        self.log_path = os.path.join(self.folder, "log")
        self.probes = []
        self.started = []
        self.nconf = 0
        self.supervisor = None

    def write_conf(self, conf=None):
        self.nconf += 1
        path = os.path.join(self.folder, "conf%d" % self.nconf)
        with open(path, "w") as f:
            for key, value in (conf or self.conf).items():
                f.write("%s %s\n" % (key, value))
        return path

    def start(self, *options):
        with open(self.log_path, "ab") as log:
            process = subprocess.Popen(
                [os.path.join(build_dir(), "nginx-infer-worker"),
                 "--supervise", "--verbose", "--socket", self.socket]
                + self.options + list(options),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=log)
        self.started.append(process)
        self.supervisor = process
        return process

    def probe(self, conf=None, **options):
        probe = Probe(self, conf, **options)
        self.probes.append(probe)
        return probe

    def serve(self, **options):
        """A supervisor and one attached generation whose workers are ready."""
        self.start()
        probe = self.probe(**options)
        probe.attach()
        for worker in range(int(options.get("workers", 1))):
            probe.ready(worker)
        return probe

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_log(self, text, limit=WAIT_S):
        wait_for(lambda: text in self.log(), "log line \"%s\"" % text, limit)

    def stop(self, allow=""):
        """Ends all nginx processes; then the pool must end by itself."""
        workers = [pid for process in self.started
                   for pid in children(process.pid)]
        try:
            for probe in self.probes:
                probe.close()
            for process in self.started:
                if process.poll() is None:
                    process.wait(WAIT_S)
            for pid in workers:
                wait_for(lambda: not alive(pid), "the end of %d" % pid, 5)
            assert not os.path.exists(self.socket), "the socket is left"
            bad = [line for line in self.log().splitlines()
                   if BAD.search(line)
                   and not (allow and re.search(allow, line))]
            assert not bad, "\n".join(bad)
        finally:
            for process in self.started:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            for pid in workers:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
