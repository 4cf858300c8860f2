"""The child's whole life: lock in, decode one recording, report."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from typing import Any

from .wire import Channel, Kind, Reason


@functools.cache
def load() -> None:
    """Loads and warms up all that a child needs: behind its walls it can load nothing."""
    from . import containers, decode, jail, mixer, remote  # noqa: F401

    mixer.rehearse()


def run() -> int:
    """Decodes the one recording that the parent offers; returns the exit status."""
    channel = Channel(read_fd=0, write_fd=1)

    def send(kind: Kind, record: dict[str, Any]) -> None:
        channel.send(kind, json.dumps(record).encode())

    try:
        load()
        from . import decode, jail
        from .containers import Rejected
        from .remote import RemoteFile

        meter = jail.Meter()
        job = json.loads(channel.receive(Kind.JOB))
        protections = jail.lock_down(
            memory_bytes=job.pop("memory_bytes"), cpu_seconds=job.pop("cpu_seconds")
        )
        send(Kind.READY, asdict(protections))
    except (EOFError, ConnectionError):
        return 0
    except Exception as error:
        send(Kind.FAILED, {"reason": Reason.DECODER_UNAVAILABLE, "message": repr(error)})
        return 0

    wanted = decode.Job(**job)
    file = RemoteFile(channel, wanted.size_bytes)
    try:
        end = decode.decode(
            file,
            wanted,
            send_info=lambda info: send(Kind.INFO, info),
            send_pcm=lambda pcm: channel.send(Kind.PCM, pcm),
        )
        send(
            Kind.END,
            {
                **end,
                "cpu_seconds": meter.cpu_seconds(),
                "peak_memory_bytes": meter.peak_memory_bytes(),
            },
        )
    except (EOFError, ConnectionError):
        return 1  # the parent is gone
    except Rejected as rejected:
        send(Kind.REJECTED, {"reason": rejected.reason, "message": rejected.message})
    except MemoryError:
        message = "Decoding the file takes more memory than is allowed."
        send(Kind.REJECTED, {"reason": Reason.MEMORY_LIMIT, "message": message})
    except Exception as error:
        send(Kind.FAILED, {"reason": Reason.DECODER_CRASHED, "message": repr(error)})
    return 0
