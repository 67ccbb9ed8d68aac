"""Processes that are killed, stopped, or slow, at every level."""

import os
import random
import re
import signal
import time

import pytest

from pool import (LOADING, NONE, READY, alive, check_answer, children,
                  wait_for)


def retry_lost(probe, lines, name, incarnation):
    """As nginx does it: what was lost without a byte is sent again."""
    assert "lost " + name in lines, lines
    probe.ready(incarnation=incarnation)
    assert probe.ask("retry %s 0" % name) == "ok"
    return check_answer(probe.read(), name)


@pytest.mark.parametrize("io_uring", [0, 1])
def test_killed_worker_comes_back(pool, io_uring):
    p = pool(io_uring=io_uring, null_delay_us=20000)
    probe = p.serve()
    info = probe.info()
    probe.submit("a", tokens=200)
    wait_for(lambda: probe.ask("state a") == "state a running", "it runs")
    os.kill(info.pid, signal.SIGKILL)
    lines = probe.read()
    assert "lost a" in lines
    new = probe.ready(incarnation=info.incarnation)
    assert new.pid != info.pid and new.incarnation == info.incarnation + 1
    probe.ask("release a")
    assert probe.answer("b")[1] == 4
    assert "was ended by signal 9; a new one is started" in p.log()


def test_queued_request_waits_for_the_successor(pool):
    p = pool()
    probe = p.serve()
    info = probe.info()
    os.kill(info.pid, signal.SIGSTOP)
    probe.submit("a")
    os.kill(info.pid, signal.SIGKILL)
    assert check_answer(probe.read(), "a")[1] == 4
    assert probe.info().incarnation == info.incarnation + 1


def test_lost_request_is_answered_by_the_successor(pool):
    p = pool(null_delay_us=300000)              # no token before it dies
    probe = p.serve()
    info = probe.info()
    probe.submit("a", tokens=2)
    wait_for(lambda: probe.ask("state a") == "state a running", "it runs")
    os.kill(info.pid, signal.SIGKILL)
    lines = probe.read()
    assert not [line for line in lines if line.startswith("frame a text")]
    assert retry_lost(probe, lines, "a", info.incarnation)[1] == 2


def test_back_off_grows_and_ends(pool):
    p = pool(options=["--backoff-max-ms", "400"])
    probe = p.serve()
    for pause in (0, 50, 100, 200, 400, 400):
        info = probe.info()
        os.kill(info.pid, signal.SIGKILL)
        begin = time.monotonic()
        probe.ready(incarnation=info.incarnation)
        assert time.monotonic() - begin >= pause / 1000
    said = re.findall(r"a new one is started in (\d+) ms", p.log())
    assert said == ["0", "50", "100", "200", "400", "400"]
    assert probe.answer("a")[1] == 4


def test_model_that_cannot_be_loaded(pool, tmp_path):
    model = tmp_path / "model.gguf"
    p = pool(options=["--backoff-max-ms", "300"], file=str(model))
    p.start()
    probe = p.probe()
    probe.attach()
    p.wait_log("cannot serve")
    wait_for(lambda: p.log().count("cannot serve") >= 4, "tries")
    assert "next try in 0 ms" in p.log() and "next try in 50 ms" in p.log()
    assert probe.info().state in (NONE, LOADING)
    probe.submit("early")                       # waits for the model

    # As soon as the file is there, it serves.
    source = probe.pool.conf["file"]
    os.symlink(os.path.realpath(os.path.join(
        os.path.dirname(real_model()), "smollm2.gguf")), source)
    probe.ready()
    assert check_answer(probe.read(), "early")[1] == 4


def real_model():
    from conftest import model_path
    return model_path("smollm2.gguf")


def test_killed_supervisor_takes_its_workers_along(pool):
    p = pool(null_delay_us=20000, workers=2)
    probe = p.serve(workers=2)
    workers = [probe.info(w).pid for w in (0, 1)]
    assert sorted(children(p.supervisor.pid)) == sorted(workers)
    probe.submit("a", tokens=200)
    wait_for(lambda: probe.ask("state a") == "state a running", "it runs")
    p.supervisor.send_signal(signal.SIGKILL)
    p.supervisor.wait()
    for pid in workers:
        wait_for(lambda: not alive(pid), "no stray", 5)

    # The keeper starts another; it finds the old socket and takes its place.
    assert os.path.exists(p.socket)
    incarnation = probe.info().incarnation
    p.start()
    probe.ask("close")
    probe.attach()
    probe.ready(incarnation=incarnation)
    assert "lost a" in probe.read()
    probe.ask("release a")
    assert probe.answer("b")[1] == 4


def test_supervisor_waits_for_a_stray(pool):
    """While a worker of a dead supervisor lives, no other may start."""
    p = pool()
    probe = p.serve()
    info = probe.info()
    # A worker that does not end: hold the lock as it does.
    lock = os.open(p.socket + ".lock", os.O_RDWR)
    os.kill(info.pid, signal.SIGSTOP)
    p.supervisor.send_signal(signal.SIGKILL)
    p.supervisor.wait()
    wait_for(lambda: not alive(info.pid), "it is killed all the same", 5)
    import fcntl
    wait_for(lambda: try_lock(fcntl, lock), "lock is free", 5)
    p.start()
    time.sleep(0.5)
    probe.ask("close")
    assert probe.ask("attach").startswith("error")
    os.close(lock)
    probe.attach()
    probe.ready(incarnation=info.incarnation)
    assert probe.answer("a")[1] == 4


