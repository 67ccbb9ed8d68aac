#!/usr/bin/env python3
"""Sends damaged requests and checks every reply.

    http_fuzz.py PORT [SECONDS [SEED]]

The server at PORT answers below /v1/ from the null model.  Valid bodies are
mutated as bytes and as JSON; whatever comes, the reply is well-formed HTTP, its
body is JSON (or a stream of it), an error has the keys of its dialect, and a
5xx is one that is documented.  Ends with status 1 at the first reply that is
not so, and prints the request and the number that makes it again: SEED names
the run, and each request depends only on SEED and its own number.
"""

import copy
import http.client
import json
import random
import socket
import sys
import time

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {
    "name": "f", "parameters": {"type": "object", "properties": {}}}}

CORPUS = [
    ("chat/completions", {"model": "null", "messages": HELLO}),
    ("chat/completions", {"messages": HELLO, "stream": True,
                          "stream_options": {"include_usage": True}}),
    ("chat/completions", {"messages": HELLO, "n": 2, "seed": 7,
                          "temperature": 0.7, "top_p": 0.9, "max_tokens": 3}),
    ("chat/completions", {"messages": HELLO, "logprobs": True,
                          "top_logprobs": 2, "max_completion_tokens": 2}),
    ("chat/completions", {"messages": HELLO, "stop": ["a", "\n\n"],
                          "presence_penalty": 0.5, "frequency_penalty": -1}),
    ("chat/completions", {"messages": HELLO, "logit_bias": {"5": -100}}),
    ("chat/completions", {"messages": [
        {"role": "system", "content": "\u00e9\U0001f600"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": None}], "user": "u"}),
    ("chat/completions", {"messages": HELLO, "tools": [TOOL],
                          "tool_choice": "none"}),
    ("chat/completions", {"messages": HELLO, "stream": True, "n": 2,
                          "logprobs": True, "top_logprobs": 1}),
    ("chat/completions", {"messages": HELLO, "response_format":
                          {"type": "text"}, "metadata": {"a": "b"}}),
    ("completions", {"prompt": "Hello", "max_tokens": 4}),
    ("completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 2}),
    ("completions", {"prompt": [1, 2, 3], "max_tokens": 2, "seed": -1}),
    ("completions", {"prompt": [[1], [2]], "stream": True}),
    ("completions", {"prompt": "a", "echo": True, "logprobs": 2}),
    ("completions", {"prompt": "a", "top_k": 5, "min_p": 0.1,
                     "repetition_penalty": 1.1, "ignore_eos": True,
                     "max_tokens": 8}),
    ("completions", {"prompt": "a", "num_beams": 1, "length_penalty": 1.0,
                     "early_stopping": False, "use_beam_search": False}),
    ("tokenize", {"prompt": "Hello w\u00f6rld", "return_offsets": True}),
    ("tokenize", {"messages": HELLO, "add_generation_prompt": False}),
    ("detokenize", {"tokens": [1, 2, 3]}),
    ("tokenize", {"prompt": "x" * 3000, "add_special_tokens": False}),
    ("generate", {"inputs": "a", "parameters": {"details": True, "seed": 1}}),
    ("generate", {"inputs": "a", "stream": True}),
    ("generate_stream", {"inputs": "a", "parameters": {
        "max_new_tokens": 3, "stop": ["x"], "do_sample": True}}),
]

# of a server whose model is an encoder with a decoder
SEARCHES = [
    ("completions", {"prompt": "w5 w7", "num_beams": 4, "max_tokens": 20,
                     "length_penalty": -0.5, "early_stopping": True}),
    ("completions", {"prompt": [[5], [6, 7]], "num_beams": 16,
                     "stop": ["w9"], "stream": True, "max_tokens": 9}),
    ("completions", {"prompt": [5], "num_beams": 2, "temperature": 0,
                     "logprobs": 0, "seed": 1, "n": 1}),
    ("completions", {"prompt": [5, 8], "temperature": 0}),
    ("generate", {"inputs": "w5", "parameters": {
        "num_beams": 3, "details": True, "max_new_tokens": 12,
        "length_penalty": 2, "early_stopping": False}}),
    ("generate_stream", {"inputs": "w5", "parameters": {
        "num_beams": 3, "do_sample": False, "stop": ["w6"]}}),
]

# of a server whose model is an encoder
ENCODERS = [
    ("embeddings", {"input": "Hello w\u00f6rld", "dimensions": 5}),
    ("embeddings", {"input": ["a", "b" * 900], "truncate": True,
                    "encoding_format": "base64"}),
    ("embeddings", {"input": [101, 102]}),
    ("embeddings", {"input": [[101, 102], [101]], "user": "u"}),
    ("embed", {"inputs": ["a", "b"], "normalize": False}),
    ("similarity", {"inputs": {"source_sentence": "a", "sentences": [
        "b", "c"]}, "parameters": {"truncate": True}}),
    ("rerank", {"query": "a", "texts": ["b", "c"], "return_text": True}),
    ("rerank", {"query": "a", "documents": ["b", {"text": "c"}],
                "top_n": 1, "return_documents": True}),
    ("predict", {"inputs": [["a"], ["b", "c"]], "raw_scores": True}),
    ("predict", {"inputs": "a", "truncation_direction": "Left"}),
    ("classify", {"input": ["a", "b"]}),
]

VALUES = [
    None, True, False, 0, -1, 1, 2 ** 31, 2 ** 32, 2 ** 63, 2 ** 64, -2 ** 63,
    10 ** 30, 1e308, 1e-308, -0.0, 0.1, "", "x", "\0", "\ud7ff", "\U0010ffff",
    "x" * 300, "y" * 70000, [], [None], [[]], {}, {"": {}}, [1, "a", None],
    {"type": "text"}, [[[[[[[[]]]]]]]], "<|im_end|>", "\x1b[0m\r\n",
]
RAW = [
    b"1e999", b"-", b"00", b"1e", b"NaN", b"tru", b'"\\u12"', b'"\\ud800"',
    b'"\xff"', b'"\xc0\x80"', b'"\0"', b"9" * 500, b"1." + b"0" * 500,
    b"[" * 600, b'{"a":' * 600, b'"' + b"\\u0000" * 100 + b'"', b"/**/",
]
DOCUMENTED_5XX = {502, 503, 504}
DEADLINE_S = 20


class Wrong(Exception):
    pass


# ---- requests

def mutate_value(rng, value):
    """Changes one place somewhere inside; bounded by the walk's depth."""
    holder, key = None, None
    node = value
    for _ in range(8):
        if isinstance(node, dict) and node:
            holder, key = node, rng.choice(list(node))
        elif isinstance(node, list) and node:
            holder, key = node, rng.randrange(len(node))
        else:
            break
        node = holder[key]
        if rng.random() < 0.4:
            break
    if holder is None:
        return copy.deepcopy(rng.choice(VALUES))
    what = rng.random()
    if what < 0.6:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    elif what < 0.75 and isinstance(holder, dict):
        holder[rng.choice(["n", "stop", "x", "stream", "prompt", "messages",
                           "logprobs", ""])] = holder.pop(key)
    elif what < 0.85:
        del holder[key]
    else:
        holder[key] = [holder[key]] * rng.choice([2, 17, 130, 2000])
    return value


def mutate_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(6)
        if what == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at:]
        elif what == 2:
            data[at:at] = rng.choice(RAW)
        elif what == 3:
            end = min(len(data), at + rng.randrange(20))
            data[at:at] = data[at:end]
        elif what == 4:
            del data[at:at + rng.randrange(10)]
        else:
            data[at:at] = bytes([rng.randrange(256)])
    return bytes(data)


def make(seed, number, corpus):
    """(path, body) of request `number` of a run."""
    rng = random.Random("%d/%d" % (seed, number))
    path, body = rng.choice(corpus)
    body = json.loads(json.dumps(body))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        body = mutate_value(rng, body)
    data = json.dumps(body, ensure_ascii=rng.random() < 0.5)
    data = data.encode("utf-8", "surrogatepass")
    if rng.random() < 0.2 and data.startswith(b"{") and len(data) > 2:
        twice = json.dumps(rng.choice(VALUES)).encode()
        name = rng.choice([b"model", b"messages", b"prompt", b"n", b"input",
                           b"inputs", b"texts", b"query"])
        data = b'{"%s":%s,' % (name, twice) + data[1:]
    if rng.random() < 0.5:
        data = mutate_bytes(rng, data)
    return "/v1/" + path, data


# ---- replies

def check_error(answer):
    error = answer["error"]
    if isinstance(error, str):                  # the dialects of TEI and TGI
        if sorted(answer) != ["error", "error_type"] or not error \
                or not isinstance(answer["error_type"], str):
            raise Wrong("no error of theirs: %r" % answer)
        return
    if sorted(answer) != ["error"]:
        raise Wrong("more than an error: %r" % answer)
    if sorted(error) != ["code", "message", "param", "type"]:
        raise Wrong("keys of the error: %r" % error)
    if not isinstance(error["message"], str) or not error["message"]:
        raise Wrong("no message")
    if not isinstance(error["type"], str):
        raise Wrong("no type")
    for key in ("param", "code"):
        if not isinstance(error[key], (str, type(None))):
            raise Wrong("%s is %r" % (key, error[key]))


def check_stream(body):
    events = body.decode("utf-8").split("\n\n")
    if events.pop() != "":
        raise Wrong("the stream ends inside an event")
    for at, event in enumerate(events):
        if not event.startswith("data:") or "\n" in event:
            raise Wrong("no event: %r" % event[:200])
        if event == "data: [DONE]":
            if at != len(events) - 1:
                raise Wrong("events after [DONE]")
            return
        chunk = json.loads(event[5:])
        if "error" in chunk:
            check_error(chunk)
        if "error" in chunk or chunk.get("generated_text") is not None:
            if at != len(events) - 1:
                raise Wrong("events after the end")
            return
    raise Wrong("the stream has no end")


def check_reply(status, headers, body):
    kind = headers.get("Content-Type", "")
    if status >= 500 and status not in DOCUMENTED_5XX:
        raise Wrong("status %d: %r" % (status, body[:500]))
    if kind == "text/event-stream" and status == 200:
        return check_stream(body)
    if kind != "application/json":
        raise Wrong("Content-Type %r" % kind)
    answer = json.loads(body.decode("utf-8"))
    if status != 200:
        check_error(answer)
    elif "error" in answer:
        raise Wrong("an error with status 200")
    return None


class Client:
    """Keeps its connection as long as the server does."""

    def __init__(self, port):
        self.port = port
        self.conn = None

    def once(self, path, body):
        if self.conn is None:
            self.conn = http.client.HTTPConnection("127.0.0.1", self.port,
                                                   timeout=DEADLINE_S)
        self.conn.request("POST", path, body,
                          {"Content-Type": "application/json"})
        answer = self.conn.getresponse()
        data = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, answer.headers, data

    def send(self, path, body):
        fresh = self.conn is None
        try:
            return self.once(path, body)
        except (http.client.RemoteDisconnected, ConnectionError):
            self.close()
            if fresh:
                raise Wrong("the connection was closed without a reply")
            return self.once(path, body)    # keep-alive had timed out

    def close(self):
        if self.conn is not None:
            self.conn.close()
            self.conn = None


def run(port, seconds, seed, corpus=None):
    """(requests, {status: count}); raises Wrong with the request's number."""
    client, counts, number = Client(port), {}, 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        path, body = make(seed, number, corpus or CORPUS)
        try:
            status, headers, data = client.send(path, body)
            check_reply(status, headers, data)
        except (Wrong, ValueError, KeyError, TypeError, socket.timeout,
                http.client.HTTPException) as problem:
            raise Wrong("seed %d, request %d: %s %r: %s: %s" % (
                seed, number, path, body[:2000], type(problem).__name__,
                problem)) from problem
        counts[status] = counts.get(status, 0) + 1
        number += 1
    client.close()
    return number, counts


def main():
    if len(sys.argv) not in (2, 3, 4):
        print(__doc__)
        return 2
    more = [int(n) for n in sys.argv[2:]]
    seconds, seed = (more + [60, 1][len(more):])
    try:
        number, counts = run(int(sys.argv[1]), seconds, seed)
    except Wrong as problem:
        print(problem)
        return 1
    print("%d requests: %s" % (number, " ".join(
        "%d x %d" % (n, status) for status, n in sorted(counts.items()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
