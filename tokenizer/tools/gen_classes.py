#!/usr/bin/env python3
"""Writes tok_classes.inc: one 16-bit property word per code point.

The reference takes its character properties from half a dozen libraries of
different Unicode versions, so no single version of the Unicode database has
the answer.  The script asks the reference itself (PyPI: tokenizers), one
property and one code point at a time, and keeps what it says.

    pip install tokenizers==0.23.2
    tokenizer/tools/gen_classes.py > tokenizer/tok_classes.inc
"""

from tokenizers import Regex, normalizers, pre_tokenizers

N = 0x110000
BLOCK = 128


def code_points():
    for c in range(N):
        if not 0xD800 <= c <= 0xDFFF:
            yield c


CPS = list(code_points())
STEP = 2048


def removed_by(pre):
    """The code points that a pre-tokenizer takes out of a text."""
    out = set()
    for i in range(0, len(CPS), STEP):
        chunk = CPS[i:i + STEP]
        kept = set()
        text = "".join(map(chr, chunk))
        for _, (a, b) in pre.pre_tokenize_str(text):
            kept.update(range(a, b))
        out.update(c for k, c in enumerate(chunk) if k not in kept)
    return out


def isolated_by(pre):
    """The code points that make a piece of their own next to a letter."""
    out = set()
    for i in range(0, len(CPS), STEP):
        chunk = CPS[i:i + STEP]
        text = "".join("aa" + chr(c) for c in chunk) + "aa"
        alone = {a for _, (a, b) in pre.pre_tokenize_str(text) if b == a + 1}
        out.update(c for k, c in enumerate(chunk) if 3 * k + 2 in alone)
    return out


def pattern(p):
    return removed_by(pre_tokenizers.Split(Regex(p), "removed"))


def dropped_by(norm, around="a"):
    out = set()
    for c in CPS:
        if norm.normalize_str(around + chr(c) + around) == around + around:
            out.add(c)
    return out


def words():
    """\\w of the Whitespace pre-tokenizer: sticks to a letter."""
    pre = pre_tokenizers.Whitespace()
    out = set()
    for i in range(0, len(CPS), STEP):
        chunk = CPS[i:i + STEP]
        text = " ".join("a" + chr(c) for c in chunk)
        spans = {(a, b) for _, (a, b) in pre.pre_tokenize_str(text)}
        out.update(c for k, c in enumerate(chunk)
                   if (3 * k, 3 * k + 2) in spans)
    return out


bert_clean = normalizers.BertNormalizer(
    clean_text=True, handle_chinese_chars=False, strip_accents=False,
    lowercase=False)
bert_accent = normalizers.BertNormalizer(
    clean_text=False, handle_chinese_chars=False, strip_accents=True,
    lowercase=False)
bert_chinese = normalizers.BertNormalizer(
    clean_text=False, handle_chinese_chars=True, strip_accents=False,
    lowercase=False)

PROPS = [
    ("L", pattern(r"\p{L}")),
    ("N", pattern(r"\p{N}")),
    ("S", pattern(r"\s")),
    ("M", pattern(r"\p{M}")),
    ("P", pattern(r"\p{P}")),
    ("SYM", pattern(r"\p{S}")),
    ("UP", pattern(r"[\p{Lu}\p{Lt}]")),
    ("LOW", pattern(r"\p{Ll}")),
    ("WS", removed_by(pre_tokenizers.WhitespaceSplit())),
    ("NUM", isolated_by(pre_tokenizers.Digits(True))),
    ("PUNC", removed_by(pre_tokenizers.Punctuation("removed"))),
    ("W", words()),
    ("CTRL", dropped_by(bert_clean)),
    ("MN", dropped_by(bert_accent)),
    ("MARK", dropped_by(normalizers.StripAccents())),
    ("CJK", {c for c in CPS
             if bert_chinese.normalize_str(chr(c)) == " %s " % chr(c)}),
]


def main():
    word = [0] * N
    for bit, (_, members) in enumerate(PROPS):
        for c in members:
            word[c] |= 1 << bit
    blocks, index = {}, []
    for i in range(0, N, BLOCK):
        b = tuple(word[i:i + BLOCK])
        index.append(blocks.setdefault(b, len(blocks)))
    print("/* Written by tools/gen_classes.py; do not edit. */\n")
    print("enum {")
    for bit, (name, members) in enumerate(PROPS):
        print("    TOK_U_%s = 0x%x, /* %d */" % (name, 1 << bit,
                                                len(members)))
    print("};\n\n#ifdef TOK_CLASSES_DATA\n")
    dump("static const uint16_t tok_class_index[%d]" % len(index), index)
    dump("static const uint16_t tok_class_block[%d * %d]"
         % (len(blocks), BLOCK), [w for b in blocks for w in b])
    print("#endif")
    assert len(blocks) < 65536


def dump(head, values):
    print(head + " = {")
    line = "   "
    for v in values:
        item = " %d," % v
        if len(line) + len(item) > 79:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\n")


main()