def try_lock(fcntl, fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def test_hanging_worker_is_replaced(pool):
    p = pool(options=["--hang-ms", "1500"])
    probe = p.serve()
    time.sleep(2)                               # idle is not hanging
    info = probe.info()
    assert info.incarnation == 1
    os.kill(info.pid, signal.SIGSTOP)
    probe.submit("a")
    begin = time.monotonic()
    assert check_answer(probe.read(), "a")[1] == 4
    assert time.monotonic() - begin < 10
    assert "has not moved for 1500 ms" in p.log()
    assert "for it had stopped working" in p.log()
    assert not alive(info.pid)


def test_client_death_drops_its_requests(pool):
    p = pool(null_delay_us=20000)
    probe = p.serve(clients=2)
    child = int(probe.ask("child 1 0 4000 hello").split()[1])
    wait_for(lambda: probe.info().counters["running"] == 1, "it runs")
    probe.submit("mine", tokens=30)
    os.kill(child, signal.SIGKILL)
    begin = time.monotonic()
    wait_for(lambda: probe.info().counters["cancelled_decode"] == 1,
             "it is dropped", 5)
    assert time.monotonic() - begin < 0.5       # told, not found by chance
    assert check_answer(probe.read(), "mine")[1] == 30


def test_client_replaced(pool):
    p = pool(null_delay_us=20000)
    probe = p.serve(clients=2)
    for _ in range(3):
        child = int(probe.ask("child 1 0 4000 hello").split()[1])
        wait_for(lambda: probe.info().counters["running"] == 1, "it runs")
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: probe.info().counters["running"] == 0, "dropped", 5)


def test_cancel_and_release(pool):
    p = pool(null_delay_us=20000)
    probe = p.serve()
    probe.submit("a", tokens=4000)
    probe.submit("b", tokens=4000)
    probe.submit("c", tokens=100)
    wait_for(lambda: probe.info().counters["running"] == 3, "they run")
    assert probe.ask("cancel a") == "ok"
    assert probe.ask("release b") == "ok"
    wait_for(lambda: probe.info().counters["running"] == 1, "dropped", 3)
    lines = probe.read()
    assert check_answer(lines, "c")[1] == 100
    assert "done a" in " ".join(lines)


def test_slow_reader_costs_only_itself(pool):
    p = pool()
    probe = p.serve(resp=8192)
    probe.submit("slow", tokens=3000)
    probe.ask("pause slow")
    time.sleep(0.3)
    begin = time.monotonic()
    for i in range(20):
        assert probe.answer("r%d" % i, tokens=10)[1] == 10
    assert time.monotonic() - begin < 5
    assert probe.ask("state slow") == "state slow running"

    # The worker sleeps meanwhile, and comes back when there is room.
    def cpu():
        with open("/proc/%d/stat" % probe.info().pid) as f:
            return sum(int(n) for n in
                       f.read().rsplit(")", 1)[1].split()[11:13])
    before = cpu()
    time.sleep(1)
    assert cpu() - before <= 10                 # hundredths of a second
    probe.ask("resume slow")
    assert check_answer(probe.read(), "slow")[1] == 3000


def test_idle_costs_nothing(pool):
    probe = pool().serve()
    probe.answer("a")
    time.sleep(0.2)
    with open("/proc/%d/status" % probe.info().pid) as f:
        before = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)",
                               f.read(), re.M).group(1))
    time.sleep(3)
    with open("/proc/%d/status" % probe.info().pid) as f:
        after = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)",
                              f.read(), re.M).group(1))
    assert after - before <= 10


def test_random_kills(pool):
    """Requests, kills of workers and supervisors, in any order: each request
    ends, and everything that ended well is right."""
    p = pool(options=["--backoff-max-ms", "50"], workers=2,
             null_delay_us=2000)
    probe = p.serve(workers=2)
    want = probe.answer("ref", tokens=12)
    chance = random.Random(1)
    ended = lost = 0

    for turn in range(25):
        for i in range(8):
            probe.submit("t%d" % i, tokens=12, worker=i % 2)
        time.sleep(chance.random() * 0.03)
        if turn % 8 == 7:
            p.supervisor.send_signal(signal.SIGKILL)
            p.supervisor.wait()
            p.start()
            probe.ask("close")
            probe.attach()
        else:
            pid = probe.info(chance.randrange(2)).pid
            if pid > 0:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        lines = probe.read()
        assert lines[-1] == "idle", lines
        for i in range(8):
            name = "t%d" % i
            if "lost " + name in lines:
                lost += 1
            else:
                assert check_answer(lines, name) == want
                ended += 1
            probe.ask("release " + name)
    assert ended > 0 and lost > 0
    for w in (0, 1):
        probe.ready(w)
        assert probe.answer("last%d" % w, tokens=12, worker=w) == want


def test_smollm2_survives_a_kill(smollm2):
    p = smollm2()
    probe = p.serve()
    prompt = "The capital of France is"
    text, tokens = probe.answer("a", prompt, 8)
    assert tokens == 8 and "Paris" in text
    info = probe.info()
    os.kill(info.pid, signal.SIGKILL)
    begin = time.monotonic()
    probe.ready(incarnation=info.incarnation)
    took = time.monotonic() - begin
    print("ready again after %.1f ms" % (took * 1000))
    assert "memfd" in p.log()                   # nothing was packed again
    assert probe.answer("b", prompt, 8) == (text, 8)
