"""Small encoders for tests: a BERT of one layer with fixed random weights and
the vocabulary of MiniLM, as a folder of Hugging Face's kind."""

import array
import json
import math
import os
import random
import shutil
import struct

from conftest import model_path

HIDDEN, FF, POSITIONS = 32, 64, 64


def tensors(vocab, labels):
    """name: shape, in the order of the file."""
    layer = "bert.encoder.layer.0."
    found = {
        "bert.embeddings.word_embeddings.weight": (vocab, HIDDEN),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "bert.embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "bert.embeddings.LayerNorm.weight": (HIDDEN,),
        "bert.embeddings.LayerNorm.bias": (HIDDEN,),
    }
    for name, rows, cols in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("attention.output.LayerNorm", HIDDEN, 0),
            ("intermediate.dense", FF, HIDDEN),
            ("output.dense", HIDDEN, FF),
            ("output.LayerNorm", HIDDEN, 0)):
        found[layer + name + ".weight"] = (rows, cols) if cols else (rows,)
        found[layer + name + ".bias"] = (rows,)
    found["bert.pooler.dense.weight"] = (HIDDEN, HIDDEN)
    found["bert.pooler.dense.bias"] = (HIDDEN,)
    found["classifier.weight"] = (labels, HIDDEN)
    found["classifier.bias"] = (labels,)
    return found


def write_safetensors(path, tensors):
    """tensors: name, shape and an array of floats of each, in order."""
    header, blobs, at = {}, [], 0
    for name, shape, values in tensors:
        blobs.append(values.tobytes())
        header[name] = {"dtype": "F32", "shape": list(shape),
                        "data_offsets": [at, at + len(blobs[-1])]}
        at += len(blobs[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)


def write_weights(path, shapes):
    rng = random.Random(5)
    found = []
    for name, shape in shapes.items():
        norm = name.endswith("LayerNorm.weight")
        found.append((name, shape, array.array("f", [
            1.0 if norm else rng.uniform(-0.3, 0.3)
            for _ in range(math.prod(shape))])))
    write_safetensors(path, found)


def make_classifier(folder, labels):
    """A sequence classifier; one label makes it a cross-encoder."""
    minilm = model_path("minilm")
    os.makedirs(folder, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(minilm, name), folder)
    with open(os.path.join(minilm, "config.json")) as file:
        vocab = json.load(file)["vocab_size"]
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump({
            "architectures": ["BertForSequenceClassification"],
            "model_type": "bert", "hidden_act": "gelu",
            "hidden_size": HIDDEN, "intermediate_size": FF,
            "num_attention_heads": 2, "num_hidden_layers": 1,
            "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "vocab_size": vocab, "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }, file)
    write_weights(os.path.join(folder, "model.safetensors"),
                  tensors(vocab, len(labels)))
    return folder
