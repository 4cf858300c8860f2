"""The default model understands people: flite's voices are recordings of some."""

from __future__ import annotations

from pathlib import Path

import pytest
from faster_whisper import decode_audio

from scoring import word_error_rate, words_of
from steno.models import DEFAULT, Store
from steno.transcription.batcher import Caller, Line
from steno.transcription.domain import Options
from steno.transcription.engine import FasterWhisper

EXAMPLES = Path(__file__).parents[2] / "examples" / "audio"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> FasterWhisper:
    model = Store(tmp_path_factory.mktemp("models")).open(DEFAULT)
    return FasterWhisper(model.name, model.folder, model.revision, cpu_threads=1)


def test_it_computes_in_int8_unless_told_otherwise(engine: FasterWhisper) -> None:
    assert engine.model.compute_type.startswith("int8")


@pytest.mark.parametrize("name", ["forecast", "order"])
def test_it_understands_natural_speech(engine: FasterWhisper, name: str) -> None:
    samples = decode_audio(str(EXAMPLES / f"{name}.opus"))
    said = words_of((EXAMPLES / f"{name}.txt").read_text())

    with engine.batcher.calling(Caller(Line.JOB)):
        heard = " ".join(s.text for s in engine.transcribe(samples, Options(language="en")))

    assert word_error_rate(said, words_of(heard)) < 0.06
