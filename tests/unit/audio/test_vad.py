"""The speech detector gives the same probabilities however the recording is fed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import decode_audio
from numpy.typing import NDArray

from steno.audio import SpeechDetector, VadModel, from_float, speech_spans

EXAMPLES = Path(__file__).parents[3] / "examples" / "audio"


@pytest.fixture(scope="module")
def model() -> VadModel:
    return VadModel()


def noisy_bursts(seconds: float) -> NDArray[np.int16]:
    dice = np.random.default_rng(3)
    size = int(seconds * 16_000)
    loud = np.repeat(dice.uniform(0, 9000, size // 4000 + 1), 4000)[:size]
    return (dice.standard_normal(size).cumsum() % 2 * loud).astype(np.int16)


def probabilities(
    model: VadModel, pcm: NDArray[np.int16], blocks: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    detector = SpeechDetector(model)
    parts = [pcm] if blocks is None else np.split(pcm, blocks)
    return np.concatenate([*(detector.push(part) for part in parts), detector.finish()])


def test_each_window_of_512_samples_has_one_probability(model: VadModel) -> None:
    for samples in (1, 511, 512, 513, 16_384, 50_000):
        result = probabilities(model, noisy_bursts(4)[:samples])

        assert result.shape == (-(-samples // 512),)
        assert np.all((result >= 0) & (result <= 1))


def test_nothing_has_no_probability(model: VadModel) -> None:
    assert probabilities(model, np.zeros(0, np.int16)).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_the_size_of_the_blocks_changes_not_one_bit(model: VadModel, seed: int) -> None:
    pcm = noisy_bursts(20)
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(pcm), 200))

    assert np.array_equal(probabilities(model, pcm), probabilities(model, pcm, cuts))


def test_it_agrees_with_faster_whispers_own(model: VadModel) -> None:
    vad = pytest.importorskip("faster_whisper.vad")
    pcm = noisy_bursts(20)[: 512 * 600]

    theirs = vad.get_vad_model()(pcm.astype(np.float32) / 32768).reshape(-1)

    assert np.allclose(probabilities(model, pcm), theirs, atol=1e-4)


def test_silence_is_not_speech(model: VadModel) -> None:
    assert probabilities(model, np.zeros(16_000 * 5, np.int16)).max() < 0.1


def test_the_model_is_the_one_in_the_wheel_that_is_pinned() -> None:
    script = Path(__file__).parents[3] / "tools" / "vad_model.py"

    checked = subprocess.run(
        [sys.executable, script, "--check"], check=False, capture_output=True, text=True
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_neither_faster_whisper_nor_its_wheel_is_needed() -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(('faster_whisper', 'ctranslate2', 'av')); "
        "import steno.audio; steno.audio.VadModel()"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_stretches_of_speech_are_those_that_faster_whisper_finds(model: VadModel) -> None:
    vad = pytest.importorskip("faster_whisper.vad")
    samples = decode_audio(str(EXAMPLES / "demo.opus"))[: 61 * 16_000]
    closely = vad.VadOptions(min_silence_duration_ms=300, speech_pad_ms=0)

    found = speech_spans(model, from_float(samples))

    theirs = [(each["start"], each["end"]) for each in vad.get_speech_timestamps(samples, closely)]
    assert len(found) > 5
    assert found == theirs


def test_silence_has_no_stretch_of_speech(model: VadModel) -> None:
    assert speech_spans(model, np.zeros(5 * 16_000, np.int16)) == []
    assert speech_spans(model, np.zeros(0, np.int16)) == []


def test_its_runtime_leaves_nothing_at_home_that_it_would_send_to_its_makers(
    tmp_path: Path,
) -> None:
    told_at = {"HOME", "XDG_CACHE_HOME", "TMPDIR"}
    environment = {**os.environ, **dict.fromkeys(told_at, str(tmp_path))}
    for hint in ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY"):
        environment.pop(hint, None)

    subprocess.run(
        [sys.executable, "-c", "from steno.audio import VadModel; VadModel()"],
        env=environment,
        check=True,
    )

    assert list(tmp_path.rglob("*")) == []
