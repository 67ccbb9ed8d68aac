#!/usr/bin/env python3
"""Writes a llama model with random weights in F16, for measuring speed.

  tests/bench/engine/random_gguf.py OUT.gguf [LAYERS]

Speed depends on shapes and types, not on values.  The small models at hand
have rows of 576 or 640 values, which K-quants (256 to a block) cannot hold;
this one has 1,024 and 2,816: requant.py makes any type of it.  No vocabulary.
"""
import struct
import sys

import numpy as np

EMBD, HEADS, KV, FF, VOCAB, CTX = 1024, 16, 4, 2816, 32000, 2048
U32, F32, STR = 4, 6, 8


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def key(name, kind, value):
    v = text(value) if kind == STR else struct.pack(
        "<I" if kind == U32 else "<f", value)
    return text(name) + struct.pack("<I", kind) + v


def tensors(layers):
    yield "token_embd.weight", (VOCAB, EMBD)
    yield "output_norm.weight", (EMBD,)
    for i in range(layers):
        for name, shape in (
                ("attn_norm", (EMBD,)), ("attn_q", (EMBD, EMBD)),
                ("attn_k", (KV * EMBD // HEADS, EMBD)),
                ("attn_v", (KV * EMBD // HEADS, EMBD)),
                ("attn_output", (EMBD, EMBD)), ("ffn_norm", (EMBD,)),
                ("ffn_gate", (FF, EMBD)), ("ffn_up", (FF, EMBD)),
                ("ffn_down", (EMBD, FF))):
            yield f"blk.{i}.{name}.weight", shape


def main():
    layers = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    rng = np.random.default_rng(1)
    keys = [key("general.architecture", STR, "llama"),
            key("general.name", STR, "random"),
            key("llama.context_length", U32, CTX),
            key("llama.embedding_length", U32, EMBD),
            key("llama.block_count", U32, layers),
            key("llama.feed_forward_length", U32, FF),
            key("llama.attention.head_count", U32, HEADS),
            key("llama.attention.head_count_kv", U32, KV),
            key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
            key("llama.rope.dimension_count", U32, EMBD // HEADS),
            key("llama.rope.freq_base", F32, 10000.0),
            key("llama.vocab_size", U32, VOCAB),
            key("tokenizer.ggml.model", STR, "no_vocab")]
    all_tensors = list(tensors(layers))
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(all_tensors), len(keys))
    out += b"".join(keys)
    at = 0
    for name, shape in all_tensors:
        matrix = len(shape) > 1
        out += text(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", n) for n in reversed(shape))
        out += struct.pack("<IQ", 1 if matrix else 0, at)
        at += (int(np.prod(shape)) * (2 if matrix else 4) + 31) // 32 * 32
    with open(sys.argv[1], "wb") as f:
        f.write(out + bytes(-len(out) % 32))
        for name, shape in all_tensors:
            if len(shape) > 1:
                data = (rng.standard_normal(shape, np.float32) * 0.03)
                data = data.astype(np.float16).tobytes()
            else:
                data = np.ones(shape, np.float32).tobytes()
            f.write(data + bytes(-len(data) % 32))


main()
