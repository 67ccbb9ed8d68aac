#!/usr/bin/env python3
"""Golden logits of small Hugging Face models: hf_golden.py > FILE

Needs torch and transformers. Weights come from a formula of a tensor's name
that tests/unit/engine/test_hf.c has too, so that no weights are stored; each
line of the output is one model: its config.json, its tensors and the
reference implementation's logits after some tokens.
"""

import json
import sys

import torch
import transformers as tf

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
IDS = [(i * 37 + 11) % 61 + 1 for i in range(40)]
AT = [0, 5, 39]
SMALL = dict(vocab_size=64, hidden_size=64, intermediate_size=96,
             num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=[2, 3], pad_token_id=0)


def values(name, kind, shape):
    """Steps of 1/1024 or 1/64: exact in every type."""
    state = 2166136261
    for c in name.encode():
        state = (state ^ c) * 16777619 & 0xffffffff
    n = 1
    for d in shape:
        n *= d
    out = []
    for _ in range(n):
        state = (state * 1664525 + 1013904223) & 0xffffffff
        k = (state >> 24) - 128
        out.append(k / 1024 if kind == "matrix" else k // 8 / 64
                   + (1 if kind == "norm1" else 0))
    return torch.tensor(out, dtype=torch.float32).reshape(shape)


def kind_of(name, shape, gemma):
    if len(shape) > 1:
        return "matrix"
    if "norm" not in name:
        return "bias"
    return "norm0" if gemma else "norm1"


def compact(config):
    skip = ("transformers_version", "architectures", "dtype", "torch_dtype")
    return {k: v for k, v in config.to_diff_dict().items() if k not in skip}


def case(name, config, dtype="F32", shards=1, change=None, rename=None):
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = tf.AutoModelForCausalLM.from_config(config).float().eval()
    tied = config.tie_word_embeddings
    gemma = config.model_type.startswith("gemma")
    tensors, state = [], {}
    for key, old in model.state_dict().items():
        if tied and key == "lm_head.weight":
            continue
        shape = list(old.shape)
        kind = kind_of(key, shape, gemma)
        new = rename(key) if rename else key
        state[key] = values(new, kind, shape).to(DTYPES[dtype]).float()
        tensors.append([new, kind, shape])
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    with torch.no_grad():
        logits = model(torch.tensor([IDS]), use_cache=False).logits[0]
    out = compact(config)
    if change:
        out = change(out)
    print(json.dumps({
        "name": name, "config": out, "dtype": dtype, "shards": shards,
        "tensors": tensors, "ids": IDS, "at": AT,
        "logits": [[round(float(x), 5) for x in logits[i]] for i in AT],
    }, separators=(",", ":")))


def newer(config):
    """As files of transformers 5 have it."""
    config["rope_parameters"] = {"rope_type": "default",
                                 "rope_theta": config.pop("rope_theta")}
    return config


def nested(config):
    config["model_type"] = "gemma3_text"
    return {"model_type": "gemma3", "text_config": config,
            "vision_config": {"hidden_size": 32}, "eos_token_id": [2, 3]}


def main():
    if sys.argv[1:] == ["more"]:
        return more()
    case("llama3 scaling", tf.LlamaConfig(
        **SMALL, tie_word_embeddings=False, rope_theta=5000.0,
        rope_scaling={"rope_type": "llama3", "factor": 8.0,
                      "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 32}))
    case("llama", tf.LlamaConfig(
        **SMALL, tie_word_embeddings=True, head_dim=24,
        rope_scaling={"type": "linear", "factor": 2.5}), "BF16", shards=2)
    case("mistral", tf.MistralConfig(**SMALL, sliding_window=8), "F16")
    case("qwen2", tf.Qwen2Config(
        **SMALL, tie_word_embeddings=True,
        rope_scaling={"rope_type": "yarn", "factor": 4.0,
                      "original_max_position_embeddings": 64}))
    case("qwen3", tf.Qwen3Config(**SMALL, head_dim=32), "BF16", shards=3,
         change=newer)
    case("smollm3", tf.SmolLM3Config(
        **dict(SMALL, num_hidden_layers=4), tie_word_embeddings=True), "BF16")
    case("gemma2", tf.Gemma2Config(
        **SMALL, head_dim=16, sliding_window=8, query_pre_attn_scalar=24))
    gemma3 = tf.Gemma3TextConfig(
        **dict(SMALL, num_hidden_layers=7), head_dim=16, sliding_window=8,
        query_pre_attn_scalar=24, rope_local_base_freq=100.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0})
    case("gemma3", gemma3, "BF16")
    case("gemma3 with a tower", gemma3, "F32", change=nested,
         rename=lambda n: "language_model." + n)
    more()
    return 0


def more():
    """Fused matrices and experts."""
    case("phi3", tf.Phi3Config(**SMALL, sliding_window=8), "BF16")
    case("phi3 longrope", tf.Phi3Config(
        **SMALL, original_max_position_embeddings=32,
        rope_scaling={"type": "longrope",
                      "short_factor": [1 + i / 16 for i in range(8)],
                      "long_factor": [1.5 + i for i in range(8)]}))
    case("mixtral", tf.MixtralConfig(
        **SMALL, num_local_experts=4, num_experts_per_tok=2,
        sliding_window=16), "BF16", shards=2)
    case("qwen2_moe", tf.Qwen2MoeConfig(
        **SMALL, num_experts=6, num_experts_per_tok=3,
        moe_intermediate_size=32, shared_expert_intermediate_size=64))
    case("qwen3_moe", tf.Qwen3MoeConfig(
        **SMALL, head_dim=32, num_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=64, norm_topk_prob=True), "F16")


if __name__ == "__main__":
    sys.exit(main())
