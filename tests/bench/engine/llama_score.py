#!/usr/bin/env python3
"""Token ids of a text and their log probabilities, by llama.cpp.

  llama_score.py MODEL.gguf TEXT WINDOW

Runs under a Python that has llama-cpp-python; prints one JSON line with the
windows of ids and, in their order, the log probability of every token of a
window but its first.
"""
import ctypes
import json
import sys

import llama_cpp as lc
import numpy as np


def quiet(level, text, data):
    pass


LOG = lc.llama_log_callback(quiet)


def tokens(vocab, text):
    ids = (lc.llama_token * (len(text) + 8))()
    n = lc.llama_tokenize(vocab, text, len(text), ids, len(ids), False, False)
    if n <= 0:
        sys.exit("llama_tokenize failed")
    return list(ids[:n])


def score(ctx, batch, ids, n_vocab):
    lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i] = token
        batch.pos[i] = i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = 1
    if lc.llama_decode(ctx, batch) != 0:
        sys.exit("llama_decode failed")
    out = []
    for i in range(len(ids) - 1):
        row = np.ctypeslib.as_array(lc.llama_get_logits_ith(ctx, i),
                                    (n_vocab,)).astype(np.float64)
        top = row.max()
        out.append(row[ids[i + 1]] - top - np.log(np.exp(row - top).sum()))
    return out


def main():
    window = int(sys.argv[3])
    lc.llama_log_set(LOG, ctypes.c_void_p(0))
    lc.llama_backend_init()
    mp = lc.llama_model_default_params()
    mp.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(sys.argv[1].encode(), mp)
    vocab = lc.llama_model_get_vocab(model)
    cp = lc.llama_context_default_params()
    cp.n_ctx = cp.n_batch = cp.n_ubatch = window
    cp.n_threads = cp.n_threads_batch = 2
    ctx = lc.llama_init_from_model(model, cp)
    batch = lc.llama_batch_init(window, 0, 1)

    with open(sys.argv[2], "rb") as f:
        ids = tokens(vocab, f.read())
    bos = lc.llama_vocab_bos(vocab)
    head = [bos] if lc.llama_vocab_get_add_bos(vocab) else []
    step = window - len(head)
    windows = [head + ids[i:i + step] for i in range(0, len(ids), step)]
    windows = [w for w in windows if len(w) > 1]
    out = []
    for w in windows:
        out += score(ctx, batch, w, lc.llama_vocab_n_tokens(vocab))
    print(json.dumps({"windows": windows,
                      "next": [round(float(v), 6) for v in out]}))


main()
