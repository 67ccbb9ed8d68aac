#!/usr/bin/env python3
"""The same measurements as `infer bench`, through llama.cpp.

Runs under a Python that has llama-cpp-python (built natively); prints one
JSON line.  The best token is picked with numpy, outside C as a server's
sampler would be, which is a small part of a step.
"""
import ctypes
import json
import sys
import time

import llama_cpp as lc
import numpy as np

START, STEPS = 32, 64
now = time.process_time if sys.argv[3:] == ["cpu"] else time.perf_counter


def quiet(level, text, data):
    pass


LOG = lc.llama_log_callback(quiet)


class Bench:
    def __init__(self, path, threads):
        lc.llama_log_set(LOG, ctypes.c_void_p(0))
        lc.llama_backend_init()
        mp = lc.llama_model_default_params()
        mp.n_gpu_layers = 0
        self.model = lc.llama_model_load_from_file(path.encode(), mp)
        cp = lc.llama_context_default_params()
        cp.n_ctx = 16 * 1024
        cp.n_batch = 512
        cp.n_ubatch = 512
        cp.n_seq_max = 16
        cp.n_threads = threads
        cp.n_threads_batch = threads
        self.ctx = lc.llama_init_from_model(self.model, cp)
        vocab = lc.llama_model_get_vocab(self.model)
        self.vocab = lc.llama_vocab_n_tokens(vocab)
        self.batch = lc.llama_batch_init(512, 0, 1)

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.ctx), True)

    def decode(self, toks):
        b = self.batch
        b.n_tokens = len(toks)
        for i, (token, seq, pos, want) in enumerate(toks):
            b.token[i] = token
            b.pos[i] = pos
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = seq
            b.logits[i] = want
        if lc.llama_decode(self.ctx, b) != 0:
            sys.exit("llama_decode failed")

    def best(self, i):
        p = lc.llama_get_logits_ith(self.ctx, i)
        return int(np.ctypeslib.as_array(p, (self.vocab,)).argmax())

    def token(self, i):
        return (i * 2654435761 + 12345) % self.vocab

    def feed(self, seq, n):
        for at in range(0, n, 512):
            m = min(512, n - at)
            self.decode([(self.token(i), seq, i, i + 1 == n)
                         for i in range(at, at + m)])
        return self.best(m - 1)

    def prompt(self, n):
        self.clear()
        t = now()
        self.feed(0, n)
        return n / (now() - t)

    def generate(self, n):
        self.clear()
        tok = [self.feed(s, START) for s in range(n)]
        t = now()
        for k in range(STEPS):
            self.decode([(tok[s], s, START + k, 1) for s in range(n)])
            tok = [self.best(s) for s in range(n)]
        return n * STEPS / (now() - t)


def main():
    b = Bench(sys.argv[1], int(sys.argv[2]))
    b.prompt(128)
    prompt = {str(n): round(b.prompt(n), 1) for n in (128, 512)}
    generate = {str(n): round(b.generate(n), 1) for n in (1, 4, 16)}
    print(json.dumps({"prompt": prompt, "generate": generate}))


main()
