#!/usr/bin/env python3
"""Differential fuzzing of the component types: small vocabularies with random
pipelines, our library against PyPI `tokenizers`.

    tests/fuzz/tokenizer_parts.py LIB.so [--configs N] [--seed S]
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile

from tokenizers import Tokenizer

spec = importlib.util.spec_from_file_location(
    "diff", os.path.join(os.path.dirname(os.path.abspath(__file__)),
                         "tokenizer_diff.py"))
diff = importlib.util.module_from_spec(spec)
spec.loader.exec_module(diff)

WORDS = ["a", "b", "c", "d", "e", "he", "ll", "o", "hello", "wor", "ld", "th",
         "the", "in", "ing", "1", "2", "12", " ", "\u2581", "\u2581the", ".",
         ",", "!", "'", "\u00e9", "e\u0301", "\u4f60", "\u597d", "\u0939",
         "##ing", "##s", "##o", "##d", "<unk>", "ab", "abc", "bc", "aa",
         "aaa", "aaaa", "\n", "\u0120", "\u0120t", "\u0120th", "A", "B", "H",
         "</w>", "o</w>", "d</w>", "##e", "s", "t", "h", "l", "r", "w", "i",
         "n", "g", "x", "y", "z", "|", "<pad>", "T", "-", "_", "\u3042",
         "\u30a2", "f", "m", "k", "p", "u", "v", "q", "j"]


def normalizer(r, depth=0):
    kinds = ["BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase",
             "StripAccents", "Strip", "Replace", "Prepend", "Nmt",
             "ByteLevel", "Sequence", "ReplaceRe"]
    k = r.choice(kinds)
    b = lambda: r.random() < 0.5
    if k == "BertNormalizer":
        return {"type": k, "clean_text": b(), "handle_chinese_chars": b(),
                "strip_accents": r.choice([None, True, False]),
                "lowercase": b()}
    if k == "Strip":
        return {"type": k, "strip_left": b(), "strip_right": b()}
    if k == "Replace":
        return {"type": k, "pattern": {"String": r.choice([" ", "a", "ll"])},
                "content": r.choice(["\u2581", "", "xy", "e\u0301"])}
    if k == "ReplaceRe":
        return {"type": "Replace", "pattern": {"Regex": r.choice(
            [" {2,}", "\\s+", "[0-9]", "(?i:HE)", "\\p{P}", "l+$", "^h"])},
            "content": r.choice([" ", "", "#"])}
    if k == "Prepend":
        return {"type": k, "prepend": r.choice(["\u2581", "ab", " "])}
    if k == "Sequence" and depth < 2:
        return {"type": k, "normalizers": [normalizer(r, depth + 1)
                for _ in range(r.randint(0, 3))]}
    if k == "Sequence":
        k = "NFC"
    return {"type": k}


BEHAVE = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
          "Contiguous"]


def pre(r, depth=0):
    kinds = ["Whitespace", "WhitespaceSplit", "Metaspace", "Split", "SplitRe",
             "Punctuation", "Digits", "CharDelimiterSplit", "UnicodeScripts",
             "BertPreTokenizer", "ByteLevel", "Sequence", "FixedLength"]
    k = r.choice(kinds)
    b = lambda: r.random() < 0.5
    if k == "Metaspace":
        return {"type": k, "replacement": r.choice(["\u2581", "_"]),
                "prepend_scheme": r.choice(["always", "never", "first"]),
                "split": b()}
    if k == "Split":
        return {"type": k, "pattern": {"String": r.choice([" ", "a", "ll"])},
                "behavior": r.choice(BEHAVE), "invert": b()}
    if k == "SplitRe":
        return {"type": "Split", "pattern": {"Regex": r.choice(
            ["\\s+", "\\p{L}+", "[a-z]+|\\d", "\\w+|[^\\w\\s]+", "(?<=a)b",
             "\\b", " ?[^\\s]+", "(?i:he|LL)", "[^a-c]"])},
            "behavior": r.choice(BEHAVE), "invert": b()}
    if k == "Punctuation":
        return {"type": k, "behavior": r.choice(BEHAVE)}
    if k == "Digits":
        return {"type": k, "individual_digits": b()}
    if k == "CharDelimiterSplit":
        return {"type": k, "delimiter": r.choice([" ", "a", "\u2581"])}
    if k == "ByteLevel":
        return {"type": k, "add_prefix_space": b(), "trim_offsets": b(),
                "use_regex": b()}
    if k == "FixedLength":
        return {"type": k, "length": r.randint(1, 4)}
    if k == "Sequence":
        if depth < 2:
            return {"type": k, "pretokenizers": [
                pre(r, depth + 1) for _ in range(r.randint(0, 3))]}
        k = "Whitespace"
    return {"type": k}


def decoder(r, depth=0):
    kinds = ["ByteLevel", "ByteFallback", "Fuse", "WordPiece", "CTC",
             "BPEDecoder", "Metaspace", "Strip", "Replace", "Sequence"]
    k = r.choice(kinds)
    b = lambda: r.random() < 0.5
    if k == "WordPiece":
        return {"type": k, "prefix": r.choice(["##", "a"]), "cleanup": b()}
    if k == "CTC":
        return {"type": k, "pad_token": r.choice(["<pad>", "a"]),
                "word_delimiter_token": "|", "cleanup": b()}
    if k == "BPEDecoder":
        return {"type": k, "suffix": r.choice(["</w>", "o"])}
    if k == "Metaspace":
        return {"type": k, "replacement": "\u2581", "prepend_scheme":
                r.choice(["always", "never", "first"]), "split": b()}
    if k == "Strip":
        return {"type": k, "content": r.choice([" ", "a"]),
                "start": r.randint(0, 2), "stop": 0}
    if k == "Replace":
        return {"type": k, "pattern": {"String": r.choice(["\u2581", "l"])},
                "content": r.choice([" ", "", "xx"])}
    if k == "ByteLevel":
        return {"type": k, "add_prefix_space": b(), "trim_offsets": b(),
                "use_regex": b()}
    if k == "Sequence":
        if depth < 1:
            return {"type": k, "decoders": [decoder(r, 1)
                    for _ in range(r.randint(0, 4))]}
        k = "Fuse"
    return {"type": k}


def model(r):
    words = r.sample(WORDS, r.randint(30, len(WORDS)))
    if r.random() < 0.4:
        words += ["<0x%02X>" % i for i in range(256)]
    if r.random() < 0.4:
        words += [c for c in diff_alphabet() if c not in words]
    if "<unk>" not in words:
        words.append("<unk>")
    vocab = {w: i for i, w in enumerate(words)}
    k = r.choice(["BPE", "BPE", "BPE", "WordPiece", "Unigram", "WordLevel"])
    b = lambda: r.random() < 0.5
    if k == "WordPiece":
        return {"type": k, "unk_token": "<unk>",
                "continuing_subword_prefix": r.choice(["##", "\u2581"]),
                "max_input_chars_per_word": r.choice([100, 6]),
                "vocab": vocab}
    if k == "WordLevel":
        return {"type": k, "unk_token": "<unk>", "vocab": vocab}
    if k == "Unigram":
        return {"type": k, "unk_id": vocab["<unk>"],
                "byte_fallback": b(),
                "vocab": [[w, -r.choice([1, 2, 3.5, 2.25, len(w) * 1.5])]
                          for w in words]}
    prefix = r.choice([None, None, None, "##"])
    suffix = r.choice([None, None, None, "</w>"])
    merges = []
    for w in words:
        for i in range(1, len(w)):
            x, y = w[:i], w[i:]
            if prefix:
                y = prefix + y
            if x in vocab and y in vocab and " " not in x + y:
                merges.append([x, y])
    r.shuffle(merges)
    if b():
        merges = [" ".join(m) for m in merges]
    return {"type": k, "dropout": None,
            "unk_token": r.choice([None, "<unk>"]),
            "continuing_subword_prefix": prefix, "end_of_word_suffix": suffix,
            # Affixes that become bytes make offsets of the reference
            # meaningless (see tokenizer/README.md).
            "fuse_unk": b(), "byte_fallback": b() and not prefix
            and not suffix, "ignore_merges": b(),
            "vocab": vocab, "merges": merges}


def diff_alphabet():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(c) for c in keep] + [chr(256 + i) for i in range(68)]


def added(r, vocab_n):
    out = []
    for w in r.sample(["<s>", "</s>", "the", "[MASK]", "  ", "he llo", "Ab",
                       "\u2581x", "lo", "\u00e9", "<unk>"], r.randint(0, 5)):
        out.append({"id": vocab_n + len(out), "content": w,
                    "single_word": r.random() < 0.3,
                    "lstrip": r.random() < 0.3, "rstrip": r.random() < 0.3,
                    "normalized": r.random() < 0.4,
                    "special": r.random() < 0.5})
    return out


def post(r):
    b = lambda: r.random() < 0.5
    k = r.choice([None, "ByteLevel", "Template", "Bert", "Roberta",
                  "Sequence"])
    tpl = {"type": "TemplateProcessing",
           "single": [{"SpecialToken": {"id": "C", "type_id": 0}},
                      {"Sequence": {"id": "A", "type_id": 0}},
                      {"SpecialToken": {"id": "S", "type_id": 0}}],
           "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "S", "type_id": 1}},
                    {"Sequence": {"id": "B", "type_id": 1}}],
           "special_tokens": {"C": {"id": "C", "ids": [1, 2],
                                    "tokens": ["a", "b"]},
                              "S": {"id": "S", "ids": [3], "tokens": ["c"]}}}
    bl = {"type": "ByteLevel", "add_prefix_space": b(), "trim_offsets": b(),
          "use_regex": b()}
    if k == "ByteLevel":
        return bl
    if k == "Template":
        return tpl
    if k == "Bert":
        return {"type": "BertProcessing", "sep": ["x", 5], "cls": ["y", 6]}
    if k == "Roberta":
        return {"type": "RobertaProcessing", "sep": ["x", 5],
                "cls": ["y", 6], "trim_offsets": b(),
                "add_prefix_space": b()}
    if k == "Sequence":
        return {"type": "Sequence", "processors": [bl, tpl]}
    return None


def untrimmed(p, m):
    """Trimming goes by the text of unknown tokens, which Unigram keeps."""
    if p and m["type"] == "Unigram":
        for q in [p, *p.get("processors", [])]:
            if "trim_offsets" in q:
                q["trim_offsets"] = False
    return p


def config(r):
    m = model(r)
    some = lambda f, p: f(r) if r.random() < p else None
    return {"version": "1.0",
            "truncation": None if r.random() < 0.7 else {
                "direction": r.choice(["Left", "Right"]),
                "max_length": r.randint(4, 12),
                "strategy": "LongestFirst", "stride": 0},
            "padding": None if r.random() < 0.7 else {
                "strategy": r.choice(["BatchLongest", {"Fixed": 20}]),
                "direction": r.choice(["Left", "Right"]),
                "pad_to_multiple_of": r.choice([None, 8]), "pad_id": 0,
                "pad_type_id": 0, "pad_token": "a"},
            "added_tokens": added(r, len(m["vocab"])),
            "normalizer": some(normalizer, 0.7),
            "pre_tokenizer": some(pre, 0.7),
            "post_processor": untrimmed(post(r), m),
            "decoder": some(decoder, 0.7), "model": m}


class Full(diff.Ours):
    """With what the file asks for: truncation, padding, special tokens."""

    def full(self, text, pair, add, off=True):
        a, f = text.encode(), (1 if add else 0) | 2 | (4 if off else 0)
        if pair is None:
            rc = self.lib.tok_encode(self.t, self.s, a, len(a), f,
                                     diff.C.byref(self.r))
        else:
            b = pair.encode()
            self.lib.tok_encode_pair.argtypes = [
                diff.C.c_void_p, diff.C.c_void_p, diff.C.c_char_p,
                diff.C.c_size_t, diff.C.c_char_p, diff.C.c_size_t,
                diff.C.c_uint, diff.C.POINTER(diff.Result)]
            rc = self.lib.tok_encode_pair(self.t, self.s, a, len(a), b,
                                          len(b), f, diff.C.byref(self.r))
        if rc:
            return rc, None
        n = self.r.n
        if not off:
            return self.r.ids[:n], None
        o = self.r.off[:2 * n]
        return self.r.ids[:n], list(zip(o[::2], o[1::2]))


def check(ours, theirs, text, pair, add):
    try:
        enc = theirs.encode(text, pair, add_special_tokens=add)
    except BaseException as e:                  # panics are no answer
        return None if "panic" in repr(type(e)).lower() else "error"
    ids, off = ours.full(text, pair, add)
    if ids != enc.ids:
        return "ids", enc.ids, ids
    if off != enc.offsets:
        return "offsets", enc.offsets, off
    if ours.full(text, pair, add, False)[0] != enc.ids:
        return "ids without offsets", enc.ids, ours.full(text, pair, add,
                                                         False)[0]
    if not ids or pair:
        return None
    try:
        want = theirs.decode(ids, skip_special_tokens=add)
    except BaseException:
        return None
    have = ours.decode(ids, add)
    return None if want == have else ("text", ids, want, have)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("lib")
    ap.add_argument("--configs", type=int, default=2000)
    ap.add_argument("--texts", type=int, default=40)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--stop", type=int, default=5)
    args = ap.parse_args()
    bad = refused = cases = 0
    path = os.path.join(tempfile.mkdtemp(), "tokenizer.json")
    for n in range(args.configs):
        r = random.Random(args.seed * 1000003 + n)
        text = json.dumps(config(r), ensure_ascii=r.random() < 0.5)
        open(path, "w").write(text)
        try:
            theirs = Tokenizer.from_str(text)
        except BaseException:
            continue
        try:
            ours = Full(args.lib, path)
        except SystemExit as e:
            refused += 1
            if refused <= 20:
                print("refused:", n, str(e)[:150])
            continue
        gen = diff.Cases(theirs, [], r)
        for _ in range(args.texts):
            cases += 1
            t = next(gen)
            p = next(gen) if r.random() < 0.2 else None
            add = r.random() < 0.5
            d = check(ours, theirs, t, p, add)
            if d and d != "error":
                bad += 1
                print("config", n, ascii(t), ascii(p), add, *map(ascii, d))
                c = json.loads(text)
                c["model"] = {k: v for k, v in c["model"].items()
                              if k not in ("vocab", "merges")}
                print("   ", json.dumps(c))
                break
        if bad >= args.stop:
            break
    print("%d configurations, %d refused, %d cases, %d differences" % (
        n + 1, refused, cases, bad))
    return min(bad, 100)


if __name__ == "__main__":
    sys.exit(main())
