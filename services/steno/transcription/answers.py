"""What servers answer to `POST /v1/audio/transcriptions`, made segments.

Servers agree on the fields of OpenAI's `verbose_json`, and differ in which of them they leave out:
words stand in their segments, beside them, or nowhere; numbers come as text; languages have names
or codes; whisper.cpp has parts of words for words. Text is never lost: where times are missing, it
spans the audio.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steno.transcript import Segment, Word
from steno.transcription.windows import sentences


class Unintelligible(Exception):
    """The body of a successful answer holds no transcript."""


@dataclass(frozen=True)
class Answer:
    """A server's answer.

    Attributes:
        segments: in order; offsets are seconds from the start of the audio.
        language: code of the language that was spoken; empty where the server does not say.
        revision: what the server says of the model's version; empty where it says nothing.
    """

    segments: tuple[Segment, ...] = ()
    language: str = ""
    revision: str = ""


def parse_answer(body: bytes, duration: float, language: str = "", *, words: bool = True) -> Answer:
    """Reads the body of a successful answer.

    Args:
        body: JSON, or plain text from servers that know no other format. Characters in it that
            can't be sent or stored, lone surrogates and NUL, do not stay.
        duration: length of the audio, in seconds; no offset is beyond it.
        language: code that was asked for; empty: the server has detected it.
        words: keep each word's time.

    Raises:
        Unintelligible: it is neither.
    """
    fields = _fields(body)
    spoken = _code(fields.get("language")) or language
    parts = [part for part in _objects(fields.get("segments")) if _text(part).strip()]
    beside = [*_words(fields.get("words"), duration)]
    text = _text(fields) or "".join(_spaced(_text(part)) for part in parts)
    times = [_times(part, duration) for part in parts]
    segments: list[Segment] = []
    if parts and all(times):
        for n, (part, time) in enumerate(zip(parts, times, strict=True)):
            assert time is not None
            told = _spaced(_text(part))
            said = [*_words(part.get("words"), duration)]
            if not said:
                last = n == len(parts) - 1
                said, beside = (beside, []) if last else _split(beside, time[1])
            segments.append(_segment(part, time, told, _placed(told, said), spoken))
    elif text.strip():
        text = _spaced(text.strip())
        said = beside or [word for part in parts for word in _words(part.get("words"), duration)]
        placed = _placed(text, said)
        for group in sentences(placed):
            told = "".join(word.word for word in group)
            segments.append(_segment({}, (group[0].start, group[-1].end), told, group, spoken))
        if not placed:
            segments.append(_segment({}, (0.0, duration), text, (), spoken))
    if not words:
        segments = [replace(segment, words=()) for segment in segments]
    return Answer(tuple(segments), spoken, _revision(fields))


def error_message(body: bytes) -> str:
    """What a server says of an error, in any of the forms there are and however long it is."""
    text = body.decode(errors="replace").strip()
    try:
        found: Any = json.loads(text)
    except _UNREADABLE:
        found = text
    for key in ("error", "detail", "message"):
        if isinstance(found, Mapping) and found.get(key):
            found = found[key]
    if isinstance(found, Mapping):
        found = found.get("message") or found
    sentence = found if isinstance(found, str) else json.dumps(found)
    return " ".join(_clean(sentence).split())


_UNREADABLE = (ValueError, OverflowError, RecursionError)
"""What JSON and numbers raise; the latter two where lists are nested too deep or numbers are
too large."""


def _clean(text: str) -> str:
    """Text without what UTF-8 does not have, and without NUL, which Postgres refuses."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Unintelligible("the answer is not UTF-8") from error
    try:
        found = json.loads(text)
    except _UNREADABLE:
        if text.lstrip().startswith(("<", "{", "[")):
            raise Unintelligible("the answer is neither JSON nor plain text") from None
        return {"text": text}
    if found is None or isinstance(found, str | int | float):
        return {"text": found if isinstance(found, str) else text}
    if not isinstance(found, Mapping) or not ("text" in found or "segments" in found):
        raise Unintelligible(f"the answer has no text: {error_message(body)}")
    return found


