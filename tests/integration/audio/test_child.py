"""The child: locked in, bounded, and no harm to anybody when it dies."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steno.audio import (
    AudioRejected,
    DecoderFailed,
    Decoding,
    Limits,
    ReadAt,
    Reason,
    decode,
    encode_slice,
    fork_server,
    in_memory,
    sandbox,
    wav_header,
)
from steno.audio.decoder.wire import MAX_READ_BYTES
from steno.audio.fork_server import server_command
from waiting import eventually

from .conftest import Chirp


def what_the_kernel_says(pid: int) -> tuple[dict[str, str], dict[str, str]]:
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    with open(f"/proc/{pid}/limits") as file:
        limits = {line[:26].strip(): line[26:47].strip() for line in file}
    return status, limits


async def drain(
    read_at: ReadAt,
    size_bytes: int,
    disturb: Callable[[int], object] = lambda pid: None,
    limits: Limits | None = None,
) -> Decoding:
    """Decodes all, and does something to the child on the way."""
    async with decode(read_at, size_bytes, limits) as decoding:
        async for _ in decoding:
            disturb(decoding.pid)
    return decoding


async def test_the_decoder_itself_runs_in_the_jail(chirp: Chirp) -> None:
    data = encode_slice(chirp(30.0))

    async with decode(in_memory(data), len(data)) as decoding:
        status, limits = what_the_kernel_says(decoding.pid)

    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert int(status["Uid"].split()[0]) != 0
    assert status["Threads"] == "1"
    assert int(status["CapEff"], 16) == 0
    assert limits["Max file size"] == "0"
    assert limits["Max core file size"] == "0"


async def test_the_child_holds_nothing_that_is_open_but_its_way_to_the_parent(chirp: Chirp) -> None:
    data = encode_slice(chirp(30.0))

    async with decode(in_memory(data), len(data)) as decoding:
        held = [os.readlink(each) for each in Path(f"/proc/{decoding.pid}/fd").iterdir()]

    channel, *others = sorted(set(held), key=lambda name: not name.startswith("socket:"))
    assert held.count(channel) == 2
    assert sorted(others) == ["/dev/null", f"/proc/{decoding.pid}/status"]


async def test_when_their_server_dies_children_do_and_the_next_recording_has_another(
    chirp: Chirp,
) -> None:
    data = encode_slice(chirp(30.0))

    servers: list[int] = []

    def kill_server(child: int) -> None:
        if not servers:  # once: orphans get another parent
            servers.append(parent_of(child))
            os.kill(servers[0], signal.SIGKILL)

    with pytest.raises(DecoderFailed) as failure:
        await drain(*hours_of_noise(10), kill_server)
    decoding = await drain(in_memory(data), len(data))

    assert failure.value.reason == Reason.DECODER_CRASHED
    assert decoding.summary.sample_count == 30 * 16_000


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork server that does not answer is given up soon."""
    monkeypatch.setattr(fork_server, "END_SECONDS", 0.5)


@pytest.mark.parametrize("also_child", [False, True])
async def test_a_fork_server_that_is_halted_is_replaced_when_a_child_should_end(
    also_child: bool, chirp: Chirp, impatient: None
) -> None:
    data = encode_slice(chirp(30.0))

    async with decode(*hours_of_noise(10)) as decoding:
        server = parent_of(decoding.pid)
        for pid in (server, decoding.pid)[: 1 + also_child]:
            os.kill(pid, signal.SIGSTOP)
    again = await drain(in_memory(data), len(data))

    await eventually(lambda: not is_running(server) and not is_running(decoding.pid))
    assert again.summary.sample_count == 30 * 16_000


async def test_a_child_whose_death_its_halted_server_does_not_tell_is_no_endless_wait(
    impatient: None,
) -> None:
    halted: list[int] = []

    def halt_server_and_kill(child: int) -> None:
        if not halted:
            halted.append(parent_of(child))
            os.kill(halted[0], signal.SIGSTOP)
            os.kill(child, signal.SIGKILL)

    with pytest.raises(DecoderFailed) as failure:
        await drain(*hours_of_noise(10), halt_server_and_kill)

    assert failure.value.reason == Reason.DECODER_CRASHED


