from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod import store
from edgemod.errors import ModelError
from edgemod.llama import Llama

# What the ``tokenizers`` package makes of these texts with the base model's tokenizer.json.
BERT_IDS = {
    "Hello, World!": [7592, 1010, 2088, 999],
    "naïve café Ångström Zürich": [15743, 7668, 17076, 15687, 10204],
    "e\u0301crire nin\u0303o": [14925, 3089, 2890, 20801],
    "nul\x00inside \x01\x02 bell\x07": [16371, 24412, 5178, 4330],
    "zero\u200bwidth \ufeffbom \u00adsoft": [5717, 9148, 11927, 2232, 8945, 2213, 3730],
    "😀 fine 👍🏽": [100, 2986, 100],
    "it's $5.00 (50% off)": [
        2009,
        1005,
        1055,
        1002,
        1019,
        1012,
        4002,
        1006,
        2753,
        1003,
        2125,
        1007,
    ],
    "non\u00a0breaking\u3000space": [2512, 4911, 2686],
}


@pytest.fixture(scope="module")
def encoder() -> Iterator[Llama]:
    with Llama(store.resolve("default").path) as llama:
        llama.open_context(n_ctx=130, embeddings=True)
        yield llama


@pytest.fixture(scope="module")
def decoder() -> Iterator[Llama]:
    with Llama(store.resolve("smollm2").path) as llama:
        llama.open_context(n_ctx=512, n_batch=64, n_seq=4, n_outputs=4)
        yield llama