def _objects(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _text(fields: Mapping[str, Any], name: str = "text") -> str:
    text = fields.get(name)
    return _clean(text) if isinstance(text, str) else ""


def _number(found: Any) -> float | None:
    """A number, which may come as text."""
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        number = float(found)
    except _UNREADABLE:
        return None
    return number if math.isfinite(number) else None


def _times(fields: Mapping[str, Any], duration: float) -> tuple[float, float] | None:
    start, end = _number(fields.get("start")), _number(fields.get("end"))
    if start is None or end is None or end < start:
        return None
    start, end = (min(max(each, 0.0), duration) for each in (start, end))
    return start, end


def _words(found: Any, duration: float) -> Iterator[Word]:
    for each in _objects(found):
        text = (_text(each, "word") or _text(each)).strip()
        times = _times(each, duration)
        if text and times is not None:
            probability = _number(each.get("probability"))
            yield Word(*times, text, 0.0 if probability is None else probability)


def _split(words: Sequence[Word], end: float) -> tuple[list[Word], list[Word]]:
    """Those that begin before the end of a segment, and the others."""
    count = next((n for n, word in enumerate(words) if word.start >= end), len(words))
    return list(words[:count]), list(words[count:])


def _placed(text: str, words: Sequence[Word]) -> tuple[Word, ...]:
    """Words as they stand in a text, whose concatenation is the text.

    Servers leave out punctuation and spaces. What stands between two words belongs to the one
    before it, but for the space, and opening marks, before the next. A word that the text does not
    have is left out; so is the border between two parts of one word.
    """
    lowered = text.lower()
    if len(lowered) != len(text):  # some capitals are two letters when small
        lowered = text
    found: list[tuple[int, Word]] = []
    at = skipped = 0
    for word in words:
        place = lowered.find(word.word.lower(), at)
        if place < 0 or place - at > _NEAR + skipped:
            skipped += len(word.word) + 1
            continue
        start = place - len(_OPENING.findall(text[at:place])[0])
        if found and place and _joins(text[place - 1], text[place]):
            start, before = found.pop()
            word = replace(before, end=word.end)
        found.append((start, word))
        at, skipped = place + len(word.word), 0
    starts = [0, *(start for start, _ in found[1:]), len(text)]
    return tuple(
        replace(word, end=max(word.start, word.end), word=text[starts[n] : starts[n + 1]])
        for n, (_, word) in enumerate(found)
    )


_NEAR = 24
"""Letters beyond which the same word is another one."""

_OPENING = re.compile(r"\s*[\"'“‘¿¡(\[{«-]*$")
"""What stands before a word and belongs to it."""


def _joins(before: str, letter: str) -> bool:
    """Both are letters of one word."""
    return before.isalnum() and letter.isalnum() and not _alone(letter)


def _alone(letter: str) -> bool:
    """The letter is of a script that is written without spaces."""
    code = ord(letter)
    return any(first <= code <= last for first, last in _WITHOUT_SPACES)


_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # Chinese, Japanese
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
    (0x20000, 0x3FFFF),
)


def _spaced(text: str) -> str:
    """A segment's text as it is joined to the one before it."""
    first = text[:1]
    return text if not first or first.isspace() or _alone(first) else f" {text}"


def _segment(
    fields: Mapping[str, Any],
    times: tuple[float, float],
    text: str,
    words: tuple[Word, ...],
    language: str,
) -> Segment:
    def number(name: str) -> float:
        return _number(fields.get(name)) or 0.0

    return Segment(
        *times,
        text=text,
        words=words,
        avg_logprob=number("avg_logprob"),
        no_speech_prob=number("no_speech_prob"),
        compression_ratio=number("compression_ratio"),
        temperature=number("temperature"),
        language=language,
    )


def _revision(fields: Mapping[str, Any]) -> str:
    for key in ("system_fingerprint", "model"):
        if isinstance(fields.get(key), str):
            return _text(fields, key)[:200]
    return ""


def _code(language: Any) -> str:
    """The code of a language that has a name, as OpenAI gives it, or a code already."""
    if not isinstance(language, str):
        return ""
    name = language.strip().lower().replace(" ", "_")
    if name in _CODES:
        return _CODES[name]
    code = re.split("[-_]", name)[0]
    return code if code in _CODES.values() else ""


# Whisper's own names (`tokenizer.py`, openai/whisper): a code and its names.
_LANGUAGES = """
en:english zh:chinese:mandarin de:german es:spanish:castilian ru:russian ko:korean fr:french
ja:japanese pt:portuguese tr:turkish pl:polish ca:catalan:valencian nl:dutch:flemish ar:arabic
sv:swedish it:italian id:indonesian hi:hindi fi:finnish vi:vietnamese he:hebrew uk:ukrainian
el:greek ms:malay cs:czech ro:romanian:moldavian:moldovan da:danish hu:hungarian ta:tamil
no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam
cy:welsh sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani
sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic hy:armenian
ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi
pa:punjabi:panjabi si:sinhala:sinhalese km:khmer sn:shona yo:yoruba so:somali af:afrikaans
oc:occitan ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao
uz:uzbek fo:faroese ht:haitian_creole:haitian ps:pashto:pushto tk:turkmen nn:nynorsk mt:maltese
sa:sanskrit lb:luxembourgish:letzeburgesch my:myanmar:burmese bo:tibetan tl:tagalog mg:malagasy
as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese
yue:cantonese
"""

_CODES = {
    name: code
    for code, *names in (line.split(":") for line in _LANGUAGES.split())
    for name in names
}