async def test_a_fork_server_that_is_halted_costs_the_recordings_that_it_has_and_no_more(
    chirp: Chirp, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode_slice(chirp(30.0))
    async with decode(*hours_of_noise(10)) as decoding:
        os.kill(parent_of(decoding.pid), signal.SIGSTOP)
        monkeypatch.setattr(fork_server, "START_SECONDS", 0.5)
        with pytest.raises(DecoderFailed) as refused:
            await drain(in_memory(data), len(data))
        monkeypatch.undo()
        with pytest.raises(DecoderFailed) as killed:
            async for _ in decoding:
                pass
    again = await drain(in_memory(data), len(data))

    assert refused.value.reason == Reason.DECODER_UNAVAILABLE
    assert killed.value.reason == Reason.DECODER_CRASHED
    assert again.summary.sample_count == 30 * 16_000


async def test_a_child_that_nobody_waits_for_any_more_fails_in_silence(
    chirp: Chirp,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    unseen_errors: list[dict[str, object]],
) -> None:
    hangs = "import time\ntime.sleep(3600)\n"
    monkeypatch.setattr(fork_server, "BOOTSTRAP", hangs + fork_server.BOOTSTRAP)
    monkeypatch.setattr(fork_server, "START_SECONDS", 0.1)
    data = encode_slice(chirp(1.0))
    fork_server.close()

    with pytest.raises(DecoderFailed):
        await drain(in_memory(data), len(data))
    await asyncio.sleep(0)  # what waited for the child is gone then
    gc.collect()

    assert unseen_errors == []


async def test_a_server_that_takes_long_to_die_is_reaped_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fork_server, "_REAP_SECONDS", 0)
    server = fork_server.fork_server()

    server.close()

    await eventually(lambda: server._process.returncode is not None)


async def test_a_child_whose_server_dies_before_it_is_asked_for_is_not_available(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "START_SECONDS", 0.5)
    server, connect = fork_server.fork_server(), asyncio.open_connection

    async def dies_meanwhile(**options: Any) -> object:
        server.close()
        return await connect(**options)

    monkeypatch.setattr(asyncio, "open_connection", dies_meanwhile)

    async with asyncio.timeout(20):
        with pytest.raises(DecoderFailed) as caught:
            async with server.child():
                pass

    assert caught.value.reason == Reason.DECODER_UNAVAILABLE


