"""What a model can be asked for, and why a request is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from steno.transcript import Options, Segment

MAX_SHORT_SECONDS = 60
"""Longest audio that is recognised while the caller waits."""


@dataclass(frozen=True)
class ServedModel:
    """The model of this process.

    Attributes:
        name: by which it is asked for.
        revision: commit of its repository, or a digest of its files; empty where a remote server
            does not say.
        compute_type: number format in which it computes, or `remote`.
        device: `cpu`, `cuda` or `remote`.
        languages: codes of the languages that it knows; empty where that is unknown.
    """

    name: str
    revision: str
    compute_type: str
    device: str
    languages: tuple[str, ...]

    @property
    def multilingual(self) -> bool:
        """It can detect languages and translate."""
        return len(self.languages) > 1


@dataclass(frozen=True)
class Refusal:
    """An option that can't be honoured.

    Attributes:
        option: name of the option.
        why: what was expected.
    """

    option: str
    why: str


def refusals(options: Options, model: ServedModel) -> list[Refusal]:
    """The options that a model of these languages cannot honour, and those that contradict.

    An option is honoured or refused, never changed.
    """
    found = []
    if options.language_code and options.multilingual:
        found.append(Refusal("language_code", "can't be fixed where multilingual is asked for"))
    elif options.language_code and options.language_code not in model.languages:
        found.append(Refusal("language_code", f"{model.name} does not know this language"))
    if options.translate and not model.multilingual:
        found.append(Refusal("task", f"{model.name} knows one language and can't translate"))
    if options.multilingual and not model.multilingual:
        found.append(Refusal("multilingual", f"{model.name} knows one language only"))
    return found


def spoken_language(options: Options, segments: Sequence[Segment]) -> str:
    """The language of a slice: that of its options, or where it changes, the one spoken longest.

    Empty where nothing tells.
    """
    if not options.multilingual:
        return options.language_code
    seconds: defaultdict[str, float] = defaultdict(float)
    for segment in segments:
        if not segment.is_dropped:
            seconds[segment.language] += segment.end - segment.start
    return max(seconds, key=lambda code: seconds[code], default="")


class ModelNotServed(Exception):
    """This worker serves another model."""

    reason = "MODEL_NOT_SERVED"

    def __init__(self, asked: str, served: str) -> None:
        super().__init__(f"this worker serves {served}, not {asked}")
        self.metadata = {"model": asked, "served": served}


class AudioRejected(Exception):
    """The bytes are no audio that can be decoded."""

    reason = "AUDIO_REJECTED"

    def __init__(self, why: str, sentence: str) -> None:
        super().__init__(sentence)
        self.metadata = {"reason": why}


class AudioTooLong(Exception):
    """The audio is longer than what is recognised while the caller waits."""

    reason = "AUDIO_TOO_LONG"

    def __init__(self) -> None:
        super().__init__(f"the audio is longer than {MAX_SHORT_SECONDS} s; make a job instead")
        self.metadata = {"max_seconds": str(MAX_SHORT_SECONDS)}


class InputRefused(Exception):
    """The engine says of this audio, with these options, that it will never recognise it."""

    reason = "REFUSED_BY_ENGINE"


class NotReady(Exception):
    """The engine can recognise nothing until something outside this process has changed."""

    reason = "ENGINE_NOT_READY"
