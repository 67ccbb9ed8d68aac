"""MiniLM's folder as a GGUF file, keys and names as llama.cpp's converter
gives them to a BERT."""

import json
import os
import struct

U32, F32, STRING, ARRAY, BOOL, I32 = 4, 6, 8, 9, 7, 5
ALIGN = 32

NAMES = (
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
)


def text(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if kind == STRING:
        return text(v)
    if kind == ARRAY:
        kind, items = v
        return struct.pack("<IQ", kind, len(items)) + b"".join(
            value(kind, item) for item in items)
    return struct.pack({U32: "<I", F32: "<f", BOOL: "<?", I32: "<i"}[kind], v)


def name_of(name):
    for prefix in ("bert.", ""):
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix):]
        layer = ""
        if rest.startswith("encoder.layer."):
            _, _, number, rest = rest.split(".", 3)
            layer = "blk.%s." % number
        stem, _, end = rest.rpartition(".")
        for theirs, ours in NAMES:
            if stem == theirs:
                return layer + ours + "." + end
    return None


def read_safetensors(path):
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    for name, info in header.items():
        begin, end = info["data_offsets"]
        if name_of(name) is None:
            continue                    # position_ids, the pooler
        assert info["dtype"] == "F32", info
        yield name, info["shape"], data[begin:end]


def wordpiece(folder):
    """Words as the converter writes them: those that begin a word have a mark,
    those that go on have none."""
    with open(os.path.join(folder, "tokenizer.json")) as file:
        vocab = json.load(file)["model"]["vocab"]
    words = sorted(vocab, key=vocab.get)
    assert [vocab[w] for w in words] == list(range(len(words)))
    out, kinds = [], []
    for word in words:
        if word.startswith("[") and word.endswith("]") and len(word) > 2:
            out.append(word)
            kinds.append(3)
        else:
            out.append(word[2:] if word.startswith("##") else "\u2581" + word)
            kinds.append(1)
    return out, kinds


def keys_of(folder):
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    words, kinds = wordpiece(folder)
    yield "general.architecture", STRING, "bert"
    yield "general.name", STRING, "MiniLM"
    yield "bert.block_count", U32, config["num_hidden_layers"]
    yield "bert.context_length", U32, config["max_position_embeddings"]
    yield "bert.embedding_length", U32, config["hidden_size"]
    yield "bert.feed_forward_length", U32, config["intermediate_size"]
    yield "bert.attention.head_count", U32, config["num_attention_heads"]
    yield "bert.attention.layer_norm_epsilon", F32, config["layer_norm_eps"]
    yield "bert.attention.causal", BOOL, False
    yield "bert.pooling_type", U32, 1
    yield "tokenizer.ggml.model", STRING, "bert"
    yield "tokenizer.ggml.pre", STRING, "jina-v2-en"
    yield "tokenizer.ggml.token_type_count", U32, 2
    yield "tokenizer.ggml.tokens", ARRAY, (STRING, words)
    yield "tokenizer.ggml.token_type", ARRAY, (I32, kinds)
    for key, word in (("unknown_token_id", "[UNK]"), ("bos_token_id", "[CLS]"),
                      ("eos_token_id", "[SEP]"), ("cls_token_id", "[CLS]"),
                      ("seperator_token_id", "[SEP]"),
                      ("padding_token_id", "[PAD]"),
                      ("mask_token_id", "[MASK]")):
        yield "tokenizer.ggml." + key, U32, words.index(word)


def convert(folder, path, without=None):
    """Writes the file; `without`: a tensor that is left out."""
    tensors = [(name_of(name), shape, data) for name, shape, data
               in read_safetensors(os.path.join(folder, "model.safetensors"))]
    tensors = [t for t in tensors if t[0] is not None and t[0] != without]
    keys = list(keys_of(folder))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    for key, kind, v in keys:
        head += text(key) + struct.pack("<I", kind) + value(kind, v)
    at = 0
    for name, shape, data in tensors:
        head += text(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in reversed(shape))
        head += struct.pack("<IQ", 0, at)
        at += -(-len(data) // ALIGN) * ALIGN
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % ALIGN))
        for _, _, data in tensors:
            file.write(data + b"\0" * (-len(data) % ALIGN))
    return path
