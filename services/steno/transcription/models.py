"""Where a model's files are, and their digest."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from faster_whisper.utils import available_models, download_model
from huggingface_hub.errors import LocalEntryNotFoundError

from steno.transcription.domain import ModelNotFound

BUILTIN = "builtin"


def locate(model: str, cache: str = "") -> Path:
    """Finds the folder of a model; downloads it if it is not on this machine.

    Args:
        model: `builtin`, a faster-whisper name such as `large-v3`, a Hugging Face repository of a
            CTranslate2 model, or a path.
        cache: folder of downloaded models; empty: Hugging Face's own.

    Raises:
        ModelNotFound: it is none of these.
    """
    if model == BUILTIN:
        return _checked(Path(str(files("steno.transcription") / "models" / "builtin-en")))
    if Path(model).is_dir():
        return _checked(Path(model))
    if model not in available_models() and model.count("/") != 1:
        raise ModelNotFound(
            f"{model} is neither a folder nor {BUILTIN} nor one of {', '.join(available_models())}"
        )
    # What is here is used as it is: a restart neither needs the network nor changes the revision.
    try:
        return Path(download_model(model, cache_dir=cache or None, local_files_only=True))
    except LocalEntryNotFoundError:
        return Path(download_model(model, cache_dir=cache or None))


def _checked(folder: Path) -> Path:
    if not (folder / "model.bin").is_file():
        raise ModelNotFound(f"{folder} holds no model.bin of a CTranslate2 Whisper model")
    return folder


_FILES = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.*")


def revision(folder: Path) -> str:
    """Digest of the files that make a model what it is: 12 hex digits, the same on any machine."""
    digest = hashlib.sha256()
    for file in sorted(path for pattern in _FILES for path in folder.glob(pattern)):
        with file.open("rb") as content:
            digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]