async def test_where_no_process_can_be_forked_the_decoder_is_not_available(
    chirp: Chirp, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_fork = "import os\ndef fork(): raise BlockingIOError\nos.fork = fork\n"
    monkeypatch.setattr(fork_server, "BOOTSTRAP", no_fork + fork_server.BOOTSTRAP)
    data = encode_slice(chirp(1.0))
    fork_server.close()

    with pytest.raises(DecoderFailed) as failure:
        await drain(in_memory(data), len(data))

    fork_server.close()
    assert failure.value.reason == Reason.DECODER_UNAVAILABLE


async def test_where_no_more_files_can_be_opened_the_decoder_is_not_available(
    chirp: Chirp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    data = encode_slice(chirp(1.0))
    fork_server.fork_server()
    monkeypatch.setattr(socket, "socketpair", refuse)

    with pytest.raises(DecoderFailed) as failure:
        await drain(in_memory(data), len(data))

    assert failure.value.reason == Reason.DECODER_UNAVAILABLE


async def test_recordings_are_decoded_at_the_same_time_each_by_a_child_of_its_own(
    chirp: Chirp,
) -> None:
    recordings = [encode_slice(chirp(seconds)) for seconds in (1.0, 2.0, 3.0, 4.0)]
    children: list[int] = []

    decodings = await asyncio.gather(
        *(drain(in_memory(data), len(data), children.append) for data in recordings)
    )

    assert [each.summary.sample_count for each in decodings] == [16_000, 32_000, 48_000, 64_000]
    assert len(set(children)) == len(recordings)
    assert not any(is_running(pid) for pid in children)


async def test_a_child_that_is_killed_is_the_decoders_failure(chirp: Chirp) -> None:
    data = encode_slice(chirp(30.0))

    def kill(child: int) -> None:
        with suppress(ProcessLookupError):  # a block that it had sent before
            os.kill(child, signal.SIGKILL)

    with pytest.raises(DecoderFailed) as failure:
        await drain(in_memory(data), len(data), kill)

    assert failure.value.reason == Reason.DECODER_CRASHED
    assert "signal 9" in failure.value.message


async def test_a_child_that_hangs_is_stopped_which_is_no_verdict_on_the_recording(
    chirp: Chirp,
) -> None:
    data = encode_slice(chirp(30.0))

    with pytest.raises(DecoderFailed) as failure:
        await drain(
            in_memory(data),
            len(data),
            lambda pid: os.kill(pid, signal.SIGSTOP),
            Limits(stall_seconds=0.3),
        )

    assert failure.value.reason == Reason.DECODE_TIMEOUT


async def test_a_child_that_takes_no_data_any_more_is_no_verdict_on_the_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_at, size_bytes = hours_of_noise(1)
    pids: list[int] = []

    async def read_and_halt(offset: int, size: int) -> bytes:
        if size == MAX_READ_BYTES:  # more than fits between the two
            monkeypatch.setattr(sandbox, "START_SECONDS", 0.3)
            os.kill(pids[-1], signal.SIGSTOP)
        return await read_at(offset, size)

    with pytest.raises(DecoderFailed) as failure:
        await drain(read_and_halt, size_bytes, pids.append, Limits(stall_seconds=0.3))

    assert failure.value.reason == Reason.DECODE_TIMEOUT


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 19)", "os._exit(1)"], ids=["halts", "dies"])
async def test_a_child_that_does_not_get_ready_is_not_available(
    end: str, chirp: Chirp, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_birth = f"import os\nos.register_at_fork(after_in_child=lambda: {end})\n"
    monkeypatch.setattr(fork_server, "BOOTSTRAP", at_birth + fork_server.BOOTSTRAP)
    data = encode_slice(chirp(1.0))
    fork_server.close()
    monkeypatch.setattr(sandbox, "START_SECONDS", 0.5)

    with pytest.raises(DecoderFailed) as failure:
        await drain(in_memory(data), len(data))

    fork_server.close()
    assert failure.value.reason == Reason.DECODER_UNAVAILABLE


async def test_a_slow_source_is_not_the_childs_fault(
    chirp: Chirp, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode_slice(chirp(1.0))
    loop, passed = asyncio.get_running_loop(), 0.0
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + passed)

    async def read_at(offset: int, size: int) -> bytes:
        nonlocal passed
        passed += 1000  # whatever waits for the child meanwhile is over its time
        await asyncio.sleep(0.05)
        return data[offset : offset + size]

    async with decode(read_at, len(data)) as decoding:
        assert sum([len(block) async for block in decoding]) == 16_000


async def test_what_the_source_raises_comes_out_unchanged_and_the_child_ends(chirp: Chirp) -> None:
    class SourceGone(Exception):
        pass

    data = encode_slice(chirp(120.0))
    children: set[int] = set()

    async def read_at(offset: int, size: int) -> bytes:
        if offset > len(data) // 2:
            raise SourceGone
        return data[offset : offset + size]

    with pytest.raises(SourceGone):
        await drain(read_at, len(data), children.add)

    assert len(children) == 1
    assert not any(is_running(pid) for pid in children)


async def test_the_child_ends_when_nobody_wants_the_rest(chirp: Chirp) -> None:
    data = encode_slice(chirp(120.0))

    async with decode(in_memory(data), len(data)) as decoding:
        async for _ in decoding:
            break

    assert not is_running(decoding.pid)
    with pytest.raises(RuntimeError):
        _ = decoding.summary


async def test_the_child_waits_while_nobody_takes_its_blocks() -> None:
    requested = 0
    size = 100 * 32_000  # 100 s

    async def read_at(offset: int, length: int) -> bytes:
        nonlocal requested
        requested = max(requested, offset + length)
        return (encode_slice(np.zeros(size // 2, np.int16)))[offset : offset + length]

    async with decode(read_at, 44 + size) as decoding:
        async for _ in decoding:
            break
        await asyncio.sleep(0.3)
        assert requested < size // 2


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent("""
        import asyncio, numpy
        from steno.audio import decode, encode_slice, in_memory
        async def main():
            data = encode_slice(numpy.zeros(16000 * 60, numpy.int16))
            async with decode(in_memory(data), len(data)) as decoding:
                print(decoding.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """)
    )
    source_root = server_command()[-2].removesuffix("/steno/audio")
    parent = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source_root},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def parent_of(pid: int) -> int:
    return int(what_the_kernel_says(pid)[0]["PPid"])


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def hours_of_noise(hours: int) -> tuple[ReadAt, int]:
    """A WAV that is made while it is read, and its size in bytes."""
    data_bytes = hours * 3600 * 32_000
    header = wav_header(data_bytes // 2)
    period = MAX_READ_BYTES
    noise = 2 * np.random.default_rng(0).integers(-3000, 3000, period // 2, np.int16).tobytes()

    async def read_at(offset: int, size: int) -> bytes:
        begin = offset % period
        head = header[offset : offset + size]
        return head + noise[begin : begin + size - len(head)]

    return read_at, len(header) + data_bytes


async def test_a_child_whose_output_nobody_takes_any_more_is_ended() -> None:
    read_at, size_bytes = hours_of_noise(1)
    async with asyncio.timeout(20), decode(read_at, size_bytes) as decoding:
        blocks = aiter(decoding)
        # Until so much lies unread that no more is read.
        while not decoding._child.stdout._paused:  # type: ignore[attr-defined]
            await anext(blocks)
            await asyncio.sleep(0.01)

    assert not is_running(decoding.pid)


async def test_an_hour_takes_no_more_memory_than_a_minute() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    summary = (await drain(*hours_of_noise(1))).summary

    assert summary.sample_count == 3600 * 16_000
    assert not summary.truncated
    assert 0 < summary.peak_memory_bytes < 100 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


async def test_processor_time_ends() -> None:
    with pytest.raises(AudioRejected) as rejection:
        await drain(*hours_of_noise(20), limits=Limits(cpu_seconds=1))

    assert rejection.value.reason == Reason.DECODE_TIMEOUT
    assert "processor" in rejection.value.message


@pytest.fixture
async def other_machine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The decoder runs on a machine whose system calls nobody has listed."""
    fork_server.close()
    pretend = "import platform; platform.machine = lambda: 'riscv64'\n"
    monkeypatch.setattr(fork_server, "BOOTSTRAP", pretend + fork_server.BOOTSTRAP)
    monkeypatch.setattr(sandbox, "_reported", set())
    yield
    fork_server.close()
    sandbox.require_walls(True)


@pytest.mark.usefixtures("other_machine")
async def test_nothing_is_decoded_where_the_decoder_can_not_be_locked_in(chirp: Chirp) -> None:
    data = encode_slice(chirp(1.0))
    read: list[int] = []

    async def read_at(offset: int, size: int) -> bytes:
        read.append(offset)
        return data[offset : offset + size]

    with pytest.raises(DecoderFailed, match="seccomp") as failed:
        await drain(read_at, len(data))

    assert failed.value.reason is Reason.DECODER_UNAVAILABLE
    assert not read


def walls() -> dict[str, float]:
    """What the metric says of each."""
    (metric,) = sandbox.WALLS.collect()
    return {sample.labels["wall"]: sample.value for sample in metric.samples}


async def test_a_process_that_starts_tells_by_a_metric_that_all_walls_stand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await sandbox.tell_walls()

    assert walls() == {"seccomp": 1, "unprivileged": 1, "dies_with_parent": 1}
    assert caplog.text == ""


@pytest.mark.usefixtures("other_machine")
@pytest.mark.parametrize(
    ("required", "told"),
    [(True, "no recording will be decoded here"), (False, "are decoded without a filter")],
)
async def test_a_process_that_starts_tells_once_which_wall_is_missing(
    required: bool, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.require_walls(required)

    await sandbox.tell_walls()

    assert walls() == {"seccomp": 0, "unprivileged": 1, "dies_with_parent": 1}
    (record,) = caplog.records
    assert told in record.getMessage()


async def test_a_process_on_which_no_decoder_starts_tells_it_and_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork_server.close()
    monkeypatch.setattr(fork_server, "BOOTSTRAP", "raise SystemExit")

    await sandbox.tell_walls()

    assert "no recording will be decoded here: The decoder could not be started" in caplog.text
    fork_server.close()


@pytest.mark.usefixtures("other_machine")
async def test_it_is_decoded_and_told_where_that_is_enough(
    chirp: Chirp, caplog: pytest.LogCaptureFixture
) -> None:
    data = encode_slice(chirp(1.0))
    sandbox.require_walls(False)

    for _ in range(2):
        decoding = await drain(in_memory(data), len(data))

    assert decoding.summary.sample_count == 16_000
    assert caplog.text.count("without a filter of system calls (seccomp)") == 1
