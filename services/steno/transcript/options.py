"""How to recognise speech: the options that callers ask for and models honour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Options:
    """How to recognise.

    A job's options are stored under these names, so a field that is renamed is a field that older
    jobs don't have.

    Attributes:
        model: name of the model; empty: the default of whoever is asked.
        language_code: language that is spoken; empty: to be detected.
        translate: give English text, whatever is spoken.
        word_time_offsets: give each word's time.
        hotwords: words that are likely to be said.
        prompt: text that sets style and vocabulary.
        vad_filter: skip stretches without speech.
        multilingual: detect the language of each window anew.
        accurate: windows see the text before them.
        newer: options that only a newer version knows, as it stored them: a retry keeps them.
    """

    model: str = ""
    language_code: str = ""
    translate: bool = False
    word_time_offsets: bool = False
    hotwords: tuple[str, ...] = ()
    prompt: str = ""
    vad_filter: bool = True
    multilingual: bool = False
    accurate: bool = False
    newer: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def hotwords_text(self) -> str:
        """The hotwords as a model reads them."""
        return ", ".join(self.hotwords)

    def with_detected(self, language_code: str) -> Options:
        """The same in a detected language, unless one was asked for or it is detected anew."""
        if self.language_code or self.multilingual:
            return self
        return replace(self, language_code=language_code)
