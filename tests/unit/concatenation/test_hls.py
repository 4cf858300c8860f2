"""A player asks for its playlist every few seconds: only what came since is made and signed."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

from steno.concatenation.domain import Session
from steno.concatenation.hls import Playlists, segments_of
from steno.concatenation.recording import Recordings
from steno.platform.objects import ObjectStore

from .conftest import SESSION, Shelf

HOUR = timedelta(hours=1)
STEP = 6 * 16_000


class Bucket(Shelf):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.signed: list[str] = []

    async def list_prefix(self, prefix: str) -> list[str]:
        self.listed += 1
        return [key for key in self.objects if key.startswith(prefix)]

    def presigned_get(self, key: str, lifetime: timedelta) -> str:
        self.signed.append(key)
        return f"https://{key}?{len(self.signed)}"

    async def read(self, session: Session, start_frame: int, end_frame: int) -> bytes:
        return session.format.silence(end_frame - start_frame)


def grown(frames: int, **changes: object) -> Session:
    return replace(SESSION, frame_count=frames, **changes)  # type: ignore[arg-type]


def playlists(bucket: Bucket) -> Playlists:
    return Playlists(cast(Recordings, bucket), cast(ObjectStore, bucket))


async def test_a_reload_signs_and_lists_only_what_is_new() -> None:
    bucket = Bucket()
    lists = playlists(bucket)

    short, _ = await lists.playlist(grown(STEP - 1), HOUR)
    first, _ = await lists.playlist(grown(3 * STEP + 5), HOUR)
    listed, signed = bucket.listed, len(bucket.signed)
    again, _ = await lists.playlist(grown(3 * STEP + 9), HOUR)
    assert (bucket.listed, len(bucket.signed)) == (listed, signed)
    more, _ = await lists.playlist(grown(4 * STEP), HOUR)
    whole, _ = await lists.playlist(grown(4 * STEP + 7, drained=True), HOUR)
    late, _ = await lists.playlist(grown(3 * STEP + 9), HOUR)  # as it was read before

    assert "EXTINF" not in short
    assert first == again
    assert more.startswith(first.rstrip())
    assert bucket.listed == listed
    assert whole.count("#EXTINF") == 5
    assert whole.endswith("#EXT-X-ENDLIST\n")
    assert late.count("#EXTINF") >= 3
    assert any(key.endswith("init.mp4") for key in bucket.objects)
    # Whoever has no memory of it says the same.
    other, _ = await playlists(bucket).playlist(grown(4 * STEP + 7, drained=True), HOUR)
    names = [[line.split("?")[0] for line in text.splitlines()] for text in (whole, other)]
    assert names[0] == names[1]


async def test_all_that_a_playlist_names_is_there() -> None:
    bucket = Bucket()
    lists = playlists(bucket)

    for frames in (0, STEP - 1, STEP, 2 * STEP + 5):
        playlist, _ = await lists.playlist(grown(frames), HOUR)
        named = re.findall(r"https://([^?]*)", playlist)
        assert set(named) <= set(bucket.objects)
        assert bool(named) == (frames >= STEP)


async def test_players_that_reload_at_once_share_the_work_though_one_goes_away() -> None:
    bucket = Bucket()
    lists = playlists(bucket)
    calls = [asyncio.create_task(lists.playlist(grown(9 * STEP), HOUR)) for _ in range(5)]
    await asyncio.sleep(0)
    calls[0].cancel()

    told = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(told[0], asyncio.CancelledError)
    assert len({text for text, _ in told[1:]}) == 1  # type: ignore[misc]
    assert told[1][0].count("#EXTINF") == 9  # type: ignore[index]


async def test_urls_work_for_most_of_their_time() -> None:
    bucket = Bucket()
    lists = playlists(bucket)
    _, first = await lists.playlist(grown(STEP), HOUR)
    known = next(iter(lists._recent.values()))
    known.signed -= HOUR / 2

    _, second = await lists.playlist(grown(STEP), HOUR)

    assert second - datetime.now(UTC) > HOUR * 3 / 4
    assert second >= first


def test_segments_go_on_from_any_of_them() -> None:
    session = grown(5 * STEP + 1)
    assert segments_of(session, 2) == segments_of(session)[2:]
    assert len(segments_of(session)) == 5
    ended = replace(session, drained=True)
    assert segments_of(ended, 5)[0].end_frame == 5 * STEP + 1
    assert segments_of(ended, 6) == []
