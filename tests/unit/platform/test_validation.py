"""The rules in proto/ are kept, and a broken one is named by its field."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from steno.platform.errors import MOST_VIOLATIONS, InvalidArgument
from steno.platform.validation import carries_content, validate
from steno.v1 import (
    concatenation_pb2,
    job_pb2,
    transcript_pb2,
    transcription_pb2,
    upload_pb2,
    validation_pb2,
)

ID = "0193f0a0-0000-7000-8000-000000000001"
TYPE = 'audio/ogg; codecs="opus"'
Config = transcript_pb2.RecognitionConfig


def imported(object_key: str = "recordings/a", content_type: str = "") -> Message:
    return upload_pb2.ImportAudioRequest(
        object_key=object_key, filename="a", content_type=content_type, request_id=ID
    )


@pytest.mark.parametrize(
    "request_message",
    [
        job_pb2.CreateJobRequest(audio_id=ID),
        job_pb2.CreateJobRequest(
            audio_id=ID,
            config=Config(model="large-v3", language_code="auto", hotwords=["Steno"]),
            labels={"team": "support", "example.com/case": "17"},
            request_id=ID,
        ),
        job_pb2.ListJobsRequest(states=[job_pb2.JOB_STATE_QUEUED], create_time_from=Timestamp()),
        job_pb2.ListJobsRequest(create_time_from=Timestamp(seconds=-1, nanos=999_999_999)),
        upload_pb2.CreateUploadRequest(filename="talk.mp3", size_bytes=0),
        upload_pb2.CreateUploadRequest(filename="Rede für Ωmega.mp3", content_type=TYPE),
        upload_pb2.ImportAudioRequest(
            object_key=f"recordings/{ID}.wav", filename="a", content_type=TYPE, request_id=ID
        ),
        upload_pb2.UploadAudioRequest(chunk=bytes(2**20)),
    ],
)
def test_a_request_that_keeps_its_rules_passes(request_message: Message) -> None:
    validate(request_message)


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (job_pb2.CreateJobRequest(), "audio_id"),
        (job_pb2.CreateJobRequest(audio_id="17"), "audio_id"),
        (job_pb2.CreateJobRequest(audio_id=ID, request_id="x"), "request_id"),
        (job_pb2.CreateJobRequest(audio_id=ID, display_name="x" * 256), "display_name"),
        (job_pb2.CreateJobRequest(audio_id=ID, display_name="a\0b"), "display_name"),
        (job_pb2.CreateJobRequest(audio_id=ID, labels={"": "x"}), "labels['']"),
        (job_pb2.CreateJobRequest(audio_id=ID, labels={"a": "x" * 64}), "labels['a']"),
        (job_pb2.CreateJobRequest(audio_id=ID, labels={"a": "x\0"}), "labels['a']"),
        (job_pb2.CreateJobRequest(audio_id=ID, labels={"a\0": "x"}), "labels['a\\x00']"),
        (job_pb2.ListJobsRequest(labels={"a\0": "x"}), "labels['a\\x00']"),
        (job_pb2.ListJobsRequest(labels={"a": "\0"}), "labels['a']"),
        (
            job_pb2.CreateJobRequest(audio_id=ID, config=Config(hotwords=["a", "b\0"])),
            "config.hotwords[1]",
        ),
        (job_pb2.CreateJobRequest(audio_id=ID, labels={f"k{i}": "" for i in range(65)}), "labels"),
        (
            job_pb2.CreateJobRequest(audio_id=ID, config=Config(language_code="English")),
            "config.language_code",
        ),
        (job_pb2.CreateJobRequest(audio_id=ID, config=Config(task=9)), "config.task"),  # type: ignore[arg-type]
        (
            job_pb2.CreateJobRequest(audio_id=ID, config=Config(hotwords=["a", "x" * 101])),
            "config.hotwords[1]",
        ),
        (
            job_pb2.CreateJobRequest(audio_id=ID, config=Config(hotwords=["a"] * 501)),
            "config.hotwords",
        ),
        (job_pb2.ListJobsRequest(page_size=-1), "page_size"),
        (job_pb2.ListJobsRequest(page_size=1001), "page_size"),
        (job_pb2.ListJobsRequest(states=[99]), "states[0]"),  # type: ignore[list-item]
        (
            job_pb2.ListJobsRequest(create_time_from=Timestamp(seconds=2**60)),
            "create_time_from",
        ),
        (job_pb2.ListJobsRequest(create_time_to=Timestamp(nanos=-1)), "create_time_to"),
        (job_pb2.ListJobsRequest(create_time_to=Timestamp(nanos=10**9)), "create_time_to"),
        (job_pb2.CreateJobRequest(audio_id=ID, not_before=Timestamp(nanos=-1)), "not_before"),
        (job_pb2.CreateJobRequest(audio_id=ID, deadline=Timestamp(nanos=-1)), "deadline"),
        (job_pb2.CompleteTaskRequest(task_id=ID, attempt=1), "transcript"),
        (upload_pb2.CreateUploadRequest(filename="", size_bytes=1), "filename"),
        (upload_pb2.CreateUploadRequest(filename="a", size_bytes=-1), "size_bytes"),
        (upload_pb2.CreateUploadRequest(filename="a", sha256="abc"), "sha256"),
        (upload_pb2.CreateUploadRequest(filename="a", content_type="größe/x"), "content_type"),
        (upload_pb2.CreateUploadRequest(filename="a", content_type="Ωmega"), "content_type"),
        (upload_pb2.CreateUploadRequest(filename="a", content_type="a/b\r\nc: d"), "content_type"),
        (upload_pb2.CreateUploadRequest(filename="a", content_type="a/b\n"), "content_type"),
        (upload_pb2.CreateUploadRequest(filename="a", content_type="a\x7f"), "content_type"),
        (upload_pb2.CreateUploadRequest(filename="a", content_type=" "), "content_type"),
        (
            upload_pb2.UploadAudioHeader(filename="a", content_type="a/b\n"),
            "content_type",
        ),
        (imported(content_type="a/b\n"), "content_type"),
        (imported(object_key="uploads/a"), "object_key"),
        (imported(object_key="recordings/../uploads/a"), "object_key"),
        (imported(object_key="recordings/./a"), "object_key"),
        (imported(object_key="recordings//a"), "object_key"),
        (imported(object_key="recordings/a/"), "object_key"),
        (
            upload_pb2.UploadAudioRequest(header=upload_pb2.UploadAudioHeader()),
            "header.filename",
        ),
        (upload_pb2.UploadAudioRequest(chunk=bytes(2**20 + 1)), "chunk"),
        (transcription_pb2.RecognizeRequest(), "content"),
    ],
)
def test_a_broken_rule_names_its_field(request_message: Message, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        validate(request_message)

    assert [v.field for v in caught.value.violations] == [field]


def test_all_broken_rules_are_told_at_once() -> None:
    request = upload_pb2.CreateUploadRequest(filename="", size_bytes=-1, request_id="x")

    with pytest.raises(InvalidArgument) as caught:
        validate(request)

    assert [v.field for v in caught.value.violations] == ["filename", "size_bytes", "request_id"]


def test_of_many_wrong_fields_the_first_are_named() -> None:
    requests = [job_pb2.CreateJobRequest()] * 999

    with pytest.raises(InvalidArgument) as caught:
        validate(job_pb2.BatchCreateJobsRequest(requests=requests))

    assert len(caught.value.violations) == MOST_VIOLATIONS
    assert str(caught.value).startswith("requests[0].audio_id: must be set; ")
    assert str(caught.value).endswith("; and more")


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (job_pb2.BatchCreateJobsRequest(requests=[job_pb2.CreateJobRequest()] * 1001), "requests"),
        (job_pb2.ListJobsRequest(labels={f"{n}": "\0" for n in range(65)}), "labels"),
        (transcription_pb2.RecognizeRequest(content=bytes(10 * 2**20 + 1)), "content"),
    ],
)
def test_what_is_too_much_is_not_looked_at(request_message: Message, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        validate(request_message)

    assert field in [violation.field for violation in caught.value.violations]
    assert not any("[" in violation.field for violation in caught.value.violations)


def test_those_requests_may_be_large_that_carry_audio() -> None:
    assert {request.name for request in requests() if carries_content(request)} == {
        "AppendChunkRequest",
        "RecognizeRequest",
        "RecognizeWindowRequest",
        "StreamAudioRequest",
        "UploadAudioRequest",
    }


def test_every_field_that_repeats_in_a_request_has_a_limit() -> None:
    """What workers have heard is as long as a message may be."""
    assert [name for request in requests() for name in fields_without_limit(request)] == []


def fields_without_limit(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        rules = field.GetOptions().Extensions[validation_pb2.rules]
        if field.is_repeated and not rules.max_items:
            yield field.full_name
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from fields_without_limit(field.message_type)


def requests() -> set[Descriptor]:
    """All that clients, and other services, send."""
    services = [
        service
        for file in (concatenation_pb2, job_pb2, transcription_pb2, upload_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        if service.name != "TaskService"
    ]
    return {method.input_type for service in services for method in service.methods}


def test_a_long_key_is_told_by_its_beginning() -> None:
    with pytest.raises(InvalidArgument) as caught:
        validate(job_pb2.CreateJobRequest(audio_id=ID, labels={"k" * 8000: "x"}))

    (violation,) = caught.value.violations
    assert violation.field == f"labels['{'k' * 64}…']"


def test_all_strings_that_clients_send_have_rules_and_so_hold_no_nul() -> None:
    """What workers have heard has none: it is kept as it is."""
    assert [name for request in requests() for name in strings_without_rules(request)] == []


def strings_without_rules(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        has_rules = field.GetOptions().HasExtension(validation_pb2.rules)
        if field.message_type is not None:
            is_map = field.message_type.GetOptions().map_entry
            yield from [] if is_map else strings_without_rules(field.message_type)
        elif field.type == FieldDescriptor.TYPE_STRING and not has_rules:
            yield field.full_name
