"""How to recognise, as it is typed: the flags of `steno transcribe`, and the options they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from steno.transcript import Options


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


_FLAGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "model": ("--model", {"default": "", "metavar": "NAME", "help": "see: steno models"}),
    "language_code": (
        "--language",
        {"default": "", "metavar": "CODE", "help": "such as en; default: detected"},
    ),
    "task": ("--task", {"choices": ("transcribe", "translate"), "default": "transcribe"}),
    "enable_word_time_offsets": (
        "--word-timestamps",
        {"action": "store_true", "help": "times of each word"},
    ),
    "hotwords": (
        "--hotwords",
        {
            "action": "extend",
            "default": [],
            "type": _words,
            "metavar": "A,B",
            "help": "words that are likely to be said",
        },
    ),
    "prompt": ("--prompt", {"default": "", "metavar": "TEXT", "help": "sets style and vocabulary"}),
    "vad_filter": ("--no-vad", {"action": "store_false", "help": "give the model silence, too"}),
    "quality": (
        "--quality",
        {
            "choices": ("fast", "accurate"),
            "default": "fast",
            "help": "accurate: windows see the text before them",
        },
    ),
}
"""Fields of RecognitionConfig: the flag of each, and how argparse reads it."""

FLAG_OF = {f"config.{field}": flag for field, (flag, _) in _FLAGS.items()}
"""What a person calls the fields that a service refuses."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Lets a command take the flags."""
    for field, (flag, reading) in _FLAGS.items():
        command.add_argument(flag, dest=field, **reading)


def options_of(typed: argparse.Namespace) -> Options:
    """The options that were typed."""
    return Options(
        model=typed.model,
        language_code=typed.language_code,
        translate=typed.task == "translate",
        word_time_offsets=typed.enable_word_time_offsets,
        hotwords=tuple(typed.hotwords),
        prompt=typed.prompt,
        vad_filter=typed.vad_filter,
        accurate=typed.quality == "accurate",
    )
