"""Planted bugs are bugs of the code as it is now."""

from __future__ import annotations

import pytest

from faults.catalogue import FAULTS
from faults.planted import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_words_that_a_bug_exchanges_are_there(
    bug: Bug, monkeypatch: pytest.MonkeyPatch
) -> None:
    for edit in bug.edits:
        edit.make(monkeypatch)

    assert set(bug.faults) <= set(FAULTS)
