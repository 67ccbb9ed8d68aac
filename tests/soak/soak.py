#!/usr/bin/env python3
"""A long time of usual work with kills and reloads: what grows, what is left?

    soak.py [--seconds N] [--kill N] [--reload N] [--rate N] [--seed N]

Every --kill seconds a process dies (an inference worker, an nginx worker, the
supervisor, the keeper by turns), every --reload seconds nginx is reloaded, and
every fourth reload changes the null model's configuration. Two models are
asked: the null model --rate times a second, the real one once a second; a
static file is read 100 times a second.

Memory is RssAnon + VmSwap of each kind of process, its slope the line of least
squares after the first quarter. Checked: no wrong byte; the slope of master,
supervisors and inference workers below 1 MiB/h (from 20 minutes on: less says
nothing); descriptors as before, all slots, sequences and KV pages free.
"""

import argparse
import random
import sys
import time

from server import (CLOCK, SERVER, SHUTDOWN_S, Load, Server, ended, model,
                    outside, say)

SAMPLE_S = 5
SAY_S = 600
SLOPE_FROM_S = 1200
SLOPE_MAX_KIB = 1024            # an hour
REAL = """
    infer_model real {
        file       @MODELS@/smollm2.gguf;
        threads    1;
        context    1024;
        sequences  8;
        slots      64;
    }
"""


def slope(points):
    """KiB an hour, by least squares."""
    n = len(points)
    if n < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y)
                      for x, y in points) / below


class Soak:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.turns = self.reloads = 0
        self.memory = {}                # kind: [(seconds, KiB)]
        self.server = Server(
            workers=2, http=model() + REAL, server=SERVER + """
        location /real/v1/ { infer_pass real; }""")

    def kill(self):
        server = self.server
        kind = ("inference worker", "nginx worker", "supervisor",
                "keeper")[self.turns % 4]
        pids = {"inference worker": server.inference_workers,
                "nginx worker": server.nginx_workers,
                "supervisor": server.supervisors,
                "keeper": lambda: server.children("cache manager")}[kind]()
        self.turns += 1
        if pids:
            server.shoot(self.random.choice(pids), kind)

    def reload(self):
        self.reloads += 1
        if self.reloads % 4 == 0:
            self.server.write_conf(http=model(
                "null tokens=%d delay=2ms;" % (64 + self.reloads // 4 % 2))
                + REAL)
        self.server.reloaded.append(time.monotonic())
        self.server.kill(1)

    def sample(self, at):
        for kind, kib in self.server.memory().items():
            self.memory.setdefault(kind, []).append((at, kib))

    def work(self):
        """Sleeps, kills, reloads, looks at the memory."""
        options, begin, stalls = self.options, CLOCK.now(), CLOCK.stalls
        next_kill, next_reload = options.kill, options.reload
        next_sample, next_word = 0.0, SAY_S
        while CLOCK.now() - begin < options.seconds:
            at = CLOCK.now() - begin
            status = self.server.process.poll()
            assert status is None, "the master ended, status %d" % status
            if at >= next_word:
                next_word = at + SAY_S
                say("%.0f s: %d kills, %d reloads, %d not well" % (
                    at, len(self.server.killed), self.reloads,
                    sum(len(load.problems) for load in self.loads)))
            if at >= next_kill:
                next_kill = at + options.kill
                self.kill()
            if at >= next_reload:
                next_reload = at + options.reload
                self.reload()
            if at >= next_sample:
                next_sample = at + SAMPLE_S
                if stalls == CLOCK.stalls:
                    self.sample(at)
                stalls = CLOCK.stalls
            time.sleep(0.1)

    def slopes(self):
        warm = self.options.seconds / 4
        return {kind: slope([p for p in points if p[0] > warm])
                for kind, points in self.memory.items()}

    def settle(self):
        while self.server.children("worker process is shutting down"):
            time.sleep(0.1)
        time.sleep(2.5)
        return self.server.descriptors()

    def run(self):
        server, options = self.server, self.options
        server.start()
        self.loads = loads = [
            Load(server, connections=40, rate=options.rate,
                 seed=options.seed, static=True),
            Load(server, connections=4, rate=1, seed=options.seed,
                 prefix="/real", real=True)]
        try:
            for load in loads:
                load.pause()
            before = self.settle()
            quiet = loads[0].pause()
            time.sleep(min(30, options.seconds / 4))
            quiet = loads[0].pause()
            for load in loads:
                load.resume()
            self.work()
            sums = [load.pause() for load in loads]
            idle = server.idle()
            after = self.settle()
            for load in loads:
                load.stop()
        except BaseException:
            for load in loads:
                load.kill()
            server.destroy()
            raise
        problems = loads[0].problems + loads[1].problems
        server.allow("gave no verdict")
        server.stop()
        self.report(quiet, sums, idle, before, after, problems)

    def report(self, quiet, sums, idle, before, after, problems):
        options = self.options
        say("soak: %d s, %d kills, %d reloads, seed %d; stood still %d "
            "times, %.0f s" % (options.seconds, len(self.server.killed),
                               self.reloads, options.seed, CLOCK.stalls,
                               CLOCK.stalled))
        for name, one in zip(("null", "real"), sums):
            say("  %s: %s" % (name, ended(one)))
        say("  static file: p99 %s ms at rest, %s ms through all of it (%d)"
            % (quiet.get("static_p99_ms"), sums[0].get("static_p99_ms"),
               sums[0].get("static_n", 0)))
        slopes = self.slopes()
        for kind, points in sorted(self.memory.items()):
            say("  %-15s %6d KiB at first, %6d at the end, slope %+.0f "
                "KiB/h" % (kind, points[0][1], points[-1][1], slopes[kind]))
        say("  descriptors before %s, after %s; idle after %.3f s" % (
            before, after, idle))
        late = [one for one in problems if one["how"] == "cut"
                and one["end"] - one["begin"] > SHUTDOWN_S - 1]
        if late:
            say("  %d of the cut requests ran longer than the %d s that a "
                "worker has after a reload" % (len(late), SHUTDOWN_S))
        wrong = [one for one in problems if one["how"] == "wrong"]
        assert not wrong, wrong[:3]
        odd = outside(self.server, problems)
        assert not odd, (len(odd), odd[:5])
        assert after == before and idle < 1
        # a busy machine has no answer of the real model in a few seconds
        assert sums[0].get("ok", 0) > 10
        assert sums[1].get("ok", 0) > 1 or options.seconds < 60
        if options.seconds >= SLOPE_FROM_S:
            grown = {kind: rate for kind, rate in slopes.items()
                     if rate > SLOPE_MAX_KIB}
            assert not grown, grown
        say("soak: ok")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--kill", type=float, default=20)
    parser.add_argument("--reload", type=float, default=30)
    parser.add_argument("--rate", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    Soak(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
