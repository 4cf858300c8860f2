"""Logs, metrics and traces.

Commands of the terminal pass traces on and are to begin at once: what only services need of the
libraries is imported where it is used.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context

if TYPE_CHECKING:
    from steno.platform.settings import ProcessSettings

tracer = trace.get_tracer("steno")

_EXPORT_SECONDS = 2
"""Longest time that a receiver which is away holds up the end of a process, unless told."""

_TIMEOUT = "OTEL_EXPORTER_OTLP_TIMEOUT"

_context: ContextVar[Mapping[str, str] | None] = ContextVar("log_context", default=None)

_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Adds fields, such as `job_id`, to all that is logged inside, and to the running span."""
    trace.get_current_span().set_attributes(fields)
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says beside its text: context, trace, and `extra`."""
    fields: dict[str, Any] = dict(_context.get() or {})
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        fields["trace_id"] = trace.format_trace_id(span.trace_id)
    fields |= {k: v for k, v in vars(record).items() if k not in _PLAIN_RECORD}
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Renders one record."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders one record."""
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        line = f"{self.formatTime(record)} {record.levelname:<7} {record.getMessage()} {fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line.rstrip()


def configure_logging(process: str, settings: ProcessSettings) -> None:
    """Sends all logs to stderr in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(process) if settings.log_format == "json" else TextFormatter()
    )
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # These tell at INFO, or as errors, what their callers handle.
    for chatty in ("alembic", "faster_whisper", "httpx2", "nats", "urllib3.connectionpool"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, handler.level))


def start_metrics_server(settings: ProcessSettings) -> None:
    """Serves /metrics, unless it is turned off."""
    from prometheus_client import start_http_server

    if not settings.metrics_listen:
        return
    host, _, port = settings.metrics_listen.rpartition(":")
    if host == "0.0.0.0":  # as gRPC reads it: all addresses, those of IPv6 too, where there are any
        with suppress(OSError):
            start_http_server(int(port), "::")
            return
    start_http_server(int(port), host.strip("[]"))


def configure_tracing(process: str, otlp_endpoint: str) -> None:
    """Sends spans to the OTLP receiver. Without one, traces still have ids, for the logs."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    resource = Resource.create({"service.name": process})
    if not otlp_endpoint:
        trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF, resource=resource))
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(
        otlp_endpoint,
        insecure=not otlp_endpoint.startswith("https://"),
        timeout=None if _TIMEOUT in os.environ else _EXPORT_SECONDS,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def trace_headers() -> dict[str, str]:
    """Headers that carry the running trace on, for gRPC metadata or a NATS message."""
    carrier: MutableMapping[str, str] = {}
    propagate.inject(carrier)
    return dict(carrier)


def received_trace(headers: Mapping[str, str] | None) -> Context:
    """The trace that came with a call or a message."""
    return propagate.extract(headers or {})
