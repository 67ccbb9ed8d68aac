"""Life of a pool: attach, serve, generations, refusals, its end."""

import fcntl
import os
import signal
import socket
import subprocess
import time

import pytest

from pool import (DRAINING, NONE, READY, alive, build_dir, check_answer,
                  children, descriptors, wait_for)


@pytest.mark.parametrize("io_uring", [0, 1])
def test_answers(pool, io_uring):
    p = pool(io_uring=io_uring)
    probe = p.serve()
    info = probe.info()
    if io_uring and not info.counters["io_uring"]:
        assert "io_uring is not allowed here" in p.log()
        pytest.skip("io_uring is not allowed here")
    assert info.counters["io_uring"] == io_uring
    assert ("epoll" if not io_uring else "io_uring") in p.log()

    text, tokens = probe.answer("a", tokens=7)
    assert tokens == 7 and text
    assert probe.answer("b", tokens=7) == (text, 7)
    wait_for(lambda: probe.info().counters["requests"] == 2, "counters", 3)


@pytest.mark.parametrize("io_uring", [0, 1])
def test_many_requests_of_two_workers(pool, io_uring):
    p = pool(io_uring=io_uring, workers=2)
    probe = p.serve(workers=2)
    for worker in (0, 1):
        probe.send("many w%d- 30 %d 5 hello" % (worker, worker))
        for i in range(30):
            assert probe.line() == "submitted w%d-%d" % (worker, i)
    lines = probe.read()
    assert lines[-1] == "idle"
    texts = {check_answer(lines, "w%d-%d" % (worker, i))
             for worker in (0, 1) for i in range(30)}
    assert len(texts) == 1


def test_wakes_after_every_pause(pool):
    """A lost wake-up would show as a request that takes a tick or for ever."""
    probe = pool().serve()
    for i in range(200):
        time.sleep(0.002 * (i % 3))
        begin = time.monotonic()
        probe.answer("r%d" % i, tokens=1)
        assert time.monotonic() - begin < 0.9


def test_refuses_other_layout_and_model(pool):
    p = pool()
    probe = p.serve()
    assert "of different versions" in p.probe().ask("attach-abi")
    assert "does not fit its hash" in p.probe().ask("attach-hash")
    other = dict(p.conf, name="other")
    answer = p.probe(conf=other).ask("attach")
    assert answer.startswith("refused") and "\"null\"" in answer
    assert "workers" in p.probe(workers=2).ask("attach")
    assert p.probe().ask("ping").startswith("refused")
    assert probe.ask("ping") == "ok"
    assert probe.ask("attach") == "ok"          # the same again
    assert "nginx was refused" in p.log()
    probe.answer("a")


def test_refuses_bad_configuration(pool):
    p = pool()
    p.start()
    probe = p.probe(conf=dict(p.conf, colour="blue"))
    answer = wait_for(probe.try_attach, "an answer")
    assert "unknown key \"colour\"" in answer
    probe = p.probe()                           # the pool is still free
    assert probe.ask("attach") == "ok"
    probe.ready()


def test_two_generations_share_a_worker(pool):
    p = pool(null_delay_us=20000)
    old = p.serve()
    pid = old.info().pid
    old.submit("long", tokens=40)
    new = p.probe(clients=3)
    assert new.ask("attach") == "ok"
    assert new.ready().pid == pid
    new.submit("short", tokens=3)
    assert check_answer(new.read(), "short")[1] == 3
    assert check_answer(old.read(), "long")[1] == 40
    old.close()
    p.wait_log("has gone")
    assert new.answer("after")[1] == 4
    assert new.info().pid == pid


def test_generation_ends_with_requests_running(pool):
    p = pool(null_delay_us=20000)
    stays = p.serve()
    leaves = p.probe()
    assert leaves.ask("attach") == "ok"
    leaves.ready()
    leaves.submit("lost", tokens=1000)
    wait_for(lambda: stays.info().counters["running"] == 1, "it runs")
    leaves.kill()
    wait_for(lambda: stays.info().counters["running"] == 0, "it is dropped",
             3)
    assert stays.answer("next")[1] == 4


def test_reloads_leave_nothing_behind(pool):
    p = pool()
    probe = p.serve()
    worker = probe.info().pid
    before = None
    for i in range(24):                         # more than fit at once
        new = p.probe(clients=2)
        assert new.ask("attach") == "ok"
        new.ready()
        assert new.answer("r")[1] == 4
        probe.close()
        probe = new
        wait_for(lambda: p.log().count("has gone") >= 2 * (i + 1),
                 "the old one's end, twice")
        time.sleep(0.05)
        counts = (descriptors(p.supervisor.pid), descriptors(worker))
        if i >= 3:
            before = before or counts
            assert counts == before
    assert probe.info().pid == worker


