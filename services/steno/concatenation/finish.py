"""What a session becomes when it has ended: one file, an audio, a job.

Each step is on record before the next begins, and asks for the same thing when it is done again:
whoever goes on after a replica that died makes neither a second audio nor a second job.
"""

from __future__ import annotations

from uuid import UUID, uuid5

import grpc

from steno.audio import SAMPLE_RATE_HERTZ
from steno.concatenation.domain import Lease, Session
from steno.concatenation.keys import file_key
from steno.concatenation.recording import Recordings
from steno.concatenation.store import Store
from steno.platform.errors import read_failure
from steno.platform.tenancy import tenant_in
from steno.v1.job_pb2 import CreateJobRequest
from steno.v1.job_pb2_grpc import JobServiceStub
from steno.v1.transcript_pb2 import RecognitionConfig
from steno.v1.upload_pb2 import ImportAudioRequest, SampleSpan
from steno.v1.upload_pb2_grpc import ImportServiceStub

_TIMEOUT_SECONDS = 120.0
_BYTES_PER_SECOND = 10_000_000
"""How fast the upload service reads a file at least, for its SHA-256."""
_NAME_LENGTH = 240
"""Most characters of a name that become part of the file's."""
_MOST_GAPS = 50_000
"""Most gaps that ImportAudio takes; more are silence in the transcripts."""
_REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,  # a model that is not offered
    grpc.StatusCode.NOT_FOUND,  # the audio was deleted meanwhile
    grpc.StatusCode.FAILED_PRECONDITION,
)


class Finisher:
    """Turns recordings into audio and jobs."""

    def __init__(
        self,
        store: Store,
        recordings: Recordings,
        upload: grpc.aio.Channel,
        job: grpc.aio.Channel,
    ) -> None:
        self._store = store
        self._recordings = recordings
        self._imports = ImportServiceStub(upload)
        self._jobs = JobServiceStub(job)

    async def make_audio(self, lease: Lease, session: Session) -> Session:
        """Makes the file, and an audio of it, unless there is one."""
        if session.audio_id is not None or not session.frame_count:
            return session
        await self._recordings.make_file(session, file_key(session))
        return await self.import_audio(lease, session)

    async def import_audio(self, lease: Lease, session: Session) -> Session:
        """Makes an audio of the file, unless there is one."""
        if session.audio_id is not None or not session.frame_count:
            return session
        key = file_key(session)
        file = session.config.recording_format
        request = ImportAudioRequest(
            object_key=key,
            filename=f"{session.display_name[:_NAME_LENGTH] or session.session_id}{file.suffix}",
            content_type=file.content_type,
            request_id=str(session.session_id),
            gaps=await self._gaps(session),
        )
        size = session.frame_count * session.format.frame_bytes
        patience = _TIMEOUT_SECONDS + size / _BYTES_PER_SECOND
        with tenant_in(session.tenant):
            made = await self._imports.ImportAudio(request, timeout=patience)
        return await self._store.set_audio(lease, UUID(made.audio.audio_id))

    async def _gaps(self, session: Session) -> list[SampleSpan]:
        def sample(frame: int) -> int:
            return frame * SAMPLE_RATE_HERTZ // session.format.rate_hertz

        spans = [
            SampleSpan(
                start_sample=sample(gap.start_frame),
                end_sample=sample(gap.start_frame + gap.frame_count),
            )
            for gap in await self._store.gaps(session.session_id, _MOST_GAPS)
        ]
        return [span for span in spans if span.start_sample < span.end_sample]

    async def make_job(self, lease: Lease, session: Session) -> Session:
        """Makes the job of the final transcript, unless there is one or none is wanted."""
        if session.audio_id is None or not session.wants_job:
            return session
        request = CreateJobRequest(
            audio_id=str(session.audio_id),
            config=RecognitionConfig.FromString(session.config.final_job_config),
            display_name=session.display_name,
            labels=session.labels,
            request_id=str(uuid5(session.session_id, "final job")),
        )
        try:
            with tenant_in(session.tenant):
                made = await self._jobs.CreateJob(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                return await self._store.refuse_job(lease, read_failure(error).message)
            raise
        return await self._store.set_job(lease, UUID(made.job.job_id))
