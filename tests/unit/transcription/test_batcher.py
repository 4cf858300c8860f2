"""Callers in many threads, one model: who shares a batch, and who goes first."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ctranslate2
import numpy as np
import pytest

from steno.transcription.batcher import Batcher, Encoded, Stopped
from steno.transcription.engine import Line
from steno.transcription.threaded import Caller
from waiting import eventually

WAIT = 30


class Model:
    """Writes down which windows it is given together; a gate holds each batch."""

    device = "cpu"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(1_000_000)
        self.bad: int | None = None

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool) -> ctranslate2.StorageView:
        """A window's name is its first number."""
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.array(features)[:, :1]))

    def generate(
        self, memory: ctranslate2.StorageView, prompts: Sequence[Sequence[int]], **options: Any
    ) -> list[str]:
        names = [int(row[0, 0]) for row in np.array(memory)]
        self.entered.release()
        assert self.gate.acquire(timeout=WAIT)
        if self.bad in names:
            raise RuntimeError("out of memory")
        self.batches.append(names)
        return [f"text {name}" for name in names]


class Callers:
    """Threads that each decode one window, as faster-whisper does."""

    def __init__(self, model: Model, batcher: Batcher) -> None:
        self.model = model
        self.batcher = batcher
        self._threads = ThreadPoolExecutor(150)

    def window(self, name: int, length: int = 5) -> ctranslate2.StorageView:
        rows = np.zeros((1, 2, 10), np.float32)
        rows[0, :, :length] = name
        return ctranslate2.StorageView.from_array(rows)

    def encoded(self, name: int, length: int = 5) -> Encoded:
        return self.batcher.encode(self.window(name, length))

    def decode(
        self, name: int, caller: Caller | None = None, length: int = 5, **options: Any
    ) -> Future[list[str]]:
        """Starts to decode a window; returns when it waits for the model."""
        caller = caller or Caller(Line.JOB, f"job {name}")
        memory = Encoded(np.full((1, 1, 10), name, np.float32), (length,), self.dtype)
        waiting = self.batcher.waiting

        def run() -> list[str]:
            with self.batcher.calling(caller):
                return self.batcher.generate(memory, [[1, 2]], **options)

        started = self._threads.submit(run)
        while not started.done() and self.batcher.waiting == waiting and self.idle:
            time.sleep(0.001)
        return started

    dtype = ctranslate2.DataType.float32
    idle = False

    def hold(self) -> Future[list[str]]:
        """Keeps the model busy, with window 0, until `let_go`."""
        self.model.gate = threading.Semaphore(0)
        held = self.decode(0)
        assert self.model.entered.acquire(timeout=WAIT)
        self.idle = True
        return held

    def let_go(self) -> None:
        self.idle = False
        self.model.gate.release(1_000_000)

    def close(self) -> None:
        self.let_go()
        self._threads.shutdown()


MakeCallers = Callable[..., Callers]


@pytest.fixture
def make_callers() -> Iterator[MakeCallers]:
    made: list[Callers] = []

    def make(max_batch: int = 8, window_seconds: float = 0.0, copies: int = 1) -> Callers:
        model = Model()
        made.append(Callers(model, Batcher(model, max_batch, window_seconds, copies)))
        return made[-1]

    yield make
    for callers in made:
        callers.close()
        callers.batcher.close()


def results(started: Sequence[Future[list[str]]]) -> list[str]:
    return [text for each in started for text in each.result(WAIT)]


def test_windows_that_wait_share_a_batch(make_callers: MakeCallers) -> None:
    callers = make_callers()
    held = callers.hold()
    started = [callers.decode(name) for name in (1, 2, 3)]
    callers.let_go()

    assert results([held, *started]) == ["text 0", "text 1", "text 2", "text 3"]
    assert callers.model.batches == [[0], [1, 2, 3]]


