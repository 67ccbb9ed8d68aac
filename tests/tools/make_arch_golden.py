#!/usr/bin/env python3
"""Golden logits of small models, one per architecture, made with the
reference implementation's own code (transformers, torch on the CPU).

  make_arch_golden.py OUT.json      (tests/golden/engine/archs.json)

No weights are stored: a weight is an integer hash of (tensor name, index), so
that tests/unit/engine/test_archs.c makes the same model as a GGUF file from
the table written here.  Keys and values pass through half precision in the
reference's cache, as in the engine's; everything else is float32.  The five
best log probabilities of the unmodified reference (float32 cache) stand
beside them.
"""

import json
import math
import sys

import numpy
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

VOCAB, EMBD, HEADS, KV, DIM, FF = 96, 64, 4, 2, 16, 96
TOKENS = 40                       # positions, above every window
SHOWN = (0, 21, 39)               # positions whose logits are kept


def unit(name, n):
    """n numbers in [-1, 1), multiples of 2^-15; the test has the same."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    x = (numpy.arange(n, dtype=numpy.uint64) * 0x9E3779B9 + seed) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> 16
    return (x >> 16).astype(numpy.float32) / 32768 - 1


def values(name, shape, kind):
    u = unit(name, int(numpy.prod(shape))).reshape(shape) / 4
    return u + 1 if kind == "norm" else u


def interleaved(w, heads):
    """Rows of q or k: pairs (2i, 2i+1), as files of the llama family hold
    them, to the reference's halves (i, i + d/2)."""
    d = w.shape[0] // heads
    w = w.reshape(heads, d // 2, 2, *w.shape[1:])
    return numpy.ascontiguousarray(w.swapaxes(1, 2)).reshape(heads * d,
                                                             *w.shape[3:])


class HalfCache(transformers.DynamicCache):
    def update(self, key, value, layer, kwargs=None):
        return super().update(key.half().float(), value.half().float(), layer,
                              kwargs)


class Case:
    """One model: the reference's configuration, the keys of the file, and for
    each parameter its name in the file."""

    def __init__(self, name, arch, model, settings, keys, **more):
        base = dict(vocab_size=VOCAB, hidden_size=EMBD, intermediate_size=FF,
                    num_hidden_layers=4, num_attention_heads=HEADS,
                    num_key_value_heads=KV, max_position_embeddings=256,
                    rms_norm_eps=1e-5, tie_word_embeddings=True,
                    bos_token_id=1, eos_token_id=2, pad_token_id=0,
                    attn_implementation="eager")
        base.update(settings)
        self.name, self.arch, self.keys = name, arch, dict(keys)
        self.normal = more.get("normal", False)     # rotary order
        self.gemma = more.get("gemma", False)       # norms hold weight - 1
        self.extra = more.get("extra", {})          # tensors with values
        self.ctx = more.get("ctx", 256)
        self.top, self.layer = [], []
        cls = getattr(transformers, more.get("config", model + "Config"))
        self.config = cls(**base)
        cls = getattr(transformers, model + "ForCausalLM")
        torch.manual_seed(0)
        self.model = cls(self.config).float().eval()

    def put(self, param, data):
        assert tuple(param.shape) == tuple(data.shape), (param.shape,
                                                         data.shape)
        with torch.no_grad():
            param.copy_(torch.from_numpy(numpy.ascontiguousarray(data)))

    def tensor(self, layer, name, kind, shape):
        """Values in the file's order; the table is written once for all
        layers."""
        full = name if layer is None else "blk.%d.%s" % (layer, name)
        table = self.top if layer is None else self.layer
        if not layer:
            table.append([name, kind, list(shape)])
        return values(full, shape, kind)

    def fill(self):
        params = dict(self.model.named_parameters())
        done = set()

        def take(name):
            done.add(name)
            return params[name]

        def plain(layer, param, name, kind=None):
            p = take(param)
            kind = kind or ("norm" if p.dim() == 1 else "matrix")
            v = self.tensor(layer, name, kind, p.shape)
            self.put(p, v - 1 if self.gemma and kind == "norm" else v)

        plain(None, "model.embed_tokens.weight", "token_embd.weight")
        plain(None, "model.norm.weight", "output_norm.weight")
        if "lm_head.weight" in params:
            plain(None, "lm_head.weight", "output.weight")
        for i in range(self.config.num_hidden_layers):
            self.fill_layer(i, params, take, plain)
        missing = set(params) - done
        assert not missing, missing

    def fill_layer(self, i, params, take, plain):
        at = "model.layers.%d." % i
        names = [
            ("input_layernorm.weight", "attn_norm.weight"),
            ("self_attn.qkv_proj.weight", "attn_qkv.weight"),
            ("self_attn.v_proj.weight", "attn_v.weight"),
            ("self_attn.q_norm.weight", "attn_q_norm.weight"),
            ("self_attn.k_norm.weight", "attn_k_norm.weight"),
            ("self_attn.o_proj.weight", "attn_output.weight"),
            ("mlp.gate_up_proj.weight", "ffn_up.weight"),
            ("mlp.gate_proj.weight", "ffn_gate.weight"),
            ("mlp.up_proj.weight", "ffn_up.weight"),
            ("mlp.down_proj.weight", "ffn_down.weight"),
            ("block_sparse_moe.gate.weight", "ffn_gate_inp.weight"),
            ("mlp.gate.weight", "ffn_gate_inp.weight"),
            ("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight"),
            ("mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"),
            ("mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"),
            ("mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"),
        ]
        if at + "pre_feedforward_layernorm.weight" in params:
            names += [
                ("post_attention_layernorm.weight",
                 "post_attention_norm.weight"),
                ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
                ("post_feedforward_layernorm.weight", "post_ffw_norm.weight")]
        else:
            names += [("post_attention_layernorm.weight", "ffn_norm.weight")]
        for param, name in names:
            if at + param in params:
                plain(i, at + param, name)

        for letter, heads in (("q", HEADS), ("k", KV), ("v", 0)):
            for kind, what in (("matrix", "weight"), ("bias", "bias")):
                param = "%sself_attn.%s_proj.%s" % (at, letter, what)
                if param not in params or (letter, what) == ("v", "weight"):
                    continue
                p = take(param)
                v = self.tensor(i, "attn_%s.%s" % (letter, what), kind,
                                p.shape)
                self.put(p, interleaved(v, heads) if self.normal and heads
                         else v)

        for gate, name in (("gate_proj", "ffn_gate_exps.weight"),
                           ("up_proj", "ffn_up_exps.weight"),
                           ("down_proj", "ffn_down_exps.weight"),
                           ("w1", "ffn_gate_exps.weight"),
                           ("w3", "ffn_up_exps.weight"),
                           ("w2", "ffn_down_exps.weight")):
            for where in ("mlp.experts", "block_sparse_moe.experts"):
                one = at + where + ".%d." + gate + ".weight"
                if one % 0 not in params:
                    continue
                n = 0
                while one % n in params:
                    n += 1
                v = self.tensor(i, name, "matrix",
                                (n, *params[one % 0].shape))
                for e in range(n):
                    self.put(take(one % e), v[e])

    def run(self, cache):
        ids = torch.tensor([[(i * 37 + i * i) % VOCAB for i in range(TOKENS)]])
        with torch.no_grad():
            return self.model(ids, past_key_values=cache).logits[0]

    def answer(self):
        self.fill()
        half = self.run(HalfCache())
        free = self.run(transformers.DynamicCache())
        best = []
        for p in SHOWN:
            lp = torch.log_softmax(free[p].double(), -1)
            top = torch.topk(lp, 5)
            best.append([[int(i), round(float(v), 6)]
                         for i, v in zip(top.indices, top.values)])
        return {
            "name": self.name, "arch": self.arch, "ctx": self.ctx,
            "keys": self.keys, "layers": self.config.num_hidden_layers,
            "top": self.top, "layer": self.layer, "values": self.extra,
            "cache_effect": float((half - free).abs().max()),
            "logits": [[round(float(v), 5) for v in half[p]] for p in SHOWN],
            "top5": best,
        }


def sizes(arch, layers=4, **more):
    keys = {"block_count": layers, "context_length": 256,
            "embedding_length": EMBD, "feed_forward_length": FF,
            "attention.head_count": HEADS, "attention.head_count_kv": KV,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.freq_base": 10000.0}
    keys.update({k.replace("__", "."): v for k, v in more.items()})
    return {arch + "." + k: v for k, v in keys.items()}


def llama3_factors(rope, base=10000.0, dim=DIM):
    """What the converter of llama.cpp writes as rope_freqs.weight: the plain
    frequency divided by the reference's."""
    cfg = transformers.LlamaConfig(
        hidden_size=EMBD, num_attention_heads=HEADS, rope_theta=base,
        max_position_embeddings=256, rope_scaling=rope)
    freq, _ = ROPE_INIT_FUNCTIONS["llama3"](cfg, "cpu")
    plain = [base ** (-2.0 * i / dim) for i in range(dim // 2)]
    return [p / float(f) for p, f in zip(plain, freq)]


def llama_cases():
    llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                  high_freq_factor=4.0, original_max_position_embeddings=64)
    yarn = dict(rope_type="yarn", factor=4.0,
                original_max_position_embeddings=64)
    own = dict(yarn, attention_factor=1.25, beta_fast=16.0, beta_slow=2.0)
    n = dict(normal=True)
    yield Case("llama", "llama", "Llama", dict(tie_word_embeddings=False),
               sizes("llama"), **n)
    yield Case("llama-linear", "llama", "Llama",
               dict(rope_scaling=dict(rope_type="linear", factor=4.0)),
               sizes("llama", rope__scaling__type="linear",
                     rope__scaling__factor=4.0), **n)
    yield Case("llama-llama3", "llama", "Llama", dict(rope_scaling=llama3),
               sizes("llama"),
               extra={"rope_freqs.weight": llama3_factors(llama3)}, **n)
    keys = dict(rope__scaling__type="yarn", rope__scaling__factor=4.0,
                rope__scaling__original_context_length=64)
    yield Case("llama-yarn", "llama", "Llama", dict(rope_scaling=yarn),
               sizes("llama", **keys), **n)
    # the file's attn_factor multiplies 1 + 0.1 ln(factor)
    yield Case("qwen2-yarn", "qwen2", "Qwen2", dict(rope_scaling=own),
               sizes("qwen2", rope__scaling__attn_factor=1.25
                     / (1 + 0.1 * math.log(4.0)),
                     rope__scaling__yarn_beta_fast=16.0,
                     rope__scaling__yarn_beta_slow=2.0, **keys))
    yield Case("mistral", "mistral", "Mistral",
               dict(sliding_window=16, head_dim=DIM),
               sizes("mistral", attention__sliding_window=16), **n)
    yield Case("smollm3", "smollm3", "SmolLM3",
               dict(rope_theta=10000.0, no_rope_layer_interval=4),
               sizes("smollm3"), **n)
    yield Case("mixtral", "llama", "Mixtral",
               dict(num_local_experts=5, num_experts_per_tok=2,
                    sliding_window=None, rope_theta=10000.0),
               sizes("llama", expert_count=5, expert_used_count=2), **n)


def other_cases():
    yield Case("qwen2", "qwen2", "Qwen2", {}, sizes("qwen2"))
    yield Case("qwen3", "qwen3", "Qwen3", dict(head_dim=DIM, rope_theta=1e4),
               sizes("qwen3"))
    yield Case("qwen2moe", "qwen2moe", "Qwen2Moe",
               dict(num_experts=6, num_experts_per_tok=3,
                    moe_intermediate_size=32,
                    shared_expert_intermediate_size=64, qkv_bias=True),
               sizes("qwen2moe", expert_count=6, expert_used_count=3,
                     expert_feed_forward_length=32,
                     expert_shared_feed_forward_length=64))
    yield Case("qwen3moe", "qwen3moe", "Qwen3Moe",
               dict(num_experts=8, num_experts_per_tok=3, head_dim=DIM,
                    moe_intermediate_size=64, norm_topk_prob=True,
                    rope_theta=10000.0),
               sizes("qwen3moe", expert_count=8, expert_used_count=3,
                     expert_feed_forward_length=64))
    gemma = dict(gemma=True)
    yield Case("gemma2", "gemma2", "Gemma2",
               dict(head_dim=DIM, sliding_window=16, query_pre_attn_scalar=DIM,
                    attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
               sizes("gemma2", attention__sliding_window=16,
                     attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
               **gemma)
    yield Case("gemma3", "gemma3", "Gemma3",
               dict(head_dim=DIM, sliding_window=16, query_pre_attn_scalar=DIM,
                    num_hidden_layers=7, rope_theta=1e6,
                    rope_local_base_freq=1e4,
                    rope_scaling=dict(rope_type="linear", factor=8.0)),
               sizes("gemma3", layers=7, attention__sliding_window=16,
                     rope__freq_base=1e6, rope__scaling__type="linear",
                     rope__scaling__factor=8.0), config="Gemma3TextConfig",
               **gemma)


def phi3_cases():
    half = DIM // 2
    short = [1.0 + 0.05 * i for i in range(half)]
    long = [1.5 + 0.75 * i for i in range(half)]
    extra = {"rope_factors_short.weight": short,
             "rope_factors_long.weight": long}
    scaling = dict(type="longrope", short_factor=short, long_factor=long)
    factor = 256 / 64
    yield Case("phi3", "phi3", "Phi3", dict(sliding_window=16),
               sizes("phi3", attention__sliding_window=16))
    for name, ctx in (("phi3-short", 64), ("phi3-long", 256)):
        # 40 positions: the original context is below them or above
        orig = 64 if name == "phi3-short" else 32
        factor = 256 / orig
        mscale = math.sqrt(1 + math.log(factor) / math.log(orig))
        yield Case(name, "phi3", "Phi3",
                   dict(original_max_position_embeddings=orig,
                        sliding_window=None, rope_scaling=dict(scaling)),
                   sizes("phi3", rope__scaling__original_context_length=orig,
                         rope__scaling__attn_factor=mscale),
                   extra=extra, ctx=ctx)
    yield Case("phi3-partial", "phi3", "Phi3",
               dict(partial_rotary_factor=0.75, sliding_window=None),
               sizes("phi3", rope__dimension_count=12))


def ropes():
    """Frequencies and the factor of cosines and sines, as the reference
    computes them from a configuration."""
    out = []
    for name, kind, base, dim, orig, rope in (
            ("linear", 1, 10000.0, 64, 2048, dict(factor=4.0)),
            ("yarn", 2, 1000000.0, 128, 32768, dict(factor=4.0)),
            ("yarn", 2, 150000.0, 64, 4096,
             dict(factor=32.0, beta_fast=16.0, beta_slow=2.0)),
            ("yarn", 2, 10000.0, 80, 4096,
             dict(factor=40.0, attention_factor=1.25)),
            ("llama3", 3, 500000.0, 128, 8192,
             dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)),
            ("llama3", 3, 500000.0, 64, 8192,
             dict(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0)),
            ("longrope", 4, 10000.0, 96, 4096, dict(factor=32.0))):
        rope = dict(rope, rope_type=name,
                    original_max_position_embeddings=orig)
        if name == "longrope":
            rope["short_factor"] = [1 + i / 64 for i in range(dim // 2)]
            rope["long_factor"] = [1 + i for i in range(dim // 2)]
        cfg = transformers.LlamaConfig(
            hidden_size=dim * 4, num_attention_heads=4, rope_theta=base,
            max_position_embeddings=int(orig * rope["factor"]),
            rope_scaling=rope)
        cfg.original_max_position_embeddings = orig
        freq, mscale = ROPE_INIT_FUNCTIONS[name](cfg, "cpu", seq_len=1)
        out.append({
            "kind": kind, "dim": dim, "base": base, "ctx_orig": orig,
            "factor": rope["factor"],
            "mscale_given": rope.get("attention_factor", 0),
            "beta_fast": rope.get("beta_fast", 32),
            "beta_slow": rope.get("beta_slow", 1),
            "freq_low": rope.get("low_freq_factor", 1),
            "freq_high": rope.get("high_freq_factor", 4),
            "divide": rope.get("short_factor", []),
            "mscale": float(mscale), "freq": [float(f) for f in freq]})
    return out


def main():
    cases = []
    for group in (llama_cases, other_cases, phi3_cases):
        for case in group():
            cases.append(case.answer())
            print("%-14s cache effect %.2e" % (case.name,
                                               cases[-1]["cache_effect"]))
    with open(sys.argv[1], "w") as f:
        f.write('{"reference": "transformers %s, torch %s",\n'
                % (transformers.__version__, torch.__version__))
        f.write(' "tokens": %d, "shown": %s,\n "cases": [\n'
                % (TOKENS, list(SHOWN)))
        f.write(",\n".join(json.dumps(c) for c in cases))
        f.write('],\n "ropes": [\n')
        f.write(",\n".join(json.dumps(r) for r in ropes()))
        f.write("]}\n")


if __name__ == "__main__":
    main()
