"""A thin layer over llama-cpp-python's low-level API: GGUF in, numpy out.

One ``Llama`` is one GGUF file and at most one context. The C code aborts the process on calls it
does not like (an empty batch, more tokens than the batch holds, a closed handle, invalid UTF-8),
so every precondition is checked here first and becomes a ``ModelError``.

One ``Llama`` belongs to one thread. The native calls release the GIL.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import llama_cpp as c
import numpy as np
from numpy.typing import NDArray

from edgemod.errors import ModelError

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

MAGIC: Final = b"GGUF"
"""The first four bytes of every GGUF file (ggml/docs/gguf.md)."""

_VERSIONS: Final = (2, 3)  # those that llama.cpp still reads
_ERROR: Final = 4  # GGML_LOG_LEVEL_ERROR in ggml.h
_FLASH_FROM: Final = 64
"""Tokens from which flash attention is the faster: the tile height in ggml-cpu/common.h. At 128
tokens it makes an encoder 1.6 times faster, at 32 it makes it 1.5 times slower."""

_FILL_FROM: Final = 48
"""Tokens above which a call filled up to ``_FLASH_FROM`` is the faster (measured)."""

_BF16: Final = 30  # GGML_TYPE_BF16 in ggml.h, which the bindings leave out
_ROWS: Final = 4
"""Rows that ggml's repacked matrix products take at a time (ggml-cpu/repack.cpp); what is left
over goes through another kernel, which rounds differently."""

_STEP: Final = 16
"""Whole multiples of it are so much faster that a call four tokens short is filled up (measured:
32 tokens take as long as 27, 48 as long as 40)."""

_errors: deque[str] = deque(maxlen=4)


@c.llama_log_callback
def _keep_errors(level: int, text: bytes, _: object) -> None:
    if level == _ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())


@cache
def start() -> None:
    """Initialise llama.cpp once per process and silence its log, keeping the last error lines."""
    c.llama_log_set(_keep_errors, ctypes.c_void_p(0))
    c.llama_backend_init()


def last_errors() -> str:
    """Return the native error lines since the last call as one line, and forget them."""
    lines = "; ".join(_errors)
    _errors.clear()
    return lines


def check_gguf(path: Path, what: str = "model") -> None:
    """Raise ``ModelError`` unless ``path`` is a readable file that starts as a GGUF file does."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(
            f"the {what} cannot be read: {error.strerror}", where=str(path), fix="check the path"
        ) from None
    if head[:4] != MAGIC:
        raise ModelError(
            "this is not a GGUF file", where=str(path), fix="convert it with llama.cpp first"
        )
    version = int.from_bytes(head[4:8], "little")
    if version not in _VERSIONS:
        raise ModelError(
            f"GGUF version {version} is not supported (only {_VERSIONS[0]} and {_VERSIONS[1]})",
            where=str(path),
            fix="convert it again with a current llama.cpp",
        )


