"""The environment of the concatenation service."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from steno.platform.settings import (
    NatsSettings,
    PostgresSettings,
    ProcessSettings,
    S3Settings,
    SandboxSettings,
)


class Settings(ProcessSettings, PostgresSettings, NatsSettings, S3Settings, SandboxSettings):
    """What `python -m steno.concatenation` reads."""

    listen: str = "0.0.0.0:50054"
    """Address of the gRPC server, `host:port`; port 0 takes a free one."""
    upload_address: str = "localhost:50051"
    """Address of the upload service, which takes over recordings."""
    job_address: str = "localhost:50052"
    """Address of the job service."""
    transcription_address: str = "localhost:50053"
    """Address of the transcription service, which transcribes live sessions."""
    session_max_open: int = Field(1000, gt=0)
    """Open sessions of all tenants at once; more are answered RESOURCE_EXHAUSTED."""
    session_tenant_max_open: int = Field(500, gt=0)
    """Open sessions of one tenant at once; more are answered RESOURCE_EXHAUSTED."""
    session_max_viewers: int = Field(1000, gt=0)
    """Viewers of one session on one replica; more are answered RESOURCE_EXHAUSTED."""
    session_max_bytes_in_flight: int = Field(32 * 2**20, ge=10 * 2**20)
    """Bytes of chunks that one process holds before they are in the object store; as many again may
    be on their way in calls of AppendChunk, each counted as the longest chunk. Of more, streams
    wait, and AppendChunk is answered RESOURCE_EXHAUSTED. Memory is several times that."""
    session_grace_hours: float = Field(24, ge=0)
    """Hours for which chunks are kept once their session has become an audio. Longer than a backup
    takes, from the database's dump to the last copied object: a session that the dump has open must
    find them."""
    session_retention_hours: float = Field(0, ge=0)
    """Hours after which a session that has ended is deleted, with its live transcript; the audio
    that it became, and that audio's jobs, stay. 0 keeps all."""
    session_max_worked_on: int = Field(1000, gt=0)
    """Sessions that one process decodes, joins and transcribes at once. More wait for another
    replica; their chunks are taken in any case."""
    session_lease_seconds: float = Field(10, gt=0)
    """Silence after which the work behind a session is handed to another replica."""
    session_max_pause_seconds: float = Field(300, gt=0)
    """Longest pause between two tries at a session whose work fails; the first ones are shorter.
    Its chunks are taken meanwhile."""
    session_sweep_seconds: float = Field(0.5, gt=0)
    """Seconds between two searches for gaps, idle sessions, and sessions that nobody works on."""
    session_poll_seconds: float = Field(0.5, gt=0)
    """Seconds between two readings of a session that is worked on or watched; chunks that arrive on
    the same replica are noticed at once."""
    session_close_seconds: float = Field(30, gt=0)
    """Longest time that CloseSession waits for the recording to become an audio."""
    recording_url_seconds: int = Field(6 * 3600, gt=0, le=7 * 24 * 3600)
    """Seconds for which a presigned URL of a recording works."""

    @property
    def session_grace(self) -> timedelta:
        """How long chunks are kept once their session has become an audio."""
        return timedelta(hours=self.session_grace_hours)

    @property
    def session_max_pause(self) -> timedelta:
        """Longest pause between two tries at a session whose work fails."""
        return timedelta(seconds=self.session_max_pause_seconds)

    @property
    def session_lease(self) -> timedelta:
        """Silence after which the work behind a session is handed to another replica."""
        return timedelta(seconds=self.session_lease_seconds)
