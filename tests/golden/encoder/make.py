#!/usr/bin/env python3
"""Golden outputs of small models of every family: make.py OUT.json BEAMS.json

Weights come from a formula over tensor name and index (value() here,
tiny_value() in tests/unit/encoder/tiny_st.h), so nothing but names, shapes
and outputs is kept. The reference is transformers' own code in float32;
nomic_bert, whose code lives with its weights, is written out below.
Needs torch, transformers, numpy.
"""

import json
import sys

import numpy as np
import torch
import transformers as tf

torch.manual_seed(0)
torch.set_num_threads(1)

IDS = [[2, 17, 5, 40, 3], [2, 3], [9],
       [2] + [(7 * i * i + 11) % 89 + 5 for i in range(37)] + [3]]


def value(name, shape):
    h = 2166136261
    for c in name.encode():
        h = (h ^ c) * 16777619 & 0xffffffff
    n = int(np.prod(shape))
    x = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761)
         + np.uint64(h)) & np.uint64(0xffffffff)
    for shift, factor in ((15, 0x2c1b3c6d), (12, 0x297a2d39)):
        x ^= x >> np.uint64(shift)
        x = x * np.uint64(factor) & np.uint64(0xffffffff)
    x ^= x >> np.uint64(15)
    v = ((x >> np.uint64(8)).astype(np.float32) / np.float32(1 << 24)
         - np.float32(0.5))
    if len(shape) == 1:
        v = 1 + v * np.float32(0.5) if name.endswith(".weight") else \
            v * np.float32(0.5)
    elif "embed" in name or "shared" in name or "bias" in name:
        v = v * np.float32(2)
    else:
        # a power of two keeps the product exact
        v = v * np.float32(2.0 ** -round(np.log2(shape[1]) / 2 - 1.8))
    return v.reshape(shape).astype(np.float32)


def skipped(name, tied):
    return name.endswith(("embed_tokens.weight", "position_ids")) \
        or (tied and name == "lm_head.weight")


def fill(model, tied):
    tensors = []
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if skipped(name, tied) or not t.is_floating_point():
                continue
            t.copy_(torch.from_numpy(value(name, tuple(t.shape))))
            tensors.append([name, list(t.shape)])
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    model.eval()
    return tensors


def rounded(t):
    return [float("%.7g" % v) for v in t.detach().double().numpy().ravel()]


def embed(name, cls, config, types=False):
    model = cls(config)
    tensors = fill(model, True)
    cases = []
    for ids in IDS:
        kw = {}
        if types:
            kw["token_type_ids"] = torch.tensor([[i % 2 for i in
                                                  range(len(ids))]])
        with torch.no_grad():
            h = model(torch.tensor([ids]), **kw).last_hidden_state[0]
        cases.append({"ids": ids, "types": types, "mean": rounded(h.mean(0)),
                      "cls": rounded(h[0])})
    return {"name": name, "config": config_of(config, cls), "cases": cases,
            "tensors": tensors}


def classify(name, cls, config):
    model = cls(config)
    tensors = fill(model, True)
    cases = []
    for ids in IDS:
        with torch.no_grad():
            cases.append({"ids": ids, "types": False, "logits":
                          rounded(model(torch.tensor([ids])).logits[0])})
    return {"name": name, "config": config_of(config, cls), "cases": cases,
            "tensors": tensors}


def t2t(name, config):
    cls = tf.T5ForConditionalGeneration
    model = cls(config)
    tensors = fill(model, config.tie_word_embeddings)
    cases = []
    for ids in IDS:
        x = torch.tensor([ids])
        kw = dict(attention_mask=torch.ones_like(x), max_new_tokens=12,
                  use_cache=False)
        with torch.no_grad():
            out = model.generate(x, do_sample=False, num_beams=1, **kw)[0]
            beam = model.generate(x, do_sample=False, num_beams=3, **kw,
                                  output_scores=True,
                                  return_dict_in_generate=True)
            dec = out[:-1]
            logits = model(input_ids=x, decoder_input_ids=dec[None]).logits
            lp = torch.log_softmax(logits[0], -1)
        cases.append({"ids": ids, "target": out[1:].tolist(),
                      "beam": beam.sequences[0][1:].tolist(),
                      "beam_score": float(beam.sequences_scores[0]),
                      "logits": rounded(logits[0][0]),
                      "logprob": [float("%.7g" % lp[i, t]) for i, t in
                                  enumerate(out[1:].tolist())]})
    return {"name": name, "config": config_of(config, cls), "cases": cases,
            "tensors": tensors}


