from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from edgemod import store
from edgemod.errors import ModelError, OutputError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / 'odd "name" é.gguf'
    path.write_bytes(b"GGUF some weights")
    return path


def test_the_shipped_files_are_those_recorded() -> None:
    entries = {entry.name: entry for entry in store.list_models()}
    assert entries["default"].kind == "encoder"
    store.verify(entries["default"])
    assert sum(file.stat().st_size for file, _ in entries["default"].files) < 25_000_000
    for entry in entries.values():
        assert entry.licence
        assert entry.source
        assert len(entry.sha256) == 64


def test_add_list_resolve_verify(gguf: Path, home: Path) -> None:
    added = store.add(gguf, "mine", "guard", "yes-no")
    assert store.list_models()[-1] == added
    assert store.resolve("mine") == added
    assert store.resolve(str(gguf)) == added
    assert added.present
    store.verify(added)
    assert (home / "models.toml").stat().st_mode & 0o077 == 0


def test_an_adapter_is_recorded_and_checked_with_its_guard(gguf: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"GGUF an adapter")
    added = store.add(gguf, "mine", "guard", adapter=adapter)
    assert store.resolve("mine") == added
    assert [file for file, _ in added.files] == [gguf, adapter]
    store.check(added)
    adapter.write_bytes(b"GGUF another one")
    with pytest.raises(ModelError, match='a file of model "mine" has changed') as caught:
        store.check(added)
    assert f"--adapter {adapter}" in str(caught.value)
    with pytest.raises(ModelError, match="with other content"):
        store.add(gguf, "mine", "guard", adapter=adapter)
    store.add(gguf, "mine", "guard", adapter=adapter, replace=True)
    store.check(store.resolve("mine"))
    adapter.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="not a GGUF file"):
        store.add(gguf, "mine", "guard", adapter=adapter, replace=True)
    with pytest.raises(ModelError, match="only a guard has an adapter"):
        store.add(gguf, "other", "encoder", head=gguf, adapter=gguf)


def test_a_path_stands_for_the_entry_without_an_adapter(gguf: Path, tmp_path: Path) -> None:
    adapters = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for adapter in adapters:
        adapter.write_bytes(b"GGUF " + adapter.name.encode())
        store.add(gguf, f"with-{adapter.stem}", "guard", adapter=adapter)
        if adapter == adapters[0]:
            assert store.resolve(str(gguf)).name == "with-a"
    with pytest.raises(ModelError, match="recorded with several adapters: with-a, with-b"):
        store.resolve(str(gguf))
    store.add(gguf, "plain", "guard")
    assert store.resolve(str(gguf)).name == "plain"


def test_a_moved_file_is_known_by_its_content(gguf: Path, tmp_path: Path) -> None:
    store.add(gguf, "mine", "guard")
    moved = gguf.rename(tmp_path / "moved.gguf")
    assert not store.resolve("mine").present
    with pytest.raises(ModelError, match='a file of model "mine" is missing'):
        store.check(store.resolve("mine"))
    store.add(moved, "mine", "guard")
    store.check(store.resolve("mine"))
    assert [entry.name for entry in store.list_models()].count("mine") == 1


def test_an_unknown_file_is_not_read(gguf: Path) -> None:
    with pytest.raises(ModelError) as caught:
        store.resolve(str(gguf))
    assert "not known" in caught.value.what
    assert "edgemod model add" in caught.value.fix


def test_an_unknown_name_suggests_a_near_one() -> None:
    with pytest.raises(ModelError) as caught:
        store.resolve("defualt")
    assert str(caught.value) == ('there is no model or file "defualt"\n  did you mean "default"?')


def test_a_changed_file_is_refused_even_with_its_old_time(gguf: Path) -> None:
    entry = store.add(gguf, "mine", "guard")
    status = gguf.stat()
    gguf.write_bytes(b"GGUF evil weights")
    os.utime(gguf, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ModelError, match="has changed"):
        store.verify(entry)


def test_an_unchanged_file_is_hashed_once(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = store.add(gguf, "mine", "guard")
    monkeypatch.setattr("hashlib.file_digest", None)
    store.check(entry)
    with pytest.raises(TypeError):
        store.verify(entry)


@pytest.mark.parametrize("name", ["default", "taken"])
def test_a_name_stands_for_one_content(gguf: Path, tmp_path: Path, name: str) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF other weights")
    store.add(other, "taken", "guard")
    with pytest.raises(ModelError, match=f'there already is a model "{name}"'):
        store.add(gguf, name, "guard")


def test_a_changed_file_can_be_recorded_in_place_of_the_old(gguf: Path) -> None:
    entry = store.add(gguf, "mine", "guard", "yes-no")
    gguf.write_bytes(b"GGUF other weights")
    with pytest.raises(ModelError, match="has changed") as caught:
        store.verify(entry)
    command = shlex.split(caught.value.fix.split(": ", 1)[1])
    assert command == [
        "edgemod", "model", "add", str(gguf), "--name", "mine", "--template", "yes-no", "--replace"
    ]  # fmt: skip
    with pytest.raises(ModelError, match="already") as caught:
        store.add(gguf, "mine", "guard", "yes-no")
    assert "--replace" in caught.value.fix
    store.verify(store.add(gguf, "mine", "guard", "yes-no", replace=True))
    assert [entry.name for entry in store.list_models()].count("mine") == 1
    with pytest.raises(ModelError, match="already") as caught:
        store.add(gguf, "default", "guard", replace=True)
    assert "--replace" not in caught.value.fix


def test_what_cannot_be_added(gguf: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.gguf"
    page.write_bytes(b"<html>")
    with pytest.raises(ModelError, match="this is not a GGUF file"):
        store.add(page, "page", "guard")
    with pytest.raises(ModelError, match="cannot be read"):
        store.add(tmp_path / "none.gguf", "none", "guard")
    with pytest.raises(ModelError, match="cannot be a name"):
        store.add(gguf, "../up", "guard")
    with pytest.raises(ModelError, match="an encoder needs a head"):
        store.add(gguf, "mine", "encoder")
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_made(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be made: Permission denied"):
        store.add(gguf, "mine", "guard")


@pytest.mark.parametrize(
    "content", ["[[model]", "[[model]]\nname = 'x'\nkind = 'guard'", "\xff", "model = 3"]
)
def test_a_damaged_registry_is_an_error(home: Path, content: str) -> None:
    home.mkdir()
    (home / "models.toml").write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match="the model registry cannot be read") as caught:
        store.list_models()
    assert caught.value.where == str(home / "models.toml")
