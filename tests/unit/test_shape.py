"""The models of random weights that `make bench-gpu` measures with."""

from __future__ import annotations

import numpy as np
import pytest
from bench.shape import TEXT_TOKENS, Shape, make
from faster_whisper import BatchedInferencePipeline, WhisperModel

NARROW = Shape(width=64, heads=2, layers=1, mels=128, tokens=51_866, languages=100)
"""As large-v3 seems to who reads and writes, and next to nothing within."""


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> WhisperModel:
    folder = make(tmp_path_factory.mktemp("narrow"), NARROW)
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(16_000 * 20).astype(np.float32) / 10


def test_a_model_of_random_weights_is_taken_for_a_multilingual_whisper(
    whisper: WhisperModel,
) -> None:
    assert whisper.model.is_multilingual
    assert whisper.model.n_mels == NARROW.mels
    assert whisper.model.num_languages == NARROW.languages


@pytest.mark.parametrize("batched", [False, True], ids=["in sequence", "in batches"])
def test_it_says_the_same_words_with_and_without_times(
    whisper: WhisperModel, noise: np.ndarray, batched: bool
) -> None:
    listener = BatchedInferencePipeline(whisper) if batched else whisper

    segments, _ = listener.transcribe(noise, language="en", beam_size=5, vad_filter=False)

    (segment,) = segments
    assert segment.text.split() == [f"w{number}" for number in range(TEXT_TOKENS)]
    assert segment.compression_ratio < 2.4, "it is taken for a loop, and decoded again"
