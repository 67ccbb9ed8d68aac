#!/bin/sh
# Builds the GGUF fuzz target with clang and runs it for some seconds on seeds
# made here. Needs clang; exits 77 without.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-30}
out=${OUT:-build/fuzz}
command -v clang >/dev/null || exit 77
mkdir -p "$out/gguf-corpus"

cat >"$out/gguf_seed.c" <<'SEED'
#include "tests/unit/engine/tiny_gguf.h"
int main(int argc, char **argv)
{
    uint32_t      extra;
    tiny_file_t   f;
    tiny_model_t  m = TINY_LLAMA;
    FILE         *o = fopen(argv[1], "wb");

    (void) argc;
    m.vocab = 8;
    m.layers = 1;
    if (argv[2] != NULL) {
        m.arch = "gemma3";
        m.flags = TINY_GEMMA | TINY_QKNORM;
    }
    tiny_build(&f, &m);
    extra = (uint32_t) (f.file.n - f.header_bytes);
    fwrite(&extra, 4, 1, o);
    fwrite(f.file.p, 1, f.header_bytes, o);
    return fclose(o);
}
SEED
${CC:-gcc} -w -D_GNU_SOURCE -I. -o "$out/gguf_seed" "$out/gguf_seed.c" -lm
"$out/gguf_seed" "$out/gguf-corpus/llama"
"$out/gguf_seed" "$out/gguf-corpus/gemma3" 1

# Only what the header needs; what is of one instruction set is built already.
clang -std=gnu11 -O1 -g -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=undefined -o "$out/gguf_fuzz" \
    tests/fuzz/gguf_fuzz.c worker/engine/*.c tokenizer/tok_json.c \
    tokenizer/tok_util.c tokenizer/tok_unicode.c \
    ${KERNELS:-build/libwrk-kernels.a} \
    ${TOKENIZER:-build/libinfer-tokenizer.a} -lopenblas -lm -lpthread
"$out/gguf_fuzz" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 \
    -timeout=10 -print_final_stats=1 "$out/gguf-corpus"
