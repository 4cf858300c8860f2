"""Comparing what was heard with what was said. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher


def plain(text: str) -> list[str]:
    """Words in lower case without punctuation."""
    return text.lower().replace(",", " ").replace(".", " ").split()


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """The least number of words to insert, delete or replace."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other)),
            )
    return row[-1]


def longest_runs(said: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """The most words in a row that were lost, and that were heard but not said."""
    lost = added = 0
    for _, a, b, c, d in SequenceMatcher(None, said, heard, autojunk=False).get_opcodes():
        more = (d - c) - (b - a)
        lost, added = max(lost, -more), max(added, more)
    return lost, added


def pairs(said: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the words that are the same in both."""
    blocks = SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks()
    return [(b.a + i, b.b + i) for b in blocks for i in range(b.size)]
