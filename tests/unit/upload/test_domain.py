"""Rules of uploads and audio."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from steno.transcript import Span
from steno.upload.domain import (
    MIN_PART_BYTES,
    NewImport,
    NewUpload,
    PartsMissing,
    SizeMismatch,
    Upload,
    UploadNotOpen,
    UploadState,
    in_ranges,
    part_size,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make_upload(size_bytes: int, state: UploadState = UploadState.OPEN) -> Upload:
    return Upload(
        upload_id=UUID(int=1),
        filename="a.wav",
        size_bytes=size_bytes,
        content_type="audio/wav",
        sha256="",
        state=state,
        part_size_bytes=part_size(size_bytes),
        object_key="uploads/1/1",
        multipart_id="m",
        audio_id=None,
        create_time=NOW,
        expire_time=NOW + timedelta(days=1),
    )


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, MIN_PART_BYTES - 1, MIN_PART_BYTES, MIN_PART_BYTES + 1, 2 * 2**30, 50 * 2**30],
)
def test_the_parts_cover_the_file_without_gap_or_overlap(size_bytes: int) -> None:
    parts = make_upload(size_bytes).parts()

    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.offset_bytes for part in parts] == [
        sum(p.size_bytes for p in parts[:i]) for i in range(len(parts))
    ]
    assert sum(part.size_bytes for part in parts) == size_bytes
    assert all(part.size_bytes > 0 for part in parts)


@pytest.mark.parametrize(
    "size_bytes", [1, 5 * 2**30, 8_388_608_000, 8_388_608_001, 50 * 10**9, 2**45]
)
def test_parts_are_as_s3_wants_them_and_few_enough_for_one_answer(size_bytes: int) -> None:
    parts = make_upload(size_bytes).parts()

    assert len(parts) <= 1000
    assert all(part.size_bytes >= 5 * 2**20 for part in parts[:-1])


def test_a_complete_set_of_parts_is_accepted() -> None:
    make_upload(MIN_PART_BYTES + 1).check_parts({2: 1, 1: MIN_PART_BYTES})


def test_missing_parts_are_named() -> None:
    with pytest.raises(PartsMissing) as caught:
        make_upload(5 * MIN_PART_BYTES).check_parts({2: MIN_PART_BYTES})

    assert caught.value.metadata["part_numbers"] == "1,3-5"


@pytest.mark.parametrize("landed", [{1: 9}, {1: 11}, {1: 10, 2: 1}])
def test_parts_of_another_length_are_named(landed: dict[int, int]) -> None:
    with pytest.raises(SizeMismatch) as caught:
        make_upload(10).check_parts(landed)

    assert caught.value.metadata["part_numbers"] == str(max(landed))


@pytest.mark.parametrize("state", sorted(set(UploadState) - {UploadState.OPEN}))
def test_an_upload_that_has_ended_is_not_open(state: UploadState) -> None:
    with pytest.raises(UploadNotOpen):
        make_upload(1, state).check_open()


def test_the_same_body_has_the_same_fingerprint_whatever_its_request_id() -> None:
    first = NewUpload("a", "", "", uuid4(), 1)

    assert first.fingerprint() == NewUpload("a", "", "", None, 1).fingerprint()
    assert first.fingerprint() != NewUpload("a", "", "", first.request_id, 2).fingerprint()
    assert first.fingerprint() != NewUpload("a", "", "", first.request_id, None).fingerprint()


def test_the_fingerprint_of_an_upload_is_what_earlier_versions_have_stored() -> None:
    sent = NewUpload("a.wav", "audio/wav", "", uuid4(), 17)
    streamed = NewUpload("a.wav", "", 64 * "0", uuid4())
    imported = NewImport(
        *("a.wav", "audio/wav", "", uuid4()),
        object_key="recordings/1.wav",
        gaps=(Span(0, 7), Span(20, 30)),
    )

    assert sent.fingerprint() == (
        "72e5f587fa82c48940f8953a2414793e299d7ce40405aec677c7d635deb7889f"
    )
    assert streamed.fingerprint() == (
        "317c3838a6afb1df3c22c9283733d807a81949adbbffce9edbc51e7499ee2d87"
    )
    assert imported.fingerprint() == (
        "239bd66b93ac47b3ff4a04edc3706fb76374a23c7a7bc08eff2a094f8e5585a6"
    )


def test_imports_of_other_objects_or_with_other_gaps_differ() -> None:
    def imported(object_key: str, *gaps: Span) -> NewImport:
        return NewImport("a", "", "", uuid4(), object_key=object_key, gaps=gaps)

    first = imported("recordings/1", Span(0, 7))

    assert first.fingerprint() == imported("recordings/1", Span(0, 7)).fingerprint()
    assert first.fingerprint() != imported("recordings/2", Span(0, 7)).fingerprint()
    assert first.fingerprint() != imported("recordings/1", Span(0, 8)).fingerprint()
    assert first.fingerprint() != imported("recordings/1").fingerprint()


def test_numbers_are_written_in_ranges() -> None:
    assert in_ranges([7, 1, 2, 3, 9, 10]) == "1-3,7,9-10"
    assert in_ranges([]) == ""
