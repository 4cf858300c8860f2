"""How well a text was understood."""

from __future__ import annotations

from steno.cli.demo import word_errors
from steno.cli.demo import words_of as words_of


def word_error_rate(said: list[str], heard: list[str]) -> float:
    """Insertions, deletions and substitutions over the number of words that were said."""
    return word_errors(said, heard) / max(1, len(said))