@pytest.mark.parametrize("text", BERT_IDS)
def test_tokens_are_those_of_the_reference_tokenizer(encoder: Llama, text: str) -> None:
    assert encoder.tokenize(text.encode()).tolist() == BERT_IDS[text]


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_tokenises_to_ids_of_the_vocabulary(text: str) -> None:
    llama = shared()
    tokens = llama.tokenize(text.encode("utf-8", "replace"))
    assert tokens.dtype == np.int32
    assert ((tokens >= 0) & (tokens < llama.n_vocab)).all()


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_any_bytes_tokenise_or_are_refused(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(ModelError, match="not valid UTF-8"):
            shared().tokenize(data)
    else:
        shared().tokenize(data)


def test_special_tokens_are_not_read_from_a_text(encoder: Llama) -> None:
    tokens = encoder.tokenize(b"[CLS] [SEP]").tolist()
    assert encoder.bos not in tokens
    assert encoder.sep not in tokens
    assert encoder.tokenize(b"ok", add_special=True).tolist() == [
        encoder.bos,
        *encoder.tokenize(b"ok").tolist(),
        encoder.sep,
    ]


def test_five_megabytes_tokenise(encoder: Llama) -> None:
    assert len(encoder.tokenize(b"five words are said here " * 200_000)) == 1_000_000
    assert len(encoder.tokenize(b"x" * 1_000_000)) > 1000


def test_control_tokens_have_no_text(decoder: Llama) -> None:
    assert decoder.piece(decoder.bos) == b""
    text = "a\0b é 😀"
    assert b"".join(decoder.piece(int(t)) for t in decoder.tokenize(text.encode())) == text.encode()
    with pytest.raises(ModelError, match="not in the vocabulary"):
        decoder.piece(decoder.n_vocab)


def test_metadata(encoder: Llama) -> None:
    assert encoder.arch == "bert"
    assert encoder.metadata("bert.pooling_type") == "1"
    assert encoder.metadata("no.such.key") is None


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 not a model", b"<html>"])
def test_what_is_not_gguf_never_reaches_llama(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="this is not a GGUF file"):
        Llama(tmp_path / "x.gguf")


def test_other_versions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF\x07\0\0\0" + bytes(64))
    with pytest.raises(ModelError, match="GGUF version 7 is not supported"):
        Llama(tmp_path / "x.gguf")


def test_missing_file() -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Llama(Path("no-such.gguf"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_truncated_files_are_errors(tmp_path: Path, share: float) -> None:
    whole = store.resolve("default").path.read_bytes()
    (tmp_path / "x.gguf").write_bytes(whole[: 8 + int(share * len(whole))])
    with pytest.raises(ModelError, match="cannot load this model"):
        Llama(tmp_path / "x.gguf")


def test_calls_that_would_abort_are_errors(encoder: Llama) -> None:
    with pytest.raises(ModelError, match="0 tokens do not fit"):
        encoder.embed(np.empty(0, np.int32))
    with pytest.raises(ModelError, match="131 tokens do not fit"):
        encoder.embed(np.full(131, 1000, np.int32))
    with pytest.raises(ModelError, match="could not embed"):
        encoder.embed(np.array([encoder.n_vocab], np.int32))
    with pytest.raises(ModelError, match="opened for embeddings"):
        encoder.logits()
    assert np.isfinite(encoder.embed(np.array([101, 7592, 102], np.int32))).all()


@pytest.mark.parametrize("count", [1, 63, 64, 130])  # both sides of the switch of attention
def test_a_vector_depends_on_its_tokens_alone(encoder: Llama, count: int) -> None:
    rng = np.random.default_rng(count)
    tokens = rng.integers(1000, encoder.n_vocab, count).astype(np.int32)
    first = encoder.embed(tokens)
    encoder.embed(tokens[::-1])
    assert first.dtype == np.float32
    assert first.shape == (encoder.n_embd,)
    assert (encoder.embed(tokens) == first).all()
    assert not (encoder.embed(tokens[:1]) == first).all() or count == 1


def test_copied_sequences_score_as_whole_ones(decoder: Llama) -> None:
    prefix, ends = decoder.tokenize(b"The capital of France is"), decoder.tokenize(b" Paris Rome")
    slow = []
    for end in ends:
        decoder.clear()
        tokens = np.append(prefix, end)
        n = len(tokens)
        decoder.decode(
            tokens, np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.arange(n) == n - 1
        )
        slow.append(decoder.logits()[0])
    decoder.clear()
    n, k = len(prefix), len(ends)
    decoder.decode(prefix, np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.zeros(n, bool))
    assert decoder.logits().shape == (0, decoder.n_vocab)
    for i in range(1, k + 1):
        decoder.copy_sequence(0, i)
    decoder.decode(
        ends, np.full(k, n, np.int32), np.arange(1, k + 1, dtype=np.int32), np.ones(k, bool)
    )
    fast = decoder.logits()
    assert (fast == np.array(slow)).all()
    columns = np.array([5, 7, 11], np.int32)
    assert (decoder.logits(columns) == fast[:, columns]).all()
    decoder.remove_sequence(1)


def test_decode_refuses_what_llama_would_abort_on(decoder: Llama) -> None:
    one, zero, yes = np.ones(1, np.int32), np.zeros(1, np.int32), np.ones(1, bool)
    decoder.clear()
    for tokens, positions, sequences, outputs, why in (
        (one[:0], zero[:0], zero[:0], yes[:0], "0 tokens"),
        (np.ones(65, np.int32), *np.zeros((2, 65), np.int32), np.zeros(65, bool), "65 tokens"),
        (np.ones(5, np.int32), np.arange(5), np.zeros(5, np.int32), np.ones(5, bool), "5 rows"),
        (one, one * decoder.n_ctx_train, zero, yes, "position"),
        (one, zero, one * 4, yes, "sequence"),
        (one * decoder.n_vocab, zero, zero, yes, "could not decode"),
    ):
        with pytest.raises(ModelError, match=why):
            decoder.decode(tokens, positions, sequences, outputs)
    with pytest.raises(ModelError, match="sequence is outside"):
        decoder.copy_sequence(0, 4)


def test_a_full_context_is_an_error_and_can_be_cleared(decoder: Llama) -> None:
    decoder.clear()
    sequences, outputs = np.zeros(64, np.int32), np.zeros(64, bool)

    def decode(block: int) -> None:
        decoder.decode(
            np.ones(64, np.int32), np.arange(64, dtype=np.int32) + 64 * block, sequences, outputs
        )

    for block in range(512 // 64):
        decode(block)
    with pytest.raises(ModelError, match="no room left in the context"):
        deque(map(decode, range(8, 24)))  # llama.cpp may have rounded the size up
    decoder.clear()
    decode(0)


def test_a_closed_model_is_an_error() -> None:
    llama = Llama(store.resolve("default").path, vocab_only=True)
    with pytest.raises(ModelError, match="only the vocabulary"):
        llama.open_context(n_ctx=64)
    with pytest.raises(ModelError, match="no open context"):
        llama.embed(np.ones(1, np.int32))
    llama.close()
    llama.close()
    for call in (lambda: llama.tokenize(b"x"), lambda: llama.metadata("x"), llama.clear):
        with pytest.raises(ModelError):
            call()


def test_a_model_left_open_at_exit_is_quiet() -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from edgemod.llama import Llama\n"
        "llama = Llama(Path(sys.argv[1])); llama.open_context(n_ctx=64, embeddings=True)\n"
        "llama.embed(np.ones(3, np.int32)); llama.cycle = llama"
    )
    path = str(store.resolve("default").path)
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_shared: list[Llama] = []


def shared() -> Llama:
    """A vocabulary for the property tests, which cannot take fixtures."""
    if not _shared:
        _shared.append(Llama(store.resolve("default").path, vocab_only=True))
    return _shared[0]