class Llama:
    """One GGUF file: its vocabulary, and its network once ``open_context`` was called.

    Weights are memory-mapped and stay on the CPU. Use it as a context manager or call ``close``;
    what is left open is freed when the object is collected, at the latest at interpreter exit.

    Raises ``ModelError`` where the file is not a GGUF file, is truncated or is of a kind that
    llama.cpp cannot load.
    """

    path: Path
    arch: str  # general.architecture: "bert", "llama", ...
    n_vocab: int
    n_embd: int
    n_ctx_train: int  # longest sequence the network was trained for
    bos: int  # token ids; -1 where the vocabulary has none. BERT's [CLS] is its bos.
    eos: int
    eot: int
    sep: int
    n_batch: int  # as opened by open_context: most tokens, sequences and rows of logits a call
    n_seq: int
    n_outputs: int
    calls: int  # of the network that have returned

    def __init__(self, path: Path, *, vocab_only: bool = False) -> None:
        self.path, self.calls = path, 0
        check_gguf(path)
        start()
        last_errors()
        params = c.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = c.LLAMA_LOAD_MODE_MMAP
        params.vocab_only = vocab_only
        model = c.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise ModelError(
                f"llama.cpp cannot load this model: {last_errors() or 'no reason given'}",
                where=str(path),
                fix="the file may be truncated or damaged: fetch or convert it again",
            )
        # Freed in reverse: a context must go before its model.
        self._handles: list[tuple[Callable[[Any], None], Any]] = [(c.llama_model_free, model)]
        self._free = weakref.finalize(self, _free, self._handles)
        self._model = model
        self._vocab = vocab = c.llama_model_get_vocab(model)
        self._vocab_only = vocab_only
        self._context: Any = None
        self._adapter: Any = None
        self.arch = self.metadata("general.architecture") or ""
        self.n_vocab = c.llama_vocab_n_tokens(vocab)
        self.n_embd = c.llama_model_n_embd(model)
        self.n_ctx_train = c.llama_model_n_ctx_train(model)
        self.bos = c.llama_vocab_bos(vocab)
        self.eos = c.llama_vocab_eos(vocab)
        self.eot = c.llama_vocab_eot(vocab)
        self.sep = c.llama_vocab_sep(vocab)

    def metadata(self, key: str) -> str | None:
        """Return the GGUF metadata value of ``key`` as text; None where absent or an array."""
        self._check_open()
        size = c.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        c.llama_model_meta_val_str(self._model, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    def adapt(self, path: Path) -> None:
        """Load a LoRA adapter, which every context opened from now on applies in full.

        Raises ``ModelError`` where the file is not an adapter for this network.
        """
        self._check_open()
        check_gguf(path, "adapter")
        if self._vocab_only:
            raise ModelError("only the vocabulary was loaded", where=str(self.path))
        last_errors()
        self._adapter = c.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not self._adapter:  # the model owns it and frees it
            raise ModelError(
                f"llama.cpp cannot load this adapter: {last_errors() or 'no reason given'}",
                where=str(path),
                fix=f"use a LoRA adapter that was made for {self.path.name}",
            )

    def is_encoder(self) -> bool:
        """Whether the network reads in both directions, and so cannot answer questions."""
        return self.metadata(f"{self.arch}.attention.causal") == "false"

    def tokenize(self, data: bytes, *, special: bool = False, add_special: bool = False) -> Tokens:
        """Return the token ids of UTF-8 ``data``, int32 (n,); n may be 0.

        ``special`` lets the text spell control tokens: never for text that is not your own.
        ``add_special`` adds BOS/EOS (or CLS/SEP) as the model's metadata says.
        Raises ``ModelError`` for bytes that are not UTF-8 (the C code would end the process).
        """
        self._check_open()
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise ModelError(f"text is not valid UTF-8 at byte {error.start}") from None
        # No vocabulary yields more tokens than bytes, but for the special ones and a space prefix.
        room = len(data) + 8
        tokens = np.empty(room, np.int32)
        count = c.llama_tokenize(
            self._vocab, data, len(data), _pointer(tokens), room, add_special, special
        )
        if count < 0:
            raise ModelError(f"a text of {len(data)} bytes could not be tokenised")
        return tokens[:count].copy()

    def piece(self, token: int) -> bytes:
        """Return the bytes that ``token`` stands for; control tokens give b""."""
        self._check_open()
        if not 0 <= token < self.n_vocab:
            raise ModelError(f"token {token} is not in the vocabulary")
        buffer = ctypes.create_string_buffer(512)
        size = c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(size, 0)]

    def open_context(
        self,
        *,
        n_ctx: int,
        n_batch: int | None = None,
        n_seq: int = 1,
        n_outputs: int | None = None,
        embeddings: bool = False,
        unified: bool = True,
        threads: int = 1,
    ) -> None:
        """Make the network ready; closes the context opened before, if any.

        n_ctx: tokens the context holds, over all sequences; n_batch: most tokens a call takes
        (default n_ctx; physical and logical batch are the same); n_seq: sequence ids 0..n_seq-1;
        n_outputs: most rows of logits a call gives (default n_batch; each costs n_vocab floats).
        embeddings: mean-pooled vectors through ``embed`` (which picks the faster attention for
        each length itself); otherwise logits through ``decode``, where a sequence's results
        do not depend, to the last bit, on what else is in the call or the context.
        unified: sequences share one KV buffer, which makes ``copy_sequence`` free of cost.
        """
        self._check_open()
        self._close_context()
        if self._vocab_only or min(n_ctx, n_seq) < 1:
            raise ModelError("only the vocabulary was loaded, or a size is not positive")
        n_batch = min(n_batch or n_ctx, n_ctx)
        n_outputs = min(n_outputs or n_batch, n_batch)
        params = c.llama_context_default_params()
        # What fills a call up, a sequence of its own.
        spare = _FLASH_FROM - _FILL_FROM if embeddings else 2 * _ROWS
        params.n_ctx = n_ctx + spare
        params.n_batch = params.n_ubatch = n_batch + spare
        params.n_seq_max = n_seq + 1
        params.n_outputs_max = n_outputs + spare
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = embeddings
        params.pooling_type = c.LLAMA_POOLING_TYPE_MEAN if embeddings else c.LLAMA_POOLING_TYPE_NONE
        params.kv_unified = unified
        params.offload_kqv = params.op_offload = False
        if not embeddings:
            # For a cache of two types the attention goes over a sequence's own cells one by one
            # (ggml-cpu/ops.cpp). Otherwise it sums over tiles of 64, which neighbours share, and
            # the rounding moves a score by up to 0.5 log-odds.
            params.type_k, params.type_v = c.GGML_TYPE_F16, _BF16
        self._context = self._new_context(params, flash=not embeddings)
        self._long_context = self._new_context(params, flash=True) if embeddings else None
        self._memory = c.llama_get_memory(self._context)
        self._embeddings = embeddings
        self._wanted = 0  # rows of logits that the last decode left
        self.n_batch, self.n_seq, self.n_outputs = n_batch, n_seq, n_outputs
        # The C structure points into these arrays, so filling them is filling the batch.
        size = params.n_batch
        self._token = np.zeros(size, np.int32)
        self._pos = np.zeros(size, np.int32)
        self._seq = np.zeros(size, np.int32)
        self._output = np.ones(size, np.int8)
        self._n_seq_id = np.ones(size, np.int32)
        self._seq_id = self._seq.ctypes.data + 4 * np.arange(size, dtype=np.uintp)
        self._batch = c.llama_batch(
            n_tokens=0,
            token=_pointer(self._token),
            pos=_pointer(self._pos),
            n_seq_id=_pointer(self._n_seq_id),
            seq_id=self._seq_id.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def embed(self, tokens: Tokens) -> Floats:
        """Return the mean of the last layer over ``tokens`` (1..n_batch), float32 (n_embd,).

        The one sequence of the call is all the network sees, so the result depends on nothing
        else. Raises ``ModelError`` where the context is not for embeddings or the call fails.
        """
        self._check_context(embeddings=True)
        count = len(tokens)
        if not 0 < count <= min(self.n_batch, self.n_ctx_train):
            raise ModelError(f"{count} tokens do not fit a call of {self.n_batch}")
        # Tokens of another sequence fill the call up to whole blocks of rows, which is faster.
        total = count + -count % _ROWS
        if total % _STEP == _STEP - _ROWS:
            total += _ROWS
        if _FILL_FROM < total < _FLASH_FROM:
            total = _FLASH_FROM
        self._token[:count], self._token[count:total] = tokens, tokens[0]
        self._pos[:count], self._pos[count:total] = np.arange(count), np.arange(total - count)
        self._seq[:count], self._seq[count:total] = 0, self.n_seq
        self._batch.n_tokens = total
        context = self._context if total < _FLASH_FROM else self._long_context
        memory = c.llama_get_memory(context)
        if memory:
            c.llama_memory_clear(memory, False)
        status = (c.llama_decode if memory else c.llama_encode)(context, self._batch)
        self.calls += 1
        vector = None if status else c.llama_get_embeddings_seq(context, 0)
        if not vector:
            raise ModelError(f"llama.cpp could not embed: {last_errors() or status}")
        return np.ctypeslib.as_array(vector, (self.n_embd,)).copy()

    def decode(
        self,
        tokens: Tokens,
        positions: Tokens,
        sequences: Tokens,
        outputs: NDArray[np.bool_],
    ) -> None:
        """Run one batch of up to n_batch tokens; its keys and values stay in the context.

        All four arrays have one entry a token: its id, its position in its sequence, the id of
        that sequence, and whether its logits are wanted (up to n_outputs of them). The batch is
        filled up to whole blocks of rows, so that a row's result does not depend on its place.
        Raises ``ModelError`` where an entry is out of range or llama.cpp refuses the batch; the
        caller then removes the sequences it was filling.
        """
        self._check_context(embeddings=False)
        count = len(tokens)
        if not 0 < count <= self.n_batch:
            raise ModelError(f"{count} tokens do not fit a call of {self.n_batch}")
        wanted = int(np.count_nonzero(outputs))
        if wanted > self.n_outputs:
            raise ModelError(f"{wanted} rows of logits do not fit a call of {self.n_outputs}")
        if positions.min() < 0 or positions.max() >= self.n_ctx_train:
            raise ModelError(f"a position is outside the {self.n_ctx_train} of the model")
        if sequences.min() < 0 or sequences.max() >= self.n_seq:
            raise ModelError(f"a sequence is outside the {self.n_seq} of the context")
        filling = -wanted % _ROWS
        total = count + filling
        total += -total % _ROWS
        self._token[:count], self._token[count:total] = tokens, tokens[0]
        self._pos[:count], self._pos[count:total] = positions, np.arange(total - count)
        self._seq[:count], self._seq[count:total] = sequences, self.n_seq
        self._output[:count], self._output[count:total] = outputs, False
        self._output[count : count + filling] = True
        self._batch.n_tokens = total
        self._wanted = 0
        status = c.llama_decode(self._context, self._batch)
        self.calls += 1
        c.llama_memory_seq_rm(self._memory, self.n_seq, -1, -1)
        if status:
            reason = "no room left in the context" if status == 1 else last_errors() or status
            raise ModelError(f"llama.cpp could not decode: {reason}")
        self._wanted = wanted

    def logits(self, columns: Tokens | None = None) -> Floats:
        """Return the logits of the last ``decode``, float32 (rows, n_vocab), in batch order.

        ``columns``: only these token ids, float32 (rows, len(columns)), without copying the rest.
        """
        self._check_context(embeddings=False)
        rows = c.llama_get_logits(self._context) if self._wanted else None
        if not rows:
            return np.empty((0, self.n_vocab if columns is None else len(columns)), np.float32)
        view = np.ctypeslib.as_array(rows, (self._wanted, self.n_vocab))
        return view.copy() if columns is None else view[:, columns]

    def copy_sequence(self, source: int, target: int, start: int = 0, end: int = -1) -> None:
        """Give ``target`` the keys and values of ``source`` at positions [start, end); -1: all."""
        self._check_memory(source, target)
        c.llama_memory_seq_cp(self._memory, source, target, start, end)

    def remove_sequence(self, sequence: int, start: int = 0, end: int = -1) -> None:
        """Forget the positions [start, end) of ``sequence``; -1: to its end."""
        self._check_memory(sequence)
        if not c.llama_memory_seq_rm(self._memory, sequence, start, end):
            raise ModelError("this model cannot forget a part of a sequence")

    def clear(self) -> None:
        """Forget every sequence."""
        self._check_memory()
        c.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        """Free the context and the model now. Calling it again does nothing."""
        self._context = None
        self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_context(self, params: Any, *, flash: bool) -> Any:
        params.flash_attn_type = (
            c.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        last_errors()
        context = c.llama_init_from_model(self._model, params)
        if not context:
            raise ModelError(
                f"llama.cpp cannot open a context of {params.n_ctx} tokens: "
                f"{last_errors() or 'no reason given'}",
                where=str(self.path),
            )
        self._handles.append((c.llama_free, context))
        if self._adapter:
            adapters = (c.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            if c.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise ModelError(
                    f"the adapter cannot be applied: {last_errors() or 'no reason given'}",
                    where=str(self.path),
                )
        return context

    def _close_context(self) -> None:
        self._context = None
        _free(self._handles, keep=1)

    def _check_open(self) -> None:
        if not self._free.alive:
            raise ModelError("the model is closed", where=str(self.path))

    def _check_context(self, *, embeddings: bool) -> None:
        if self._context is None:
            raise ModelError("the model has no open context", where=str(self.path))
        if embeddings != self._embeddings:
            kind = "embeddings" if self._embeddings else "logits"
            raise ModelError(f"the context was opened for {kind}", where=str(self.path))

    def _check_memory(self, *sequences: int) -> None:
        if self._context is None or not self._memory:
            raise ModelError("the model has no sequences to change", where=str(self.path))
        if not all(0 <= sequence < self.n_seq for sequence in sequences):
            raise ModelError(f"a sequence is outside the {self.n_seq} of the context")


def _free(handles: list[tuple[Callable[[Any], None], Any]], keep: int = 0) -> None:
    while len(handles) > keep:
        free, handle = handles.pop()
        free(handle)


def _pointer(array: Tokens) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