def test_each_copy_of_the_model_works_on_a_batch_of_its_own(make_callers: MakeCallers) -> None:
    callers = make_callers(copies=2)
    held = callers.hold()
    callers.idle = False
    beside = Caller(Line.JOB, "beside")
    second = callers.decode(1, beside)

    assert callers.model.entered.acquire(timeout=WAIT), "the second batch waits for the first"
    assert callers.batcher.runs(beside)
    callers.let_go()
    assert results([held, second]) == ["text 0", "text 1"]
    assert not callers.batcher.runs(beside)


def test_copies_of_the_model_that_are_closed_leave_nobody_waiting(
    make_callers: MakeCallers,
) -> None:
    callers = make_callers(max_batch=1, copies=2)
    held = callers.hold()
    callers.idle = False
    running = callers.decode(1)
    assert callers.model.entered.acquire(timeout=WAIT)
    callers.idle = True
    waiting = callers.decode(2)
    closing = threading.Thread(target=callers.batcher.close)
    closing.start()
    callers.let_go()
    closing.join(WAIT)

    assert results([held, running]) == ["text 0", "text 1"]
    with pytest.raises(Stopped):
        waiting.result(WAIT)


def test_a_batch_holds_so_many_windows_at_most(make_callers: MakeCallers) -> None:
    callers = make_callers(max_batch=2)
    callers.hold()
    started = [callers.decode(name) for name in (1, 2, 3)]
    callers.let_go()
    results(started)

    assert [len(batch) for batch in callers.model.batches] == [1, 2, 1]


def test_other_options_are_another_batch(make_callers: MakeCallers) -> None:
    callers = make_callers()
    callers.hold()
    started = [callers.decode(name, beam_size=beam) for name, beam in [(1, 5), (2, 1), (3, 5)]]
    callers.let_go()
    results(started)

    assert callers.model.batches == [[0], [1, 3], [2]]


def test_live_goes_before_recognize_and_recognize_before_jobs(make_callers: MakeCallers) -> None:
    callers = make_callers(max_batch=1)
    callers.hold()
    lines = [(1, Line.JOB), (2, Line.RECOGNIZE), (3, Line.LIVE), (4, Line.RECOGNIZE)]
    started = [callers.decode(name, Caller(line, str(name))) for name, line in lines]
    callers.let_go()
    results(started)

    assert callers.model.batches == [[0], [3], [2], [4], [1]]


@pytest.mark.parametrize("crowd", [Line.LIVE, Line.RECOGNIZE])
def test_a_line_that_waits_has_one_of_eight_batches_however_many_go_before_it(
    make_callers: MakeCallers, crowd: Line
) -> None:
    callers = make_callers(max_batch=2)
    callers.hold()
    others = [line for line in Line if line > crowd]
    flood = [callers.decode(name, Caller(crowd, "flood")) for name in range(100, 200)]
    waiting = [
        callers.decode(10 * line + turn, Caller(line, str(line)))
        for line in others
        for turn in range(6)
    ]
    callers.let_go()
    results(flood + waiting)

    batches = callers.model.batches
    for line in others:
        mine = {10 * line + turn for turn in range(6)}
        served = [place for place, batch in enumerate(batches) if mine & {*batch}]
        # Two windows of it at each time: the crowd does not take its room in its own batch.
        assert len(served) == 3
        assert all(b - a <= 8 + len(others) - 1 for a, b in itertools.pairwise([0, *served]))


def test_a_line_that_did_not_wait_goes_behind_those_before_it(make_callers: MakeCallers) -> None:
    callers = make_callers(max_batch=1)
    callers.hold()
    crowd = [callers.decode(name, Caller(Line.LIVE, "live")) for name in range(1, 7)]
    started = [callers.decode(9, Caller(Line.JOB, "job"))]
    callers.let_go()
    results(crowd + started)

    assert callers.model.batches[-1] == [9]


def test_a_model_that_answers_for_too_few_fails_them_and_goes_on(
    make_callers: MakeCallers,
) -> None:
    callers = make_callers()
    generate = callers.model.generate
    callers.model.generate = lambda *a, **o: generate(*a, **o)[1:]  # type: ignore[method-assign]

    with pytest.raises(RuntimeError, match="0 results for 1 windows"):
        callers.decode(1).result(WAIT)
    callers.model.generate = generate  # type: ignore[method-assign]
    assert callers.decode(2).result(WAIT) == ["text 2"]


