"""Transcripts as text, subtitles, tables and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from steno.transcript.model import Segment, Transcript
from steno.transcript.options import Options


@dataclass(frozen=True, slots=True)
class Format:
    """A format that a transcript can be written in.

    Attributes:
        name: the contract's TRANSCRIPT_FORMAT_NAME in small letters, and a file's extension.
        content_type: MIME type of what is written.
        write: writes a transcript. Text never ends a line, a cue or a cell by accident.
    """

    name: str
    content_type: str
    write: Callable[[Transcript], str]


def _txt(transcript: Transcript) -> str:
    """Plain text, one segment a line."""
    return "".join(f"{_one_line(segment)}\n" for segment in transcript.segments)


def _srt(transcript: Transcript) -> str:
    """SubRip. It has no escapes, so an arrow in the text is shortened, as Whisper does."""
    return "\n".join(
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n"
        f"{_one_line(segment).replace('-->', '->')}\n"
        for number, segment in enumerate(transcript.segments, 1)
    )


def _vtt(transcript: Transcript) -> str:
    """WebVTT, where `&`, `<` and the arrow of a cue would mean something else."""
    cues = (
        f"\n{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_vtt_text(segment)}\n"
        for segment in transcript.segments
    )
    return "WEBVTT\n" + "".join(cues)


def _tsv(transcript: Transcript) -> str:
    """Milliseconds and text in columns, as Whisper has them."""
    rows = (
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{_one_line(segment)}\n"
        for segment in transcript.segments
    )
    return "start\tend\ttext\n" + "".join(rows)


def _json(transcript: Transcript) -> str:
    """JSON with seconds as numbers, close to Whisper's."""
    document = {
        "text": transcript.text,
        "language": transcript.language,
        "duration": _seconds(transcript.duration),
        "truncated": transcript.truncated,
        "model": {
            "name": transcript.model.name,
            "revision": transcript.model.revision,
            "compute_type": transcript.model.compute_type,
        },
        "options": _json_options(transcript.options),
        "segments": [_json_segment(segment) for segment in transcript.segments],
    }
    if transcript.dropped is not None:
        document["dropped_segments"] = [_json_segment(segment) for segment in transcript.dropped]
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


FORMATS = {
    each.name: each
    for each in (
        Format("txt", "text/plain; charset=utf-8", _txt),
        Format("srt", "application/x-subrip; charset=utf-8", _srt),
        Format("vtt", "text/vtt; charset=utf-8", _vtt),
        Format("tsv", "text/tab-separated-values; charset=utf-8", _tsv),
        Format("json", "application/json", _json),
    )
}
"""All formats, by their names."""


def _json_options(options: Options | None) -> dict[str, object]:
    """The options that were used, close to Whisper's names."""
    if options is None:
        return {}
    return {
        "language": options.language_code,
        "task": "translate" if options.translate else "transcribe",
        "word_timestamps": options.word_time_offsets,
        "hotwords": list(options.hotwords),
        "prompt": options.prompt,
        "vad_filter": options.vad_filter,
        "multilingual": options.multilingual,
        "condition_on_previous_text": options.accurate,
    }


def _json_segment(segment: Segment) -> dict[str, object]:
    return {
        "id": segment.index,
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
        "text": segment.text,
        "avg_logprob": _probability(segment.avg_logprob),
        "no_speech_prob": _probability(segment.no_speech_prob),
        "compression_ratio": _probability(segment.compression_ratio),
        "words": [
            {
                "word": word.word,
                "start": _seconds(word.start),
                "end": _seconds(word.end),
                "probability": _probability(word.probability),
            }
            for word in segment.words
        ],
    }


def _one_line(segment: Segment) -> str:
    return " ".join(segment.text.split())


def _vtt_text(segment: Segment) -> str:
    text = _one_line(segment)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, decimal_mark: str) -> str:
    """`hh:mm:ss.mmm`; hours have as many digits as they need, and at least two."""
    rest, milliseconds = divmod(_milliseconds(seconds), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f"{hour:02}:{minute:02}:{second:02}{decimal_mark}{milliseconds:03}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _seconds(seconds: float) -> float:
    return round(seconds, 3)


def _probability(value: float) -> float | None:
    """Four digits: what single precision carried over the wire has no more that mean anything.

    None for what is no number, as half precision may give it: JSON has none of these.
    """
    return round(value, 4) if math.isfinite(value) else None