def answer(tokens, eos):
    """Without the start, and without the padding behind the end."""
    tokens = tokens[1:]
    return tokens[:tokens.index(eos) + 1] if eos in tokens else tokens


# beams, length_penalty, early_stopping, max_new_tokens
SEARCHES = [(2, 1.0, False, 12), (4, 1.0, False, 30), (5, 0.0, False, 16),
            (4, 2.0, False, 20), (4, -1.0, False, 20), (3, 1.0, True, 20),
            (8, 0.6, True, 24), (16, 1.0, False, 8), (6, 1.0, False, 1)]


def beams(name, eos, config):
    """With an end that is likely, else hypotheses end at their limit."""
    config = tf.T5Config(**dict(config, eos_token_id=eos))
    model = tf.T5ForConditionalGeneration(config)
    fill(model, config.tie_word_embeddings)
    cases = []
    for ids in IDS:
        x = torch.tensor([ids])
        for width, penalty, early, most in SEARCHES:
            with torch.no_grad():
                out = model.generate(
                    x, attention_mask=torch.ones_like(x), do_sample=False,
                    num_beams=width, length_penalty=penalty,
                    early_stopping=early, max_new_tokens=most,
                    use_cache=False, output_scores=True,
                    return_dict_in_generate=True)
            cases.append({"ids": ids, "beams": width, "penalty": penalty,
                          "early": early, "max": most,
                          "tokens": answer(out.sequences[0].tolist(), eos),
                          "score": float(out.sequences_scores[0])})
    return {"name": name, "eos": eos, "cases": cases}


def config_of(config, cls):
    d = json.loads(config.to_json_string(use_diff=False))
    d["architectures"] = [cls.__name__]
    keep = {}
    for key, v in d.items():
        if isinstance(v, (str, int, float, bool)) or key in (
                "architectures", "id2label"):
            keep[key] = v
    return keep


