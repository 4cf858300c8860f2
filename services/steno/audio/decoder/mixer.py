"""Mixes decoded audio of any rate, format and number of channels down to 16 kHz mono."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import av
import av.error
import av.filter
import av.logging

from .wire import SAMPLE_RATE_HERTZ

SAMPLE_BYTES = 2


class Mixer:
    """Mixes frames of one shape down to 16 kHz mono.

    Every channel has the same weight: a surround matrix would lose what one speaker said into the
    fourth microphone of an array.
    """

    def __init__(self, frame: Any, start: int) -> None:
        self._shape = _shape(frame)
        self._start = start
        self._taken = 0
        channels = frame.layout.nb_channels
        graph = av.filter.Graph()
        graph.threads = 1  # the jail lets no thread start
        nodes = [
            graph.add(
                "abuffer",
                sample_rate=str(frame.sample_rate),
                sample_fmt=frame.format.name,
                channel_layout=frame.layout.name,
                time_base=f"1/{frame.sample_rate}",
            )
        ]
        if channels > 1:
            mean = "+".join(f"{1 / channels:.9f}*c{channel}" for channel in range(channels))
            nodes.append(graph.add("aformat", sample_fmts="fltp"))  # weights of 15 bits are coarse
            nodes.append(graph.add("pan", f"mono|c0={mean}"))
        nodes.append(
            graph.add(
                "aformat",
                sample_rates=str(SAMPLE_RATE_HERTZ),
                sample_fmts="s16",
                channel_layouts="mono",
            )
        )
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes).configure()
        self._graph = graph

    def fits(self, frame: Any) -> bool:
        """True if the frame has the shape of the first one."""
        return _shape(frame) == self._shape

    def position(self) -> int:
        """Where the next frame belongs, in samples of output."""
        return self._start + self._taken * SAMPLE_RATE_HERTZ // int(self._shape[0])

    def push(self, frame: Any) -> Iterator[memoryview]:
        """Takes a frame; yields PCM that is valid until the next call."""
        self._taken += frame.samples
        frame.pts = None
        self._graph.push(frame)
        return self._pull()

    def flush(self) -> Iterator[memoryview]:
        """Yields what the resampler still holds; nothing can be pushed afterwards."""
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> Iterator[memoryview]:
        while True:
            try:
                frame: Any = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield memoryview(frame.planes[0])[: frame.samples * SAMPLE_BYTES]


def _shape(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def rehearse() -> None:
    """Loads all that PyAV would load when it is needed: in the jail it is too late for that."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in ("av.__main__", "av.datasets"):
            importlib.import_module(module.name)
    frame = av.AudioFrame(format="s16", layout="stereo", samples=1024)
    frame.sample_rate = 48_000
    mixer = Mixer(frame, start=0)
    for _ in (*mixer.push(frame), *mixer.flush()):
        pass
    av.logging.set_level(None)
