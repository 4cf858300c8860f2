"""What clients asked, and what they were told: the only thing that the checker believes.

As in Jepsen's histories, an operation is told `ok`, `failed` (it did not happen, by the contract)
or `unknown`: its deadline passed, its caller went away, or its connection broke after it was sent.
What is unknown has happened once or not at all.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import grpc

Told = Literal["ok", "failed", "unknown"]

NEMESIS = "nemesis"
"""The process that does the faults."""

_UNKNOWN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}


def told_by(code: grpc.StatusCode) -> Told:
    """What a status says of an operation that was asked for."""
    if code is grpc.StatusCode.OK:
        return "ok"
    return "unknown" if code in _UNKNOWN else "failed"


@dataclass
class Operation:
    """One call, and its answer.

    Attributes:
        process: the client; one does one thing at a time.
        what: which call, such as `create_job`.
        asked: its arguments, by name.
        told: see above.
        answer: what came back: values, or `code` and `reason`.
        begun: seconds, on the clock of all clients.
        ended: likewise.
    """

    process: str
    what: str
    asked: dict[str, Any]
    begun: float
    told: Told = "unknown"
    answer: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0


class History:
    """All operations of a trial, in the order in which they ended; also on disk, as JSON lines."""

    def __init__(self, path: Path | None = None) -> None:
        self.operations: list[Operation] = []
        self._file: TextIO | None = path.open("w") if path else None

    def begin(self, process: str, what: str, **asked: Any) -> Operation:
        """An operation that is told of when it has ended."""
        return Operation(process, what, asked, time.monotonic())

    def end(self, operation: Operation, told: Told, **answer: Any) -> None:
        """Writes down how it ended."""
        operation.told, operation.answer = told, answer
        operation.ended = time.monotonic()
        self.operations.append(operation)
        if self._file:
            self._file.write(json.dumps(asdict(operation)) + "\n")

    def of(self, *what: str, told: Told | None = None) -> Iterator[Operation]:
        """Operations of some kinds."""
        return (
            operation
            for operation in self.operations
            if operation.what in what and told in (None, operation.told)
        )

    def counts(self) -> Counter[Told]:
        """How many calls of clients ended which way."""
        return Counter(o.told for o in self.operations if o.process != NEMESIS)

    def close(self) -> None:
        """Writes what is not yet on disk."""
        if self._file:
            self._file.close()
