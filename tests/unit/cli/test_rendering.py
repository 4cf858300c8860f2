"""What people read."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from steno.cli import rendering
from steno.cli.failures import CliError, Exit, ended_badly, refused_or_failed, report
from steno.cli.progress import standing
from steno.platform.errors import Failure, Violation
from steno.v1 import job_pb2, upload_pb2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (8.4, "0:08"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00")],
)
def test_a_length_of_time_is_written_as_on_a_player(seconds: float, text: str) -> None:
    assert rendering.clock(seconds) == text


def test_a_proto_duration_is_a_length_of_time_too() -> None:
    assert rendering.clock(Duration(seconds=61, nanos=600_000_000)) == "1:02"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (50 * 10**9, "50.0 GB")]
)
def test_a_size_has_a_unit(count: int, text: str) -> None:
    assert rendering.size(count) == text


def test_a_recording_that_waits_because_it_could_not_be_prepared_is_parked() -> None:
    audio = upload_pb2.Audio(state=upload_pb2.AUDIO_STATE_PREPARING)
    assert rendering.audio_state(audio) == "preparing"

    audio.preparation_failure.reason = "DECODER_CRASHED"

    assert rendering.audio_state(audio) == "parked"


def test_a_job_is_done_only_when_all_of_it_is() -> None:
    assert rendering.percent(0.9999) == "99%"
    assert rendering.percent(1.0) == "100%"


def test_json_has_also_the_fields_with_nothing_in_them() -> None:
    values = rendering.fields(job_pb2.Job(job_id="a"))

    assert values["state"] == "JOB_STATE_UNSPECIFIED"
    assert values["labels"] == {}
    assert values["audio_truncated"] is False


def test_a_name_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rendering.print_table(("NAME", "X"), [("a\x1b[2Jb\nc", "1")])

    assert capsys.readouterr().out == "NAME      X\na [2Jb c  1\n"


def test_where_a_job_stands_is_said_with_queue_and_time_left() -> None:
    queued = job_pb2.JobProgress(queue_position=2, remaining_duration=Duration(seconds=75))
    next_one = job_pb2.JobProgress(queue_position=0, remaining_duration=Duration(seconds=0))
    running = job_pb2.JobProgress(
        audio_duration=Duration(seconds=600),
        transcribed_duration=Duration(seconds=60),
        remaining_duration=Duration(seconds=30),
    )

    assert standing(job_pb2.JOB_STATE_QUEUED, queued) == "queued, 2 ahead, 1:15 left"
    assert standing(job_pb2.JOB_STATE_QUEUED, next_one) == "queued, next"
    assert standing(job_pb2.JOB_STATE_RUNNING, running) == "running, 1:00 of 10:00, 0:30 left"
    assert standing(job_pb2.JOB_STATE_SUCCEEDED, running) == "succeeded"


def test_what_is_tried_again_is_said_with_the_reason() -> None:
    retried = job_pb2.RetriedSlices(
        slice_count=3, slice_index=7, failure_count=4, last_error="worker gpu-1 fell silent"
    )

    assert standing(job_pb2.JOB_STATE_RUNNING, job_pb2.JobProgress(retried=retried)) == (
        "running, slice 7 and 2 more tried again after 4 tries: worker gpu-1 fell silent"
    )


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(CliError("two\nlines", subject="talk.wav", hint="do this"), as_json=False)

    assert capsys.readouterr().err == "steno: talk.wav: two lines; do this\n"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, "no"), Exit.REFUSED),
        (Failure(grpc.StatusCode.FAILED_PRECONDITION, "no", "AUDIO_REJECTED"), Exit.REFUSED),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", "FILE_TOO_LONG"), Exit.REFUSED),
        (Failure(grpc.StatusCode.NOT_FOUND, "no", "JOB_NOT_FOUND"), Exit.FAILED),
        (Failure(grpc.StatusCode.FAILED_PRECONDITION, "no", "JOB_ENDED"), Exit.FAILED),
        (Failure(grpc.StatusCode.INTERNAL, ""), Exit.FAILED),
    ],
)
def test_what_a_service_answers_becomes_an_exit_code(failure: Failure, code: Exit) -> None:
    assert refused_or_failed(failure).code is code


def test_a_wrong_field_is_called_what_was_typed() -> None:
    wrong = (Violation("config.model", "is not served"), Violation("labels['a b']", "is no key"))
    failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "", violations=wrong)

    assert str(refused_or_failed(failure)) == "--model is not served; --label['a b'] is no key"


def test_a_job_that_failed_for_its_audio_is_refused_input() -> None:
    assert ended_badly("AUDIO_REJECTED", "The file is text.").code is Exit.REFUSED
    assert ended_badly("SLICE_FAILED", "no").code is Exit.FAILED
