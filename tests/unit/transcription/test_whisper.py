"""The engine on real faster-whisper, with a multilingual model of random weights."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel, decode_audio

from steno.transcript import SAMPLE_RATE, Options, Span
from steno.transcription.engine import Samples
from steno.transcription.whisper import PROMPT_TOKENS, FasterWhisper, _ReproducibleWhisper

from .random_whisper import LANGUAGES, save_multilingual

EXAMPLES = Path(__file__).parents[3] / "examples" / "audio"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> FasterWhisper:
    folder = tmp_path_factory.mktemp("model")
    save_multilingual(folder)
    return FasterWhisper("random", folder, "r1", device="cpu", cpu_threads=1, beam_size=1)


@pytest.fixture(scope="module")
def speech() -> Samples:
    samples: Samples = decode_audio(str(EXAMPLES / "demo.opus"))
    return samples[: 40 * SAMPLE_RATE]


SILENCE = np.zeros(3 * SAMPLE_RATE, np.float32)


def test_a_model_knows_the_languages_that_its_tokenizer_knows(engine: FasterWhisper) -> None:
    assert set(engine.model.languages) == set(LANGUAGES)
    assert engine.model.multilingual
    assert engine.model.device == "cpu"


def test_on_a_gpu_it_computes_in_float16_or_in_half_the_memory_where_that_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_multilingual(tmp_path)
    tried = []

    def load(folder: str, *, compute_type: str, **options: object) -> WhisperModel:
        tried.append(compute_type)
        if compute_type == "float16":
            raise RuntimeError("CUDA failed with error out of memory")
        return _ReproducibleWhisper(folder, device="cpu")

    monkeypatch.setattr("steno.transcription.whisper._ReproducibleWhisper", load)
    monkeypatch.setattr(
        "ctranslate2.get_supported_compute_types", lambda device: {"float16", "int8_float16"}
    )

    FasterWhisper("random", tmp_path, "r1", device="cuda").close()

    assert tried == ["float16", "int8_float16"]


def test_a_language_is_detected_from_speech(engine: FasterWhisper, speech: Samples) -> None:
    assert engine.detect_language(speech) in LANGUAGES
    assert engine.detect_language(speech) == engine.detect_language(speech)


def test_silence_has_no_language(engine: FasterWhisper) -> None:
    assert engine.detect_language(SILENCE) == ""


def test_each_window_of_a_multilingual_recording_has_its_language(
    engine: FasterWhisper, speech: Samples
) -> None:
    segments = list(engine.transcribe(speech, Options(multilingual=True, vad_filter=False)))

    assert segments
    assert all(segment.language in LANGUAGES for segment in segments)


def test_only_with_context_a_window_sees_the_text_before_it(
    engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    generate = engine.batcher.generate

    def noting(encoded: Any, prompts: Any, **options: Any) -> Any:
        lengths.extend(map(len, prompts))
        return generate(encoded, prompts, **options)

    monkeypatch.setattr(engine.batcher, "generate", noting)
    independent = Options(language_code="en", vad_filter=False)
    list(engine.transcribe(speech, independent))
    assert len(set(lengths)) == 1

    list(engine.transcribe(speech, replace(independent, accurate=True)))
    assert len(set(lengths)) > 1


def test_a_multilingual_model_translates(engine: FasterWhisper, speech: Samples) -> None:
    options = Options(language_code="de", translate=True)

    assert engine.refusals(options) == []
    assert list(engine.transcribe(speech, options))


def test_segments_end_within_the_audio(engine: FasterWhisper, speech: Samples) -> None:
    short = speech[: 7 * SAMPLE_RATE]

    segments = list(engine.transcribe(short, Options(language_code="en", word_time_offsets=True)))

    assert all(0 <= segment.start <= segment.end <= 7 for segment in segments)


def whole(samples: Samples) -> Span:
    return Span(0, len(samples))


def test_speech_that_gave_no_text_is_decoded_alone(
    engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steno.transcription.whisper.BELIEVED_LOGPROB", -np.inf)
    missed = Options(language_code="en")

    segments, coverage = engine.cover(speech, missed, [], whole(speech))

    assert segments
    assert [segment.start for segment in segments] == sorted(s.start for s in segments)
    assert coverage.speech + coverage.silence + sum(g.length for g in coverage.gaps) == len(speech)


def test_text_of_a_gap_that_the_model_itself_doubts_is_none(
    engine: FasterWhisper, speech: Samples
) -> None:
    segments, coverage = engine.cover(speech, Options(language_code="en"), [], whole(speech))

    assert segments == []
    assert coverage.gaps


def test_speech_that_gives_no_text_even_alone_is_a_gap(
    engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "transcribe", lambda *_: iter(()))

    segments, coverage = engine.cover(speech, Options(language_code="en"), [], whole(speech))

    assert segments == []
    assert sum(gap.length for gap in coverage.gaps) > len(speech) / 2
    assert coverage.speech + coverage.silence + sum(g.length for g in coverage.gaps) == len(speech)


def test_silence_is_neither_speech_nor_a_gap(engine: FasterWhisper) -> None:
    segments, coverage = engine.cover(SILENCE, Options(language_code="en"), [], whole(SILENCE))

    assert (segments, coverage.silence) == ([], len(SILENCE))


def test_prompt_and_hotwords_reach_the_model(
    engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []
    original = WhisperModel.generate_with_fallback

    def spy(self: Any, encoded: Any, prompt: list[int], *rest: Any) -> Any:
        prompts.append(self.hf_tokenizer.decode(prompt))
        return original(self, encoded, prompt, *rest)

    monkeypatch.setattr(WhisperModel, "generate_with_fallback", spy)
    options = Options(language_code="en", prompt="A story.", hotwords=("Svea", "Moa"))

    list(engine.transcribe(speech, options))

    assert prompts[0].strip() == "Svea, Moa A story."


def refused(engine: FasterWhisper, options: Options) -> list[str]:
    return [each.option for each in engine.refusals(options)]


def test_a_prompt_that_the_model_would_cut_is_refused(engine: FasterWhisper) -> None:
    longest = "a" * (PROMPT_TOKENS - 1)  # the model reads a space before it, and knows letters only

    assert engine.count_tokens(longest) == PROMPT_TOKENS
    assert refused(engine, Options(prompt=longest)) == []
    assert refused(engine, Options(prompt=longest + "b")) == ["prompt"]
    assert refused(engine, Options(prompt=longest, hotwords=("Ada",))) == ["prompt"]
    assert refused(engine, Options(hotwords=(longest + "b",))) == ["hotwords"]


def test_control_tokens_are_no_text(engine: FasterWhisper) -> None:
    assert refused(engine, Options(prompt="so <|nospeech|> it goes")) == ["prompt"]
    assert refused(engine, Options(hotwords=("<|0.00|>",))) == ["hotwords"]


def test_what_no_model_can_honour_is_refused_too(engine: FasterWhisper) -> None:
    assert refused(engine, Options(language_code="tlh")) == ["language_code"]


def test_the_length_of_no_prompt_is_0(engine: FasterWhisper) -> None:
    assert engine.count_tokens("") == 0
    assert engine.count_tokens("ab") == 3  # the model reads a space before it


def test_a_window_that_repeats_itself_is_decoded_again_without_dice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def decode(self: Any, encoded: Any, prompt: Any, tokenizer: Any, options: Any) -> Any:
        asked.append(options)
        return ("text", -0.3, 0.0, 1.4 if options.no_repeat_ngram_size else 9.0)

    monkeypatch.setattr(WhisperModel, "generate_with_fallback", decode)
    options = replace(
        _transcription_options(), compression_ratio_threshold=2.4, no_repeat_ngram_size=0
    )
    whisper = _ReproducibleWhisper.__new__(_ReproducibleWhisper)

    found = whisper.generate_with_fallback(None, [], SimpleNamespace(), options)

    assert found[3] == 1.4
    assert [each.no_repeat_ngram_size for each in asked] == [0, 3]


def _transcription_options() -> Any:
    from faster_whisper.transcribe import TranscriptionOptions

    return TranscriptionOptions(**dict.fromkeys(TranscriptionOptions.__annotations__))
