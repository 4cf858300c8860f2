"""The child's whole life: load, lock in, decode, report."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from .wire import Channel, Kind, Reason


def main() -> None:
    """Decodes the one recording that the parent offers on standard input."""
    channel = Channel(read_fd=0, write_fd=1)

    def send(kind: Kind, record: dict[str, Any]) -> None:
        channel.send(kind, json.dumps(record).encode())

    try:
        from . import decode, jail, mixer
        from .containers import Rejected
        from .remote import RemoteFile

        mixer.rehearse()
        meter = jail.Meter()
        job = json.loads(channel.receive(Kind.JOB))
        protections = jail.lock_down(
            memory_bytes=job.pop("memory_bytes"), cpu_seconds=job.pop("cpu_seconds")
        )
        send(Kind.READY, asdict(protections))
    except EOFError:
        return
    except Exception as error:
        send(Kind.FAILED, {"reason": Reason.DECODER_UNAVAILABLE, "message": repr(error)})
        return

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
    except (EOFError, BrokenPipeError):
        sys.exit(1)  # the parent is gone
    except Rejected as rejected:
        send(Kind.REJECTED, {"reason": rejected.reason, "message": rejected.message})
    except MemoryError:
        message = "Decoding the file takes more memory than is allowed."
        send(Kind.REJECTED, {"reason": Reason.MEMORY_LIMIT, "message": message})
    except Exception as error:
        send(Kind.FAILED, {"reason": Reason.DECODER_CRASHED, "message": repr(error)})


if __name__ == "__main__":
    main()
