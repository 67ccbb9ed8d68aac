"""One nginx with our module, in a folder of its own on a free port.

Stopping it checks what every test wants checked: nothing at [alert] or
[emerg] in the error log, no sanitizer report, a clean end, no process left.
"""

import ctypes
import http.client
import json
import os
import pwd
import grp
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

READY_WAIT_S = 120
STOP_WAIT_S = 30
TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PR_SET_CHILD_SUBREAPER = 36

BAD = re.compile(r"\[(alert|emerg)\]"
                 r"|ERROR: (Address|Leak|Thread|Memory|UndefinedBehavior)"
                 r"Sanitizer|WARNING: ThreadSanitizer|runtime error: "
                 r"|Assertion .* failed")

CONF = """
load_module {build}/ngx_http_infer_module.so;
{user}
daemon            {daemon};
worker_processes  {workers};
pid               {prefix}/nginx.pid;
error_log         {prefix}/error.log {level};
env               ASAN_OPTIONS;
env               UBSAN_OPTIONS;
{main}

events {{
    worker_connections  512;
}}

http {{
    access_log             {prefix}/access.log;
    client_body_temp_path  {prefix}/body;
    proxy_temp_path        {prefix}/proxy;
    fastcgi_temp_path      {prefix}/fastcgi;
    uwsgi_temp_path        {prefix}/uwsgi;
    scgi_temp_path         {prefix}/scgi;
    infer_worker           {build}/nginx-infer-worker;
    infer_run_path         {prefix}/infer;
{http}

    server {{
        listen  127.0.0.1:{port};
{server}
    }}
}}
"""


def build_dir():
    return os.path.abspath(os.environ.get("INFER_BUILD")
                           or os.path.join(TOP, "build"))


def models_dir():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("INFER_MODELS") or os.path.join(cache,
                                                          "nginx-infer")


def nginx_binary():
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return os.environ.get("INFER_NGINX") or shutil.which("nginx", path=path)


def is_sanitized():
    return os.path.basename(build_dir()) in ("debug", "tsan")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def become_subreaper():
    """What loses its parent becomes our child, so nothing escapes notice."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def processes():
    """pid: (parent, state, start time) of every process."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name) as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(name)] = (int(fields[1]), fields[0], int(fields[19]))
    return found


def descendants(root):
    """{pid: start time} of what lives below root, zombies left out."""
    table, found = processes(), {}
    level = [root]
    while level:
        level = [pid for pid, (parent, _, _) in table.items()
                 if parent in level and pid not in found]
        for pid in level:
            found[pid] = table[pid][2]
    return {pid: start for pid, start in found.items()
            if table[pid][1] != "Z"}


