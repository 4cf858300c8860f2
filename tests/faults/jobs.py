"""What clients do with jobs: make, watch, cancel, retry, read, delete."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc

from faults.calls import (
    CALL_SECONDS,
    Caller,
    Refused,
    failure_of,
    seen_of_audio,
    seen_of_event,
    seen_of_job,
    seen_of_transcript,
)
from faults.oracle import Sound
from steno.v1 import concatenation_pb2, job_pb2, upload_pb2

ENDED = {
    job_pb2.JOB_STATE_SUCCEEDED: "SUCCEEDED",
    job_pb2.JOB_STATE_FAILED: "FAILED",
    job_pb2.JOB_STATE_CANCELLED: "CANCELLED",
}


class JobClient(Caller):
    """Makes jobs of audio, and follows them to their end."""

    async def create_jobs(self, audio_id: str, sound: Sound, count: int) -> list[str]:
        """Makes jobs, several in one call; returns their ids."""
        requests = [
            job_pb2.CreateJobRequest(
                audio_id=audio_id,
                config=self.config(),
                request_id=self.new_id(),
                priority=self.random.choice(job_pb2.JobPriority.values()),
            )
            for _ in range(count)
        ]
        for request in requests:
            request.labels["request"] = request.request_id
        asked = [
            {"request_id": request.request_id, "options": request.config.prompt}
            for request in requests
        ]
        if count == 1:
            one = await self.persist(
                "create_jobs",
                lambda timeout: self.job_service.CreateJob(requests[0], timeout=timeout),
                lambda response: {"job_ids": [response.job.job_id]},
                audio_id=audio_id,
                jobs=asked,
                **sound.told,
            )
            if self.random.random() < 0.05:
                await self._look_in_list(one.job)
            return [one.job.job_id]
        batch = job_pb2.BatchCreateJobsRequest(requests=requests)
        several = await self.persist(
            "create_jobs",
            lambda timeout: self.job_service.BatchCreateJobs(batch, timeout=timeout),
            lambda response: {"job_ids": [job.job_id for job in response.jobs]},
            audio_id=audio_id,
            jobs=asked,
            **sound.told,
        )
        return [job.job_id for job in several.jobs]

    async def _look_in_list(self, job: job_pb2.Job) -> None:
        request = job_pb2.ListJobsRequest(labels=job.labels)
        await self.persist(
            "list_jobs",
            lambda timeout: self.job_service.ListJobs(request, timeout=timeout),
            lambda response: {"ids": [job.job_id for job in response.jobs]},
            made=[job.job_id],
        )

    async def cancel(self, job_id: str, audio_id: str, sound: Sound) -> None:
        """Cancels a job after a moment, and sometimes retries it."""
        await asyncio.sleep(self.random.uniform(0, 0.5))
        request = job_pb2.CancelJobRequest(job_id=job_id)
        try:
            await self.persist(
                "cancel_job",
                lambda timeout: self.job_service.CancelJob(request, timeout=timeout),
                seen_of_job,
                job_id=job_id,
            )
        except Refused as refused:
            if refused.reason != "JOB_ENDED":
                raise
            return
        if self.random.random() < 0.5:
            await self._retry(job_id, audio_id, sound)

    async def _retry(self, job_id: str, audio_id: str, sound: Sound) -> None:
        request = job_pb2.RetryJobRequest(job_id=job_id, request_id=self.new_id())
        with suppress(Refused):  # it may have been done, all but the word
            retried = await self.persist(
                "retry_job",
                lambda timeout: self.job_service.RetryJob(request, timeout=timeout),
                lambda response: {"job_ids": [response.job.job_id]},
                job_id=job_id,
                request_id=request.request_id,
                audio_id=audio_id,
                **sound.told,
            )
            await self.follow(retried.job.job_id)

    async def follow(self, job_id: str) -> None:
        """Waits for a job's end, one way or the other, and reads what it has become."""
        state = await (self._watch if self.random.random() < 0.4 else self.poll)(job_id)
        if state == "SUCCEEDED":
            await self.read_transcript(job_id)

    async def poll(self, job_id: str) -> str:
        """Asks for a job until it has ended; returns its state."""
        request = job_pb2.GetJobRequest(job_id=job_id)
        pause = 0.2
        while True:
            response = await self.persist(
                "get_job",
                lambda timeout: self.job_service.GetJob(request, timeout=timeout),
                seen_of_job,
                job_id=job_id,
            )
            if response.job.state in ENDED:
                return ENDED[response.job.state]
            self.give_up_in_time()
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, 2)

    async def _watch(self, job_id: str) -> str:
        """Watches over as many connections as it takes, some of which the client itself cuts."""
        seen = 0
        while True:
            patience = self.random.choice((0.2, 1, 5, CALL_SECONDS))
            events = await self.watch_once(self.job_service, job_id, seen, patience)
            seen = events[-1]["revision"] if events else seen
            if events and events[-1]["state"] in ENDED.values():
                return str(events[-1]["state"])
            self.give_up_in_time()
            await asyncio.sleep(0.1)

    async def watch_once(
        self, service: Any, job_id: str, after: int, patience: float
    ) -> list[dict[str, Any]]:
        """What one stream tells of a job, as far as it comes."""
        operation = self.history.begin(self.name, "watch_job", job_id=job_id, after=after)
        events: list[dict[str, Any]] = []
        request = job_pb2.WatchJobRequest(job_id=job_id, after_revision=after)
        told, code, reason = "ok", "OK", ""
        try:
            async for response in self.caught(service.WatchJob(request, timeout=patience)):
                if response.HasField("event"):
                    events.append(seen_of_event(response.event))
        except grpc.aio.AioRpcError as error:
            told, code, reason = failure_of(error)
        self.history.end(operation, told, events=events, code=code, reason=reason)  # type: ignore[arg-type]
        return events

    async def read_transcript(self, job_id: str) -> None:
        """Reads a transcript, and remembers all of it."""
        request = job_pb2.GetTranscriptRequest(job_id=job_id)
        with suppress(Refused):
            await self.persist(
                "get_transcript",
                lambda timeout: self.job_service.GetTranscript(request, timeout=timeout),
                seen_of_transcript,
                job_id=job_id,
            )

    async def look_for_audio(self, audio_id: str) -> str:
        """The state of an audio, or GONE."""
        request = upload_pb2.GetAudioRequest(audio_id=audio_id)
        with suppress(Refused):
            response = await self.persist(
                "get_audio",
                lambda timeout: self.any(self.system.uploads).GetAudio(request, timeout=timeout),
                seen_of_audio,
                id=audio_id,
            )
            return str(seen_of_audio(response)["state"])
        return "GONE"

    async def delete(self, what: str, resource: str) -> None:
        """Deletes a job, an audio or a session, whichever `what` says."""

        def call(timeout: float) -> Any:
            if what == "delete_job":
                job = job_pb2.DeleteJobRequest(job_id=resource)
                return self.job_service.DeleteJob(job, timeout=timeout)
            if what == "delete_audio":
                audio = upload_pb2.DeleteAudioRequest(audio_id=resource)
                return self.any(self.system.uploads).DeleteAudio(audio, timeout=timeout)
            session = concatenation_pb2.DeleteSessionRequest(session_id=resource)
            return self.session_service.DeleteSession(session, timeout=timeout)

        try:
            await self.persist(what, call, id=resource)
        except Refused as refused:
            if refused.code != "NOT_FOUND":  # done by a call whose answer was lost
                raise
