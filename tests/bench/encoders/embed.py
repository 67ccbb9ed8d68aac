#!/usr/bin/env python3
"""Texts a second of an encoder beside ONNX Runtime: alternating rounds,
medians, ratios.

  tests/bench/encoders/embed.py -m FOLDER --python PYTHON [--threads N]
      [--tokens N] [--rounds N] [--seconds S] [--cpu]

PYTHON has torch, transformers, onnx and onnxruntime. The graph is exported
from the folder, fused by onnxruntime.transformers' optimizer for BERT, and
quantised dynamically for INT8. Both sides get batches of one length, so
neither pads. --cpu: a second of CPU time, of all threads; for one thread on a
machine that others use too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

BATCHES = ("1", "8", "32")
PEERS = {"bfloat16": "float32"}     # onnxruntime's CPU provider has none


def export(folder, out):
    import torch
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    model = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager").eval()
    x = torch.ones(2, 16, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    raw = os.path.join(out, "raw.onnx")
    torch.onnx.export(
        model, (x, x, x * 0), raw, dynamo=False, opset_version=17,
        input_names=["input_ids", "attention_mask", "token_type_ids"],
        output_names=["last_hidden_state"],
        dynamic_axes={n: axes for n in ("input_ids", "attention_mask",
                                        "token_type_ids",
                                        "last_hidden_state")})
    c = model.config
    fused = optimizer.optimize_model(
        raw, model_type="bert", num_heads=c.num_attention_heads,
        hidden_size=c.hidden_size, opt_level=1)
    fused.save_model_to_file(os.path.join(out, "float32.onnx"))
    quantize_dynamic(os.path.join(out, "float32.onnx"),
                     os.path.join(out, "int8.onnx"),
                     weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": 1})


def peer(path, threads, tokens, seconds, cpu):
    import time
    import numpy as np
    import onnxruntime as ort

    clock = time.process_time if cpu else time.perf_counter
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    s = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    result = {}
    for batch in BATCHES:
        n = int(batch)
        ids = (1000 + np.arange(n * tokens, dtype=np.int64) * 7919 % 20000)
        ids = ids.reshape(n, tokens)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids)}
        feed = {i.name: feed[i.name] for i in s.get_inputs()}
        s.run(None, feed)
        start, count = clock(), 0
        while clock() - start < seconds:
            s.run(None, feed)
            count += n
        result[batch] = count / (clock() - start)
    print(json.dumps(result))


def call(cmd):
    out = subprocess.run(cmd, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(out.decode().strip().splitlines()[-1])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("-m", "--model")
    ap.add_argument("--python", default=sys.executable)
    ap.add_argument("--bench", default="build/bench/encoders/bench_embed")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--tokens", type=int, default=128)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seconds", type=float, default=1.0)
    ap.add_argument("--cpu", action="store_true")
    ap.add_argument("--export")
    ap.add_argument("--peer")
    a = ap.parse_args()
    if a.export:
        return export(a.model, a.export)
    if a.peer:
        return peer(a.peer, a.threads, a.tokens, a.seconds, a.cpu)

    with tempfile.TemporaryDirectory() as tmp:
        me = [a.python, os.path.abspath(__file__)]
        subprocess.run(me + ["-m", a.model, "--export", tmp], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rest = ["--threads", str(a.threads), "--tokens", str(a.tokens),
                "--seconds", str(a.seconds), *(["--cpu"] if a.cpu else [])]
        got = {}
        for _ in range(a.rounds):
            for p in ("float32", "bfloat16", "int8"):
                ours = call([a.bench, a.model, p, str(a.threads),
                             str(a.tokens), str(a.seconds),
                             *(["cpu"] if a.cpu else [])])
                theirs = call(me + rest + [
                    "--peer", os.path.join(tmp, PEERS.get(p, p) + ".onnx")])
                for b in BATCHES:
                    got.setdefault((p, b), []).append((ours[b], theirs[b]))
    for (p, b), rows in sorted(got.items()):
        ratio = [x / y for x, y in rows]
        print("%-8s batch %-3s ours %7.1f  onnxruntime %7.1f texts/s, "
              "ratio %.2f (least %.2f)" % (
                  p, b, statistics.median(x for x, _ in rows),
                  statistics.median(y for _, y in rows),
                  statistics.median(ratio), min(ratio)))
    return 0


sys.exit(main())
