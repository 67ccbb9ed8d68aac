#!/usr/bin/env python3
"""Our tokenizer beside its peers, side by side in one run.

    tests/bench/tokenizer/peers.py VOCAB_FOLDER CORPUS [--names gpt2 ...]
        [--rounds 3] [--texts 160] [--python PEER=PYTHON ...]

Needs PyPI `tokenizers` 0.23 here (it says which ids are right), and of the
packages `fastokens`, `gigatoken`, `tokie`, `kitoken`, `tiktoken` those that
are to be measured; --python names an interpreter for a peer that needs its
own, such as tokenizers1=PYTHON where `tokenizers` 1.0 is installed.  A peer
that cannot be loaded, or cannot read a vocabulary, shows "-".

Each peer runs in a process of its own, in alternating rounds.  Texts of about
2,048 tokens, cut from the corpus, are all distinct; the first half warms
memory and word caches, the second is measured: CPU time of one call from
Python with the result in the peer's own form, median over texts, then median
over rounds.  Exact: texts of the measured half whose ids equal those of
`tokenizers` 0.23.  Load: CPU time to read the file, the least of all rounds.
"""

import argparse
import array
import ctypes as C
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..", "..")
TOKENS = 2048
PEERS = ["ours", "tokenizers", "tokenizers1", "fastokens", "gigatoken",
         "tokie", "kitoken", "tiktoken"]


class Result(C.Structure):
    _fields_ = [("ids", C.POINTER(C.c_uint32)), ("n", C.c_size_t),
                ("rest", C.c_void_p * 4), ("bad", C.c_size_t)]


def ours(path):
    lib = C.CDLL(os.environ["TOKENIZER_LIB"])
    lib.tok_scratch_new.restype = C.c_void_p
    lib.tok_encode.argtypes = [C.c_void_p, C.c_void_p, C.c_char_p,
                               C.c_size_t, C.c_uint, C.c_void_p]
    t, err = C.c_void_p(), C.create_string_buffer(512)
    if lib.tok_open(C.byref(t), path.encode(), err):
        raise ValueError(err.raw[4:].split(b"\0")[0])
    s, r = C.c_void_p(lib.tok_scratch_new()), Result()

    def encode(raw):
        # TOK_PARSE_SPECIAL, no truncation, no padding
        if lib.tok_encode(t, s, raw, len(raw), 2 | 16 | 32, C.byref(r)):
            raise ValueError("encode")
        return r

    return encode, lambda r: r.ids[:r.n], str.encode


def tokenizers(path):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    if hasattr(t, "encode_batch_fast"):
        t.no_truncation()
        t.no_padding()
        encode = getattr(t, "encode_fast", None) or t.encode
    else:
        encode = t.encode
    return (lambda x: encode(x, add_special_tokens=False),
            lambda e: list(e.ids), str)


def fastokens(path):
    import fastokens
    t = fastokens.Tokenizer.from_file(path)
    return t.encode, lambda e: list(getattr(e, "ids", e)), str


def gigatoken(path):
    import gigatoken
    t = gigatoken.Tokenizer(path)
    return t.encode, list, str


def tokie(path):
    import tokie
    t = tokie.Tokenizer.from_json(path)
    t.no_truncation()
    t.no_padding()
    return (lambda x: t.encode(x, add_special_tokens=False),
            lambda e: list(e.ids), str)


def kitoken(path):
    import kitoken
    t = kitoken.Kitoken.from_tokenizers_file(path)
    return lambda x: t.encode(x, True), list, str


def tiktoken(path):
    import tiktoken
    spec = json.load(open(path, encoding="utf-8"))
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    back = {chr(c): c for c in keep}
    for i, c in enumerate(c for c in range(256) if c not in keep):
        back[chr(256 + i)] = c
    pre = spec["pre_tokenizer"]
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" \
        r"\s+(?!\S)|\s+"
    for step in pre.get("pretokenizers", []):
        if step["type"] == "Split":
            pattern = step["pattern"]["Regex"]
    if spec["model"]["type"] != "BPE" or "\u0120a" not in \
            spec["model"]["vocab"]:
        raise ValueError("no byte-level BPE")
    added = {t["content"]: t["id"] for t in spec["added_tokens"]}
    # A rank is an id there, and so must be the order of the merges.
    ranks = {bytes(back[c] for c in t): i for t, i in
             spec["model"]["vocab"].items() if t not in added}
    t = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks,
                          special_tokens=added)
    return lambda x: t.encode(x, allowed_special="all"), list, str


