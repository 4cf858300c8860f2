"""What the built-in model is measured with was never used to train it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from model.training.scoring import longest_runs, plain, word_errors
from model.training.speech import random_speaker
from model.training.vocabulary import WORDS, held_out_sentence, sentence, training_sentence

MODEL = Path(__file__).parent / "builtin-en"


def test_the_models_words_are_those_of_the_sentences() -> None:
    known = (MODEL / "words.txt").read_text().splitlines()
    rng = random.Random(1)

    said = [
        make(rng) for make in (sentence, training_sentence, held_out_sentence) for _ in "." * 99
    ]

    assert known == WORDS
    assert {word for each in said for word in plain(each)} <= {word.lower() for word in known}
    assert all(each[0].isupper() and each.endswith(".") for each in said)


def test_no_sentence_is_in_both() -> None:
    rng = random.Random(1)

    learnt = {training_sentence(rng) for _ in range(5000)}
    measured = {held_out_sentence(rng) for _ in range(500)}

    assert len(learnt) > 4000
    assert not learnt & measured


def test_no_voice_and_no_speed_is_in_both() -> None:
    rng = random.Random(1)

    learnt = [random_speaker(rng) for _ in range(2000)]
    measured = [random_speaker(rng, held_out=True) for _ in range(200)]

    assert not {each.variant for each in learnt} & {each.variant for each in measured}
    assert not {each.rate for each in learnt} & {each.rate for each in measured}


@pytest.mark.parametrize(
    ("heard", "errors", "lost", "added"),
    [
        ("one two three four", 0, 0, 0),
        ("one too three four", 1, 0, 0),
        ("one four", 2, 2, 0),
        ("one two three three three four", 2, 0, 2),
        ("", 4, 4, 0),
    ],
)
def test_errors_are_counted_and_the_longest_stretch_is_told(
    heard: str, errors: int, lost: int, added: int
) -> None:
    said = ["one", "two", "three", "four"]

    assert word_errors(said, heard.split()) == errors
    assert longest_runs(said, heard.split()) == (lost, added)
