#!/usr/bin/env python3
"""Connections that ask without end and know every answer beforehand.

    load.py PORT [--connections N] [--rate N] [--seed N] [--prefix PATH]
            [--real] [--static]

The answers are learned from the calm server first; then each one is compared
byte by byte (but for its id, its time, the model's fingerprint and what came
from the prefix cache). Every second connection is kept alive, the others serve
one request. Commands on standard input: `pause` (answered by `paused` when
nothing runs and all is closed), `resume`, `stop`. Standard output has one line
of JSON for every request that did not end well, and the sums at the end.

How a request ends:

    ok         the right bytes, all of them
    refused    a whole answer with an error status
    event      a stream: the right bytes, then an error event
    cut        the connection ended early; what came was right
    unsent     a kept connection was closed as the request was sent, nothing
               came: as HTTP asks of clients, it is sent again on a new one
    noconnect  nobody listens
    wrong      anything else
"""

import argparse
import asyncio
import collections
import json
import random
import re
import sys
import time

LIMIT_S = 300
HEADER_END = b"\r\n\r\n"
VARIABLE = re.compile(rb'"(id|created|system_fingerprint|cached_tokens)": '
                      rb'("[^"]*"|\d+)')


class Wrong(Exception):
    """Bytes that must not be."""


class Cut(Exception):
    """The peer has gone."""


class Kind:
    """A request and its answer: text is what it must say, rest is all else."""

    def __init__(self, path, body, echo):
        self.path, self.body, self.echo = path, body, echo
        self.stream = bool(body.get("stream"))
        self.text = self.rest = None

    def request(self, mark, close, prefix=b""):
        body = dict(self.body)
        if self.echo:
            body["prompt"] = mark + body["prompt"]
        data = json.dumps(body).encode()
        return (b"POST %s%s HTTP/1.1\r\nHost: soak\r\nX-Request-Id: %s\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n"
                b"%s\r\n%s" % (prefix, self.path, mark.encode(), len(data),
                               b"Connection: close\r\n" if close else b"",
                               data))

    def expected(self, mark):
        """An echo begins with its own prompt, which no other request has."""
        return mark + self.text if self.echo else self.text


def kinds(real):
    found = []
    lengths = (1, 3, 8) if real else (1, 2, 5, 9, 17, 33)
    for tokens in lengths:
        words = "word " * tokens
        for stream in (False, True):
            common = {"max_tokens": tokens, "temperature": 0}
            if stream:
                common["stream"] = True
                common["stream_options"] = {"include_usage": True}
            found.append(Kind(b"/v1/chat/completions", dict(
                common, messages=[{"role": "user", "content": words}]),
                False))
            found.append(Kind(b"/v1/completions", dict(
                common, prompt=" " + words.strip(), echo=not real),
                not real))              # a prompt's mark changes an answer
    return found


class Connection:
    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None
        self.pid = 0                    # of the nginx worker at the other end
        self.used = 0

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, limit=1 << 20)
        self.pid = self.used = 0

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
            self.reader = self.writer = None

    async def read(self, call):
        try:
            return await call
        except asyncio.IncompleteReadError as problem:
            raise Cut(problem.partial) from None
        except ConnectionError:
            raise Cut(b"") from None

    async def head(self):
        head = await self.read(self.reader.readuntil(HEADER_END))
        lines = head[:-4].split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) .*", lines[0])
        if not match:
            raise Wrong("status line %r" % lines[0])
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(b": ")
            if name.lower() in fields:
                raise Wrong("header twice: %r" % name)
            fields[name.lower()] = value.decode("latin-1")
        self.pid = int(fields.get(b"x-worker", 0))
        return int(match.group(1)), fields

    async def chunks(self, fields):
        """The body's parts as they come."""
        if b"content-length" in fields:
            yield await self.read(self.reader.readexactly(
                int(fields[b"content-length"])))
            return
        if fields.get(b"transfer-encoding") != "chunked":
            raise Wrong("neither length nor chunks: %r" % fields)
        while True:
            line = await self.read(self.reader.readuntil(b"\r\n"))
            if not re.fullmatch(rb"[0-9a-f]{1,6}\r\n", line):
                raise Wrong("chunk size %r" % line)
            size = int(line, 16)
            data = await self.read(self.reader.readexactly(size + 2))
            if data[-2:] != b"\r\n":
                raise Wrong("end of chunk %r" % data[-8:])
            if size == 0:
                return
            yield data[:-2]


