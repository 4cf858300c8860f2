"""How clients call: each call and its answer are written down; what is unknown is asked again."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import grpc

from faults.history import History, Told, told_by
from faults.oracle import Run
from faults.system import MODEL, System
from steno.platform.errors import read_failure
from steno.v1 import concatenation_pb2, job_pb2, transcript_pb2, upload_pb2

T = TypeVar("T")

CALL_SECONDS = 10.0
"""Patience of a caller."""
HASTY_SECONDS = 0.05
"""Patience of one that leaves before the answer."""
HASTY = 0.03
"""Share of calls whose caller leaves."""


class GivenUp(Exception):
    """The load is over, and this was still unknown."""


class Refused(Exception):
    """The platform said no."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Left(Exception):
    """The caller went away before the answer."""


class Callers:
    """What all callers of a trial share. Leaving it ends their threads."""

    def __init__(self, system: System, history: History, seed: int) -> None:
        self.system = system
        self.history = history
        self.seed = seed
        self.deadline = float("inf")
        """Until then, on the monotonic clock, what is unknown is asked again."""
        self.in_flight: set[grpc.aio.Call] = set()
        self.threads = ThreadPoolExecutor(32, "callers")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)


class Caller:
    """One process of the history: it does one thing after the other."""

    def __init__(self, callers: Callers, name: str) -> None:
        self._callers = callers
        self.system = callers.system
        self.history = callers.history
        self.name = name
        self.random = random.Random(f"{callers.seed} {name}")
        self.hasty = HASTY

    async def persist(
        self,
        what: str,
        call: Callable[[float], Any],
        seen: Callable[[Any], dict[str, Any]] = lambda response: {},
        **asked: Any,
    ) -> Any:
        """Asks until the answer is known. Raises Refused, or GivenUp when the load is over.

        Args:
            what: name in the history.
            call: calls with a timeout.
            seen: what the history keeps of a response.
            asked: what the history keeps of the request.
        """
        while True:
            operation = self.history.begin(self.name, what, **asked)
            hasty = self.random.random() < self.hasty
            response = None
            told: Told = "ok"
            answer: dict[str, Any]
            try:
                response = await self._answer(call(HASTY_SECONDS if hasty else CALL_SECONDS))
                answer = seen(response)
            except grpc.aio.AioRpcError as error:
                told, code, reason = failure_of(error)
                answer = {"code": code, "reason": reason}
            except Left:
                told, answer = "unknown", {"code": "CANCELLED", "reason": "the caller left"}
            self.history.end(operation, told, **answer)
            if told == "ok":
                return response
            if told == "failed" and answer["code"] != "RESOURCE_EXHAUSTED":
                raise Refused(answer["code"], answer["reason"])
            self.give_up_in_time()
            await asyncio.sleep(self.random.uniform(0.1, 0.4))

    async def _answer(self, call: Any) -> Any:
        self._callers.in_flight.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                call.cancel()
                raise
            raise Left from None
        finally:
            self._callers.in_flight.discard(call)

    async def caught(self, call: Any) -> AsyncIterator[Any]:
        """A stream's messages; what the client does not wait for is cancelled."""
        self._callers.in_flight.add(call)
        try:
            async for response in call:
                yield response
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata()
            ) from None
        finally:
            call.cancel()
            self._callers.in_flight.discard(call)

    async def over_http(
        self,
        what: str,
        urls: AsyncIterator[str],
        call: Callable[[str], T],
        seen: Callable[[T], dict[str, Any]] = lambda response: {},
        **asked: Any,
    ) -> T | None:
        """Asks the object store, or whoever is at a URL, until the answer is known.

        Each try takes the next URL: one that was signed by a wrong clock does not come to pass.
        Returns None when there is none any more.
        """
        async for url in urls:
            operation = self.history.begin(self.name, what, **asked)
            loop = asyncio.get_running_loop()
            try:
                response = await loop.run_in_executor(self._callers.threads, call, url)
            except Exception as error:  # also http.client's own, of a body that breaks off
                self.history.end(operation, "unknown", code=type(error).__name__, reason=str(error))
            else:
                self.history.end(operation, "ok", **seen(response))
                return response
            self.give_up_in_time()
            await asyncio.sleep(self.random.uniform(0.1, 0.4))
        return None

    def give_up_in_time(self) -> None:
        """Raises GivenUp when the load is over."""
        if time.monotonic() > self._callers.deadline:
            raise GivenUp

    def any(self, services: Sequence[T]) -> T:
        """One of the replicas."""
        return self.random.choice(services)

    @property
    def job_service(self) -> Any:
        """A replica of the job service."""
        return self.any(self.system.jobs)

    @property
    def session_service(self) -> Any:
        """A replica of the concatenation service."""
        return self.any(self.system.sessions)

    def new_id(self) -> str:
        """An id that follows from the seed."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def config(self) -> transcript_pb2.RecognitionConfig:
        """Options that nobody else has."""
        return transcript_pb2.RecognitionConfig(
            model=MODEL, language_code="en", prompt=f"p{self.random.getrandbits(32):x}"
        )


def seen_of_audio(response: Any) -> dict[str, Any]:
    """What an audio tells of itself."""
    state = upload_pb2.AudioState.Name(response.audio.state)
    return {"state": state.removeprefix("AUDIO_STATE_")}


def seen_of_job(response: Any) -> dict[str, Any]:
    """What a job tells of itself."""
    job = response.job
    return {
        "state": job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_"),
        "revision": job.revision,
        "fraction": job.progress.fraction,
        "error": job.error.reason,
    }


def seen_of_event(event: job_pb2.JobEvent) -> dict[str, Any]:
    """What one row of a job's log tells."""
    state, fraction = "", None
    if event.HasField("state_changed"):
        state = job_pb2.JobState.Name(event.state_changed.state).removeprefix("JOB_STATE_")
        fraction = event.state_changed.progress.fraction
    elif event.HasField("progressed"):
        fraction = event.progressed.fraction
    return {
        "revision": event.revision,
        "digest": digest_of(event),
        "state": state,
        "fraction": fraction,
        "text": "".join(segment.text for segment in event.segments_added.segments),
    }


def seen_of_transcript(response: Any) -> dict[str, Any]:
    """All that a user sees of a transcript."""
    transcript = response.transcript
    return {
        "text": "".join(segment.text for segment in transcript.segments),
        "digest": digest_of(transcript),
    }


def seen_of_session(response: Any) -> dict[str, Any]:
    """What a session tells of itself."""
    session = response.session
    return {
        "state": concatenation_pb2.SessionState.Name(session.state).removeprefix("SESSION_STATE_"),
        "audio_id": session.audio_id,
        "job_id": session.job_id,
        "revision": session.revision,
        "error": session.error.reason or session.job_error,
        "parking": session.parking.reason,
    }


def seen_of_session_event(event: concatenation_pb2.SessionEvent) -> dict[str, Any]:
    """What one row of a session's log tells."""
    return {
        "revision": event.revision,
        "digest": digest_of(event),
        "text": event.result_added.segment.text,
    }


def seen_of_runs(runs: Sequence[Run]) -> dict[str, Any]:
    return {"runs": [[run.file, run.first, run.count] for run in runs]}


def digest_of(message: Any) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:16]


def failure_of(error: grpc.aio.AioRpcError) -> tuple[Told, str, str]:
    failure = read_failure(error)
    return told_by(failure.code), failure.code.name, failure.reason or failure.message[:200]
