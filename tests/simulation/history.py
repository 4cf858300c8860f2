"""What everybody asked and was told, and when."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from uuid import UUID

from simulation.calls import Lost
from simulation.loop import Loop
from steno.platform import database
from steno.platform.errors import ResourceExhausted, Unavailable

AWAY = (Unavailable, ResourceExhausted, *database.AWAY)
"""What says nothing about a call: it may be tried again."""


class Outcome(Enum):
    """How a call ended, for who made it."""

    OK = auto()
    FAILED = auto()
    """The server says what is wrong with it; nothing was changed."""
    UNKNOWN = auto()
    """It had its effect, or not, or will have it."""


@dataclass(slots=True)
class Call:
    """A call.

    Attributes:
        who: made it.
        kind: what was asked.
        about: with which arguments.
        began: when it was made.
        ended: when its end was known.
        outcome: how it ended; UNKNOWN while it has not.
        answer: what OK came with.
        error: what was raised.
    """

    who: str
    kind: str
    about: dict[str, Any]
    began: float
    ended: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN
    answer: Any = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


@dataclass(slots=True)
class Watch:
    """A stream of events, up to where it was cut or has ended.

    Attributes:
        who: watched.
        of: the job, or the session.
        after_revision: what the watcher had seen.
        began: when.
        messages: responses, as they came.
        seen: the last revision.
        outcome: OK if it came to its end by itself.
        error: what it ended with.
    """

    who: str
    of: UUID
    after_revision: int
    began: float
    messages: list[Any] = field(default_factory=list)
    seen: int = 0
    outcome: Outcome = Outcome.UNKNOWN
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.seen = self.after_revision


@dataclass(slots=True)
class History:
    """All of a schedule."""

    loop: Loop
    calls: list[Call] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """What the services logged as errors."""

    def of(self, *kinds: str) -> list[Call]:
        return [call for call in self.calls if call.kind in kinds]


async def recorded(history: History, call: Call, asking: Coroutine[Any, Any, Any]) -> Any:
    """Makes a call, and notes what was asked and told. What may be tried again is Lost."""
    loop = history.loop
    history.calls.append(call)
    if loop.trace is not None:
        loop.trace(f"{call.who} asks: {call.kind} {_told(call.about)}")
    try:
        call.answer = await asking
        call.outcome = Outcome.OK
        return call.answer
    except Lost as error:
        call.error = error
        raise
    except AWAY as error:
        call.error = error
        raise Lost(str(error)) from error
    except Exception as error:
        call.error = error
        call.outcome = Outcome.FAILED
        raise
    finally:
        call.ended = loop.time()
        if loop.trace is not None:
            told = call.outcome.name if call.error is None else repr(call.error)
            loop.trace(f"{call.who} is told: {call.kind} {told}")


def _told(about: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in about.items())
