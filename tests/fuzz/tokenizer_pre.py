#!/usr/bin/env python3
"""Differential fuzzing of GGUF vocabularies: for every tokenizer.ggml.pre name
a GGUF file with GPT-2's vocabulary, beside a tokenizer.json with the same
vocabulary and the pre-tokenizer of the models behind that name.

    tests/fuzz/tokenizer_pre.py GPT2.json [--cases N] [--seed S]
        [--corpus FILE ...] [--build FOLDER] [NAME ...]

An unknown name must be refused.  The exit code is the number of names that
differ.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*" \
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+" \
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REST4 = REST.replace(r"[\r\n]*|", r"[\r\n/]*|", 1)
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
LETTERS = r"\s?[\p{Lu}\p{Ll}\p{Lt}]+"
NUM = {"type": "Digits", "individual_digits": True}
NUM_RE = r"\p{N}"


def level(regex):
    return {"type": "ByteLevel", "add_prefix_space": False,
            "trim_offsets": True, "use_regex": regex}


def splits(*patterns, words=False):
    return [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated",
             "invert": False} if isinstance(p, str) else p
            for p in patterns] + [level(words)]


GPT2 = [level(True)]
DIGITS = [NUM, level(True)]
CL100K = splits(WORDS + r"\p{N}{1,3}|" + REST)
QWEN2 = splits(WORDS + r"\p{N}|" + REST)
O200K = splits(UPPER + ENDS + "|" + LOWER + ENDS + r"|\p{N}{1,3}|" + REST4)
TEKKEN = splits(UPPER + "|" + LOWER + r"|\p{N}|" + REST4)
DEEPSEEK3 = splits(
    r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^" "\r\n"
    r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[" "\r\n" r"]*|\s*["
    "\r\n" r"]+|\s+(?!\S)|\s+")
PIPELINES = {
    "GPT2": (GPT2, "gpt-2 gpt2 phi-2 jina-es jina-de jina-v1-en jina-v2-es "
             "jina-v2-de jina-v2-code roberta-bpe gigachat a.x-4.0 mellum "
             "exaone4 trillion granite-docling jais"),
    "DIGITS": (DIGITS, "starcoder refact smollm codeshell minerva-7b "
               "mellum2"),
    "CL100K": (CL100K, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 midm-2.0 "
               "lfm2 jina-v5-nano dbrx smaug-bpe glm4 glm5 chatglm-bpe "
               "gpt-4"),
    "QWEN2": (QWEN2, "hunyuan kormo f2llmv2 solar-open grok-2"),
    "O200K": (O200K, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    "TEKKEN": (TEKKEN, "tekken pixtral"),
    "DEEPSEEK3": (DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    "FALCON": ([{"type": "Punctuation", "behavior": "Contiguous"},
                level(True), {"type": "Digits", "individual_digits": False},
                *splits("[0-9][0-9][0-9]")[:1]], "falcon"),
    "CODER": (splits("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, NUM_RE),
              "deepseek-coder"),
    "LLM": (splits("[\r\n]", LETTERS, "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e"
                   "\u2018-\u201f\u3000-\u3002]+", r"\s+$", CJK, NUM_RE),
            "deepseek-llm"),
    "BLOOM": (splits(BLOOM), "bloom poro-chat gpt3-finnish"),
    "VIKING": (splits(BLOOM, NUM_RE), "viking"),
    "CHAMELEON": (splits(
        "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )", NUM_RE, r"[\p{P}!-/:-@\[-`{-~]", words=True),
        "chameleon"),
    "BAILING": (splits(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"),
        "bailingmoe bailingmoe2 llada-moe"),
    "SEED": (splits(WORDS + r"\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|"
                    r"\s+(?!\S)|\s+"), "seed-coder"),
    "MINICPM5": (splits(r"\p{N}{1,3}", WORDS + r"\p{N}+|" + REST),
                 "minicpm5"),
}
NFC = {
    "mpt olmo modern-bert": GPT2, "command-r exaone": DIGITS,
    "qwen2 deepseek-r1-qwen stablelm2 megrez": QWEN2,
    "qwen35": splits(WORDS.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+")
                     + r"\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                     r"\s+(?!\S)|\s+"),
}
IGNORE = set("llama3 llama-v3 llama-bpe falcon3 falcon-h1 midm-2.0 lfm2 "
             "jina-v5-nano glm4 glm5 tekken pixtral minicpm5".split())


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(path, pre, tokens, merges, types, eos):
    """The keys of a vocabulary and no tensor."""
    keys = [
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("gpt2"),
        text("tokenizer.ggml.pre") + struct.pack("<I", 8) + text(pre),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens))
        + b"".join(map(text, tokens)),
        text("tokenizer.ggml.merges") + struct.pack("<IIQ", 9, 8, len(merges))
        + b"".join(map(text, merges)),
        text("tokenizer.ggml.token_type")
        + struct.pack("<IIQ", 9, 5, len(types))
        + struct.pack("<%di" % len(types), *types),
        text("tokenizer.ggml.add_bos_token") + struct.pack("<IB", 7, 0),
        text("tokenizer.ggml.eos_token_id") + struct.pack("<II", 4, eos)]
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
                + b"".join(keys))


def pipelines():
    for steps, names in PIPELINES.values():
        for name in names.split():
            yield name, steps, None
    for names, steps in NFC.items():
        for name in names.split():
            yield name, steps, {"type": "NFC"}


def one(name, steps, norm, base, folder, args):
    model = base["model"]
    tokens = [t for t, _ in sorted(model["vocab"].items(),
                                   key=lambda x: x[1])]
    merges = [m if isinstance(m, str) else " ".join(m)
              for m in model["merges"]]
    special = {t["content"] for t in base["added_tokens"] if t["special"]}
    path = os.path.join(folder, name + ".gguf")
    gguf(path, name, tokens, merges, [3 if t in special else 1
                                      for t in tokens], len(tokens) - 1)
    ref = dict(base, normalizer=norm, post_processor=None, pre_tokenizer={
        "type": "Sequence", "pretokenizers": steps},
        decoder=level(True), model=dict(model, ignore_merges=name in IGNORE))
    there = os.path.join(folder, name + ".json")
    json.dump(ref, open(there, "w"))
    command = [sys.executable, os.path.join(HERE, "tokenizer_bulk.py"), path,
               there, "--cases", str(args.cases), "--seed", str(args.seed),
               "--build", folder, "--corpus", *args.corpus]
    rc = subprocess.call(command)
    os.remove(path)
    os.remove(there)
    return rc


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("gpt2")
    ap.add_argument("names", nargs="*")
    ap.add_argument("--cases", type=int, default=2000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--corpus", nargs="*", default=[])
    ap.add_argument("--build")
    args = ap.parse_args()
    base = json.load(open(args.gpt2, encoding="utf-8"))
    folder = args.build or tempfile.mkdtemp()
    bad = [name for name, steps, norm in pipelines()
           if (not args.names or name in args.names)
           and one(name, steps, norm, base, folder, args)]
    print("names that differ:", *bad or ["none"])
    return min(len(bad), 100)


if __name__ == "__main__":
    sys.exit(main())
