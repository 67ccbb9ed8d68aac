#!/usr/bin/env python3
"""Makes a GGUF file of another type, by llama.cpp's own quantiser.

  tests/bench/engine/requant.py IN.gguf OUT.gguf TYPE

TYPE is a file type of llama.cpp: F32, F16, Q8_0, Q4_0, Q4_1, Q4_K_M, Q6_K...
Runs under a Python that has llama-cpp-python.  F32 of a quantised file is
what bench_kl compares with; the others are for comparing speed, where a
second rounding of the weights does not matter.
"""
import ctypes
import sys

import llama_cpp as lc


def quiet(level, text, data):
    pass


LOG = lc.llama_log_callback(quiet)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    name = sys.argv[3]
    ftype = getattr(lc, "LLAMA_FTYPE_ALL_F32" if name == "F32"
                    else "LLAMA_FTYPE_MOSTLY_" + name)
    lc.llama_log_set(LOG, ctypes.c_void_p(0))
    p = lc.llama_model_quantize_default_params()
    p.ftype = ftype
    p.nthread = 1
    p.allow_requantize = True
    p.pure = name in ("F32", "F16", "Q8_0")
    rc = lc.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(),
                                 ctypes.byref(p))
    if rc != 0:
        sys.exit(f"llama_model_quantize failed: {rc}")


main()