def test_too_many_generations(pool):
    p = pool()
    probes = [p.serve()]
    while len(probes) < 16:
        probes.append(p.probe())
        assert probes[-1].ask("attach") == "ok"
    answer = p.probe().ask("attach")
    assert answer.startswith("refused") and "16" in answer
    probes[3].close()
    late = p.probe()
    wait_for(lambda: late.ask("attach") == "ok", "room for one more", 3)
    late.ready()
    assert late.answer("a")[1] == 4
    for probe in probes[:3] + probes[4:]:
        probe.ready()
        assert probe.answer("z")[1] == 4


def test_ends_after_the_last_generation(pool):
    p = pool()
    probe = p.serve()
    worker = probe.info().pid
    begin = time.monotonic()
    probe.close()
    assert p.supervisor.wait(10) == 0
    assert 0.5 < time.monotonic() - begin < 5
    assert not alive(worker)
    assert not os.path.exists(p.socket)


def test_quick_restart_of_nginx_keeps_the_worker(pool):
    p = pool()
    first = p.serve()
    pid = first.info().pid
    second = p.probe()
    first.close()
    assert second.ask("attach") == "ok"
    assert second.ready().pid == pid


def test_keep_serves_another_model_later(pool):
    p = pool(options=["--keep"])
    probe = p.serve()
    pid = probe.info().pid
    probe.close()
    p.wait_log("waiting for one")
    assert not alive(pid)
    other = p.probe(conf=dict(p.conf, name="other"))
    assert other.ask("attach") == "ok"
    other.ready()
    assert other.answer("a")[1] == 4
    other.close()
    p.supervisor.send_signal(signal.SIGTERM)
    assert p.supervisor.wait(10) == 0


def test_second_supervisor_leaves(pool):
    p = pool()
    probe = p.serve()
    first = p.supervisor
    second = p.start()
    assert second.wait(10) == 0
    assert "another supervisor" in p.log()
    assert first.poll() is None
    p.supervisor = first
    assert probe.answer("a")[1] == 4


