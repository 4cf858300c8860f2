"""Live sessions on the whole platform: heard while they happen, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from live_sessions import Producer, Samples, acknowledged, cut
from platform_client import Client, fetched
from recordings import EXAMPLES, RATE, decoded, samples_of, text_of, wav
from running_platform import RunningPlatform
from scoring import word_error_rate, words_of
from steno.platform.tenancy import tenant_in
from steno.platform.wellknown import duration_of, seconds_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import job_pb2
from terminal import Terminal
from waiting import eventually

CHUNK_BYTES = RATE // 5 * 2


@pytest.fixture(scope="module")
def speech() -> Samples:
    return samples_of("demo.opus")[: 24 * RATE]


async def opened(client: Client, **config: object) -> str:
    values = {"encoding": pb.AUDIO_ENCODING_LINEAR16, "sample_rate_hertz": RATE} | config
    request = pb.CreateSessionRequest(config=pb.SessionConfig(**values))  # type: ignore[arg-type]
    return (await client.sessions.CreateSession(request, timeout=20)).session.session_id


async def closed(client: Client, session_id: str) -> pb.Session:
    request = pb.CloseSessionRequest(session_id=session_id)
    return (
        await client.patiently(lambda: client.sessions.CloseSession(request, timeout=60))
    ).session


async def told(
    client: Client, session_id: str, into: list[pb.WatchSessionResponse], within: float = 120
) -> list[pb.WatchSessionResponse]:
    """All that a viewer is told, over as many connections as it takes."""
    seen = 0

    async def watch() -> None:
        nonlocal seen
        request = pb.WatchSessionRequest(session_id=session_id, after_revision=seen)
        async for response in client.sessions.WatchSession(request):
            seen = response.event.revision or seen
            into.append(response)

    await client.patiently(watch, within)
    return into


def finals(responses: list[pb.WatchSessionResponse]) -> list[pb.LiveResult]:
    return [r.event.result_added for r in responses if r.event.HasField("result_added")]


def text_in(results: list[pb.LiveResult]) -> list[str]:
    return words_of(" ".join(result.segment.text for result in results))


async def file_of(client: Client, session_id: str) -> Samples:
    request = pb.GetRecordingRequest(session_id=session_id, form=pb.RECORDING_FORM_FILE)
    url = (await client.sessions.GetRecording(request, timeout=60)).url
    return decoded(await fetched(url))


async def test_what_is_said_is_heard_while_it_is_said(
    harmed: RunningPlatform,
) -> None:
    client = harmed.client
    session_id = await opened(client)
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))

    producer = Producer([client.sessions], session_id)
    chunks = list(enumerate(cut(samples_of("demo.opus").tobytes(), CHUNK_BYTES)))

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
    speech_events = [told.speech.type for told in producer.told if told.HasField("speech")]
    assert speech_events[:2] == [pb.SPEECH_EVENT_TYPE_BEGIN, pb.SPEECH_EVENT_TYPE_END]
    assert_stable_words_stay(responses)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_live_results_are_as_right_as_the_transcript_of_a_job_and_the_final_one_is_it(
    harmed: RunningPlatform,
) -> None:
    client, speech = harmed.client, samples_of("ten-minutes.opus")
    session_id = await opened(client)
    # Beside it the same as a file: live windows go first.
    file = await client.upload("batch.wav", wav(speech))
    batch = await client.create_job(file.audio_id)

    # Ten times as fast as it was said.
    chunks = list(enumerate(cut(speech.tobytes(), CHUNK_BYTES)))
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
    harmed: RunningPlatform, speech: Samples
) -> None:
    client = harmed.client
    with tenant_in("caller"):
        session_id = await opened(client, gap_timeout=duration_of(0))
    chunks = dict(enumerate(cut(speech[: 10 * RATE].tobytes(), CHUNK_BYTES)))
    missing = [20, 21, 22, 35]
    for number in missing:
        del chunks[number]

    await Producer([client.sessions], session_id).send(list(chunks.items()))
    ended = await closed(client, session_id)
    job = await client.end_of(ended.job_id)
    coverage = (await client.transcript(ended.job_id)).coverage

    assert job.tenant == ended.tenant == "caller"
    never_came = [(4.0, 4.6), (7.0, 7.2)]
    gaps = [(seconds_of(gap.start_offset), seconds_of(gap.end_offset)) for gap in coverage.gaps]
    assert all(gap in gaps for gap in never_came)
    parts = (coverage.speech_duration, coverage.silence_duration, coverage.gap_duration)
    assert sum(map(seconds_of, parts)) == pytest.approx(10, abs=1e-6)


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


async def test_a_session_outlives_the_death_of_its_server_and_of_nats(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client, part = harmed.client, speech[: 14 * RATE]
    session_id = await opened(client, interim_results=False)
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))
    producer = Producer([client.sessions], session_id)

    chunks = list(enumerate(cut(part.tobytes(), CHUNK_BYTES)))
    thirds = (chunks[:24], chunks[24:48], chunks[48:])
    for victim, third in zip(("concatenation", "nats", "concatenation"), thirds, strict=True):
        killed = asyncio.Event()
        sending = asyncio.create_task(
            producer.send(third, pause=0.05, breaks_after=5, until=killed.is_set)
        )
        await acknowledged(producer, third[0][0] + 12, sending)
        harmed.kill(victim)
        killed.set()
        await harmed.runs(victim)
        await sending
    ended = await closed(client, session_id)
    await asyncio.wait_for(watching, 120)

    assert ended.gap_duration.seconds == 0
    assert np.array_equal(await file_of(client, session_id), part)
    revisions = [r.event.revision for r in responses if r.HasField("event")]
    assert revisions == [*range(1, len(revisions) + 1)]
    # Nothing is heard twice, and nothing is left out.
    assert (await client.end_of(ended.job_id)).state == job_pb2.JOB_STATE_SUCCEEDED
    by_job = words_of((await client.transcript(ended.job_id)).text)
    assert word_error_rate(by_job, text_in(finals(responses))) < 0.15


async def test_a_recording_goes_on_while_transcription_is_away_and_is_heard_afterwards(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client = harmed.client
    session_id = await opened(client, final_job=False)
    part = speech[: 12 * RATE]
    harmed.kill("transcription")

    await Producer([client.sessions], session_id).send(
        list(enumerate(cut(part.tobytes(), CHUNK_BYTES)))
    )
    assert np.array_equal(await file_of(client, session_id), part)
    await harmed.runs("transcription")
    await closed(client, session_id)

    responses = await told(client, session_id, [])
    assert len(text_in(finals(responses))) > 10


async def test_a_recording_goes_on_while_transcription_is_slow_and_results_say_how_late(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client, part = harmed.client, speech[: 18 * RATE]
    # Utterances end after 2.7, 7, 13, 15 and 18 seconds.
    session_id = await opened(
        client,
        endpointing_silence=duration_of(0.3),
        interim_results=False,
        final_job=False,
    )
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))
    producer = Producer([client.sessions], session_id)
    chunks = list(enumerate(cut(part.tobytes(), CHUNK_BYTES)))
    await producer.send(chunks[:25], pause=0.05)
    await eventually(lambda: finals(responses))

    with harmed.paused("transcription"):
        before = len(responses)
        await producer.send(chunks[25:])  # all are acknowledged
        statuses = await eventually(lambda: statuses_up_to_the_end(responses, part))
    await closed(client, session_id)
    await asyncio.wait_for(watching, 60)

    assert np.array_equal(await file_of(client, session_id), part)
    behind = [
        seconds_of(status.duration) - seconds_of(status.transcribed_duration) for status in statuses
    ]
    assert behind[-1] == max(behind) > 10
    late = [seconds_of(result.lag) for result in finals(responses[before:])]
    assert late == sorted(late, reverse=True)
    assert late[0] > 5
    assert late[-1] == 0
    ends = [seconds_of(result.segment.end_offset) for result in finals(responses)]
    assert len(ends) >= 4
    assert ends[-1] > 16


def statuses_up_to_the_end(
    responses: list[pb.WatchSessionResponse], samples: Samples
) -> list[pb.SessionStatus]:
    """How far a viewer was told that a session is, once it has all samples; before that, none."""
    told = [response.status for response in responses if response.HasField("status")]
    has_all = bool(told) and seconds_of(told[-1].duration) == len(samples) / RATE
    return told if has_all else []


async def test_who_wants_no_interim_results_is_told_final_ones_only(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client = harmed.client
    session_id = await opened(client, interim_results=False, final_job=False)
    responses: list[pb.WatchSessionResponse] = []
    watching = asyncio.create_task(told(client, session_id, responses))
    producer = Producer([client.sessions], session_id)

    chunks = list(enumerate(cut(speech[: 6 * RATE].tobytes(), CHUNK_BYTES)))
    await producer.send(chunks, pause=0.05)
    await closed(client, session_id)
    await asyncio.wait_for(watching, 60)

    assert text_in(finals(responses))
    assert not [told for told in responses if told.HasField("interim")]
    assert all(told.result.is_final for told in producer.told if told.HasField("result"))


async def test_who_goes_on_with_a_session_begins_behind_all_that_has_come_though_some_is_missing(
    harmed: RunningPlatform, speech: Samples
) -> None:
    client = harmed.client
    session_id = await opened(
        client, gap_timeout=duration_of(600), live_results=False, final_job=False
    )
    chunks = dict(enumerate(cut(speech.tobytes(), CHUNK_BYTES)))
    came, more = (0, 1, 2, 5, 6), speech[7 * CHUNK_BYTES // 2 :][: 2 * RATE]
    await Producer([client.sessions], session_id).send([(n, chunks[n]) for n in came])

    live = await Terminal(harmed).run("live", "-", "--session", session_id, stdin=wav(more))

    assert (live.status, "other bytes" in live.err) == (0, False), live.err
    expected = speech[: 7 * CHUNK_BYTES // 2].copy()
    expected[3 * CHUNK_BYTES // 2 : 5 * CHUNK_BYTES // 2] = 0  # what never came
    assert np.array_equal(await file_of(client, session_id), np.concatenate([expected, more]))


async def test_a_session_of_whole_files_is_not_gone_on_with_by_pieces_of_one(
    harmed: RunningPlatform,
) -> None:
    session_id = await opened(
        harmed.client,
        encoding=pb.AUDIO_ENCODING_CONTAINER,
        sample_rate_hertz=0,
        chunk_form=pb.CHUNK_FORM_FILES,
    )
    file = (EXAMPLES / "numbers.flac").read_bytes()

    live = await Terminal(harmed).run("live", "-", "--session", session_id, stdin=file)

    assert live.status == 2
    assert "the session takes whole files, and this is a container" in live.err
