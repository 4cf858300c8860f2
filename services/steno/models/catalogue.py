"""The Whisper models that Steno knows by name; `catalogue.json` holds the facts.

Names and repositories are those of faster-whisper 1.2.1 (`faster_whisper.utils._MODELS`). Revisions
and digests are those that public manifests state (docs/decisions/models.md says which). Where none
was found, those of the hub at the first pull are kept with the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from steno.models.files import File

DEFAULT = "tiny.en"
"""Model of those who name none: it comes with the packages that transcribe."""


@dataclass(frozen=True)
class Wheels:
    """Packages of the package index that carry a model's files.

    Attributes:
        distribution: the package that holds the files as they are; empty where they must be put
            together.
        requirements: lines for pip, each with its version and digest.
        parts: for each file, where its parts are in the packages, in order.
    """

    distribution: str
    requirements: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Windows:
    """The windows that a model understands best: measured, see docs/decisions/windows.md.

    Attributes:
        speech_seconds: longest speech in one window, the pauses in it included.
        margin_seconds: least silence behind it.
        least_seconds: no window is shorter, its silence included.
    """

    speech_seconds: float
    margin_seconds: float
    least_seconds: float


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: by which it is asked for.
        aliases: further names that mean the same model.
        repository: on the model hub.
        revision: commit of the repository, 40 hex digits.
        license: of the weights, by its SPDX identifier.
        languages: number of languages that it knows.
        files: what is published at the revision, as far as it is known.
        wheels: where it is on the package index; None if it is not.
        windows: those that it understands best; None where nobody has measured it.
    """

    name: str
    aliases: tuple[str, ...]
    repository: str
    revision: str
    license: str
    languages: int
    files: tuple[File, ...]
    wheels: Wheels | None
    windows: Windows | None = None

    @property
    def is_complete(self) -> bool:
        """The digest of each file is known; else at most that of the weights."""
        return any(file.path == "tokenizer.json" for file in self.files)

    @property
    def size(self) -> int | None:
        """Bytes of its weights, as far as they are known."""
        return next((file.size for file in self.files if file.path == "model.bin"), None)


@cache
def entries() -> tuple[Entry, ...]:
    """All models, smaller ones first."""
    listed = json.loads((files("steno.models") / "catalogue.json").read_text())
    return tuple(_entry(each) for each in listed)


def entry_of(name: str) -> Entry | None:
    """The model of a name, an alias or a repository; None if it is none of the catalogue's."""
    for entry in entries():
        if name in (entry.name, *entry.aliases, entry.repository):
            return entry
    return None


def _entry(fields: dict) -> Entry:  # type: ignore[type-arg]
    wheels, windows = fields.get("wheels"), fields.get("windows")
    return Entry(
        name=fields["name"],
        aliases=tuple(fields.get("aliases", ())),
        repository=fields["repository"],
        revision=fields["revision"],
        license=fields["license"],
        languages=fields["languages"],
        files=tuple(File(f["path"], f.get("size"), f["sha256"]) for f in fields.get("files", ())),
        wheels=wheels
        and Wheels(
            wheels.get("distribution", ""),
            tuple(wheels["requirements"]),
            {name: tuple(parts) for name, parts in wheels["parts"].items()},
        ),
        windows=windows and Windows(**windows),
    )
