"""Inputs name their origin, whatever becomes of them."""

from __future__ import annotations

import numpy as np

from faults.null_listener import NullVad
from faults.oracle import (
    BLOCK,
    Run,
    begins_with,
    blocks_in,
    heard_in,
    runs_in,
    runs_of,
    samples_of,
    without,
    wrong_in,
)
from steno.audio import SpeechDetector


def test_samples_tell_their_file_and_place() -> None:
    assert runs_of(samples_of(7, 100_000, 50)) == [Run(7, 100_000, 50)]


def test_silence_another_file_and_noise_are_told_apart() -> None:
    silence = np.zeros(2 * BLOCK, np.int16)
    noise = np.full(BLOCK, 5, np.int16)
    sound = np.concatenate([samples_of(1, 0, 3), silence, samples_of(2, 3, 1), noise])
    assert runs_of(sound) == [Run(1, 0, 3), Run(0, 0, 2), Run(2, 3, 1), Run(-1, 0, 1)]


def test_a_jump_within_a_file_begins_a_new_run() -> None:
    sound = np.concatenate([samples_of(1, 0, 3), samples_of(1, 4, 2)])
    assert runs_of(sound) == [Run(1, 0, 3), Run(1, 4, 2)]


def test_what_is_heard_is_right_wherever_it_was_cut() -> None:
    text = heard_in(samples_of(3, 0, 40), "p") + heard_in(samples_of(3, 40, 60), "p")
    assert runs_in(text) == [Run(3, 0, 100)]
    assert wrong_in(text, [Run(3, 0, 100)], "p") is None


def test_another_option_or_a_changed_sample_is_wrong() -> None:
    assert wrong_in(heard_in(samples_of(3, 0, 40), "p"), [Run(3, 0, 40)], "q")
    damaged = samples_of(3, 0, 40)
    text = heard_in(damaged, "p").replace("#", "#0")[:-1]
    assert wrong_in(text, [Run(3, 0, 40)], "p")


def test_a_repeated_stretch_is_wrong() -> None:
    text = heard_in(samples_of(3, 0, 40), "p")
    assert wrong_in(text + text, [Run(3, 0, 40)], "p")


def test_what_was_never_sent_is_silence() -> None:
    assert without(4, 30, [(10, 10)]) == [Run(4, 0, 10), Run(0, 0, 10), Run(4, 20, 10)]


def test_a_beginning_is_one_wherever_it_ends() -> None:
    whole = [Run(4, 0, 10), Run(0, 0, 10), Run(4, 20, 10)]
    for part in ([], [Run(4, 0, 3)], whole[:2], [*whole[:2], Run(4, 20, 1)], whole):
        assert begins_with(whole, part)
    for part in ([Run(4, 1, 3)], [Run(4, 0, 11)], [*whole, Run(4, 30, 1)]):
        assert not begins_with(whole, part)


def test_a_listener_hears_speech_and_pauses_in_turn() -> None:
    detector = SpeechDetector(NullVad(), run_windows=4)  # type: ignore[arg-type]
    heard = np.concatenate([detector.push(samples_of(5, 0, blocks_in(8))), detector.finish()])
    assert heard.tolist() == [1.0] * 94 + [0.0] * 62 + [1.0] * 94
