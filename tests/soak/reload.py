#!/usr/bin/env python3
"""Reloads under load: not one request may fail.

    reload.py [--reloads N] [--connections N] [--swap N] [--seed N]

Every --swap'th reload changes the model's configuration (another number of
tokens for requests that do not say one), so another pool is started beside the
old one. Ends with one line of figures; status 0 when every answer was right.
"""

import argparse
import signal
import sys
import time

from server import CLOCK, Load, Server, ended, model, say

GENERATIONS = 12                # of 16 that a pool takes
WAIT_S = 30


def generation(server):
    return server.status()["generation"]


def reload_once(server, seen):
    """Until a worker of a generation that was not seen before answers."""
    stalls = CLOCK.stalls
    server.kill(signal.SIGHUP)
    deadline = CLOCK.now() + WAIT_S
    while CLOCK.now() < deadline:
        if stalls != CLOCK.stalls:      # nginx may have given up a check
            stalls = CLOCK.stalls
            server.allow("gave no verdict")
            server.kill(signal.SIGHUP)
        try:
            new = generation(server)
            if new not in seen:
                seen.add(new)
                return
        except OSError:
            pass
        time.sleep(0.005)
    raise AssertionError("no new generation after %d s" % WAIT_S)


def settle(server):
    """Waits while too many old workers are at their last streams."""
    while len(server.children("worker process is shutting down")) \
            > GENERATIONS:
        time.sleep(0.01)


def settled_descriptors(server):
    time.sleep(0.5)
    while server.children("worker process is shutting down"):
        time.sleep(0.1)
    time.sleep(1.5)                     # the pool notices the lifeline's end
    return server.descriptors()


def check_log(server, load):
    """What was called unsent was never read; nothing was answered twice."""
    marks = server.marks()
    marks.pop("-", None)
    twice = [mark for mark, n in marks.items() if n > 1 and mark != "calm"]
    assert not twice, twice[:3]
    unsent = {one["mark"].strip() for one in load.problems
              if one["how"] == "unsent"}
    assert not unsent & set(marks), sorted(unsent & set(marks))[:3]


def run(options):
    server = Server()
    server.start()
    load = Load(server, connections=options.connections, seed=options.seed)
    try:
        load.pause()
        before = settled_descriptors(server)
        load.resume()
        seen = {generation(server)}
        begin = time.monotonic()
        for turn in range(1, options.reloads + 1):
            if options.swap and turn % options.swap == 0:
                server.write_conf(http=model(
                    "null tokens=%d delay=2ms;" % (64 + turn // options.swap
                                                   % 2)))
            reload_once(server, seen)
            settle(server)
            if load.wrong() or turn % 100 == 0:
                say(turn, "reloads,", len(load.problems), "not well")
            assert not load.wrong(), load.wrong()[:3]
        took = time.monotonic() - begin
        sums = load.pause()
        idle = server.idle()
        after = settled_descriptors(server)
        load.stop()
        check_log(server, load)
    except BaseException:
        load.kill()
        server.destroy()
        raise
    server.stop()
    say("reloads %d in %.0f s; idle after %.3f s; descriptors %s; %s" % (
        options.reloads, took, idle, after, sums))
    failed = {name: n for name, n in ended(sums).items()
              if name not in ("ok", "unsent", "asked")}
    assert not failed, (failed, load.problems[:5])
    assert sums["ok"] > 10 * options.reloads, sums
    assert idle < 1, idle
    if not options.swap:
        assert after == before, (before, after)
    say("reload: ok; the machine stood still %d times, %.0f s" % (
        CLOCK.stalls, CLOCK.stalled))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--swap", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