def command_of(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Nginx:
    """http, server, main: text put into those blocks of the configuration;
    @MODELS@ and @PREFIX@ in it are replaced. ready: a path to wait for, or
    None to wait for the port only."""

    live = []

    def __init__(self, http="", server="", main="", workers=1, ready=None,
                 daemon=False, level="info", start=True):
        self.prefix = tempfile.mkdtemp(prefix="infer-")
        self.log_path = os.path.join(self.prefix, "error.log")
        self.allowed = []
        self.process = None
        self.ready = ready
        self.daemon = daemon
        self.parts = dict(http=http, server=server, main=main,
                          workers=workers, level=level)
        self.port = free_port()
        self.write_conf()
        if start:
            try:
                self.start()
            except BaseException:
                self.destroy()
                raise

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    # ---- configuration and life cycle

    def write_conf(self, **changes):
        """Rewrites nginx.conf with these parts changed; see reload()."""
        self.parts.update(changes)
        user = ""
        if os.geteuid() == 0:
            user = "user %s %s;" % (pwd.getpwuid(0).pw_name,
                                    grp.getgrgid(0).gr_name)
        text = CONF.format(build=build_dir(), prefix=self.prefix, user=user,
                           port=self.port,
                           daemon="on" if self.daemon else "off",
                           **self.parts)
        text = text.replace("@MODELS@", models_dir())
        text = text.replace("@PREFIX@", self.prefix)
        with open(self.conf, "w") as file:
            file.write(text)

    @property
    def conf(self):
        return os.path.join(self.prefix, "nginx.conf")

    def command(self, *more):
        return [nginx_binary(), "-p", self.prefix + "/", "-e", self.log_path,
                "-c", self.conf, *more]

    def environment(self):
        env = dict(os.environ)
        env.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        if is_sanitized() and "asan" not in os.path.basename(nginx_binary()):
            env["LD_PRELOAD"] = subprocess.check_output(
                ["gcc", "-print-file-name=libasan.so"], text=True).strip()
        return env

    def test_conf(self):
        """nginx -t: (status, what it said)."""
        done = subprocess.run(self.command("-t"), env=self.environment(),
                              stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=READY_WAIT_S)
        return done.returncode, done.stdout

    def start(self):
        become_subreaper()
        self.before = descendants(os.getpid())
        self.stderr = open(os.path.join(self.prefix, "stderr.log"), "ab")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command(), env=self.environment(), stdin=subprocess.DEVNULL,
            stdout=self.stderr, stderr=self.stderr)
        Nginx.live.append(self)
        self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + READY_WAIT_S
        while time.monotonic() < deadline:
            if not self.daemon and self.process.poll() is not None:
                raise AssertionError("nginx ended with status %d\n%s" % (
                    self.process.returncode, self.log()))
            if self.answers():
                return
            time.sleep(0.02)
        raise AssertionError("not ready after %d s\n%s" % (READY_WAIT_S,
                                                           self.log()))

    def answers(self):
        try:
            if self.ready:
                return self.get(self.ready, timeout=5).status == 200
            socket.create_connection(("127.0.0.1", self.port), 5).close()
            return True
        except (OSError, http.client.HTTPException):
            return False

    @property
    def pid(self):
        with open(os.path.join(self.prefix, "nginx.pid")) as file:
            return int(file.read())

    def kill(self, number):
        os.kill(self.pid, number)

    def reload(self):
        """HUP, then waits until the new generation's workers have begun."""
        mark = len(self.log())
        self.kill(signal.SIGHUP)
        self.wait_log(r"start worker process", mark)

    def children(self, word=""):
        """Processes below the master whose command line contains word."""
        return sorted(pid for pid in descendants(self.pid)
                      if word in command_of(pid))

    # ---- the log

    def log(self):
        """The error log and what was written to stderr."""
        text = ""
        for name in ("error.log", "stderr.log"):
            try:
                with open(os.path.join(self.prefix, name),
                          errors="replace") as file:
                    text += file.read()
            except OSError:
                pass
        return text

    def wait_log(self, pattern, begin=0, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.log()[begin:]):
            if time.monotonic() > deadline:
                raise AssertionError("the log never said %r\n%s" % (
                    pattern, self.log()[-4000:]))
            time.sleep(0.02)

    def allow(self, pattern):
        """Lines of the log that match are expected, [alert] or not."""
        self.allowed.append(re.compile(pattern))

    def bad_lines(self):
        return [line for line in self.log().split("\n") if BAD.search(line)
                and not any(p.search(line) for p in self.allowed)]

    # ---- the end

    def stop(self, number=signal.SIGQUIT):
        """Ends it and fails on whatever it left."""
        if self.process is None:
            return self.destroy()
        try:
            problems = self.end(number)
            problems += self.bad_lines()
            log = self.log()
        finally:
            self.destroy()
        if problems:
            raise AssertionError("\n".join(problems + ["--- log:",
                                                       log[-6000:]]))

    def end(self, number):
        problems = []
        try:
            if self.is_alive():
                self.kill(number)
        except (FileNotFoundError, ProcessLookupError):
            pass                    # it is just ending by itself
        if not self.wait_gone(lambda: not self.is_alive()):
            problems.append("nginx does not end on signal %d" % number)
        elif not self.daemon and self.process.wait() not in (0, -9):
            problems.append("nginx ended with status %d"
                            % self.process.returncode)
        if not self.wait_gone(lambda: not self.leaked()):
            problems += ["left behind: %d %s" % (pid, command_of(pid))
                         for pid in self.leaked()]
        return problems

    def is_alive(self):
        if not self.daemon:
            return self.process.poll() is None
        try:
            return self.pid in descendants(os.getpid())
        except OSError:
            return False

    def wait_gone(self, condition):
        deadline = time.monotonic() + STOP_WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.reap()
            time.sleep(0.02)
        return True

    def reap(self):
        """Orphans come to us; our own Popen objects wait for themselves."""
        ours = {server.process.pid for server in Nginx.live
                if server.process}
        for pid, (parent, state, _) in processes().items():
            if parent == os.getpid() and state == "Z" and pid not in ours:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass

    def leaked(self):
        """Our descendants that are not of before and not another's."""
        found = descendants(os.getpid())
        for pid, start in self.before.items():
            if found.get(pid) == start:
                del found[pid]
        for server in Nginx.live:
            if server is not self and server.process:
                for pid in [server.process.pid,
                            *descendants(server.process.pid)]:
                    found.pop(pid, None)
        return [pid for pid in found
                if not any(server.prefix in command_of(pid)
                           for server in Nginx.live if server is not self)]

    def destroy(self):
        """Whatever happened before: no process and no file is left."""
        if self.process is not None:
            if self.is_alive():
                self.kill(signal.SIGTERM)
                self.wait_gone(lambda: not self.is_alive())
            for pid in self.leaked():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.reap()
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process = None
            self.stderr.close()
            Nginx.live.remove(self)
        shutil.rmtree(self.prefix, ignore_errors=True)

    # ---- requests

    def request(self, method, path, body=None, headers=(), timeout=120):
        """Text and bytes go as they are, anything else as JSON."""
        headers = dict(headers)
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        conn = http.client.HTTPConnection("127.0.0.1", self.port,
                                          timeout=timeout)
        try:
            conn.request(method, path, body, headers)
            answer = conn.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            conn.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body, **more):
        return self.request("POST", path, body, **more)

    def stream(self, path, body, timeout=120):
        """Posts and yields the data of each server-sent event as text."""
        conn = http.client.HTTPConnection("127.0.0.1", self.port,
                                          timeout=timeout)
        try:
            conn.request("POST", path, json.dumps(body),
                         {"Content-Type": "application/json"})
            answer = conn.getresponse()
            if answer.status != 200:
                raise AssertionError("%d %s" % (answer.status,
                                                answer.read()))
            for line in answer:
                if line.startswith(b"data: "):
                    yield line[6:].strip().decode()
        finally:
            conn.close()

    def openai(self, **more):
        """A client of the openai package for this server."""
        import openai
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none",
                             max_retries=0, **more)
