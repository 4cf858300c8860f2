"""A recording in which nobody pauses is cut in the midst of speech, and that costs no word."""

from __future__ import annotations

from contextlib import AsyncExitStack

import numpy as np
import pytest

from platform_client import Client
from recordings import samples_of, text_of, wav, without_pauses
from running_platform import run_platform
from scoring import words_of
from steno.audio import SAMPLE_RATE_HERTZ, Slicer, SpeechDetector, VadModel
from steno.platform.wellknown import seconds_of
from steno.v1 import job_pb2, transcript_pb2

AROUND_SECONDS = 1.5

FRAME = 0.021
"""Seconds of one of Whisper's frames, the smallest step of a word's times, and a rounding."""


def cuts_in_speech(samples: np.ndarray) -> list[float]:
    """Where the recording is cut though nobody pauses, in seconds."""
    slicer = Slicer(SpeechDetector(VadModel()))
    slices = [*slicer.push(samples), *slicer.finish()]
    return [s.start_sample / SAMPLE_RATE_HERTZ for s in slices if len(s.left_context)]


async def written(client: Client, samples: np.ndarray) -> tuple[str, transcript_pb2.Transcript]:
    """A recording's job, and its transcript with the words."""
    audio = await client.upload("unbroken.wav", wav(samples))
    config = transcript_pb2.RecognitionConfig(enable_word_time_offsets=True)
    job = await client.create_job(audio.audio_id, config)
    job = await client.end_of(job.job_id, within=400)
    return job.job_id, await client.transcript(job.job_id)


def words_in(transcript: transcript_pb2.Transcript) -> list[transcript_pb2.WordInfo]:
    return [word for segment in transcript.segments for word in segment.words]


def times_of(words: list[transcript_pb2.WordInfo]) -> list[float]:
    """Where each begins and ends, in seconds."""
    return [seconds_of(at) for word in words for at in (word.start_offset, word.end_offset)]


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_four_workers_write_what_one_writes(client: Client) -> None:
    samples = without_pauses(samples_of("ten-minutes.opus"))
    _, alone = await written(client, samples)
    async with AsyncExitStack() as stack:
        platform = await run_platform(stack, workers=4)
        _, together = await written(platform.client, samples)

    assert [segment.text for segment in together.segments] == [
        segment.text for segment in alone.segments
    ]
    assert together.coverage == alone.coverage
    ours, theirs = words_in(together), words_in(alone)
    assert [word.word for word in ours] == [word.word for word in theirs] != []
    # A word's times are sums over a batch, which are rounded otherwise when others share it.
    assert times_of(ours) == pytest.approx(times_of(theirs), abs=FRAME)
    assert [word.confidence for word in ours] == pytest.approx(
        [word.confidence for word in theirs], abs=0.001
    )


@pytest.mark.long
async def test_the_words_around_a_cut_in_speech_are_those_that_were_said(client: Client) -> None:
    unbroken = without_pauses(samples_of("ten-minutes.opus"))[: 100 * SAMPLE_RATE_HERTZ]
    job_id, transcript = await written(client, unbroken)
    said = " ".join(words_of(text_of("ten-minutes.opus")))
    cuts = cuts_in_speech(unbroken)
    assert cuts
    for cut in cuts:
        around = [
            word.word
            for word in words_in(transcript)
            if abs(word.start_offset.ToTimedelta().total_seconds() - cut) < AROUND_SECONDS
        ]
        assert " ".join(words_of("".join(around))) in said

    watched = [
        segment
        async for told in client.jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job_id))
        for segment in told.event.segments_added.segments
    ]
    assert watched == list(transcript.segments)
