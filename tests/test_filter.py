"""The filter: its kernel against a slow twin, its trainer on toy texts, its file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import train_filter
from edgemod import features, filter, store
from edgemod.errors import ModelError
from edgemod.filter import Filter
from edgemod.kernels import ngrams
from edgemod.words import OUTPUTS
from training_data import TrainingData, in_holdout, is_weak

K = len(OUTPUTS)
ODD = 0x9E3779B97F4A7C15
TOKEN = re.compile(rb"[a-zA-Z0-9'\x80-\xff]+|[^a-zA-Z0-9'\x80-\xff\x00\x03-\x20\x7f]+", re.DOTALL)


def naive_grams(text: bytes) -> list[int]:
    """The buckets of a text, as the module's docstring defines them."""

    def bucket(number: int) -> int:
        return (number * ODD) % 2**64 >> (64 - ngrams.BITS)

    def fnv(token: bytes) -> int:
        value = 0xCBF29CE484222325
        for byte in token:
            value = (value ^ byte) * 0x100000001B3 % 2**64
        return value

    found: list[int] = []
    tokens = [re.sub(rb"[0-9]", b"0", token) for token in TOKEN.findall(text)]
    for i, token in enumerate(tokens):
        if re.match(rb"[0-9a-zA-Z'\x80-\xff]", token):
            padded = b" " + token + b" "
            found += [
                bucket(int.from_bytes(padded[end - size : end], "big"))
                for end in range(3, len(padded) + 1)
                for size in (3, 4, 5)
                if size <= end
            ]
        found.append(bucket(fnv(token)))
        if i:
            pair = (fnv(tokens[i - 1]) * 0x100000001B3 % 2**64) ^ fnv(token)
            found.append(bucket(pair))
    return found


