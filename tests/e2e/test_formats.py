"""The same speech in any format gives the same words."""

from __future__ import annotations

import asyncio

import pytest

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


async def test_a_minute_of_speech_gives_the_same_words_in_every_format(client: Client) -> None:
    # The built-in model is not sure of every word: in other minutes a codec may tip one of them.
    minute = samples_of("ten-minutes.opus")[7 * MINUTE : 8 * MINUTE]

    transcripts = await asyncio.gather(
        *(client.transcribe(f"minute.{name}", encoded(minute, name)) for name in ("wav", *FORMATS))
    )

    heard = {name: words_of(t.text) for name, t in zip(("wav", *FORMATS), transcripts, strict=True)}
    assert all(words == heard["wav"] for words in heard.values()), heard


async def test_the_demo_is_understood(client: Client) -> None:
    data = encoded(samples_of("demo.opus"), "wav")

    transcript = await client.transcribe("demo.wav", data)

    assert word_error_rate(words_of(text_of("demo.opus")), words_of(transcript.text)) < 0.05
