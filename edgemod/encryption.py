"""The key of encrypted Parquet files, and how key files are read.

Parquet's modular encryption, AES-GCM
(https://parquet.apache.org/docs/file-format/data-pages/encryption/), with one key for the footer
and all columns of a file: what pyarrow can do with a key alone. It encrypts every page and all
metadata under nonces drawn at random, so equal tables give other bytes each time.

The key belongs to the process and to those it starts: an environment variable names its file.
What opens or writes Parquet asks here, and nothing has to hand the key on.
"""

from __future__ import annotations

import hmac
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet.encryption as pe

from edgemod.errors import InputError

VARIABLE: Final = "EDGEMOD_KEY_FILE"
"""The environment variable that names the key file."""

KEY_BYTES: Final = (16, 1 << 16)
"""Least and most bytes of a key file."""

KEY_DIGITS: Final = (32, 48, 64)
"""Hexadecimal digits of an AES key: 128, 192 or 256 bits."""


def use(path: str | Path) -> None:
    """Read and write Parquet under the key in a file from now on, here and in workers to come.

    Raises InputError as ``read_key_file`` does, and if the file does not hold ``KEY_DIGITS``.
    """
    _key(os.path.abspath(path))
    os.environ[VARIABLE] = os.path.abspath(path)


def key_file() -> str | None:
    """The path of the key file in use, None if there is none."""
    return os.environ.get(VARIABLE) or None


def fingerprint() -> str | None:
    """HMAC-SHA256 of a constant under the key in use, hex: tells keys apart. None without one."""
    path = key_file()
    return path and hmac.digest(_key(path), b"edgemod.encryption", "sha256").hex()


def encrypting() -> Any:
    """``encryption_properties`` for one file, None without a key. Raises InputError as ``use``."""
    path = key_file()
    return path and pe.create_encryption_properties(_key(path))


def decrypting() -> Any:
    """``decryption_properties`` for one file, encrypted or plain; None without a key.

    Raises InputError as ``use`` does.
    """
    path = key_file()
    return path and pe.create_decryption_properties(_key(path), allow_plaintext_files=True)


def check_local() -> None:
    """Raise InputError if a key is in use: the nodes of a cluster are not given it."""
    if key_file():
        raise InputError(
            "a Ray cluster does not get the key",
            where="--key-file",
            fix="Leave it out, or run on one machine, or shards of the run on several.",
        )


def check_run(plan: dict[str, Any], where: str, *, plain: bool = True) -> None:
    """Raise InputError if a run (its plan in run.json) is encrypted, and not under the key in use.

    ``plain``: whether a run that is not encrypted will do where a key is in use.
    """
    wanted = plan.get("encryption")
    if wanted == fingerprint() or (plain and wanted is None):
        return
    what = "is encrypted under another key" if key_file() else "is encrypted, and no key is given"
    raise InputError(
        "is not encrypted" if wanted is None else what,
        where=where,
        fix="Give the key that the run was made with, with --key-file; none if it had none.",
    )


def check_format(form: str, where: str) -> None:
    """Raise InputError for a format other than Parquet where a key is in use."""
    if key_file() and form != "parquet":
        raise InputError(
            f"{form} cannot be encrypted",
            where=where,
            fix="With --key-file texts are written as Parquet alone.",
        )


def read_key_file(path: str | Path) -> bytes:
    """All bytes of a key file.

    Raises InputError if it cannot be read, is no file, is open to others than its owner, or is
    of no size for a key (``KEY_BYTES``).
    """
    least, most = KEY_BYTES
    fix = _how_to_make(path)
    try:
        with open(path, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            key = stream.read(most + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        what = f"this key file cannot be read: {error.strerror}"
        raise InputError(what, where=str(path), fix=fix) from error
    for wrong, what, way in (
        (not stat.S_ISREG(mode), "is no file: a key must be kept", fix),
        (
            mode & 0o077,
            "this key file is open to others than its owner",
            f"chmod 600 {Path(path).name}, or a new key if somebody may have read it.",
        ),
        (len(key) < least, f"a key of {len(key)} bytes is too short, {least} at least", fix),
        (len(key) > most, f"is longer than {most} bytes, so hardly a key", fix),
    ):
        if wrong:
            raise InputError(what, where=str(path), fix=way)
    return key


@lru_cache
def _key(path: str) -> bytes:
    """The AES key in a file: read once, so that a process has one key to its end."""
    digits = read_key_file(path).strip()
    try:
        key = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        key = b""
    if len(digits) not in KEY_DIGITS or 2 * len(key) != len(digits):
        raise InputError(
            "holds no key for AES: 32, 48 or 64 hexadecimal digits",
            where=path,
            fix=_how_to_make(path),
        )
    return key


def _how_to_make(path: str | Path) -> str:
    return f"Make one: (umask 077; openssl rand -hex 32 > {Path(path).name})"
