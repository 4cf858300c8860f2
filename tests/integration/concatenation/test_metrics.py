"""What the concatenation service says of its sessions is what has happened to them."""

from __future__ import annotations

import asyncio
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from live_sessions import Producer
from steno.local.ports import HOST, free_port
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

from .conftest import StartService

SECOND = bytes(32_000)


async def test_sessions_chunks_gaps_and_takeovers_are_counted(start_service: StartService) -> None:
    metrics = f"{HOST}:{free_port()}"
    service = await start_service(STENO_METRICS_LISTEN=metrics)

    async def value(name: str, **labels: str) -> float:
        page = await asyncio.to_thread(lambda: urlopen(f"http://{metrics}/metrics").read())
        return sum(
            sample.value
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def comes_to(expected: float, name: str, **labels: str) -> None:
        async def is_so() -> bool:
            seen = await value(name, **labels)
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
    assert await value("steno_chunk_seconds_count") >= 3
    assert await value("steno_chunks_oldest_missing_seconds") > 0

    # Viewers make segments; what has ended is not open any more.
    await service.recording(brief.session_id, pb.RECORDING_FORM_PLAYLIST)
    await service.close(brief.session_id)
    await service.recording(brief.session_id, pb.RECORDING_FORM_PLAYLIST)

    await comes_to(1, "steno_hls_segments_total")
    await comes_to(1, "steno_sessions_open")
    await comes_to(0, "steno_sessions_ending")
