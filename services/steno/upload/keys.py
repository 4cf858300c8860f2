"""Where bytes lie in the object store. No key is written twice."""

from __future__ import annotations

from uuid import UUID

IMPORTS = "recordings/"
"""Below it lies what other services have left in the bucket."""


def first_place(upload_id: UUID) -> str:
    """The key that the bytes of an upload are sent to."""
    return f"uploads/{upload_id}/1"


def next_place(object_key: str) -> str:
    """The key of an upload whose bytes are sent again."""
    place, _, number = object_key.rpartition("/")
    return f"{place}/{int(number) + 1}"


def is_import(object_key: str) -> bool:
    """Whether another service has left an object in the bucket.

    It may be the only copy of what was acknowledged, such as a live session's chunks. So only its
    owner removes it, or retention: whoever uploaded a file has the file.
    """
    return object_key.startswith(IMPORTS)


def slice_prefix(audio_id: UUID) -> str:
    """Below it lie the slices of an audio, each below the number of the attempt that cut it."""
    return f"slices/{audio_id}/"


def slice_key(audio_id: UUID, attempt: int, index: int) -> str:
    """The key of a slice."""
    return f"{slice_prefix(audio_id)}{attempt}/{index}.wav"


def context_key(audio_id: UUID, attempt: int, index: int) -> str:
    """The key of a slice with the context around it."""
    return f"{slice_prefix(audio_id)}{attempt}/{index}.context.wav"


def attempt_of(slice_key: str) -> int:
    """Which attempt has cut the slice with a key."""
    return int(slice_key.split("/")[2])
