"""One batch for all: calls of the model from many threads share CTranslate2's batches.

faster-whisper runs unchanged, one thread for each recording that is being recognised; what it
takes for its model is a `Batcher`. A call waits here for the model's thread, which puts the rows
(windows of at most 30 s) of all who want the same thing into one batch. So a window costs the same
whoever asks for it, and gets the same text whatever else is in its batch.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt

from steno.transcription.engine import Line
from steno.transcription.metrics import BATCH_SIZE, BUSY, MODEL_SECONDS, WAITING
from steno.transcription.threaded import Caller

MOST_PASSED = 7
"""Batches that those who wait let go before them: each line has at least one of eight."""

CLOSE_SECONDS = 5.0
"""Patience for the batch that is being decoded when the process ends."""


class Stopped(Exception):
    """Nobody wants the result any more."""


_caller: ContextVar[Caller] = ContextVar("caller")


@dataclass(frozen=True)
class Encoded:
    """What the encoder made of windows: (window, frame, width).

    Attributes:
        lengths: of the audio in each window before it was padded, in frames of 10 ms.
    """

    rows: npt.NDArray[Any]
    lengths: tuple[int, ...]
    dtype: ctranslate2.DataType

    @classmethod
    def join(cls, parts: Sequence[Encoded]) -> Encoded:
        """Several of one shape as one."""
        lengths = tuple(length for part in parts for length in part.lengths)
        return cls(np.concatenate([part.rows for part in parts]), lengths, parts[0].dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a window: those of one shape share batches."""
        return self.rows.shape[1:]

    def row(self, number: int) -> Encoded:
        """One window."""
        return Encoded(
            self.rows[number : number + 1], self.lengths[number : number + 1], self.dtype
        )


@dataclass(eq=False)
class _Row:
    """One window's part of a call."""

    caller: Caller
    call: _Call
    arrival: int
    length: int
    inputs: tuple[Any, ...]
    result: Any = None
    error: BaseException | None = None


