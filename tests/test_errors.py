"""Errors travel: to another process and back they are what they were."""

from __future__ import annotations

import pickle

import pytest

from edgemod.errors import EdgemodError, InputError, PolicyError, RunError
from edgemod.words import counted


@pytest.mark.parametrize(
    "error",
    [
        InputError("no such file", where="a.parquet", fix="Name another."),
        RunError("stopped"),
        PolicyError("policy.toml", [(3, "no such category"), (9, "a number is missing")]),
    ],
)
def test_an_error_can_be_pickled(error: EdgemodError) -> None:
    got = pickle.loads(pickle.dumps(error))
    assert type(got) is type(error)
    assert (str(got), vars(got), got.args) == (str(error), vars(error), error.args)


def test_how_a_number_of_things_is_said() -> None:
    assert counted(1, "record") == "1 record"
    assert counted(0, "record") == "0 records"
    assert counted(2000, "category", "categories") == "2,000 categories"
