"""Where utterances begin and end, and which words are stable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recordings import RATE, samples_of
from steno.audio import SpeechDetector, VadModel
from steno.concatenation.utterances import LONGEST_SECONDS, Agreement, Endpointer, Utterance
from steno.transcript import Word


def heard(samples: np.ndarray, block: int, silence: float = 0.7) -> list[Utterance]:
    endpointer = Endpointer(SpeechDetector(VadModel(), 4), silence)
    utterances: list[Utterance] = []
    for at in range(0, len(samples), block):
        utterances += endpointer.push(samples[at : at + block])
    return [*utterances, *endpointer.finish()]


def test_utterances_hold_the_very_samples_and_do_not_overlap() -> None:
    samples = samples_of("week.ogg")

    utterances = heard(samples, block=1000)

    assert len(utterances) >= 1
    for utterance in utterances:
        end = min(utterance.end_sample, len(samples))
        assert np.array_equal(
            utterance.samples[: end - utterance.start_sample],
            samples[utterance.start_sample : end],
        )
    for one, other in itertools.pairwise(utterances):
        assert one.end_sample <= other.start_sample


@pytest.mark.parametrize("block", [160, 4000, 100_000])
def test_where_an_utterance_ends_does_not_depend_on_how_the_sound_comes(block: int) -> None:
    samples = samples_of("week.ogg")

    spans = [(u.start_sample, u.end_sample) for u in heard(samples, block)]

    assert spans == [(u.start_sample, u.end_sample) for u in heard(samples, 1000)]


def test_a_shorter_silence_ends_more_utterances() -> None:
    samples = samples_of("week.ogg")

    assert len(heard(samples, 4000, silence=0.3)) > len(heard(samples, 4000, silence=2.0))


def test_silence_is_no_utterance() -> None:
    assert heard(np.zeros(20 * RATE, np.int16), 4000) == []


def test_speech_without_a_pause_is_cut_before_it_is_too_long_and_nothing_is_lost() -> None:
    samples = samples_of("ten-minutes.opus")[: 90 * RATE]

    utterances = heard(samples, 4000, silence=5.0)

    assert len(utterances) >= 3
    for utterance in utterances:
        assert len(utterance.samples) <= (LONGEST_SECONDS + 0.1) * RATE
    joined = [(u.start_sample, u.end_sample) for u in utterances]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(joined))


def words(text: str) -> list[Word]:
    return [Word(0, 0, f" {word}", 1) for word in text.split()]


def test_words_are_stable_once_two_results_agree_on_them_and_stay() -> None:
    agreement = Agreement()

    shown = [
        agreement.add(words(text))
        for text in (
            "the old",
            "The cold bell",
            "the cold bell rings",
            "a warm bell rings, loudly",
        )
    ]

    assert [stable for _, stable in shown] == [0, 1, 3, 4]
    texts = ["".join(word.word for word in told) for told, _ in shown]
    assert texts[-1] == " The cold bell rings, loudly"
