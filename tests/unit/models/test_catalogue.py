"""The catalogue knows Whisper by the names and repositories of faster-whisper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from faster_whisper.utils import _MODELS

from steno.models import DEFAULT, Entry, Store, entries, entry_of
from steno.models.files import WEIGHTS

ROOT = Path(__file__).parents[3]

each_entry = pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)


def test_each_model_of_faster_whisper_is_there_by_its_name_and_repository() -> None:
    known = {name: entry.repository for entry in entries() for name in (entry.name, *entry.aliases)}

    assert known == _MODELS


@each_entry
def test_revisions_and_digests_are_whole(entry: Entry) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in entry.files)
    assert not entry.is_complete or entry.size


@each_entry
def test_a_model_is_found_by_each_of_its_names(entry: Entry) -> None:
    for name in (entry.name, *entry.aliases, entry.repository):
        assert entry_of(name) == entry


def test_packages_on_the_index_hold_all_files_of_their_model() -> None:
    carried = [entry for entry in entries() if entry.wheels]

    assert [entry.name for entry in carried] == ["tiny.en", "base"]
    for entry in carried:
        assert entry.wheels
        assert set(entry.wheels.parts) == {file.path for file in entry.files}


@pytest.mark.parametrize("requirements", ["dev", "services", "local"])
def test_the_default_is_pinned_where_it_is_installed(requirements: str) -> None:
    default = entry_of(DEFAULT)
    assert default
    assert default.wheels
    (requirement,) = default.wheels.requirements
    package, _, digest = requirement.partition(" ")

    pinned = (ROOT / "requirements" / f"{requirements}.txt").read_text()

    assert package in pinned
    assert digest in pinned


def test_the_default_is_on_each_machine_and_whole(store: Store) -> None:
    model = store.open(DEFAULT)

    assert (model.folder / WEIGHTS).stat().st_size == 75_537_502
    assert model.name == "tiny.en"
    assert model.revision == "0d3d19a32d3338f10357c0889762bd8d64bbdeba"
