"""Page tokens."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from steno.job.domain import Job, JobFilter, JobState
from steno.job.paging import read_token, token_after
from steno.platform.errors import InvalidArgument
from steno.transcript import Options

JOB = Job(
    job_id=UUID(int=1),
    audio_id=UUID(int=2),
    display_name="",
    labels={},
    config=Options(model="builtin"),
    create_time=datetime(2026, 1, 1, 12, 30, 0, 123456, UTC),
    update_time=datetime(2026, 1, 1, tzinfo=UTC),
)
WHERE = JobFilter(states=frozenset({JobState.QUEUED, JobState.FAILED}), labels={"a": "b"})


def test_a_token_leads_to_the_job_it_was_made_after() -> None:
    assert read_token(token_after(JOB, WHERE), WHERE) == (JOB.create_time, JOB.job_id)


def test_no_token_is_the_first_page() -> None:
    assert read_token("", WHERE) is None


@pytest.mark.parametrize(
    "other",
    [
        JobFilter(),
        JobFilter(states=WHERE.states),
        JobFilter(states=WHERE.states, labels={"a": "c"}),
        JobFilter(WHERE.states, WHERE.labels, create_time_from=JOB.create_time),
        JobFilter(WHERE.states, WHERE.labels, create_time_to=JOB.create_time),
        JobFilter(WHERE.states, WHERE.labels, tenant="another"),
    ],
)
def test_a_token_of_another_filter_is_refused(other: JobFilter) -> None:
    with pytest.raises(InvalidArgument):
        read_token(token_after(JOB, WHERE), other)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "ä",
        "bm9uc2Vuc2U=",
        "bnVsbA==",
        "////",
        forged(),
        forged(1, 2, 3),
        forged("x", "2026-01-01", "x"),
        forged(None, "2026-01-01T00:00:00+00:00", str(JOB.job_id)),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_what_is_no_token_is_refused_and_never_crashes(token: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_token(token, WHERE)

    assert [v.field for v in caught.value.violations] == ["page_token"]
