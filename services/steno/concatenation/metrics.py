"""How live sessions fare, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from steno.concatenation.domain import Appended
from steno.concatenation.store import Store

# Counted in the database, so each replica says the same.
OPEN = Gauge("steno_sessions_open", "Sessions that take chunks.")
ENDING = Gauge("steno_sessions_ending", "Sessions that have ended and are not finished.")
PARKED = Gauge("steno_sessions_parked", "Sessions of which the last try at their work failed.")
OLDEST_ENDING = Gauge(
    "steno_sessions_oldest_ending_seconds", "Longest time that a session has been ending."
)
OLDEST_MISSING = Gauge(
    "steno_chunks_oldest_missing_seconds", "Longest time that a missing chunk is waited for."
)

# Counted where it happens: add up the replicas.
CHUNKS = Counter("steno_chunks", "Chunks that came, by what became of them.", ["how"])
CHUNK_SECONDS = Histogram(
    "steno_chunk_seconds",
    "Time until chunks in hand are durable and answered.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
GAPS = Counter("steno_session_gaps", "Stretches of missing chunks that were waited for in vain.")
TAKEOVERS = Counter(
    "steno_session_takeovers", "Sessions that another stream or replica went on with.", ["what"]
)
RESULTS = Histogram(
    "steno_live_lag_seconds",
    "How far live results were behind the recording.",
    ["kind"],
    buckets=(0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300),
)
IN_FLIGHT = Gauge(
    "steno_chunk_bytes_in_flight", "Bytes of chunks that are not in the object store yet."
)
SEGMENTS = Counter("steno_hls_segments", "Segments that were made for players.")


def record(appended: Appended) -> None:
    """Counts what became of chunks."""
    CHUNKS.labels("taken").inc(len(appended.sequences))
    CHUNKS.labels("refused").inc(len(appended.refusals))


class Meter:
    """Counts again and again what is in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def measure(self) -> None:
        """Sets the gauges to what there is now."""
        statistics = await self._store.statistics()
        OPEN.set(statistics.open)
        ENDING.set(statistics.ending)
        PARKED.set(statistics.parked)
        OLDEST_ENDING.set(statistics.oldest_ending)
        OLDEST_MISSING.set(statistics.oldest_missing)
