"""Live sessions on the whole platform are heard while they happen."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from live_sessions import (
    CHUNK_BYTES,
    Producer,
    Samples,
    chunks_of,
    closed,
    file_of,
    finals,
    opened,
    text_in,
    told,
)
from platform_client import Client
from recordings import EXAMPLES, RATE, samples_of, text_of, wav
from running_platform import RunningPlatform
from scoring import word_error_rate, words_of
from steno.platform.tenancy import tenant_in
from steno.platform.wellknown import duration_of, seconds_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import job_pb2, upload_pb2
from terminal import Terminal


@pytest.fixture(scope="module")
def speech() -> Samples:
    return samples_of("demo.opus")[: 24 * RATE]


async def test_what_is_said_is_heard_while_it_is_said(client: Client) -> None:
    session_id = await opened(client)
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))

    producer = Producer([client.sessions], session_id)
    chunks = chunks_of(samples_of("demo.opus"))

    def heard() -> bool:
        told = {response.speech.type for response in producer.told if response.HasField("speech")}
        interims = sum(response.HasField("interim") for response in responses)
        return pb.SPEECH_EVENT_TYPE_END in told and bool(finals(responses)) and interims >= 3

    # Faster than it is said, and on until enough is heard: on a busy machine that takes longer.
    sent: list[tuple[int, bytes]] = []
    while not heard():
        second = chunks[len(sent) : len(sent) + 5]
        assert second, "nothing more is to be said, and it was not heard"
        await producer.send(second, pause=0.05 if len(sent) < 120 else 0.2)
        sent += second
    speech = np.frombuffer(b"".join(content for _, content in sent), np.int16)
    ended = await closed(client, session_id)
    await asyncio.wait_for(watching, 90)

    results = finals(responses)
    assert np.array_equal(await file_of(client, session_id), speech)
    job = await client.end_of(ended.job_id)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert [result.segment.index for result in results] == [*range(len(results))]
    ends = [(seconds_of(r.segment.start_offset), seconds_of(r.segment.end_offset)) for r in results]
    assert ends == sorted(ends)
    assert ends[-1][1] <= len(speech) / RATE
    assert all(result.segment.words for result in results)
    # The producer has a stream for every few chunks, and may be told less.
    speech_events = [response.speech.type for response in responses if response.HasField("speech")]
    assert speech_events[:2] == [pb.SPEECH_EVENT_TYPE_BEGIN, pb.SPEECH_EVENT_TYPE_END]
    assert_stable_words_stay(responses)


def assert_stable_words_stay(responses: list[pb.WatchSessionResponse]) -> None:
    """Within an utterance, what is stable is the beginning of all that is shown after it."""
    stable: list[str] = []
    for response in responses:
        if response.event.HasField("result_added"):
            stable = []
        elif response.HasField("interim"):
            words = [word.word for word in response.interim.segment.words]
            assert words[: len(stable)] == stable
            stable = words[: response.interim.stable_word_count]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_live_results_are_as_right_as_the_transcript_of_a_job_and_the_final_one_is_it(
    client: Client,
) -> None:
    speech = samples_of("ten-minutes.opus")
    session_id = await opened(client)
    # Beside it the same as a file: live windows go first.
    file = await client.upload("batch.wav", wav(speech))
    batch = await client.create_job(file.audio_id)

    # Ten times as fast as it was said.
    chunks = chunks_of(speech)
    await Producer([client.sessions], session_id).send(chunks, pause=0.02, within=300)
    ended = await closed(client, session_id)
    for job_id in (batch.job_id, ended.job_id):
        assert (await client.end_of(job_id, within=300)).state == job_pb2.JOB_STATE_SUCCEEDED
    results = finals(await told(client, session_id, [], within=300))

    assert np.array_equal(await file_of(client, session_id), speech)
    by_file = (await client.transcript(batch.job_id)).text
    assert (await client.transcript(ended.job_id)).text == by_file
    said, by_job = words_of(text_of("ten-minutes.opus")), words_of(by_file)
    assert word_error_rate(said, text_in(results)) <= word_error_rate(said, by_job) + 0.02


async def test_what_never_came_is_a_gap_in_the_coverage_of_the_final_transcript(
    client: Client, speech: Samples
) -> None:
    chunks = dict(chunks_of(speech[: 10 * RATE]))
    missing = [20, 21, 22, 35]
    for number in missing:
        del chunks[number]

    with tenant_in("caller"):
        session_id = await opened(client, gap_timeout=duration_of(0))
        await Producer([client.sessions], session_id).send(list(chunks.items()))
        ended = await closed(client, session_id)
        job = await client.end_of(ended.job_id)
        coverage = (await client.transcript(ended.job_id)).coverage
        listed = await client.uploads.ListAudio(upload_pb2.ListAudioRequest())

    assert job.tenant == ended.tenant == "caller"
    assert job.audio_id in [audio.audio_id for audio in listed.audio]
    never_came = [(4.0, 4.6), (7.0, 7.2)]
    gaps = [(seconds_of(gap.start_offset), seconds_of(gap.end_offset)) for gap in coverage.gaps]
    assert all(gap in gaps for gap in never_came)
    parts = (coverage.speech_duration, coverage.silence_duration, coverage.gap_duration)
    assert sum(map(seconds_of, parts)) == pytest.approx(10, abs=1e-6)


async def test_who_wants_no_interim_results_is_told_final_ones_only(
    client: Client, speech: Samples
) -> None:
    session_id = await opened(client, interim_results=False, final_job=False)
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))
    producer = Producer([client.sessions], session_id)

    chunks = chunks_of(speech[: 6 * RATE])
    await producer.send(chunks, pause=0.05)
    await closed(client, session_id)
    await asyncio.wait_for(watching, 60)

    assert text_in(finals(responses))
    assert not [told for told in responses if told.HasField("interim")]
    assert all(told.result.is_final for told in producer.told if told.HasField("result"))


async def test_who_goes_on_with_a_session_begins_behind_all_that_has_come_though_some_is_missing(
    platform: RunningPlatform, speech: Samples
) -> None:
    client = platform.client
    session_id = await opened(
        client, gap_timeout=duration_of(600), live_results=False, final_job=False
    )
    chunks = dict(chunks_of(speech))
    came, more = (0, 1, 2, 5, 6), speech[7 * CHUNK_BYTES // 2 :][: 2 * RATE]
    await Producer([client.sessions], session_id).send([(n, chunks[n]) for n in came])

    live = await Terminal(platform).run("live", "-", "--session", session_id, stdin=wav(more))

    assert (live.status, "other bytes" in live.err) == (0, False), live.err
    expected = speech[: 7 * CHUNK_BYTES // 2].copy()
    expected[3 * CHUNK_BYTES // 2 : 5 * CHUNK_BYTES // 2] = 0  # what never came
    assert np.array_equal(await file_of(client, session_id), np.concatenate([expected, more]))


async def test_a_session_of_whole_files_is_not_gone_on_with_by_pieces_of_one(
    platform: RunningPlatform,
) -> None:
    session_id = await opened(
        platform.client,
        encoding=pb.AUDIO_ENCODING_CONTAINER,
        sample_rate_hertz=0,
        chunk_form=pb.CHUNK_FORM_FILES,
    )
    file = (EXAMPLES / "numbers.flac").read_bytes()

    live = await Terminal(platform).run("live", "-", "--session", session_id, stdin=file)

    assert live.status == 2
    assert "the session takes whole files, and this is a container" in live.err
