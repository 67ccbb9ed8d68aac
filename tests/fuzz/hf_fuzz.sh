#!/bin/sh
# Builds the fuzz target of Hugging Face folders with clang and runs it for
# some seconds on seeds of every family. Needs clang; exits 77 without.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-30}
out=${OUT:-build/fuzz}
command -v clang >/dev/null || exit 77
mkdir -p "$out/hf-corpus"

python3 - "$out/hf-corpus" <<'SEED'
import json
import sys

sizes = {"F32": 4, "F16": 2, "BF16": 2}
for line in open("tests/golden/engine/hf.jsonl"):
    case = json.loads(line)
    header, at = {}, 0
    for name, _, shape in case["tensors"]:
        n = sizes[case["dtype"]]
        for d in shape:
            n *= d
        header[name] = {"dtype": case["dtype"], "shape": shape,
                        "data_offsets": [at, at + n]}
        at += n
    with open(sys.argv[1] + "/" + case["name"].replace(" ", "-"), "w") as f:
        f.write(json.dumps(case["config"]) + "\0" + json.dumps(header))
SEED

clang -std=gnu11 -O1 -g -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=undefined -o "$out/hf_fuzz" \
    tests/fuzz/hf_fuzz.c worker/engine/*.c tokenizer/tok_json.c \
    tokenizer/tok_util.c tokenizer/tok_unicode.c \
    ${KERNELS:-build/libwrk-kernels.a} \
    ${TOKENIZER:-build/libinfer-tokenizer.a} -lopenblas -lm -lpthread
"$out/hf_fuzz" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 \
    -timeout=10 -print_final_stats=1 "$out/hf-corpus"
