"""Keys of a session's objects in the object store."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from steno.concatenation.domain import Lease, Session


def session_prefix(session_id: UUID) -> str:
    """Where all objects lie that go with a session."""
    return f"sessions/{session_id}/"


def source_prefixes(session_id: UUID) -> tuple[str, ...]:
    """Where the objects lie that nobody needs once the recording is a file."""
    kinds = ("chunks", "decoded", "parts")
    return tuple(f"{session_prefix(session_id)}{kind}/" for kind in kinds)


def chunks_key(session_id: UUID, group: UUID) -> str:
    """Key of chunks that are written together."""
    return f"{session_prefix(session_id)}chunks/{group}"


# A writer that lost its lease writes elsewhere than the one that has it: hence the attempt.


def decoded_key(lease: Lease, start_frame: int, next_sequence: int) -> str:
    """Key of decoded sound, by where it begins and which chunk comes after it."""
    prefix = session_prefix(lease.session_id)
    return f"{prefix}decoded/{lease.attempt}/{start_frame}-{next_sequence}"


def part_key(lease: Lease, number: int) -> str:
    """Key of a joined part."""
    return f"{session_prefix(lease.session_id)}parts/{lease.attempt}/{number}"


def snapshots_prefix(session_id: UUID, time: datetime) -> str:
    """Where the files lie of what was recorded, that were made within the hour."""
    return f"{session_prefix(session_id)}snapshots/{time:%Y-%m-%dT%H}/"


def hls_prefix(session_id: UUID) -> str:
    """Where segments for players lie."""
    return f"{session_prefix(session_id)}hls/"


def file_key(session: Session) -> str:
    """Key of the finished recording: it belongs to the audio that it becomes."""
    return f"recordings/{session.session_id}{session.config.recording_format.suffix}"
