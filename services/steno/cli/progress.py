"""How far each file is: a line each on stderr, and nothing when that is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from steno.cli.rendering import clock, job_state, size
from steno.v1.job_pb2 import (
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JobProgress,
    JobState,
    RetriedSlices,
    WatchJobResponse,
)

if TYPE_CHECKING:
    from rich.progress import Progress as Lines
    from rich.progress import TaskID

_MANY = 8
"""With more files than this, only those that something happens to have a line."""


class Progress:
    """The lines of a command's files. Inside it, the terminal shows them."""

    def __init__(self, names: int, *, leave: bool = False) -> None:
        """Prepares the lines.

        Args:
            names: number of files.
            leave: whether the lines stay when all is done; else they make room for the results.
        """
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Lines
        from rich.table import Column

        console = Console(stderr=True)
        self.shown = sys.stderr.isatty()
        self._many = names > _MANY
        self._lines: Lines = Lines(
            TextColumn("{task.description}", markup=False, table_column=Column(max_width=32)),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            disable=not self.shown,
            redirect_stdout=False,
            transient=not leave,
        )
        self._all: TaskID | None = None
        if self._many:
            self._all = self._lines.add_task(f"{names} files", total=names, status="")

    def __enter__(self) -> Progress:
        self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the terminal to others. Safe to repeat."""
        self._lines.stop()

    def line(self, name: str) -> Line:
        """A line for one file."""
        short = Path(name).name
        task = self._lines.add_task(short, total=None, start=False, status="", visible=False)
        return Line(self._lines, task, leave=not self._many)

    def ended(self) -> None:
        """One file more has come to its end."""
        if self._all is not None:
            self._lines.advance(self._all)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Clears the way for something else on the same terminal."""
        leave, self._lines.live.transient = self._lines.live.transient, True
        self._lines.stop()
        try:
            yield
        finally:
            self._lines.live.transient = leave
            self._lines.start()


class Line:
    """One file's line."""

    def __init__(self, lines: Lines, task: TaskID, leave: bool) -> None:
        self._lines = lines
        self._task = task
        self._leave = leave
        self._state: JobState.ValueType = JOB_STATE_QUEUED

    def uploading(self, size_bytes: int | None) -> None:
        """Its bytes begin to be sent. None: nobody knows how many there are."""
        self._lines.start_task(self._task)
        status = "uploading" if size_bytes is None else f"uploading {size(size_bytes)}"
        self._lines.update(self._task, total=size_bytes, visible=True, status=status)

    def advance(self, size_bytes: int) -> None:
        """So many bytes more were sent."""
        self._lines.advance(self._task, size_bytes)

    def job(self, state: JobState.ValueType, progress: JobProgress) -> None:
        """Where its job stands."""
        self._state = state
        self._lines.start_task(self._task)
        self._lines.update(
            self._task,
            total=1,
            completed=progress.fraction,
            visible=True,
            status=standing(state, progress),
        )

    def heard(self, response: WatchJobResponse) -> None:
        """What the watch of its job tells of where it stands."""
        if response.HasField("status"):
            self.job(self._state, response.status)
        elif response.event.HasField("progressed"):
            self.job(self._state, response.event.progressed)
        elif response.event.HasField("state_changed"):
            job = response.event.state_changed
            self.job(job.state, job.progress)

    def say(self, status: str) -> None:
        """Something else about it."""
        self._lines.update(self._task, visible=True, status=status)

    def end(self, status: str) -> None:
        """Its last word."""
        self._lines.update(self._task, status=status, visible=self._leave)
        self._lines.stop_task(self._task)


def retried(slices: RetriedSlices) -> str:
    """What is tried again, in a few words."""
    which = f"slice {slices.slice_index}"
    if others := slices.slice_count - 1:
        which += f" and {others} more"
    return f"{which} tried again after {slices.failure_count} tries: {slices.last_error}"


def standing(state: JobState.ValueType, progress: JobProgress) -> str:
    """Where a job stands, in a few words."""
    words = [job_state(state)]
    if state == JOB_STATE_QUEUED and progress.HasField("queue_position"):
        ahead = progress.queue_position
        words.append(f"{ahead} ahead" if ahead else "next")
    if state == JOB_STATE_RUNNING and progress.HasField("audio_duration"):
        done, whole = clock(progress.transcribed_duration), clock(progress.audio_duration)
        words.append(f"{done} of {whole}")
    # Nothing left before the end means that nothing is known yet.
    if state in (JOB_STATE_QUEUED, JOB_STATE_RUNNING) and progress.remaining_duration.seconds:
        words.append(f"{clock(progress.remaining_duration)} left")
    if progress.HasField("retried"):
        words.append(retried(progress.retried))
    return ", ".join(words)
