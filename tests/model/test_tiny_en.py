"""The default model understands people: flite's voices are recordings of some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper import decode_audio

from scoring import word_error_rate, words_of
from steno.models import DEFAULT, Store, entry_of
from steno.transcript import SAMPLE_RATE, Options, Segment, Span
from steno.transcription.engine import Line, Samples
from steno.transcription.threaded import Caller
from steno.transcription.whisper import FasterWhisper

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "audio"
SPEECH = ROOT / "bench" / "speech"
MINUTE = 60 * SAMPLE_RATE


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FasterWhisper]:
    model, entry = Store(tmp_path_factory.mktemp("models")).open(DEFAULT), entry_of(DEFAULT)
    assert entry is not None
    engine = FasterWhisper(
        model.name, model.folder, model.revision, cpu_threads=1, windows=entry.windows
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def notes() -> Samples:
    samples: Samples = decode_audio(str(SPEECH / "notes.opus"))
    return samples[:MINUTE]


def transcribe(engine: FasterWhisper, samples: Samples) -> list[Segment]:
    """Recognises a recording as a worker does."""
    options = Options(language_code="en")
    with engine.batcher.calling(Caller(Line.JOB)):
        found = list(engine.transcribe(samples, options))
        return engine.cover(samples, options, found, Span(0, len(samples)))[0]


def test_it_computes_in_int8_unless_told_otherwise(engine: FasterWhisper) -> None:
    assert engine.model.compute_type.startswith("int8")


@pytest.mark.parametrize("name", ["forecast", "order"])
def test_it_understands_natural_speech(engine: FasterWhisper, name: str) -> None:
    samples = decode_audio(str(EXAMPLES / f"{name}.opus"))
    said = words_of((EXAMPLES / f"{name}.txt").read_text())

    heard = " ".join(segment.text for segment in transcribe(engine, samples))

    assert word_error_rate(said, words_of(heard)) < 0.06


def test_its_windows_are_shorter_than_30_s(
    engine: FasterWhisper, notes: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[int] = []
    encode = engine.batcher.encode

    def noting(features: Any, **options: Any) -> Any:
        frames.append(np.shape(features)[-1])
        return encode(features, **options)

    monkeypatch.setattr(engine.batcher, "encode", noting)

    transcribe(engine, notes)

    assert frames
    assert max(frames) < 3000


def test_it_knows_when_a_sentence_begins_and_ends(engine: FasterWhisper, notes: Samples) -> None:
    sentences = [
        each
        for each in json.loads((SPEECH / "notes.json").read_text())
        if each["end"] * SAMPLE_RATE < MINUTE
    ]
    words = [word for segment in transcribe(engine, notes) for word in segment.words]

    errors = [min(abs(word.start - each["start"]) for word in words) for each in sentences]
    errors += [min(abs(word.end - each["end"]) for word in words) for each in sentences]

    assert float(np.mean(errors)) < 0.2


def test_a_recording_has_one_text_whoever_shares_its_batches(
    engine: FasterWhisper, notes: Samples
) -> None:
    parts = [notes, notes[: MINUTE // 2], notes[MINUTE // 3 :]]
    alone = [transcribe(engine, part) for part in parts]

    with ThreadPoolExecutor(len(parts)) as together:
        assert list(together.map(lambda part: transcribe(engine, part), parts)) == alone
