"""How well a text was understood."""

from __future__ import annotations

import re
from collections.abc import Sequence

from model.training.scoring import word_errors


def words_of(text: str) -> list[str]:
    """Words without capitals and signs."""
    return re.findall(r"[\w']+", text.lower())


def word_error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """Insertions, deletions and substitutions over the number of words that were said."""
    return word_errors(said, heard) / max(1, len(said))
