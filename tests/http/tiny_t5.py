"""The small T5s of the golden data as folders: weights by their formula (see
tests/golden/encoder/make.py) and a tokenizer whose token 17 is "w17"."""

import array
import json
import math
import os

from encoders import write_safetensors
from nginx import TOP

GOLDEN = os.path.join(TOP, "tests", "golden", "encoder")


def golden(file, name, **more):
    with open(os.path.join(GOLDEN, file)) as opened:
        for model in json.load(opened):
            if model["name"] == name and more.items() <= model.items():
                return model
    raise KeyError(name)


def values(name, shape):
    seed = 2166136261
    for c in name.encode():
        seed = (seed ^ c) * 16777619 & 0xffffffff
    cols = shape[1] if len(shape) > 1 else 0
    scale, base = 2.0, 0.0
    if not cols:
        scale, base = 0.5, 1.0 if name.endswith(".weight") else 0.0
    elif not any(s in name for s in ("embed", "shared", "bias")):
        scale = 2.0 ** -round(math.log2(cols) / 2 - 1.8)
    found = array.array("f")
    for i in range(math.prod(shape)):
        x = (i * 2654435761 + seed) & 0xffffffff
        x = (x ^ x >> 15) * 0x2c1b3c6d & 0xffffffff
        x = (x ^ x >> 12) * 0x297a2d39 & 0xffffffff
        x ^= x >> 15
        found.append(base + ((x >> 8) / (1 << 24) - 0.5) * scale)
    return found


def tokenizer(vocab, eos):
    names = ["<pad>", "</s>", "<unk>"] + [
        "\u2581w%d" % i for i in range(3, vocab)]
    names[eos] = "</s>"
    if eos != 1:
        names[1] = "\u2581w1"
    split = {"type": "Metaspace", "replacement": "\u2581",
             "str_rep": "\u2581", "add_prefix_space": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "special": True, "content": names[i],
             "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False} for i in sorted((0, 2, eos))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, split]},
        "post_processor": {
            "type": "TemplateProcessing", "single": [text, end],
            "pair": [text, end, text, end], "special_tokens": {
                "</s>": {"id": "</s>", "ids": [eos], "tokens": ["</s>"]}}},
        "decoder": split,
        "model": {"type": "Unigram", "unk_id": 2,
                  "vocab": [[name, -1.0] for name in names]}}


def make(folder, name, eos=1):
    os.makedirs(folder, exist_ok=True)
    model = golden("families.json", name)
    config = dict(model["config"], eos_token_id=eos)
    write_safetensors(os.path.join(folder, "model.safetensors"),
                      [(tensor, shape, values(tensor, shape))
                       for tensor, shape in model["tensors"]])
    for file, content in (("config.json", config), (
            "tokenizer.json", tokenizer(config["vocab_size"], eos))):
        with open(os.path.join(folder, file), "w") as opened:
            json.dump(content, opened)
    return folder
