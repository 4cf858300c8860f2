"""A loaded Whisper model: recognises stretches of audio in any number of threads."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.vad import VadOptions, collect_chunks, get_speech_timestamps

from steno.models import Windows
from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span, Word, cover
from steno.transcription.batcher import Batcher
from steno.transcription.decoding import WindowDecoder
from steno.transcription.domain import Refusal, ServedModel, refusals
from steno.transcription.engine import Line, Samples
from steno.transcription.threaded import BlockingModel, Caller
from steno.transcription.windows import cut

log = logging.getLogger(__name__)

PROMPT_TOKENS = 223
"""Tokens that prompt and hotwords may have together: what half of Whisper's context holds."""

LANGUAGE_WINDOWS = 4
"""Windows of 30 s of speech that are listened to before a language is named."""

MOST_THREADS = 8
"""More threads for one window on the CPU cost more than they bring."""

MOST_WINDOWS = {"cpu": 4, "cuda": 16}
"""Windows in a batch, unless told: more bring a CPU little, and make the first caller wait."""

COMPUTE_TYPES = {"cpu": ("int8",), "cuda": ("float16", "int8_float16")}
"""Number formats that are tried for `default`, where the device has them. int8 halves the time of
float32 on the CPU, and the weights that are published are float16."""

CLOSELY = VadOptions(min_silence_duration_ms=300, speech_pad_ms=0)
"""How speech is looked for when text is compared with it: without pauses and margins."""

PAD_MS = 150
"""Milliseconds before and after speech that are heard with it."""

AROUND_GAP = SAMPLE_RATE // 5
"""Samples before and after a gap that are decoded with it."""

BELIEVED_LOGPROB = -0.7
"""Mean log probability over which the text of a gap is believed. What was said has -0.6 and more
there, what the model made up has -0.9 and less."""

NEAR_SECONDS = 5.0
"""How far from a gap its text may have been placed."""

_WINDOW = 30 * SAMPLE_RATE


