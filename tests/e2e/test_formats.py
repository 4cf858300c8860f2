"""The same speech in any format gives the same words."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from faster_whisper import WhisperModel

from builtin_model import FOLDER
from platform_client import Client
from recordings import FORMATS, RATE, encoded, samples_of, text_of
from scoring import word_error_rate, words_of

MINUTE = 60 * RATE


@pytest.fixture(scope="module")
async def words_of_wav(client: Client) -> list[str]:
    transcript = await client.transcribe("short.wav", encoded(samples_of("spelling.wav"), "wav"))
    return words_of(transcript.text)


@pytest.mark.parametrize("name", FORMATS)
async def test_the_same_speech_gives_the_same_words_in_every_format(
    client: Client, words_of_wav: list[str], name: str
) -> None:
    data = encoded(samples_of("spelling.wav"), name)

    transcript = await client.transcribe(f"short.{name}", data)

    assert words_of(transcript.text) == words_of_wav


@pytest.mark.long
async def test_a_minute_of_speech_gives_the_same_words_in_every_format(client: Client) -> None:
    # The built-in model is not sure of every word: in other minutes a codec may tip one of them.
    minute = samples_of("ten-minutes.opus")[7 * MINUTE : 8 * MINUTE]

    transcripts = await asyncio.gather(
        *(client.transcribe(f"minute.{name}", encoded(minute, name)) for name in ("wav", *FORMATS))
    )

    heard = {name: words_of(t.text) for name, t in zip(("wav", *FORMATS), transcripts, strict=True)}
    assert all(words == heard["wav"] for words in heard.values()), heard


@pytest.mark.long
async def test_the_demo_is_understood(client: Client) -> None:
    data = encoded(samples_of("demo.opus"), "wav")

    transcript = await client.transcribe("demo.wav", data)

    assert word_error_rate(words_of(text_of("demo.opus")), words_of(transcript.text)) < 0.05


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_half_an_hour_is_understood_as_well_as_by_faster_whisper_alone(
    client: Client,
) -> None:
    samples = np.tile(samples_of("ten-minutes.opus"), 3)
    said = 3 * words_of(text_of("ten-minutes.opus"))

    transcript = await client.transcribe("long.wav", encoded(samples, "wav"), within=400)

    model = WhisperModel(str(FOLDER), device="cpu", compute_type="int8")
    alone, _ = model.transcribe(samples.astype(np.float32) / 32768)
    errors = word_error_rate(said, words_of(" ".join(segment.text for segment in alone)))
    by_steno = word_error_rate(said, words_of(transcript.text))
    assert abs(by_steno - errors) <= 0.005
    assert max(by_steno, errors) < 0.03
