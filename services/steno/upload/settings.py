"""The environment of the upload service and of the preparation."""

from __future__ import annotations

from pydantic import Field

from steno.platform.settings import (
    NatsSettings,
    PostgresSettings,
    ProcessSettings,
    S3Settings,
    SandboxSettings,
)


class Settings(ProcessSettings, PostgresSettings, NatsSettings, S3Settings):
    """What `python -m steno.upload` reads."""

    upload_max_bytes: int = Field(50 * 2**30, gt=0)
    """Longest file that is taken, in bytes."""
    upload_expiry_seconds: int = Field(24 * 3600, gt=0)
    """Seconds after which an upload that was not completed is given up and its parts removed."""
    upload_url_seconds: int = Field(6 * 3600, gt=0, le=7 * 24 * 3600)
    """Seconds for which a presigned URL works. GetUpload gives new ones. An upload of which no part
    has landed by then is given up."""
    upload_max_open: int = Field(10_000, gt=0)
    """Open uploads of all tenants at once; more are answered RESOURCE_EXHAUSTED."""
    upload_tenant_max_open: int = Field(1000, gt=0)
    """Open uploads of one tenant at once; more are answered RESOURCE_EXHAUSTED."""
    upload_max_streams: int = Field(16, gt=0)
    """Files that one process takes in as streams at once, each with some 10 MiB of memory; more are
    answered RESOURCE_EXHAUSTED."""
    upload_sweep_seconds: float = Field(60, gt=0)
    """Seconds between two looks for expired uploads and for bytes that must go."""
    audio_retention_hours: float = Field(0, ge=0)
    """Hours after which an audio is deleted with its bytes, whoever still uses it; 0: never."""
    upload_reconcile_seconds: float = Field(5, gt=0)
    """Seconds between two looks for audio whose preparation nobody has taken up."""


class PrepareSettings(ProcessSettings, PostgresSettings, NatsSettings, S3Settings, SandboxSettings):
    """What `python -m steno.upload.prepare` reads."""

    prepare_lease_seconds: float = Field(20, gt=0)
    """Silence after which an audio is handed to another process."""
    prepare_at_once: int = Field(4, ge=2)
    """Recordings that one process prepares at once, by turns, each with some 20 MB of memory beside
    its decoder's. One place is not for recordings of more than 5 minutes, so that short ones need
    not wait for the end of long ones."""
    audio_grace_hours: float = Field(24, ge=0)
    """Hours for which the bytes of an audio that was rejected are kept; those of a live session are
    until it is deleted. Keep above what a backup takes: a database that is restored to a moment
    before the rejection needs them again."""
    prepare_max_hours: float = Field(24, gt=0)
    """Longest recording that is prepared, in hours; longer ones are rejected."""
