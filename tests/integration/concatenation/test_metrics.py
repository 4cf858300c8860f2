"""What the concatenation service says of its sessions is what has happened to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from live_sessions import Producer, Service
from steno.concatenation import __main__ as concatenation
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

SECOND = bytes(32_000)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are counted every few moments."""
    monkeypatch.setattr(concatenation, "METRICS_SECONDS", 0.1)


def page() -> Iterator[Sample]:
    """What this process says of all its sessions, those of other tests too."""
    text = generate_latest().decode()
    return (sample for family in text_string_to_metric_families(text) for sample in family.samples)


async def test_sessions_chunks_gaps_and_takeovers_are_counted(service: Service) -> None:
    before = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in page()}

    def value(name: str, **labels: str) -> float:
        """Of counters, what has come since."""
        counts = name.endswith(("_total", "_count"))
        return sum(
            sample.value - counts * before.get((name, *sorted(sample.labels.items())), 0)
            for sample in page()
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def comes_to(expected: float, name: str, **labels: str) -> None:
        def is_so() -> bool:
            seen = value(name, **labels)
            assert seen == expected, f"{name} is {seen}"
            return True

        await eventually(is_so)

    patient = await service.open(gap_timeout=duration_of(600))
    await service.append(patient.session_id, 1, SECOND)  # the first one is missing
    brief = await service.open(gap_timeout=duration_of(1))
    producer = Producer([service.stub], brief.session_id)
    await producer.send([(0, SECOND), (2, SECOND)])
    await producer.send([(3, SECOND)])

    await comes_to(2, "steno_sessions_open")
    await comes_to(4, "steno_chunks_total", how="taken")
    await comes_to(1, "steno_session_takeovers_total", what="stream")
    await comes_to(1, "steno_session_gaps_total")
    assert value("steno_chunk_seconds_count") >= 3
    assert value("steno_chunks_oldest_missing_seconds") > 0

    # Viewers make segments; what has ended is not open any more.
    await service.recording(brief.session_id, pb.RECORDING_FORM_PLAYLIST)
    await service.close(brief.session_id)
    await service.recording(brief.session_id, pb.RECORDING_FORM_PLAYLIST)

    await comes_to(1, "steno_hls_segments_total")
    await comes_to(1, "steno_sessions_open")
    await comes_to(0, "steno_sessions_ending")