def child(peer, path, job):
    """Load time, times of the measured half and its ids, as JSON."""
    texts = json.load(open(job, encoding="utf-8"))
    start = time.process_time()
    make = globals()[peer.rstrip("1")]
    encode, ids, form = make(path)
    load = time.process_time() - start
    shaped = [form(t) for t in texts]
    times, out, half = [], [], len(texts) // 2
    for i, t in enumerate(shaped):
        a = time.thread_time_ns()
        r = encode(t)
        a = time.thread_time_ns() - a
        if i >= half:
            times.append(a / 1e3)
            out.append(array.array("I", ids(r)).tobytes().hex())
    json.dump([load * 1e3, statistics.median(times), out], sys.stdout)


def cut(path, corpus, n):
    """n texts of about 2,048 tokens, and the right ids of the second half."""
    encode, ids, _ = tokenizers(path)
    texts, at, size = [], 0, 7000
    while len(texts) < n and at + size < len(corpus):
        k = len(ids(encode(corpus[at:at + size])))
        size = max(500, size * TOKENS // max(1, k))
        texts.append(corpus[at:at + size])
        at += size
    return texts, [array.array("I", ids(encode(t))).tobytes().hex()
                   for t in texts[len(texts) // 2:]]


def library():
    out = os.path.join(tempfile.mkdtemp(), "libtok.so")
    archive = os.path.join(TOP, "build", "libinfer-tokenizer.a")
    subprocess.check_call(["make", "-s", "-C", TOP,
                           "build/libinfer-tokenizer.a"])
    subprocess.check_call(["cc", "-shared", "-o", out, "-Wl,--whole-archive",
                           archive, "-Wl,--no-whole-archive", "-lpcre2-8",
                           "-lm"])
    return out


def measure(name, path, args, pythons):
    texts, right = cut(path, args.text, args.texts)
    job = tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8")
    json.dump(texts, job)
    job.flush()
    got = {p: [] for p in PEERS}
    for _ in range(args.rounds):
        for peer in PEERS:
            if got[peer] is None or (peer == "tokenizers1"
                                     and peer not in pythons):
                continue
            try:
                r = subprocess.run(
                    [pythons.get(peer, sys.executable),
                     os.path.abspath(__file__), path, job.name, "--child",
                     peer], capture_output=True, check=True, timeout=240)
                got[peer].append(json.loads(r.stdout))
            except (subprocess.SubprocessError, ValueError):
                got[peer] = None
    base = statistics.median(r[1] for r in got["ours"])
    for peer, rounds in got.items():
        if not rounds:
            print("| %s | %s | - | | | |" % (name, peer))
            continue
        us = statistics.median(r[1] for r in rounds)
        exact = sum(a == b for a, b in zip(rounds[0][2], right))
        print("| %s | %s | %.0f | %.2f | %d of %d | %.0f |" % (
            name, peer, us, us / base, exact, len(right),
            min(r[0] for r in rounds)), flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder")
    ap.add_argument("corpus")
    ap.add_argument("--names", nargs="*", default=[])
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--texts", type=int, default=160)
    ap.add_argument("--python", nargs="*", default=[])
    ap.add_argument("--child")
    args = ap.parse_args()
    if args.child:
        return child(args.child, args.folder, args.corpus)
    os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    os.environ["TOKENIZER_LIB"] = library()
    args.text = open(args.corpus, encoding="utf-8", errors="ignore").read()
    pythons = dict(p.split("=", 1) for p in args.python)
    print("| vocabulary | library | us, p50 | to ours | exact | load ms |")
    print("|---|---|---|---|---|---|")
    for name in args.names or sorted(os.listdir(args.folder)):
        path = os.path.join(args.folder, name, "tokenizer.json")
        if os.path.exists(path):
            measure(name, path, args, pythons)
    return 0


if __name__ == "__main__":
    sys.exit(main())
