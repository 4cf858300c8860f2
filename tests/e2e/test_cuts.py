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
from steno.v1 import job_pb2, transcript_pb2

AROUND_SECONDS = 1.5


def cuts_in_speech(samples: np.ndarray) -> list[float]:
    """Where the recording is cut though nobody pauses, in seconds."""
    slicer = Slicer(SpeechDetector(VadModel()))
    slices = [*slicer.push(samples), *slicer.finish()]
    return [s.start_sample / SAMPLE_RATE_HERTZ for s in slices if len(s.left_context)]


async def written(client: Client, samples: np.ndarray) -> tuple[str, transcript_pb2.Transcript]:
    """A recording's job, and its transcript with the words."""
    audio = await client.upload("unbroken.wav", wav(samples))
    config = transcript_pb2.RecognitionConfig(enable_word_time_offsets=True)
    job = await client.end_of((await client.create_job(audio.audio_id, config)).job_id)
    return job.job_id, await client.transcript(job.job_id)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_four_workers_write_what_one_writes(client: Client) -> None:
    samples = without_pauses(samples_of("ten-minutes.opus"))
    _, alone = await written(client, samples)
    async with AsyncExitStack() as stack:
        platform = await run_platform(stack, workers=4)
        _, together = await written(platform.client, samples)

    assert list(together.segments) == list(alone.segments) != []
    assert together.coverage == alone.coverage


async def test_the_words_around_a_cut_in_speech_are_those_that_were_said(client: Client) -> None:
    unbroken = without_pauses(samples_of("ten-minutes.opus"))[: 100 * SAMPLE_RATE_HERTZ]
    job_id, transcript = await written(client, unbroken)
    said = " ".join(words_of(text_of("ten-minutes.opus")))
    cuts = cuts_in_speech(unbroken)
    assert cuts
    for cut in cuts:
        around = [
            word.word
            for segment in transcript.segments
            for word in segment.words
            if abs(word.start_offset.ToTimedelta().total_seconds() - cut) < AROUND_SECONDS
        ]
        assert " ".join(words_of("".join(around))) in said

    watched = [
        segment
        async for told in client.jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job_id))
        for segment in told.event.segments_added.segments
    ]
    assert watched == list(transcript.segments)
