"""Some seconds of what `make fuzz` does for long, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Target

EXAMPLES = 200


def altered(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Bytes in order in which some are others, come twice or are missing; or any bytes."""

    @st.composite
    def drawn(draw: st.DrawFn) -> bytes:
        content = draw(st.sampled_from(seeds))
        for _ in range(draw(st.integers(0, 4))):
            begin = draw(st.integers(0, len(content)))
            end = draw(st.integers(begin, min(len(content), begin + 8)))
            content = content[:begin] + draw(st.binary(max_size=9)) + content[end:]
        return content

    return drawn() | st.binary(max_size=200)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_bytes_make_a_parser_fail(target: Target) -> None:
    for content in target.seeds:
        target.parse(content)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
    @seed(1)
    @given(content=altered(target.seeds))
    def parse(content: bytes) -> None:
        target.parse(content)

    parse()
