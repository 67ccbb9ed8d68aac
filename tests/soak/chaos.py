#!/usr/bin/env python3
"""kill -9 at random instants under load: each request ends once, as the table
in ARCHITECTURE.md says.

    chaos.py [--workers N] [--nginx N] [--supervisors N] [--masters N]
             [--real] [--seed N] [--connections N]

The numbers say how many processes of each kind are killed. Inference workers
belong to a pool that this program starts itself (`socket`), with the shortest
back-off that its supervisor takes (50 ms), so that they come back as fast as
they are killed; supervisors and masters are those of a usual nginx.

What is checked: no wrong byte; an error event only after a kill while the
request ran, a 502 only after two; a connection is cut only by the death of the
nginx worker that held it; slots, sequences and KV pages are free within a
second after the load pauses; descriptors are as many as before.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time

from server import (CLOCK, Load, Server, command_of, descendants, ended, model,
                    outside, say)

ROUND = 250                     # kills between two looks at what is left
IDLE_S = 1.0
SLACK_S = 0.5                   # between a kill and its answer's last byte
LOST = {"worker_lost", "worker_failed"}


def children_of(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


class Stage:
    """One server, one load, one kind of victim."""

    def __init__(self, options, name, server):
        self.options, self.name, self.server = options, name, server
        self.random = random.Random("%d %s" % (options.seed, name))
        self.kills = 0
        self.slowest = 0.0
        self.load = Load(server, connections=options.connections,
                         seed=options.seed,
                         **({"real": True} if options.real else {}))
        self.load.pause()
        time.sleep(1)
        self.before = server.descriptors()
        self.load.resume()

    def kill(self, pid, what):
        self.kills += self.server.shoot(pid, what)

    def look(self):
        """Nothing runs: what is left, and what was not explained."""
        sums = self.load.pause()
        self.slowest = max(self.slowest, self.server.idle(IDLE_S))
        after = self.settled()
        assert after == self.before, (self.before, after)
        assert not self.load.wrong(), self.load.wrong()[:3]
        self.explain()
        return sums

    def settled(self):
        deadline = CLOCK.now() + 3
        while CLOCK.now() < deadline:
            after = self.server.descriptors()
            if after == self.before:
                break
            time.sleep(0.02)
        return after

    def explain(self):
        assert not outside(self.server, self.load.problems), \
            outside(self.server, self.load.problems)[:3]
        for one in self.load.problems:
            code = one["what"].split(" ")[-1]
            need = {"event": 1, "refused": 2}.get(one["how"], 0)
            if not need:
                continue
            assert code in LOST, one
            kills = [when for when, _, what in self.server.killed
                     if what in ("inference worker", "supervisor", "master")
                     and one["begin"] - SLACK_S < when < one["end"]]
            assert len(kills) >= need, one

    def finish(self, allowed):
        sums = self.look()
        self.load.stop()
        ways = ended(sums)
        asked = ways.pop("asked")
        assert asked == sum(ways.values()), (asked, ways)
        odd = {way: n for way, n in ways.items()
               if way.split(" ")[0] not in allowed}
        assert not odd, odd
        assert self.slowest <= IDLE_S, self.slowest
        assert ways["ok"] > self.kills, ways
        say("%s: %d killed, seed %d; %d requests: %s; all free after at most "
            "%.3f s; ok p50 %s p99 %s ms" % (
                self.name, self.kills, self.options.seed, asked,
                ", ".join("%s %d" % pair for pair in sorted(ways.items())),
                self.slowest, sums.get("took_p50_ms"),
                sums.get("took_p99_ms")))

    def until(self, wanted, step):
        """Steps until so many were killed, with looks in between."""
        next_look = ROUND
        while self.kills < wanted:
            step()
            if self.kills >= next_look:
                next_look = self.kills + ROUND
                self.look()
                say(self.name, self.kills, "killed")
                self.load.resume()


def pause(stage, mean_s, real_s):
    """A real model takes seconds for an answer: with few kills between them
    something is seen of both."""
    time.sleep(stage.random.expovariate(
        1 / (real_s if stage.options.real else mean_s)))


def null(options):
    return "" if options.real else "null tokens=64 delay=2ms;"


class Pool:
    """A supervisor of ours, as a service manager would run it."""

    def __init__(self, server):
        self.socket = os.path.join(server.prefix, "pool", "socket")
        os.mkdir(os.path.dirname(self.socket), 0o700)
        build = os.path.dirname(server.worker)
        self.log = open(os.path.join(server.prefix, "pool.log"), "ab")
        self.process = subprocess.Popen(
            [os.path.join(build, "nginx-infer-worker"), "--supervise",
             "--keep", "--backoff-max-ms", "50", "--socket", self.socket],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def workers(self):
        return children_of(self.process.pid)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)
        self.log.close()


def kill_workers(options):
    """Inference workers, at any instant of their life."""
    count = 2 if options.real else 8
    server = Server(workers=2)
    server.write_conf(http=model(null(options), "workers %d; socket "
                                 "@PREFIX@/pool/socket;" % count))
    pool = Pool(server)
    server.start()
    stage = Stage(options, "inference workers", server)

    def step():
        pause(stage, 0.025, 1.0)
        victims = pool.workers()
        if victims:
            stage.kill(stage.random.choice(victims), "inference worker")

    try:
        stage.until(options.workers, step)
        stage.finish({"ok", "event", "refused"})
    except BaseException:
        stage.load.kill()
        server.destroy()
        raise
    finally:
        pool.end()
    server.stop()


def kill_nginx(options):
    """nginx's workers; now and then the keeper."""
    server = Server(workers=3)
    server.write_conf(http=model(null(options)))
    server.start()
    stage = Stage(options, "nginx workers", server)

    def step():
        pause(stage, 0.1, 4.0)
        victims = {pid: command_of(pid) for pid in children_of(server.pid)}
        workers = [pid for pid, command in victims.items()
                   if "nginx: worker process" in command]
        keepers = [pid for pid, command in victims.items()
                   if "cache manager" in command]
        if stage.random.random() < 0.05 and keepers:
            server.shoot(keepers[0], "keeper")
        elif workers:
            stage.kill(stage.random.choice(workers), "nginx worker")

    run(server, stage, options.nginx, step, {"ok", "cut", "unsent"})


