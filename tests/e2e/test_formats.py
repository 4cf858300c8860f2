"""The same speech in any format gives the same words."""

from __future__ import annotations

import pytest

from platform_client import Client, word_error_rate, words_of
from recordings import FORMATS, RATE, encoded, samples_of, text_of

MINUTE = 60 * RATE


@pytest.fixture(scope="module")
async def words_of_wav(client: Client) -> list[str]:
    transcript = await client.transcribe(
        "minute.wav", encoded(samples_of("demo.opus")[:MINUTE], "wav")
    )
    return words_of(transcript.text)


@pytest.mark.parametrize("name", FORMATS)
async def test_a_minute_of_speech_gives_the_same_words_in_every_format(
    client: Client, words_of_wav: list[str], name: str
) -> None:
    data = encoded(samples_of("demo.opus")[:MINUTE], name)

    transcript = await client.transcribe(f"minute.{name}", data)

    assert words_of(transcript.text) == words_of_wav


async def test_the_demo_is_understood(client: Client) -> None:
    data = encoded(samples_of("demo.opus"), "wav")

    transcript = await client.transcribe("demo.wav", data)

    assert word_error_rate(text_of("demo.opus"), transcript.text) < 0.05
