"""What is asked of recognition, as one value."""

from __future__ import annotations

from steno.transcript import Options


def test_options_that_a_newer_version_wrote_can_be_keys_of_a_table() -> None:
    options = Options(language_code="en", newer={"diarize": True})

    assert {options: 1}[Options(language_code="en", newer={"diarize": True})] == 1
    assert options != Options(language_code="en")