def kill_supervisors(options):
    server = Server(workers=2)
    server.write_conf(http=model(null(options)))
    server.start()
    stage = Stage(options, "supervisors", server)

    def step():
        pause(stage, 0.4, 6.0)
        for pid in server.supervisors()[:1]:
            stage.kill(pid, "supervisor")

    run(server, stage, options.supervisors, step, {"ok", "event", "refused"})


def run(server, stage, wanted, step, allowed):
    try:
        stage.until(wanted, step)
        stage.finish(allowed)
    except BaseException:
        stage.load.kill()
        server.destroy()
        raise
    server.stop()


def kill_masters(options):
    """The master dies; its workers serve on, and when they die too nothing is
    left. Then nginx is started again."""
    server = Server(workers=2)
    server.write_conf(http=model(null(options)))
    server.start()
    stage = Stage(options, "masters", server)

    def step():
        time.sleep(stage.random.random() * (12 if options.real else 0.4))
        family = descendants(server.process.pid)
        stage.kill(server.process.pid, "master")
        server.process.wait()
        time.sleep(stage.random.random() * 0.2)
        assert server.get("/file").status == 200
        for pid in family:
            if command_of(pid).startswith("nginx:"):
                server.shoot(pid, "nginx worker")
        deadline = CLOCK.now() + 5
        while server.supervisors() or set(family) & set(
                descendants(os.getpid())):
            assert CLOCK.now() < deadline, "the pool does not end"
            server.reap()
            time.sleep(0.01)
        before = server.before
        Server.live.remove(server)
        server.stderr.close()
        Server.start(server)
        server.before = before

    run(server, stage, options.masters, step,
        {"ok", "event", "refused", "cut", "unsent", "noconnect"})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=10000)
    parser.add_argument("--nginx", type=int, default=2000)
    parser.add_argument("--supervisors", type=int, default=300)
    parser.add_argument("--masters", type=int, default=200)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    for number, stage in ((options.workers, kill_workers),
                          (options.nginx, kill_nginx),
                          (options.supervisors, kill_supervisors),
                          (options.masters, kill_masters)):
        if number:
            stage(options)
    say("chaos: ok; the machine stood still %d times, %.0f s" % (
        CLOCK.stalls, CLOCK.stalled))


if __name__ == "__main__":
    sys.exit(main())