class Answer:
    """What has come of one answer so far, against what it must be."""

    def __init__(self, kind, mark):
        self.kind, self.mark = kind, mark
        self.body = b""
        self.events = 0
        self.text = ""
        self.rest = []
        self.error = None
        self.done = False

    def feed(self, data):
        self.body += data
        if self.kind.stream:
            while b"\n\n" in self.body:
                event, self.body = self.body.split(b"\n\n", 1)
                self.event(event)

    def event(self, event):
        if self.done or not event.startswith(b"data: "):
            raise Wrong("event %r" % event)
        if event == b"data: [DONE]":
            self.done = True
            return
        body = json.loads(event[6:])
        if "error" in body:
            self.error = body["error"]["code"]
            self.done = True
            return
        for choice in body["choices"]:
            if "delta" in choice:
                self.text += choice["delta"].pop("content", "")
            else:
                self.text += choice.pop("text", "")
        rest = VARIABLE.sub(rb"\1", json.dumps(body).encode())
        if not self.rest or self.rest[-1] != rest:
            self.rest.append(rest)          # pieces of text may be joined
        self.check_prefix()

    def check_prefix(self):
        if self.kind.text is not None and not self.kind.expected(
                self.mark).startswith(self.text):
            raise Wrong("text %r" % self.text)

    def end(self):
        """The whole body is there: (text, rest)."""
        if self.kind.stream:
            if self.body or not self.done:
                raise Wrong("stream ends with %r" % self.body)
            if self.error:
                return self.text, self.error
            return self.text, self.rest
        body = json.loads(self.body)
        for choice in body["choices"]:
            if "message" in choice:
                self.text += choice["message"].pop("content")
            else:
                self.text += choice.pop("text")
        return self.text, [VARIABLE.sub(rb"\1", json.dumps(body).encode())]

    def check(self):
        text, rest = self.end()
        if self.error:
            return "event"
        if text != self.kind.expected(self.mark):
            raise Wrong("text %r, not %r" % (text,
                                             self.kind.expected(self.mark)))
        if rest != self.kind.rest and not self.kind.echo:
            raise Wrong("answer %r, not %r" % (rest, self.kind.rest))
        return "ok"


