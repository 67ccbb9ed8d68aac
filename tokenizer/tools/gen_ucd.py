#!/usr/bin/env python3
"""Writes tok_ucd.inc: decompositions, compositions, combining classes, lower
case and scripts, as the reference has them (see gen_classes.py).

    pip install tokenizers==0.23.2 regex
    tokenizer/tools/gen_ucd.py > tokenizer/tok_ucd.inc
"""

import struct
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
COMPOSE_LOG = 11


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
    print("\n" + head + " = {")
    line = "   "
    for v in values:
        item = " %d," % v
        if len(line) + len(item) > 79:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def compositions(pairs):
    """A hash of 1 << COMPOSE_LOG places: first, second and result, 21 bits
    each; see compose() in tok_ucd.c."""
    out = [0] * (1 << COMPOSE_LOG)
    for a, b, c in sorted(pairs):
        at = (a * 0x9E3779B1 ^ b * 0x85EBCA6B) & 0xFFFFFFFF
        at >>= 32 - COMPOSE_LOG
        while out[at]:
            at = (at + 1) % len(out)
        out[at] = a << 42 | b << 21 | c
        assert len((chr(a) + chr(b)).encode()) >= len(chr(c).encode())
    dump("static const uint64_t tok_compose[%d]" % len(out), out)


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


def charsmap(key):
    """A Precompiled normalizer that makes "Q" of key and knows nothing else.
    It looks up whole grapheme clusters of less than 6 bytes by their
    beginning: what follows key inside its cluster disappears."""
    units = [0] * (256 * (len(key) + 2))
    units[0] = 256 << 10
    base = 256
    for i, byte in enumerate(key):
        at = base ^ byte
        base += 256
        units[at] = (at ^ base) << 10 | byte
    units[at] |= 1 << 8
    units[base] = 1 << 31
    trie = struct.pack("<%dI" % len(units), *units)
    return normalizers.Precompiled(struct.pack("<I", len(trie)) + trie
                                   + b"Q\0").normalize_str


def graphemes():
    """Grapheme cluster break classes (low bits) and what a character is in
    Indic conjuncts (1 consonant, 2 linker, 4 extender; above), for the
    Precompiled normalizer: both asked of it.  MARK behind a character
    disappears if that begins a cluster and stays if it belongs to the one
    before."""
    names = ["Other", "CR", "LF", "Control", "Extend", "ZWJ", "RI",
             "Prepend", "SpacingMark", "L", "V", "T", "LV", "LVT", "ExtPict"]
    mark = "\u0301"
    maps = {k: charsmap(k.encode()) for k in
            "a\u2139\u0344\u1100\u1161\u11a8\u0958"}

    def inside(before, key):
        return maps[key](before + key + mark).endswith("Q" + mark)

    def kind(c, ch):
        if c in (10, 13, 0x200d):
            return {10: "LF", 13: "CR", 0x200d: "ZWJ"}[c]
        if 0x1f1e6 <= c <= 0x1f1ff:
            return "RI"
        if is_hangul(c):
            return "LV" if (c - 0xac00) % 28 == 0 else "LVT"
        if ch != "a" and maps["a"]("a" + ch) == "Q":
            return "Extend" if inside("\u00a9" + ch + "\u200d", "\u2139") \
                else "SpacingMark"
        if inside(ch, "a"):
            return "Prepend"
        if not inside(ch, "\u0344"):
            return "Control"
        if inside(ch, "\u1100"):
            return "L"
        if inside(ch, "\u1161"):
            return "V"
        if inside(ch, "\u11a8"):
            return "T"
        return "ExtPict" if inside(ch + "\u200d", "\u2139") else "Other"

    out = [0] * N
    for c in CPS:
        ch = chr(c)
        out[c] = names.index(kind(c, ch))
        if inside(ch + "\u094d", "\u0958"):
            out[c] |= 1 << 4
        if out[c] & 15 not in (names.index("Extend"), names.index("ZWJ")):
            continue
        if inside("\u0915" + ch, "\u0958"):
            out[c] |= 2 << 4
        elif inside("\u0915\u094d" + ch, "\u0958"):
            out[c] |= 4 << 4
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
    print("/* Written by tools/gen_ucd.py; do not edit. */")
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
    compositions(pairs)
    two_stage("script", "uint8_t", scripts())
    two_stage("gcb", "uint8_t", graphemes())


main()
