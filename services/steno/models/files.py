"""The files of a model, and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steno.models.errors import ModelDamaged, ModelNotFound

PATTERNS = (
    "config.json",
    "model.bin",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocabulary.*",
)
"""Names of the files that make a CTranslate2 Whisper model what it is."""

WEIGHTS = "model.bin"


@dataclass(frozen=True)
class File:
    """One file as it was published.

    Attributes:
        path: its name in the model's folder.
        size: in bytes; None where it is not known.
        sha256: 64 hex digits.
    """

    path: str
    size: int | None
    sha256: str


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a model, by name.

    Raises:
        ModelNotFound: there is no model in the folder.
    """
    if not (folder / WEIGHTS).is_file():
        raise ModelNotFound(f"{folder} holds no {WEIGHTS} of a CTranslate2 Whisper model")
    found = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    return {path.name: digest(path) for path in found}


def revision(found: Mapping[str, str]) -> str:
    """Name of what a model's files hold: 12 hex digits, the same on any machine.

    For models that have no published revision.
    """
    all_files = hashlib.sha256()
    for name, sha256 in sorted(found.items()):
        all_files.update(name.encode() + bytes.fromhex(sha256))
    return all_files.hexdigest()[:12]


def hold_against(model: str, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Compares digests with those that were published.

    Args:
        model: its name, for the error.
        found: digest of each file that is there, by name.
        expected: digest of each file that was published, by name.

    Raises:
        ModelDamaged: a file is missing, or another one, or was not published with the model.
    """
    for name, sha256 in expected.items():
        if name not in found:
            raise ModelDamaged(model, name, "is missing")
        if found[name] != sha256:
            raise ModelDamaged(
                model,
                name,
                f"is not the published one: its SHA-256 is {found[name]}, not {sha256}",
            )
    if foreign := sorted(set(found) - set(expected)):
        raise ModelDamaged(model, foreign[0], "was not published with it")