class Load:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.prefix = options.prefix.encode()
        self.kinds = kinds(options.real)
        self.sums = collections.Counter()
        self.took = []
        self.static = []
        self.connections = []
        self.running = 0
        self.stopped = False
        self.go = asyncio.Event()
        self.go.set()
        self.number = 0

    def say(self, **what):
        print(json.dumps(what), flush=True)

    async def learn(self):
        for kind in self.kinds:
            connection = Connection(self.options.port)
            await connection.open()
            connection.writer.write(kind.request("calm ", True, self.prefix))
            status, fields = await connection.head()
            answer = Answer(kind, "calm ")
            async for data in connection.chunks(fields):
                answer.feed(data)
            if status != 200:
                raise SystemExit("not calm: %d %r" % (status, answer.body))
            text, kind.rest = answer.end()
            kind.text = text[5:] if kind.echo else text
            if kind.echo and not text.startswith("calm" + " "):
                raise SystemExit("no echo: %r" % text)
            connection.close()

    async def exchange(self, connection, kind, mark, close):
        """One request: how it ended and what to say about it."""
        connection.writer.write(kind.request(mark, close, self.prefix))
        connection.used += 1
        try:
            status, fields = await connection.head()
        except Cut as cut:
            if cut.args[0]:
                return "wrong", "half a header %r" % cut.args[0]
            return ("unsent" if connection.used > 1 else "cut"), ""
        if fields.get(b"x-request-id") != mark.strip():
            raise Wrong("the answer of request %r came to %r" % (
                fields.get(b"x-request-id"), mark))
        answer = Answer(kind, mark)
        try:
            if status != 200:
                return await self.refusal(connection, fields, status)
            async for data in connection.chunks(fields):
                answer.feed(data)
        except Cut:
            return "cut", "after %d characters" % len(answer.text)
        return answer.check(), answer.error or ""

    async def refusal(self, connection, fields, status):
        body = b""
        async for data in connection.chunks(fields):
            body += data
        code = json.loads(body)["error"]["code"]
        if status in (429, 503) and b"retry-after" not in fields:
            raise Wrong("%d without Retry-After" % status)
        return "refused", "%d %s" % (status, code)

    async def one(self, connection, kind, close):
        self.number += 1
        mark = "m%08x%06x " % (self.options.seed, self.number)
        begin = time.monotonic()
        fresh = connection.writer is None
        try:
            if fresh:
                await connection.open()
            how, what = await asyncio.wait_for(
                self.exchange(connection, kind, mark, close), LIMIT_S)
        except OSError:
            how, what = "noconnect", ""
        except asyncio.TimeoutError:
            how, what = "wrong", "no end after %d s" % LIMIT_S
        except (Wrong, ValueError, KeyError, TypeError) as problem:
            how, what = "wrong", "%s: %s" % (type(problem).__name__, problem)
        end = time.monotonic()
        if how == "ok":
            self.took.append(end - begin)
        else:
            self.say(how=how, what=what, begin=begin, end=end,
                     pid=connection.pid, stream=kind.stream, mark=mark)
        self.sums[how + (" " + what if how in ("refused", "event") else "")
                  ] += 1
        if how != "ok" or close:
            if how == "ok" and await connection.reader.read(1):
                self.say(how="wrong", what="bytes after the end", mark=mark)
                self.sums["wrong"] += 1
            connection.close()
        return how

    async def client(self, index):
        connection = Connection(self.options.port)
        self.connections.append(connection)
        close = index % 2 == 0
        pause = (self.options.connections / self.options.rate
                 if self.options.rate else 0)
        await asyncio.sleep(self.random.random() * pause)
        while not self.stopped:
            if not self.go.is_set():
                connection.close()
                await self.go.wait()
                continue
            kind = self.random.choice(self.kinds)
            self.running += 1
            try:
                how = await self.one(connection, kind, close)
                if how == "unsent" and self.go.is_set():
                    how = await self.one(connection, kind, close)
            finally:
                self.running -= 1
            if how == "noconnect":
                await asyncio.sleep(0.1)
            elif pause:
                await asyncio.sleep(pause * 2 * self.random.random())
        connection.close()

    async def file_reader(self):
        """One file now and then: how long it takes through all of it."""
        connection = Connection(self.options.port)
        while not self.stopped:
            await asyncio.sleep(0.01)
            begin = time.monotonic()
            try:
                if connection.writer is None:
                    await connection.open()
                    begin = time.monotonic()
                connection.writer.write(b"GET /file HTTP/1.1\r\n"
                                        b"Host: soak\r\n\r\n")
                _, fields = await connection.head()
                async for data in connection.chunks(fields):
                    if data != b"static\n" * 512:
                        raise Wrong("file")
                self.static.append(time.monotonic() - begin)
            except (Cut, OSError):
                connection.close()
            except Wrong as wrong:
                self.say(how="wrong", what=str(wrong))
                self.sums["wrong"] += 1
                connection.close()

    async def commands(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while not self.stopped:
            word = (await reader.readline()).strip()
            if word == b"pause":
                self.go.clear()
                while self.running:
                    await asyncio.sleep(0.005)
                for connection in self.connections:
                    connection.close()
                self.say(paused=self.numbers())
            elif word == b"resume":
                self.go.set()
            else:
                self.stopped = True
                self.go.set()

    def numbers(self):
        """Sums so far; the times are those since the last call."""
        sums = dict(self.sums, asked=self.number)
        for name, times in ("took", self.took), ("static", self.static):
            times.sort()
            if times:
                sums[name + "_n"] = len(times)
                for p in 50, 99:
                    sums["%s_p%d_ms" % (name, p)] = round(
                        times[len(times) * p // 100] * 1000, 3)
                sums[name + "_max_ms"] = round(times[-1] * 1000, 3)
            times.clear()
        return sums

    async def run(self):
        await self.learn()
        self.say(ready=len(self.kinds))
        tasks = [self.client(i) for i in range(self.options.connections)]
        if self.options.static:
            tasks.append(self.file_reader())
        await asyncio.gather(self.commands(), *tasks)
        self.say(sums=self.numbers())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--static", action="store_true")
    asyncio.run(Load(parser.parse_args()).run())


main()
