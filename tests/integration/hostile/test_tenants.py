"""What is of one tenant is not there for another, whatever is asked about it."""

from __future__ import annotations

import uuid

import pytest
from google.protobuf.descriptor import MethodDescriptor

from all_services import OF_JOBS, Services, Things
from calling import Call, Fields
from contract import fill, methods, name_of, request_type
from steno.platform.access import rule_of
from steno.platform.errors import Failure
from steno.platform.tenancy import HEADER
from steno.v1 import concatenation_pb2, job_pb2, upload_pb2

STRANGER = ((HEADER, "stranger"),)


ABOUT_SOMETHING = [each for each in methods() if rule_of(each).resource]


def kind_of(method: MethodDescriptor) -> str:
    """What an RPC is about, as `Things` has it."""
    return rule_of(method).resource.rpartition(".")[2].removesuffix("_id")


def about(method: MethodDescriptor, thing_id: str) -> bytes:
    """A request in order about a thing."""
    request = request_type(method)()
    fill(request)
    message, (*parents, name) = request, rule_of(method).resource.split(".")
    for parent in parents:
        message = getattr(message, parent)
        fill(message)
    setattr(message, name, thing_id)
    return request.SerializeToString()


@pytest.fixture(scope="module")
def things(services: Services) -> Things:
    """Of the default tenant."""
    return Things(services)


@pytest.mark.parametrize("method", ABOUT_SOMETHING, ids=name_of)
async def test_a_stranger_is_answered_as_if_it_were_not_there(
    services: Services, things: Things, method: MethodDescriptor
) -> None:
    theirs, nobodys = await things.id_of(kind_of(method), 0), str(uuid.uuid4())

    async def told(thing_id: str, metadata: tuple[tuple[str, str], ...]) -> str:
        call = Call(name_of(method), (about(method, thing_id),), metadata)
        failure = await call.make(services.channels, things)
        assert failure is not None
        return str(failure).replace(thing_id, "ID")

    assert await told(theirs, STRANGER) == await told(nobodys, ())


async def test_what_strangers_have_asked_about_is_as_it_was(
    services: Services, things: Things
) -> None:
    async def seen() -> tuple[object, ...]:
        audio = upload_pb2.GetAudioRequest(audio_id=await things.id_of("audio", 0))
        upload = upload_pb2.GetUploadRequest(upload_id=await things.id_of("upload", 0))
        job = job_pb2.GetJobRequest(job_id=await things.id_of("job", 1))
        session = concatenation_pb2.GetSessionRequest(session_id=await things.id_of("session", 0))
        return (
            (await services.uploads.GetAudio(audio)).audio,
            (await services.uploads.GetUpload(upload)).upload.state,
            (await services.jobs.GetJob(job)).job,
            (await services.sessions.GetSession(session)).session,
        )

    before = await seen()
    for method in ABOUT_SOMETHING:
        kind = kind_of(method)
        thing = await things.id_of(kind, 1 if kind == "job" else 0)
        await Call(name_of(method), (about(method, thing),), STRANGER).make(
            services.channels, things
        )

    assert await seen() == before


async def test_a_job_can_not_be_made_of_a_strangers_audio(
    services: Services, things: Things
) -> None:
    audio_id = await things.id_of("audio", OF_JOBS)
    request = {"audio_id": audio_id}

    async def told(method: str, message: Fields) -> Failure | None:
        return await Call(method, (message,), STRANGER).make(services.channels, things)

    single = await told("JobService.CreateJob", request)
    batch = await told("JobService.BatchCreateJobs", {"requests": [request]})

    for failure in (single, batch):
        assert failure is not None
        assert (failure.reason, failure.message) == ("AUDIO_NOT_FOUND", f"no audio {audio_id}")
    listed = await services.jobs.ListJobs(job_pb2.ListJobsRequest(), metadata=STRANGER)
    assert not listed.jobs
