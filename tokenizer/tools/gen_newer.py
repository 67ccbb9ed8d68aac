#!/usr/bin/env python3
"""Writes tok_newer.inc: characters that PCRE2 may not know yet.

The reference runs patterns with an Oniguruma that knows a newer Unicode than
the PCRE2 of Debian 12 (10.42, Unicode 14).  For every character that Unicode
14 has not assigned, or has in another category, the script asks the reference
(PyPI: tokenizers) for its general category, whether it is alphabetic, and its
script among those that patterns name.

    pip install tokenizers==0.23.2
    python3.11 tokenizer/tools/gen_newer.py > tokenizer/tok_newer.inc
"""

import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "needs Python 3.11"

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po "
              "Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn").split()
SCRIPTS = ("Arabic Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana "
           "Katakana Latin Thai").split()
CPS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
STEP = 2048


def having(prop):
    """The code points that \\p{prop} takes out of a text."""
    pre = pre_tokenizers.Split(Regex(r"\p{%s}" % prop), "removed")
    out = set()
    for i in range(0, len(CPS), STEP):
        chunk = CPS[i:i + STEP]
        kept = set()
        for _, (a, b) in pre.pre_tokenize_str("".join(map(chr, chunk))):
            kept.update(range(a, b))
        out.update(c for k, c in enumerate(chunk) if k not in kept)
    return out


def main():
    category, script = {}, {}
    for name in CATEGORIES:
        category.update((c, name) for c in having(name))
    for name in SCRIPTS:
        script.update((c, name) for c in having(name))
    alphabetic = having("Alphabetic")
    rows = []
    for c in CPS:
        old = unicodedata.category(chr(c))
        if category[c] == old:
            continue
        if old != "Cn":
            # a union cannot take it out of the old category
            print("U+%04X: %s became %s" % (c, old, category[c]),
                  file=sys.stderr)
        row = (category[c], c in alphabetic, script.get(c, ""))
        if rows and rows[-1][1] == c - 1 and rows[-1][2] == row:
            rows[-1][1] = c
        else:
            rows.append([c, c, row])
    print("/* Written by tools/gen_newer.py; do not edit. */\n")
    for first, last, (cat, alpha, name) in rows:
        print('{ 0x%05x, 0x%05x, "%s", %d, "%s" },'
              % (first, last, cat, alpha, name))


main()