def test_jobs_take_turns_however_many_windows_they_have(make_callers: MakeCallers) -> None:
    callers = make_callers(max_batch=1)
    callers.hold()
    long_job = [callers.decode(name, Caller(Line.JOB, "long")) for name in (1, 2, 3, 4)]
    short_job = [callers.decode(5, Caller(Line.JOB, "short"))]
    callers.let_go()
    results(long_job + short_job)

    assert callers.model.batches.index([5]) == 2


def test_windows_of_like_length_are_decoded_together(make_callers: MakeCallers) -> None:
    callers = make_callers(max_batch=2)
    callers.hold()
    lengths = [(1, 9), (2, 2), (3, 8), (4, 3)]
    started = [callers.decode(name, length=length) for name, length in lengths]
    callers.let_go()
    results(started)

    assert callers.model.batches == [[0], [1, 3], [2, 4]]


async def test_a_busy_model_waits_for_those_it_has_just_served(make_callers: MakeCallers) -> None:
    callers = make_callers(window_seconds=WAIT)
    late = threading.Event()

    def recognise(name: int, *, wait: bool) -> list[str]:
        with callers.batcher.calling(Caller(Line.JOB, str(name))):
            callers.batcher.generate(callers.encoded(name), [[1, 2]])
            if wait:
                assert late.wait(WAIT)
            return callers.batcher.generate(callers.encoded(name + 10), [[1, 2]])

    with ThreadPoolExecutor(2) as threads:
        callers.hold()
        started = [threads.submit(recognise, name, wait=name == 2) for name in (1, 2)]
        await eventually(lambda: callers.batcher.waiting == 2)
        callers.let_go()
        await eventually(lambda: [1, 2] in [sorted(batch) for batch in callers.model.batches])
        late.set()
        results(started)

    assert sorted(callers.model.batches[-1]) == [11, 12]


def test_who_comes_alone_is_served_at_once(make_callers: MakeCallers) -> None:
    callers = make_callers(window_seconds=10 * WAIT)

    assert callers.decode(1).result(WAIT) == ["text 1"]
    assert callers.decode(2).result(WAIT) == ["text 2"]


def test_a_window_that_fails_takes_no_other_with_it(make_callers: MakeCallers) -> None:
    callers = make_callers()
    callers.model.bad = 2
    callers.hold()
    started = [callers.decode(name) for name in (1, 2, 3)]
    callers.let_go()

    with pytest.raises(RuntimeError, match="out of memory"):
        started[1].result(WAIT)
    assert results([started[0], started[2]]) == ["text 1", "text 3"]


def test_who_is_stopped_leaves_the_queue_and_comes_no_more(make_callers: MakeCallers) -> None:
    callers = make_callers()
    callers.hold()
    caller = Caller(Line.JOB, "stopped")
    started = callers.decode(1, caller)
    callers.batcher.stop(caller)

    with pytest.raises(Stopped):
        started.result(WAIT)
    with pytest.raises(Stopped):
        callers.decode(2, caller).result(WAIT)
    assert callers.batcher.waiting == 0


def test_what_waits_when_the_process_ends_fails(make_callers: MakeCallers) -> None:
    callers = make_callers()
    callers.hold()
    started = callers.decode(1)
    closing = threading.Thread(target=callers.batcher.close)
    closing.start()
    while not callers.batcher._closed:
        time.sleep(0.001)
    callers.let_go()
    closing.join(WAIT)

    with pytest.raises(Stopped):
        started.result(WAIT)


def test_each_is_charged_its_share_of_the_models_time(make_callers: MakeCallers) -> None:
    callers = make_callers()
    callers.hold()
    both = [Caller(Line.JOB, "a"), Caller(Line.JOB, "b")]
    started = [callers.decode(name, caller) for name, caller in enumerate(both, 1)]
    callers.let_go()
    results(started)

    assert both[0].model_seconds == both[1].model_seconds > 0