class FasterWhisper(BlockingModel):
    """faster-whisper, its decoding made reproducible."""

    def __init__(
        self,
        name: str,
        folder: Path,
        revision: str,
        *,
        device: str = "auto",
        compute_type: str = "default",
        cpu_threads: int = 0,
        gpus: int = 1,
        beam_size: int = 5,
        max_batch: int = 0,
        batch_window_seconds: float = 0.0,
        windows: Windows | None = None,
    ) -> None:
        """Loads a model.

        Args:
            name: by which it is asked for.
            folder: its files.
            revision: name of what they hold.
            device: `cpu`, `cuda`, or `auto`: cuda where there is one.
            compute_type: CTranslate2's name of a number format; `default`: `int8` on the CPU; on a
                GPU `float16`, or `int8_float16` where its memory is short.
            cpu_threads: on the CPU; 0: all cores, up to MOST_THREADS.
            gpus: that have a copy of the model each; on the CPU there is one copy.
            beam_size: candidates that are followed while decoding.
            max_batch: windows that are decoded together at most; 0: MOST_WINDOWS of the device.
            batch_window_seconds: see `Batcher`.
            windows: those that the model understands best; None where nobody has measured it: of
                30 s, one after the other.

        Raises:
            ValueError: the device does not have the compute type, or is not there.
            RuntimeError: the files are no Whisper model, or memory is short.
        """
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        threads = cpu_threads or min(MOST_THREADS, os.cpu_count() or 1)
        copies = gpus if device == "cuda" else 1
        self._whisper = _load(folder, device, compute_type, threads, copies)
        self.batcher = Batcher(
            self._whisper.model, max_batch or MOST_WINDOWS[device], batch_window_seconds, copies
        )
        self._copies = copies
        self._whisper.model = self.batcher
        self._beam_size = beam_size
        self._windows = windows
        known = self._whisper.hf_tokenizer.get_vocab()
        self.model = ServedModel(
            name=name,
            revision=revision,
            compute_type=self._whisper.model.compute_type,
            device=self._whisper.model.device,
            languages=tuple(
                code
                for code in self._whisper.supported_languages
                if f"<|{code}|>" in known or not self._whisper.model.is_multilingual
            ),
        )

    @property
    def slices_at_once(self) -> int:
        """One is read while the others share the batches."""
        return self.batcher.max_batch * self._copies + 1

    @property
    def call_seconds(self) -> float:
        """How long the model has been working on its batch."""
        return self.batcher.call_seconds

    def calling(self, caller: Caller) -> AbstractContextManager[None]:
        """Inside, the calls of this thread are this caller's."""
        return self.batcher.calling(caller)

    def stop(self, caller: Caller) -> None:
        """The caller's waiting calls end at once, its next one too."""
        self.batcher.stop(caller)

    def runs(self, caller: Caller) -> bool:
        """A window of the caller is in the batch that the model works on."""
        return self.batcher.runs(caller)

    def refusals(self, options: Options) -> list[Refusal]:
        """The options that the model cannot honour: those too that Whisper would cut or obey."""
        found = refusals(options, self.model)
        hotwords = self.count_tokens(options.hotwords_text)
        prompt = self.count_tokens(options.prompt)
        if hotwords > PROMPT_TOKENS:
            found.append(Refusal("hotwords", _too_long(hotwords)))
        elif hotwords + prompt > PROMPT_TOKENS:
            found.append(Refusal("prompt", _too_long(hotwords + prompt)))
        for option, text in (("hotwords", options.hotwords_text), ("prompt", options.prompt)):
            if _CONTROL_TOKEN.search(text):
                found.append(
                    Refusal(option, "must not hold control tokens such as <|notimestamps|>")
                )
        return found

    def count_tokens(self, text: str) -> int:
        """Length of a prompt."""
        if not text:
            return 0
        return len(self._whisper.hf_tokenizer.encode(f" {text}", add_special_tokens=False))

    def detect_language(self, samples: Samples) -> str:
        """Weighs what is heard in each window of speech by the window's length."""
        if not self.model.multilingual:
            return self.model.languages[0]
        chunks, _ = collect_chunks(samples, get_speech_timestamps(samples))
        speech = np.concatenate(chunks)[: LANGUAGE_WINDOWS * _WINDOW]
        votes = dict.fromkeys(self.model.languages, 0.0)
        for start in range(0, len(speech), _WINDOW):
            window = speech[start : start + _WINDOW]
            encoded = self._whisper.encode(pad_or_trim(self._whisper.feature_extractor(window)))
            for token, probability in self._whisper.model.detect_language(encoded)[0]:
                votes[token[2:-2]] += probability * len(window)
        return max(votes, key=lambda code: votes[code]) if len(speech) else ""

    def transcribe(self, samples: Samples, options: Options) -> Iterator[Segment]:
        """Decodes windows that stand alone where it may, else one after the other."""
        spans = self._cut(samples, options)
        if self._windows is None or spans is None:
            yield from self._in_sequence(samples, options)
            return
        decoder = WindowDecoder(self._whisper, self._windows, self._beam_size, options)
        together = self.batcher.max_batch
        for first in range(0, len(spans), together):
            for segments in decoder.decode(samples, spans[first : first + together]):
                yield from segments

    def _cut(self, samples: Samples, options: Options) -> list[Span] | None:
        """The windows of a recording; None where each must be heard after the one before.

        That is where the text before it, or the language just spoken, is to be known, and where
        there is none that is best. Nor can the words of a translation be placed in the audio.
        """
        if (
            self._windows is None
            or options.accurate
            or options.multilingual
            or options.translate
            or not options.language_code
        ):
            return None
        most = int(self._windows.speech_seconds * SAMPLE_RATE)
        if not options.vad_filter:
            return [Span(0, len(samples))] if len(samples) <= most else None
        closely = replace(CLOSELY, speech_pad_ms=PAD_MS, max_speech_duration_s=most / SAMPLE_RATE)
        spoken = get_speech_timestamps(samples, closely)
        return cut([Span(each["start"], each["end"]) for each in spoken], most)

    def _in_sequence(self, samples: Samples, options: Options) -> Iterator[Segment]:
        """Decodes windows of 30 s, as faster-whisper does."""
        segments, _ = self._whisper.transcribe(
            samples,
            language=options.language_code or None,
            task="translate" if options.translate else "transcribe",
            beam_size=self._beam_size,
            temperature=[0.0],
            condition_on_previous_text=options.accurate,
            initial_prompt=options.prompt or None,
            hotwords=options.hotwords_text or None,
            word_timestamps=options.word_time_offsets,
            vad_filter=options.vad_filter,
            no_speech_threshold=None,  # what it would drop is told, and dropped later
            multilingual=options.multilingual,
        )
        duration = len(samples) / SAMPLE_RATE
        for segment in segments:
            yield _segment(segment, duration)

    def cover(
        self, samples: Samples, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        """Looks for speech more closely than the filter before decoding."""
        spoken = [
            Span(each["start"], each["end"]) for each in get_speech_timestamps(samples, CLOSELY)
        ]
        segments = list(segments)
        for gap in cover(within, spoken, segments).gaps:
            told = _letters_around(gap, segments)
            for found in self._alone(samples, options, gap):
                if " " not in found.text.strip() or _letters(found.text) not in told:
                    segments.append(found)
        segments.sort(key=lambda segment: segment.start)
        return segments, cover(within, spoken, segments)

    def _alone(self, samples: Samples, options: Options, gap: Span) -> Iterator[Segment]:
        """Decodes one stretch, with a little of what is around it; keeps what lies inside."""
        first = max(0, gap.start - AROUND_GAP)

        def inside(offset: float) -> float:
            sample = first + offset * SAMPLE_RATE
            return min(max(sample, gap.start), gap.end) / SAMPLE_RATE

        unfiltered = replace(options, vad_filter=False)
        for segment in self.transcribe(samples[first : gap.end + AROUND_GAP], unfiltered):
            found = segment.retimed(inside)
            words = tuple(word for word in found.words if word.start < word.end)
            if len(words) < len(found.words):  # neighbouring segments have the other words
                found = replace(found, text="".join(word.word for word in words), words=words)
            if (
                found.text.strip()
                and found.start < found.end
                and not found.is_dropped
                and found.avg_logprob > BELIEVED_LOGPROB
            ):
                yield found

    def warm_up(self) -> None:
        """Runs the voice activity detector and the model on silence."""
        silence = np.zeros(SAMPLE_RATE, np.float32)
        with self.calling(Caller(Line.LIVE)):
            for vad_filter in (True, False):
                language = self.model.languages[0]
                list(
                    self.transcribe(silence, Options(language_code=language, vad_filter=vad_filter))
                )

    def close(self) -> None:
        """Ends the model's thread; calls that wait fail."""
        self.batcher.close()


class _ReproducibleWhisper(WhisperModel):  # type: ignore[misc]
    """Whisper whose text depends on the audio, the options and the model alone.

    Where a window's text repeats itself, Whisper draws others at rising temperatures. CTranslate2
    seeds its dice once in the life of a thread, so what it draws depends on all that the process
    decoded before, and `set_random_seed` does not take it back. A slice that is decoded again,
    because a worker died, would get another text. So such a window is decoded again by beam
    search, which may not repeat itself then.
    """

    def generate_with_fallback(
        self, encoder_output: Any, prompt: list[int], tokenizer: Any, options: Any
    ) -> Any:
        """Decodes one window; returns result, mean log probability, temperature, compression."""
        found = super().generate_with_fallback(encoder_output, prompt, tokenizer, options)
        if found[3] <= options.compression_ratio_threshold:
            return found
        strict = replace(options, no_repeat_ngram_size=3)
        again = super().generate_with_fallback(encoder_output, prompt, tokenizer, strict)
        return min(found, again, key=lambda result: result[3])

    def generate_segments(self, features: Any, tokenizer: Any, *rest: Any) -> Iterable[Any]:
        """Decodes all windows; notes the language of each, which the tokenizer knows just then."""
        for segment in super().generate_segments(features, tokenizer, *rest):
            segment.language = tokenizer.language_code
            yield segment


def _load(
    folder: Path, device: str, compute_type: str, threads: int, copies: int
) -> _ReproducibleWhisper:
    """Loads a model in the number format that is asked for, or else the best that fits."""
    formats = [compute_type]
    if compute_type == "default":
        supported = ctranslate2.get_supported_compute_types(device)
        formats = [each for each in COMPUTE_TYPES[device] if each in supported] or formats
    for each in formats:
        try:
            return _ReproducibleWhisper(
                str(folder),
                device=device,
                device_index=[*range(copies)],
                compute_type=each,
                cpu_threads=threads,
                local_files_only=True,
            )
        except RuntimeError as error:
            if each == formats[-1] or "out of memory" not in str(error):
                raise
            log.warning("memory is too short for %s", each, extra={"action": "load"})
    raise AssertionError("formats are never empty")


_CONTROL_TOKEN = re.compile(r"<\|.*?\|>")


def _too_long(tokens: int) -> str:
    return f"{tokens} tokens with the hotwords, the model reads {PROMPT_TOKENS} at most"


def _letters_around(gap: Span, segments: Iterable[Segment]) -> str:
    """What is said shortly before and after a gap.

    Words may have been placed wrongly; then what seems to be a gap has been told already.
    """
    first = gap.start / SAMPLE_RATE - NEAR_SECONDS
    last = gap.end / SAMPLE_RATE + NEAR_SECONDS
    near = sorted(
        (each for each in segments if each.start < last and each.end > first),
        key=lambda each: each.start,
    )
    return _letters("".join(each.text for each in near))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def _segment(segment: Any, duration: float) -> Segment:
    """Takes a segment over; windows are padded, so an end may lie behind the audio's."""

    def inside(offset: float) -> float:
        return min(max(float(offset), 0.0), duration)

    return Segment(
        start=inside(segment.start),
        end=inside(max(segment.start, segment.end)),
        text=segment.text,
        words=tuple(
            Word(
                inside(word.start),
                inside(max(word.start, word.end)),
                word.word,
                float(word.probability),
            )
            for word in segment.words or ()
        ),
        avg_logprob=float(segment.avg_logprob),
        no_speech_prob=float(segment.no_speech_prob),
        compression_ratio=float(segment.compression_ratio),
        temperature=float(segment.temperature),
        language=segment.language,
    )