def test_orphan_that_holds_the_socket(pool):
    """What answers for a moment only is no supervisor: a child of a killed one
    that had not yet begun its own program."""
    p = pool()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as orphan, \
            open(p.socket + ".lock", "w") as lock:
        os.chmod(lock.name, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan.bind(p.socket)
        orphan.listen()
        p.start()
        assert orphan.accept()                  # it has been met
    probe = p.probe()
    probe.attach()
    probe.ready()
    assert p.supervisor.poll() is None
    assert probe.answer("a")[1] == 4


def test_supervisors_started_at_once(pool):
    for _ in range(5):
        p = pool()
        started = [p.start() for _ in range(6)]
        probe = p.probe()
        probe.attach()
        probe.ready()
        wait_for(lambda: sum(s.poll() is None for s in started) == 1,
                 "one supervisor")
        assert all(s.returncode == 0 for s in started
                   if s.poll() is not None)
        assert probe.answer("a")[1] == 4
        probe.close()


def test_open_folder_is_refused(pool):
    p = pool()
    os.chmod(p.folder, 0o777)
    assert p.start().wait(10) == 1
    assert "can be written by others" in p.log()
    p.allow = "can be written by others"


def test_garbage_on_the_control_socket(pool):
    p = pool()
    probe = p.serve()
    for data in (b"", b"x", b"\0" * 4000, os.urandom(60000)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(p.socket)
            s.send(data)
            s.settimeout(5)
            try:
                assert s.recv(1) == b""
            except ConnectionResetError:
                pass
    # More connections than it keeps; those that say nothing cost nothing.
    idle = []
    for _ in range(20):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(p.socket)
        idle.append(s)
    for s in idle:
        s.close()
    assert probe.ask("ping") == "ok"
    assert probe.answer("a")[1] == 4


def test_sigterm_drains(pool):
    p = pool(null_delay_us=20000)
    probe = p.serve()
    worker = probe.info().pid
    probe.submit("running", tokens=40)
    wait_for(lambda: probe.info().counters["running"] == 1, "it runs")
    p.supervisor.send_signal(signal.SIGTERM)
    wait_for(lambda: probe.info().state == DRAINING, "draining")
    assert not os.path.exists(p.socket)
    probe.submit("late", tokens=2)              # stays where it is
    lines = probe.read(3000)
    assert check_answer(lines, "running")[1] == 40
    assert lines[-1] == "timeout"
    assert probe.ask("state late") == "state late queued"
    assert p.supervisor.wait(10) == 0
    assert not alive(worker)
    assert probe.info().state == NONE

    # A successor takes what was left in the ring.
    p.start()
    probe.ask("close")
    probe.attach()
    assert check_answer(probe.read(), "late")[1] == 2


def test_drain_has_a_limit(pool):
    p = pool(options=["--drain-ms", "300"], null_delay_us=50000)
    probe = p.serve()
    probe.submit("endless", tokens=4000)
    wait_for(lambda: probe.info().counters["running"] == 1, "it runs")
    p.supervisor.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert p.supervisor.wait(10) == 0
    assert 0.2 < time.monotonic() - begin < 3
    assert "lost endless" in probe.read(3000)


def test_terminal_signals_are_ignored(pool):
    p = pool()
    probe = p.serve()
    for sig in (signal.SIGHUP, signal.SIGINT):
        p.supervisor.send_signal(sig)
        os.kill(probe.info().pid, sig)
    time.sleep(0.1)
    assert probe.answer("a")[1] == 4
    assert os.getsid(p.supervisor.pid) == p.supervisor.pid


def test_nothing_leaks_into_the_pool(pool):
    """nginx's descriptors and signal mask stop at the supervisor."""
    p = pool()
    read, write = os.pipe()
    os.set_inheritable(write, True)
    with open(p.log_path, "ab") as log:
        p.supervisor = subprocess.Popen(
            [os.path.join(build_dir(), "nginx-infer-worker"), "--supervise",
             "--socket", p.socket], stderr=log, close_fds=False,
            preexec_fn=lambda: signal.pthread_sigmask(
                signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM}))
    p.started.append(p.supervisor)
    os.close(write)
    probe = p.probe()
    probe.attach()
    pid = probe.ready().pid
    os.set_blocking(read, True)
    assert os.read(read, 1) == b""              # nobody holds the other end
    os.close(read)
    for process in (p.supervisor.pid, pid):
        with open("/proc/%d/status" % process) as f:
            status = dict(line.split(":\t", 1) for line in f if ":\t" in line)
        blocked = int(status["SigBlk"], 16)
        assert not blocked & (1 << (signal.SIGUSR1 - 1))
        assert not blocked & (1 << (signal.SIGALRM - 1))
        assert status["NoNewPrivs"].strip() == "1"


def test_worker_is_polite(pool):
    p = pool(nice=7)
    probe = p.serve()
    pid = probe.info().pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    with open("/proc/%d/limits" % pid) as f:
        core = [line for line in f if line.startswith("Max core")][0]
    assert core.split()[4:6] == ["0", "0"]
    group = "/proc/%d/autogroup" % pid
    if os.path.exists(group):
        with open(group) as f:
            text = f.read()
        assert not text.startswith("/") or text.split()[-1] == "7"


def run_check(conf):
    return subprocess.run(
        [os.path.join(build_dir(), "nginx-infer-worker"), "--check"],
        input="".join("%s %s\n" % item for item in conf.items()),
        text=True, stdout=subprocess.PIPE, timeout=WAIT)


WAIT = 30


def test_check(smollm2):
    conf = smollm2().conf
    good = run_check(conf)
    lines = good.stdout.splitlines()
    assert good.returncode == 0 and lines[0] == "ok"
    keys = dict(line.split(" ", 1) for line in lines[1:])
    assert keys["architecture"] == "llama" and keys["context"] == "1024"
    assert int(keys["parameters"]) > 130000000
    assert int(keys["weights_bytes"]) > 80000000
    assert int(keys["kv_bytes"]) > 0

    for change in ({"file": "/nonexistent"}, {"workers": 0},
                   {"file": "/dev/zero"}, {"template": "/nonexistent"},
                   {"template": __file__ + ".none"}, {"context": 1 << 20}):
        bad = run_check(dict(conf, **change))
        assert bad.returncode == 1, change
        assert bad.stdout.startswith("error ")
        assert len(bad.stdout.splitlines()) == 1


def test_command_line():
    def run(*arguments):
        return subprocess.run(
            [os.path.join(build_dir(), "nginx-infer-worker"), *arguments],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, timeout=WAIT)

    version = run("--version")
    assert version.returncode == 0 and "abi " in version.stdout
    assert run("--help").returncode == 0
    for bad in ((), ("--supervise",), ("--socket",), ("--frobnicate",),
                ("--supervise", "--check"), ("--worker",),
                ("--supervise", "--socket", "/x", "--hang-ms", "99"),
                ("--supervise", "--socket", "/x", "--hang-ms", "1s")):
        result = run(*bad)
        assert result.returncode == 2 and result.stderr, bad
    relative = run("--supervise", "--socket", "pool")
    assert relative.returncode == 1 and "absolute" in relative.stderr