class Nomic(torch.nn.Module):
    """Post-norm BERT with rotation and a gated feed forward."""

    def __init__(self, c):
        super().__init__()
        self.c, e, f = c, c["n_embd"], c["n_inner"]
        nn = torch.nn
        emb = nn.Module()
        emb.word_embeddings = nn.Embedding(c["vocab_size"], e)
        emb.token_type_embeddings = nn.Embedding(c["type_vocab_size"], e)
        self.embeddings = emb
        self.emb_ln = nn.LayerNorm(e, c["layer_norm_epsilon"])
        self.encoder = nn.Module()
        layers = []
        for _ in range(c["n_layer"]):
            m = nn.Module()
            m.attn = nn.Module()
            m.attn.Wqkv = nn.Linear(e, 3 * e, bias=False)
            m.attn.out_proj = nn.Linear(e, e, bias=False)
            m.norm1 = nn.LayerNorm(e, c["layer_norm_epsilon"])
            m.mlp = nn.Module()
            m.mlp.fc11 = nn.Linear(e, f, bias=False)
            m.mlp.fc12 = nn.Linear(e, f, bias=False)
            m.mlp.fc2 = nn.Linear(f, e, bias=False)
            m.norm2 = nn.LayerNorm(e, c["layer_norm_epsilon"])
            layers.append(m)
        self.encoder.layers = nn.ModuleList(layers)

    def rotate(self, x):
        n, d = x.shape[-2], x.shape[-1]
        f = self.c["rotary_emb_base"] ** (-torch.arange(0, d, 2) / d)
        a = torch.arange(n)[:, None] * f
        a = torch.cat((a, a), -1)
        y = torch.cat((-x[..., d // 2:], x[..., :d // 2]), -1)
        return x * a.cos() + y * a.sin()

    def forward(self, ids, token_type_ids):
        x = self.emb_ln(self.embeddings.word_embeddings(ids[0])
                        + self.embeddings.token_type_embeddings(
                            token_type_ids[0]))
        heads = self.c["n_head"]
        for m in self.encoder.layers:
            q, k, v = m.attn.Wqkv(x).view(len(x), 3, heads, -1).permute(
                1, 2, 0, 3)
            a = torch.nn.functional.scaled_dot_product_attention(
                self.rotate(q), self.rotate(k), v)
            x = m.norm1(x + m.attn.out_proj(
                a.transpose(0, 1).reshape(len(x), -1)))
            y = m.mlp.fc11(x) * torch.nn.functional.silu(m.mlp.fc12(x))
            x = m.norm2(x + m.mlp.fc2(y))
        return x


def nomic():
    c = {"model_type": "nomic_bert", "architectures": ["NomicBertModel"],
         "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 2,
         "n_inner": 96, "n_positions": 128, "type_vocab_size": 2,
         "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000,
         "rotary_emb_fraction": 1.0, "activation_function": "swiglu"}
    model = Nomic(c)
    tensors = fill(model, True)
    cases = []
    for ids in IDS:
        types = torch.tensor([[i % 2 for i in range(len(ids))]])
        with torch.no_grad():
            h = model(torch.tensor([ids]), types)
        cases.append({"ids": ids, "types": True, "mean": rounded(h.mean(0)),
                      "cls": rounded(h[0])})
    return {"name": "nomic", "config": c, "cases": cases, "tensors": tensors}


def main():
    small = dict(vocab_size=96, hidden_size=64, num_hidden_layers=3,
                 num_attention_heads=2, intermediate_size=96,
                 max_position_embeddings=80, pad_token_id=0)
    roberta = dict(small, pad_token_id=1, type_vocab_size=1)
    modern = dict(small, global_attn_every_n_layers=2, local_attention=8,
                  cls_token_id=2, sep_token_id=3, bos_token_id=2,
                  eos_token_id=3, num_hidden_layers=4)
    t5 = dict(vocab_size=96, d_model=64, d_kv=16, d_ff=96, num_layers=2,
              num_heads=6, relative_attention_num_buckets=8,
              relative_attention_max_distance=20, pad_token_id=0,
              eos_token_id=1, decoder_start_token_id=0)
    distil = dict(vocab_size=96, dim=64, n_layers=2, n_heads=4,
                  hidden_dim=96, max_position_embeddings=80)
    labels = {"id2label": {0: "NEG", 1: "NEUTRAL", 2: "POS"}}
    out = [
        embed("bert", tf.BertModel, tf.BertConfig(**small), True),
        embed("roberta", tf.RobertaModel, tf.RobertaConfig(**roberta)),
        embed("xlm-roberta", tf.XLMRobertaModel,
              tf.XLMRobertaConfig(**roberta)),
        embed("distilbert", tf.DistilBertModel, tf.DistilBertConfig(
            **distil)),
        embed("modernbert", tf.ModernBertModel, tf.ModernBertConfig(
            **modern, attn_implementation="eager",
            reference_compile=False)),
        nomic(),
        classify("bert-classifier", tf.BertForSequenceClassification,
                 tf.BertConfig(**small, **labels)),
        classify("roberta-classifier", tf.RobertaForSequenceClassification,
                 tf.RobertaConfig(**roberta, **labels)),
        classify("distilbert-classifier",
                 tf.DistilBertForSequenceClassification,
                 tf.DistilBertConfig(**distil, **labels)),
        classify("modernbert-classifier",
                 tf.ModernBertForSequenceClassification,
                 tf.ModernBertConfig(**modern, **labels,
                                     classifier_pooling="mean",
                                     attn_implementation="eager",
                                     reference_compile=False)),
        classify("bert-reranker", tf.BertForSequenceClassification,
                 tf.BertConfig(**small, id2label={0: "LABEL_0"})),
        t2t("t5-relu-tied", tf.T5Config(**t5)),
        t2t("t5-gated-untied", tf.T5Config(
            **t5, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False, num_decoder_layers=3)),
    ]
    write(sys.argv[1], out)
    write(sys.argv[2], [beams(m["name"], eos, m["config"])
                        for m in out if m["name"].startswith("t5")
                        for eos in (1, 44, 69)])


def write(path, out):
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(m) for m in out) + "\n]\n")


main()
