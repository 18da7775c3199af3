"""The check-up reports what is missing; it does not die of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemod import checkup, store
from edgemod.errors import ModelError

MISSING = """
import dataclasses, json, sys
sys.modules[{name!r}] = None  # as if it were not installed
from edgemod import checkup
print(json.dumps([dataclasses.asdict(finding) for finding in checkup.run()]))
"""


def run(name: str, home: Path) -> dict[str, dict[str, str | bool]]:
    told = subprocess.run(
        [sys.executable, "-c", MISSING.format(name=name)],
        capture_output=True,
        text=True,
        env={**os.environ, "EDGEMOD_HOME": str(home)},
    )
    assert told.returncode == 0, told.stderr
    return {finding["name"]: finding for finding in json.loads(told.stdout)}


@pytest.mark.parametrize("name", ["llama_cpp", "py3langid"])
def test_a_missing_package_is_a_finding(tmp_path: Path, name: str) -> None:
    findings = run(name, tmp_path)
    assert not findings["offline"]["ok"]
    assert name in str(findings["offline"]["detail"])
    assert {"numpy", "processor", "memory", "model default"} <= set(findings)


def test_a_broken_registry_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path))
    (tmp_path / store.REGISTRY).write_text("not = [toml")
    with pytest.raises(ModelError):
        store.list_models()
    (found,) = checkup._found("models", checkup._models)
    assert not found.ok
    assert str(tmp_path) in found.detail


def test_a_damaged_model_is_a_finding_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path))
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF and what follows")
    store.add(model, "small", "guard")
    model.write_bytes(b"GGUF and what follow!")
    findings = {found.name: found for found in checkup._models()}
    assert findings["model default"].ok
    assert not findings["model small"].ok