@dataclass(eq=False)
class _Call:
    """What one thread waits for."""

    key: Hashable
    run: Callable[[Sequence[tuple[Any, ...]]], Sequence[Any]]
    first: bool
    waited_for: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class Batcher:
    """Stands where faster-whisper expects a `ctranslate2.models.Whisper`.

    The next batch begins with the row whose line is first, then the owner who has had the fewest
    rows, then the one that came first; it is filled with rows of the same kind, first those of the
    same line, then in the order of lines, those nearest in length first. The encoder goes before
    the decoder, so that more rows are there to be decoded together. A line of which nothing was in
    the last MOST_PASSED batches, though something waited, begins the next one.
    """

    def __init__(self, model: Any, max_batch: int, window_seconds: float, copies: int = 1) -> None:
        """Starts the model's threads.

        Args:
            model: a `ctranslate2.models.Whisper`.
            max_batch: most windows in a batch.
            window_seconds: longest time that a busy model waits for callers whom it has just
                served to come back with their next window. An idle one never waits.
            copies: batches that the model can work on at the same time, such as one on each GPU.
        """
        self.model = model
        self.max_batch = max_batch
        self._window_seconds = window_seconds
        self._changed = threading.Condition()
        self._rows: list[_Row] = []
        self._callers: set[Caller] = set()
        self._turns: Tally[str] = Tally()
        self._passed: Tally[Line] = Tally()
        self._arrivals = itertools.count()
        self._closed = False
        self._running: dict[int, tuple[float, list[_Row]]] = {}
        WAITING.set_function(lambda: len(self._rows))
        self._threads = [
            threading.Thread(target=self._work, args=(copy,), name="model", daemon=True)
            for copy in range(copies)
        ]
        for thread in self._threads:
            thread.start()

    def __getattr__(self, name: str) -> Any:
        """What the model is: is_multilingual, device, n_mels and the like."""
        return getattr(self.model, name)

    @property
    def waiting(self) -> int:
        """Windows that wait for their turn."""
        return len(self._rows)

    @property
    def call_seconds(self) -> float:
        """How long the model has been working on its oldest batch; 0 while it is idle."""
        began = [began for began, _ in [*self._running.values()]]
        return time.monotonic() - min(began) if began else 0.0

    def runs(self, caller: Caller) -> bool:
        """A window of the caller is in a batch that the model works on."""
        return any(row.caller is caller for row in self._in_work())

    @contextmanager
    def calling(self, caller: Caller) -> Iterator[None]:
        """Inside, the calls of this thread are this caller's."""
        with self._changed:
            others = [self._turns[other.owner] for other in self._callers]
            self._callers.add(caller)
            # Who comes anew has neither waited nor been served before the others came.
            self._turns[caller.owner] = max(self._turns[caller.owner], min(others, default=0))
        token = _caller.set(caller)
        try:
            yield
        finally:
            _caller.reset(token)
            with self._changed:
                self._callers.discard(caller)
                if all(other.owner != caller.owner for other in self._callers):
                    del self._turns[caller.owner]
                self._changed.notify_all()

    def stop(self, caller: Caller) -> None:
        """Its waiting calls end at once, its next one too, with Stopped."""
        with self._changed:
            caller.stopped.set()
            for row in [row for row in self._rows if row.caller is caller]:
                self._rows.remove(row)
                self._finish(row, error=Stopped())

    def close(self) -> None:
        """Ends the threads after their batches; nobody waits for a long one."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        late = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, late - time.monotonic()))
        for row in self._in_work():
            self._finish(row, error=Stopped())

    def _in_work(self) -> list[_Row]:
        return [row for _, batch in [*self._running.values()] for row in batch]

    # What faster-whisper calls.

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> Encoded:
        """Encodes windows: (window, mel, frame) to what the other calls take."""
        windows = np.asarray(features)

        def run(rows: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            view = self.model.encode(_storage([window for (window,) in rows]), to_cpu=True)
            return [(row, view.dtype) for row in _to_numpy(view)]

        lengths = tuple(_length(window) for window in windows)
        key = ("encode", windows.shape[1:])
        found = self._call(key, run, [(window,) for window in windows], lengths, first=True)
        return Encoded(np.stack([row for row, _ in found]), lengths, found[0][1])

    def generate(
        self, encoded: Encoded, prompts: Sequence[Sequence[int]], **options: Any
    ) -> list[Any]:
        """Decodes windows, each with its prompt."""

        def run(rows: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            memory = _storage([row for row, _ in rows], encoded.dtype)
            found = self.model.generate(memory, [list(prompt) for _, prompt in rows], **options)
            return list(found)

        kinds = {len(prompt) for prompt in prompts}
        asked = tuple(sorted((k, _fixed(v)) for k, v in options.items()))
        key = ("generate", encoded.shape, *kinds, asked)
        inputs = list(zip(encoded.rows, prompts, strict=True))
        return self._call(key, run, inputs, encoded.lengths)

    def align(
        self,
        encoded: Encoded,
        start_sequence: Sequence[int],
        text_tokens: Sequence[Sequence[int]],
        num_frames: int | Sequence[int],
        **options: Any,
    ) -> list[Any]:
        """Finds when each token of the windows' texts is said."""

        def run(rows: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            memory = _storage([row for row, _, _ in rows], encoded.dtype)
            texts = [list(text) for _, text, _ in rows]
            frames = [count for _, _, count in rows]
            found = self.model.align(memory, list(start_sequence), texts, frames, **options)
            return list(found)

        frames = num_frames
        if not isinstance(frames, Sequence):
            frames = [frames] * len(text_tokens)
        key = ("align", encoded.shape, tuple(start_sequence), tuple(sorted(options.items())))
        inputs = list(zip(encoded.rows, text_tokens, frames, strict=True))
        return self._call(key, run, inputs, encoded.lengths)

    def detect_language(self, encoded: Encoded) -> list[Any]:
        """Tells for each window how probable each language is."""

        def run(rows: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            memory = _storage([row for (row,) in rows], encoded.dtype)
            return list(self.model.detect_language(memory))

        inputs = [(row,) for row in encoded.rows]
        return self._call(("detect", encoded.shape), run, inputs, encoded.lengths)

    def _call(
        self,
        key: Hashable,
        run: Callable[[Sequence[tuple[Any, ...]]], Sequence[Any]],
        inputs: Sequence[tuple[Any, ...]],
        lengths: Sequence[int],
        *,
        first: bool = False,
    ) -> list[Any]:
        """Puts the rows of a call into the queue; blocks until all of them are done."""
        caller = _caller.get(None) or Caller(Line.JOB)
        call = _Call(key, run, first, waited_for=len(inputs))
        rows = [
            _Row(caller, call, next(self._arrivals), length, each)
            for each, length in zip(inputs, lengths, strict=True)
        ]
        with self._changed:
            if self._closed or caller.stopped.is_set():
                raise Stopped
            self._rows += rows
            self._changed.notify_all()
        call.done.wait()
        for row in rows:
            if row.error is not None:
                raise row.error
        return [row.result for row in rows]

    # The model's threads.

    def _work(self, copy: int) -> None:
        served: set[Caller] = set()
        while True:
            with self._changed:
                self._wait_for_rows(served)
                if self._closed:
                    while self._rows:
                        self._finish(self._rows.pop(), error=Stopped())
                    return
                batch = self._choose()
                self._running[copy] = time.monotonic(), batch
            with BUSY.track_inprogress():
                self._run(batch)
            del self._running[copy]
            served = {row.caller for row in batch}

    def _wait_for_rows(self, served: set[Caller]) -> None:
        """Until there is something to do, and those just served are back or late."""
        late = time.monotonic() + self._window_seconds
        while not self._closed:
            away = served & self._callers
            away -= {row.caller for row in (*self._rows, *self._in_work())}
            left = late - time.monotonic()
            if self._rows and (not away or left <= 0 or len(self._rows) >= self.max_batch):
                return
            self._changed.wait(left if self._rows else None)

    def _choose(self) -> list[_Row]:
        waiting = {row.caller.line for row in self._rows}
        first = max(waiting, key=lambda line: (self._passed[line] >= MOST_PASSED, -line))

        def order(row: _Row) -> tuple[Any, ...]:
            line, turn = row.caller.line, self._turns[row.caller.owner]
            return line is not first, line, not row.call.first, turn, row.arrival

        head = min(self._rows, key=order)
        alike = [row for row in self._rows if row.call.key == head.call.key]
        alike.sort(key=lambda row: (*order(row)[:2], abs(row.length - head.length), order(row)))
        alike.remove(head)
        batch = [head, *alike[: self.max_batch - 1]]
        served = {row.caller.line for row in batch}
        self._passed = Tally({line: self._passed[line] + 1 for line in waiting - served})
        for row in batch:
            self._rows.remove(row)
            self._turns[row.caller.owner] += 1
            row.caller.begun = row.caller.begun or not row.call.first
        return batch

    def _run(self, batch: list[_Row]) -> None:
        began = time.perf_counter()
        try:
            results = list(batch[0].call.run([row.inputs for row in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} windows")
        except Exception as error:
            if len(batch) > 1:  # one of them may be to blame, or memory was too short for all
                for row in batch:
                    self._run([row])
            else:
                self._finish(batch[0], error=error)
            return
        seconds = time.perf_counter() - began
        BATCH_SIZE.observe(len(batch))
        for row, result in zip(batch, results, strict=True):
            row.caller.model_seconds += seconds / len(batch)
            MODEL_SECONDS.labels(row.caller.line.name.lower()).inc(seconds / len(batch))
            self._finish(row, result=result)

    def _finish(self, row: _Row, result: Any = None, error: BaseException | None = None) -> None:
        row.result, row.error = result, error
        with self._changed:
            row.call.waited_for -= 1
            if not row.call.waited_for:
                row.call.done.set()


_NUMPY_HAS_NOT = ctranslate2.DataType.bfloat16


def _storage(rows: Sequence[Any], dtype: Any = None) -> ctranslate2.StorageView:
    view = ctranslate2.StorageView.from_array(np.stack(rows))
    return view.to(dtype) if dtype == _NUMPY_HAS_NOT else view


def _to_numpy(view: ctranslate2.StorageView) -> npt.NDArray[Any]:
    if view.dtype == _NUMPY_HAS_NOT:
        view = view.to(ctranslate2.DataType.float32)
    return np.array(view)


def _length(window: npt.NDArray[np.float32]) -> int:
    """Frames before the padding, which is all zeros."""
    heard = np.flatnonzero(window.any(axis=0))
    return int(heard[-1]) + 1 if len(heard) else 0


def _fixed(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value
