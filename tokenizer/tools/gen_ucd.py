#!/usr/bin/env python3
"""Writes tok_ucd.inc: decompositions, compositions, combining classes, lower
case and scripts, as the reference has them (see gen_classes.py).

    pip install tokenizers==0.23.2 regex
    tokenizer/tools/gen_ucd.py > tokenizer/tok_ucd.inc
"""

import sys
import unicodedata

import regex
from tokenizers import normalizers, pre_tokenizers

N = 0x110000
CPS = [c for c in range(N) if not 0xD800 <= c <= 0xDFFF]
NFD = normalizers.NFD().normalize_str
NFKD = normalizers.NFKD().normalize_str
NFC = normalizers.NFC().normalize_str
LOWER = normalizers.Lowercase().normalize_str
BLOCK = 128


def is_hangul(c):
    return 0xAC00 <= c < 0xAC00 + 11172


def combining():
    top = "\u0345"
    reps = {240: top}
    for c in range(0x300, 0x1E000):
        k, ch = unicodedata.combining(chr(c)), chr(c)
        if k and NFD(ch) == ch and NFD("a" + top + ch) == "a" + ch + top:
            reps.setdefault(k, ch)
    order = sorted(reps)
    out = {}
    for c in CPS:
        ch = chr(c)
        if len(NFD(ch)) != 1 or NFD(ch) != ch:
            continue
        if ch == top:
            out[c] = 240
        elif NFD("a" + top + ch) == "a" + ch + top:
            less = [k for k in order if reps[k] != ch
                    and NFD("a" + reps[k] + ch)
                    == "a" + ch + reps[k]]
            # Classes that ch sorts before; its own is the one below.
            below = [k for k in order if k not in less]
            out[c] = below[-1] if below else 0
            guess = unicodedata.combining(ch)
            if out[c] != guess and guess:
                print("ccc U+%04X: %d here, %d in Python" % (c, out[c],
                      guess), file=sys.stderr)
    return out


def two_stage(name, ctype, values):
    blocks, index = {}, []
    for i in range(0, N, BLOCK):
        b = tuple(values[i:i + BLOCK])
        index.append(blocks.setdefault(b, len(blocks)))
    assert len(blocks) < 65536
    itype = "uint8_t" if len(blocks) <= 256 else "uint16_t"
    dump("static const %s tok_%s_index[%d]" % (itype, name, len(index)),
         index)
    dump("static const %s tok_%s_block[%d * %d]" % (ctype, name, len(blocks),
                                                    BLOCK),
         [w for b in blocks for w in b])


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


def scripts():
    """Numbers the scripts; 0 is any.  A wrong guess is found by probing."""
    pre = pre_tokenizers.UnicodeScripts()

    def same(a, b):
        return len(pre.pre_tokenize_str(a + b)) == 1

    groups = []                     # one representative per script
    out = [0] * N
    last = 0
    for c in CPS:
        ch = chr(c)
        # Any joins with both a Latin and a Greek letter.
        if same("a", ch) and same("\u03b1", ch):
            continue
        if last and same(groups[last - 1], ch):
            out[c] = last
            continue
        for k, rep in enumerate(groups):
            if same(rep, ch):
                out[c] = k + 1
                break
        else:
            groups.append(ch)
            out[c] = len(groups)
        last = out[c]
    return out


def graphemes():
    """Grapheme cluster break classes, for the Precompiled normalizer."""
    names = ["Other", "CR", "LF", "Control", "Extend", "ZWJ", "RI",
             "Prepend", "SpacingMark", "L", "V", "T", "LV", "LVT", "ExtPict",
             "Linker", "Consonant"]
    pats = {
        "CR": r"\r", "LF": r"\n", "Control": r"\p{GCB=Control}",
        "Extend": r"\p{GCB=Extend}", "ZWJ": "\u200d",
        "RI": r"\p{GCB=Regional_Indicator}", "Prepend": r"\p{GCB=Prepend}",
        "SpacingMark": r"\p{GCB=SpacingMark}", "L": r"\p{GCB=L}",
        "V": r"\p{GCB=V}", "T": r"\p{GCB=T}", "LV": r"\p{GCB=LV}",
        "LVT": r"\p{GCB=LVT}", "ExtPict": r"\p{Extended_Pictographic}",
    }
    out = [0] * N
    comp = {k: regex.compile(p) for k, p in pats.items()}
    for c in CPS:
        for k, p in comp.items():
            if p.fullmatch(chr(c)):
                out[c] = names.index(k)
                break
    return out


def main():
    pool, where = [], {}

    def intern(s):
        if s not in where:
            where[s] = len(pool)
            pool.extend(map(ord, s))
        return where[s] << 5 | len(s)

    nfd = [0] * N
    nfkd = [0] * N
    lower = [0] * N
    pairs = []
    for c in CPS:
        ch = chr(c)
        d, k, low = NFD(ch), NFKD(ch), LOWER(ch)
        if not is_hangul(c):
            if d != ch:
                nfd[c] = intern(d)
                if NFC(d) == ch and len(d) > 1:
                    first = NFC(d[:-1])
                    assert len(first) == 1, hex(c)
                    assert NFC(first + d[-1]) == ch, hex(c)
                    pairs.append((ord(first), ord(d[-1]), c))
            if k != ch:
                nfkd[c] = intern(k)
        if low != ch:
            lower[c] = intern(low)
    ccc = combining()
    print("/* Written by tools/gen_ucd.py; do not edit. */\n")
    dump("static const uint32_t tok_ucd_pool[%d]" % len(pool), pool)

    def by_index(name, values):
        uniq = sorted(set(values))
        num = {v: i for i, v in enumerate(uniq)}
        dump("static const uint32_t tok_%s_map[%d]" % (name, len(uniq)), uniq)
        two_stage(name, "uint16_t", [num[v] for v in values])

    by_index("nfd", nfd)
    by_index("nfkd", nfkd)
    by_index("lower", lower)
    two_stage("ccc", "uint8_t", [ccc.get(c, 0) for c in range(N)])
    sure = [ccc.get(c, 0) for c in range(N)]
    for c in CPS:
        if NFC(chr(c)) != chr(c):
            sure[c] = 255
    for _, second, _ in pairs:
        sure[second] = 255
    for c in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]:
        sure[c] = 255
    two_stage("sure", "uint8_t", sure)
    pairs.sort()
    dump("static const uint32_t tok_compose[%d * 3]" % len(pairs),
         [v for p in pairs for v in p])
    two_stage("script", "uint8_t", scripts())
    two_stage("gcb", "uint8_t", graphemes())


main()
