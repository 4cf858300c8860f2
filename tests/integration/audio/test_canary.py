"""What a decoder that hostile bytes have taken over can do: nothing but compute."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from steno.audio import decode, fork_server, in_memory

from .canary import DEEDS, INSTALLED


@pytest.fixture(scope="module")
async def song() -> AsyncIterator[dict[str, str]]:
    """What came of each deed, in a child that decodes for a service with secrets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STENO_S3_SECRET_KEY", "hush")
        patch.setattr(fork_server, "BOOTSTRAP", INSTALLED + fork_server.BOOTSTRAP)
        fork_server.close()
        async with decode(in_memory(b"RIFF"), 4) as decoding:
            blocks = [block.tobytes() async for block in decoding]
        yield json.loads(b"".join(blocks))
    fork_server.close()


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_decoder_can_not(song: dict[str, str], deed: str) -> None:
    _, denied = DEEDS[deed]

    assert song[deed] == denied