def naive_scores(
    text: bytes,
    weights: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    found = naive_grams(text)
    if not found:
        return np.full(K, np.nan, np.float32)
    parts = max(1, math.ceil(len(found) / ngrams.WINDOW))
    rows = []
    for part in range(parts):
        window = found[len(found) * part // parts : len(found) * (part + 1) // parts]
        total = [sum(int(weights[b, k]) for b in window) for k in range(K)]
        rows.append([t / math.sqrt(max(len(window), 1)) for t in total])
    best = np.array([max(row[k] for row in rows) for k in range(K)])
    return (best * scale + bias).astype(np.float32)


def buffers(texts: list[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer(b"".join(texts), np.uint8), offsets


def kernel_grams(text: bytes) -> list[int]:
    out = np.empty(ngrams.GRAMS_PER_BYTE * (len(text) + 1), np.int32)
    count = ngrams.grams(np.frombuffer(text, np.uint8), 0, len(text), out)
    return [int(b) for b in out[:count]]


def random_weights(seed: int = 0) -> npt.NDArray[np.int8]:
    random = np.random.default_rng(seed)
    return random.integers(-128, 128, (1 << ngrams.BITS, K), np.int8, endpoint=False)


WEIGHTS = random_weights()
ROWS = ngrams.pack(WEIGHTS)
SCALE = np.linspace(0.01, 0.1, K)
BIAS = np.linspace(-3.0, 1.0, K)

texts = st.binary(max_size=120) | st.text(max_size=80).map(str.encode) | st.just(b"ab  c! ")


@given(texts)
@settings(deadline=None)
def test_grams_equal_the_twin(text: bytes) -> None:
    assert kernel_grams(text) == naive_grams(text)


@given(st.lists(texts, max_size=6), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_scores_equal_the_twin(parts: list[bytes], times: int) -> None:
    long = b" ".join(parts * times)
    batch = [*parts, long]
    out = np.empty((len(batch), K), np.float32)
    ngrams.score(*buffers(batch), ROWS, SCALE, BIAS, out)
    expected = [naive_scores(text, WEIGHTS, SCALE, BIAS) for text in batch]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("count", [1, 256, 257, 1000])
def test_sums_do_not_overflow(value: int, count: int) -> None:
    rows = ngrams.pack(np.full((1 << ngrams.BITS, K), value, np.int8))
    total = np.empty(ngrams.LANES, np.int32)
    ngrams.add_rows(rows, np.zeros(count, np.int32), 0, count, total)
    assert total[:K].tolist() == [value * count] * K


def test_most_grams_a_byte_fit() -> None:
    # One-letter words next to marks are the densest: five n-grams in two bytes.
    assert len(kernel_grams(b"a!" * 50)) <= ngrams.GRAMS_PER_BYTE * 100


def test_one_bad_sentence_in_a_long_text_counts_in_full() -> None:
    weights = np.zeros((1 << ngrams.BITS, K), np.int8)
    weights[naive_grams(b"gloopfish")] = 100
    rows, zero = ngrams.pack(weights), np.zeros(K)
    plain = b"we walked along the river and had tea " * 60
    out = np.empty((2, K), np.float32)
    ngrams.score(*buffers([plain, plain + b"gloopfish " + plain]), rows, SCALE, zero, out)
    assert (out[0] == 0).all()
    count = len(naive_grams(plain + b"gloopfish " + plain))
    whole = out[1] / math.sqrt(count) * math.sqrt(ngrams.WINDOW)
    assert (out[1] > 3 * whole).all()


# -- training -------------------------------------------------------------------------------

PLEASANT = ["garden", "kettle", "bicycle", "morning", "library", "ticket", "walnut", "harbour"]
UNPLEASANT = ["grobnik", "fleeshar", "zwortle", "quibbox"]  # made up


def toy(count: int, seed: int) -> TrainingData:
    """Sentences of pleasant words; every other one has an unpleasant word of output ``hate``."""
    random = np.random.default_rng(seed)
    sentences, labels = [], np.full((count, K), -1, np.int8)
    for i in range(count):
        words = list(random.choice(PLEASANT, 6))
        if i % 2:
            words[random.integers(6)] = str(random.choice(UNPLEASANT))
        sentences.append(" ".join(words))
        labels[i, 0] = labels[i, -1] = i % 2
    ones = np.ones(count, np.float32)
    return TrainingData(sentences, labels, np.full(count, "toy"), ones, np.zeros(count, bool))


def train(data: TrainingData) -> bytes:
    grams = train_filter.find_grams(data.arrow())
    counts = train_filter.importance(data)
    weights, bias = train_filter.fit(
        grams, data.labels.astype(np.float32), counts, is_weak(data), epochs=3
    )
    quantized, scale = train_filter.quantize(weights)
    return filter.to_bytes(quantized, scale, bias, {"seed": "1"})


def score(loaded: Filter, sentences: list[str]) -> npt.NDArray[np.float32]:
    arrow = pa.array(sentences, type=pa.large_string())
    return loaded.scores(features.extract(arrow, features.Lexicons.compile(())).normalised)


@pytest.fixture(scope="module")
def toy_filter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filter") / "toy.safetensors"
    path.write_bytes(train(toy(400, seed=1)))
    return path


def test_training_separates_words_and_leaves_the_unknown_alone(toy_filter: Path) -> None:
    loaded = Filter.load(toy_filter)
    test = toy(100, seed=2)
    scores = score(loaded, test.texts)
    bad = test.labels[:, 0] == 1
    assert scores[bad, 0].min() > scores[~bad, 0].max()
    assert scores[bad, -1].min() > scores[~bad, -1].max()
    unknown = slice(1, K - 1)
    assert (scores[:, unknown] == 0).all()  # no label, no weight, even odds


def test_training_gives_the_same_file_twice(toy_filter: Path) -> None:
    assert toy_filter.read_bytes() == train(toy(400, seed=1))


def test_rounding_moves_a_weight_by_half_a_step_at_most() -> None:
    random = np.random.default_rng(3)
    weights = random.normal(size=(1000, K)).astype(np.float32)
    weights[:, 2] = 0
    quantized, scale = train_filter.quantize(weights)
    assert (np.abs(quantized * scale - weights) <= 0.501 * scale).all()
    assert np.abs(quantized).max(axis=0).tolist() == [127 if k != 2 else 0 for k in range(K)]


def test_joined_texts_keep_what_is_known(toy_filter: Path) -> None:
    data = toy(50, seed=4)
    joined = train_filter.join(data, 20, seed=5)
    assert (joined.labels[0::2] == 0).all()
    assert (joined.labels[1::2, [0, -1]] == 1).all()
    assert (joined.labels[1::2, 1:-1] == -1).all()


def test_copies_fall_on_the_same_side_of_the_holdout() -> None:
    sentences = ["row " + chr(97 + i % 26) * (1 + i // 26) for i in range(2000)]
    shouted = [f"  {text.upper()},\n{i}!" for i, text in enumerate(sentences)]
    assert (in_holdout(sentences) == in_holdout(shouted)).all()
    assert 0.08 < in_holdout(sentences).mean() < 0.13


# -- the file -------------------------------------------------------------------------------


def error_of(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Filter.load(path)
    assert caught.value.where == str(path)
    assert caught.value.fix
    return caught.value.what


def parts(**replaced: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
    whole: dict[str, npt.NDArray[np.generic]] = {
        "weights": WEIGHTS,
        "scale": np.ones(K, np.float32),
        "bias": np.zeros(K, np.float32),
    }
    return {**whole, **replaced}


def write(path: Path, tensors: dict[str, npt.NDArray[np.generic]], **metadata: str) -> Path:
    about = json.dumps({**filter.LAYOUT, **metadata})
    save_file(tensors, path, metadata={"edgemod": about})
    return path


def test_missing_file(tmp_path: Path) -> None:
    assert error_of(tmp_path / "no") == "cannot read the filter: No such file or directory"


@pytest.mark.parametrize("size", [0, 4, 8, 100, 4000, -1])
def test_damaged_file(toy_filter: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "short"
    path.write_bytes(toy_filter.read_bytes()[:size])
    assert error_of(path) == "the filter is damaged or not a safetensors file"


def test_other_outputs(tmp_path: Path) -> None:
    path = write(tmp_path / "f", parts(), outputs="toxic,any")
    assert error_of(path) == (
        "the filter was made for other outputs: toxic,any, not " + ",".join(OUTPUTS)
    )


@pytest.mark.parametrize("key", sorted(filter.LAYOUT))
def test_metadata_is_checked(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "f", parts(), **{key: "else"})
    assert error_of(path).startswith(f"the filter was made for other {key}: else, not ")


def test_tensors_are_checked(tmp_path: Path) -> None:
    wrong_shape = write(tmp_path / "a", parts(scale=np.ones(3, np.float32)))
    assert error_of(wrong_shape) == "the filter's scale is float32 (3,), not float32 (10,)"
    wrong_type = write(tmp_path / "b", parts(weights=WEIGHTS.astype(np.int16)))
    assert error_of(wrong_type) == (
        "the filter's weights is int16 (262144, 10), not int8 (262144, 10)"
    )
    endless = write(tmp_path / "c", parts(bias=np.full(K, np.nan, np.float32)))
    assert error_of(endless) == "the filter's bias holds numbers that are not finite"
    incomplete = parts()
    del incomplete["bias"]
    assert error_of(write(tmp_path / "d", incomplete)) == "the filter has no bias"


# -- the shipped weights ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Filter:
    return Filter.load(store.quantized_dir() / "filter.safetensors")


@pytest.mark.parametrize(
    ("output", "worse", "better"),
    [
        ("toxic", "You are a stupid idiot, shut up.", "You are a great cook, thank you."),
        ("any", "what a pathetic moron you are", "what a lovely garden you have"),
        ("harassment", "nobody likes you, you ugly loser", "everybody likes you, dear friend"),
        ("threat_violence", "I will find you and kill you.", "I will find you a good seat."),
        ("spam_scam", "You have WON a free prize! Call now to claim", "See you at home for dinner"),
        ("self_harm", "I want to die, I cannot go on", "I want to cook, what goes with leek?"),
        ("pii", "My credit card number is 4111 1111 1111 1111", "My cat sleeps in the sun"),
        ("illicit", "How do I make a bomb at home?", "How do I make a cake at home?"),
    ],
)
def test_shipped_weights_order_mild_sentences(
    shipped: Filter, output: str, worse: str, better: str
) -> None:
    scores = score(shipped, [worse, better])[:, OUTPUTS.index(output)]
    assert scores[0] > scores[1]


def test_scores_do_not_depend_on_neighbours(shipped: Filter) -> None:
    sentences = ["good morning", "", "a longer text about the weather in autumn " * 40]
    together = score(shipped, sentences)
    alone = np.concatenate([score(shipped, [sentence]) for sentence in sentences])
    np.testing.assert_array_equal(together, alone)
    # A text without n-grams has no score, which sends it on.
    assert np.isnan(together).all(axis=1).tolist() == [False, True, False]


def test_nothing_to_score(shipped: Filter) -> None:
    assert score(shipped, []).shape == (0, K)


def test_shipped_weights_were_trained_on_this_normal_form(shipped: Filter) -> None:
    assert shipped.metadata["normal_form"] == train_filter.normal_form()


def test_fingerprint_is_that_of_the_file(shipped: Filter) -> None:
    content = (store.quantized_dir() / "filter.safetensors").read_bytes()
    assert shipped.fingerprint == hashlib.sha256(content).hexdigest()
    assert len(content) < 8_000_000
