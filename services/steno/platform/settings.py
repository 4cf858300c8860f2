"""The environment of a process: bases that each service's `settings.py` puts together.

Settings are read once, in `__main__`, and handed down. Their docstrings are the manual: the
README's table is made from them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="STENO_", frozen=True, use_attribute_docstrings=True, extra="ignore"
    )


class ProcessSettings(_Settings):
    """What every process has."""

    listen: str = "0.0.0.0:50051"
    """Address of the gRPC server, `host:port`; port 0 takes a free one. 0.0.0.0 is every address,
    of IPv6 too."""
    metrics_listen: str = "0.0.0.0:9090"
    """Address of the Prometheus endpoint, `host:port`; empty turns it off. 0.0.0.0 is every
    address, of IPv6 too."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is logged."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or text for people."""
    otlp_endpoint: str = ""
    """OTLP/gRPC receiver of traces, such as `http://collector:4317`; empty sends none."""
    shutdown_grace_seconds: float = Field(20, gt=0)
    """Seconds that running calls have after SIGTERM. Keep below the pod's grace period."""
    max_message_bytes: int = Field(12 * 2**20, gt=0)
    """Largest gRPC message in bytes. Keep above Recognize's 10 MiB of content."""
    max_concurrent_calls: int = Field(20_000, gt=0)
    """Calls and streams of clients served at once; more are answered RESOURCE_EXHAUSTED. Those of
    other services, such as of workers, have as much room of their own."""
    tls_certificate: str = ""
    """PEM file with the certificate chain of the gRPC server; empty serves plain HTTP/2. It is read
    again when it was renewed."""
    tls_key: str = ""
    """PEM file with the private key of the certificate."""
    tls_ca: str = ""
    """PEM file with the authorities that certificates of other services must be from; empty speaks
    plain HTTP/2 to them."""
    health_listen: str = ""
    """Address of a plain gRPC server that answers only for health, `host:port`, for probes that do
    not speak TLS; empty: health is asked where the service is."""
    max_connection_age_seconds: int = Field(0, ge=0)
    """Seconds after which clients are asked to connect anew, so that load spreads over new
    replicas; 0 never asks."""


class PostgresSettings(_Settings):
    """For processes that keep state."""

    postgres_url: SecretStr
    """Connection string of Postgres 15 or newer, such as `postgresql://user:secret@host/steno`."""
    postgres_pool_size: int = Field(10, gt=0)
    """Most connections of one process."""


class NatsSettings(_Settings):
    """For processes that send or get messages."""

    nats_url: SecretStr
    """Address of NATS with JetStream, such as `nats://host:4222`."""
    nats_tls_certificate: str = ""
    """PEM file with the certificate chain that NATS is shown where it asks for one; empty: none. It
    is read again when a connection is made anew."""
    nats_tls_key: str = ""
    """PEM file with the private key of that certificate."""
    nats_replicas: int = Field(1, ge=1, le=5)
    """Servers of a NATS cluster that keep each stream, of streams that are made: 3 outlast the loss
    of one. A stream that is there is left as it is."""


class S3Settings(_Settings):
    """For processes that read or write audio."""

    s3_endpoint: str
    """URL of the S3 store, such as `http://host:8333`."""
    s3_public_endpoint: str = ""
    """URL under which clients reach the store, put into presigned URLs; `s3_endpoint` if empty."""
    s3_access_key: SecretStr = SecretStr("")
    """Access key; empty: the identity of the pod (AWS_WEB_IDENTITY_TOKEN_FILE,
    AWS_CONTAINER_CREDENTIALS_FULL_URI) or of the machine is given credentials that end and are
    renewed. Presigned URLs end with them, with most after an hour."""
    s3_secret_key: SecretStr = SecretStr("")
    """Secret key; not read without an access key."""
    s3_bucket: str = "steno"
    """Bucket for audio; made if it is missing."""
    s3_region: str = "us-east-1"
    """Region that requests are signed for."""


class SandboxSettings(_Settings):
    """For processes that decode what clients send."""

    sandbox: Literal["require", "warn"] = "require"
    """Where the system does not filter the decoder's calls (seccomp; Linux on x86_64 and aarch64
    does, but not every emulator and container runtime): decode nothing, or decode and say so in the
    log. `steno up` warns unless it is told to require."""
