"""Every bad file goes the way that files go, beside good ones, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from corpus import FILES, File, NotTaken, Ready, Rejected
from corpus.sizes import whole
from processes import descendants_of
from serving import serving
from steno.local.ports import HOST, free_port
from steno.platform.database import open_pool
from steno.platform.errors import Failure, read_failure
from steno.platform.objects import ObjectStore, open_store
from steno.platform.settings import PostgresSettings, S3Settings
from steno.upload.__main__ import main
from steno.upload.settings import Settings
from steno.v1 import upload_pb2 as pb
from steno.v1.upload_pb2_grpc import SliceServiceStub, UploadServiceStub
from waiting import eventually

pytestmark = pytest.mark.timeout(600)  # all are prepared before the first test

AT_ONCE = 8
GOOD_AMONG_BAD = 20
"""Every so many bad files comes a good one."""

MOST_SECONDS = 120
"""Longest recording that is prepared here."""

MOST_BYTES = 400 << 20
"""That any process of the preparation may hold, with its models and libraries."""

CPU_SECONDS_A_FILE = 0.5
"""Of the preparation and its decoders, on average."""

MEASURE = """
import json, resource, signal, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
signal.signal(signal.SIGTERM, lambda *_: process.terminate())
code = process.wait()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump({"bytes": used.ru_maxrss * 1024, "seconds": used.ru_utime + used.ru_stime}, file)
sys.exit(code)
"""
"""Runs a command, and writes down what it and its children took. What starts a process passes its
own size on as the least that the process had, so that a small one has to do it."""


@dataclass
class Preparation:
    """What became of all files.

    Attributes:
        audio: by the file's name.
        failures: of files that were not taken, by the file's name.
        good: what the good recordings between them became, and their slices.
        most_bytes: of memory that the preparation, or a decoder of it, had.
        cpu_seconds: of the preparation with all its decoders.
        processes: command lines of what it left running.
        files: what it and the service left on disk.
    """

    audio: dict[str, pb.Audio] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    good: list[tuple[pb.Audio, list[bytes]]] = field(default_factory=list)
    most_bytes: int = 0
    cpu_seconds: float = 0.0
    processes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class Uploader:
    """Sends files, and sees what becomes of them."""

    def __init__(self, channel: grpc.aio.Channel, objects: ObjectStore) -> None:
        self.uploads = UploadServiceStub(channel)
        self._slices = SliceServiceStub(channel)
        self._objects = objects
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def send(self, filename: str, content: bytes) -> str:
        """Uploads a file; returns the id of its audio."""

        async def requests() -> AsyncIterator[pb.UploadAudioRequest]:
            yield pb.UploadAudioRequest(header=pb.UploadAudioHeader(filename=filename))
            for at in range(0, len(content), 2**20):
                yield pb.UploadAudioRequest(chunk=content[at : at + 2**20])

        async with self._turns:
            answer = await self.uploads.UploadAudio(requests(), timeout=60)
        return answer.audio.audio_id

    async def get(self, audio_id: str) -> pb.Audio:
        return (await self.uploads.GetAudio(pb.GetAudioRequest(audio_id=audio_id))).audio

    async def all_prepared(self) -> None:
        """Waits until nothing is being prepared any more."""
        preparing = pb.ListAudioRequest(state=pb.AUDIO_STATE_PREPARING, page_size=1)

        async def look() -> bool:
            return not (await self.uploads.ListAudio(preparing)).audio

        await eventually(look, within=500, every=0.2)

    async def slices(self, audio_id: str) -> list[bytes]:
        """What lies in the store of each slice."""
        found = await self._slices.ListSlices(pb.ListSlicesRequest(audio_id=audio_id))
        return [
            await self._objects.get_range(each.object_key, 0, 44 + 2 * each.sample_count)
            for each in found.slices
        ]


@pytest.fixture(scope="module")
async def objects(shared_environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as objects:
        await objects.ensure_bucket()
        yield objects


@pytest.fixture(scope="module")
async def uploader(objects: ObjectStore) -> AsyncIterator[Uploader]:
    settings = Settings(listen=f"{HOST}:{free_port()}", shutdown_grace_seconds=1)
    async with serving(main, settings) as channel:
        yield Uploader(channel, objects)


@pytest.fixture(scope="module")
async def preparation(
    uploader: Uploader,
    shared_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Preparation:
    """All files were sent, and prepared as far as they can be."""
    folder = tmp_path_factory.mktemp("prepare")
    log = (folder / "log").open("w")
    (folder / "tmp").mkdir()
    settings = {
        **shared_environment,
        "STENO_PREPARE_MAX_HOURS": str(MOST_SECONDS / 3600),
        "TMPDIR": str(folder / "tmp"),
    }
    command = [sys.executable, "-m", "steno.upload.prepare"]
    process = subprocess.Popen(  # noqa: ASYNC220 - waited for in a thread
        [sys.executable, "-c", MEASURE, str(folder / "used"), *command],
        env=settings,
        stdout=log,
        stderr=log,
    )
    made, ids, good = Preparation(), dict[str, str](), list[str]()

    async def send(file: File) -> None:
        try:
            ids[file.name] = await uploader.send(file.filename, file.read())
        except grpc.aio.AioRpcError as error:
            made.failures[file.name] = read_failure(error)

    async def send_good() -> None:
        good.append(await uploader.send("good.mp3", whole("mp3")))

    try:
        await send_good()
        await uploader.all_prepared()
        async with asyncio.TaskGroup() as tasks:
            for number, file in enumerate(FILES):
                if number % GOOD_AMONG_BAD == 0:
                    tasks.create_task(send_good())
                tasks.create_task(send(file))
        await uploader.all_prepared()
        for name, audio_id in ids.items():
            made.audio[name] = await uploader.get(audio_id)
        for audio_id in good:
            made.good.append((await uploader.get(audio_id), await uploader.slices(audio_id)))
        _, fork_server = descendants_of(process.pid)
        made.processes = [f"{pid}" for pid in descendants_of(fork_server)]
        made.files = [str(path) for path in Path(settings["TMPDIR"]).rglob("*")]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        log.close()
    assert process.returncode == 0, (folder / "log").read_text()
    used = json.loads((folder / "used").read_text())
    made.most_bytes, made.cpu_seconds = used["bytes"], used["seconds"]
    return made


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_gets_its_answer(preparation: Preparation, file: File) -> None:
    if isinstance(file.answer, NotTaken):
        failure = preparation.failures[file.name]
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in failure.violations] == [file.answer.field]
        return
    audio = preparation.audio[file.name]
    assert audio.filename == file.filename
    if isinstance(file.answer, Rejected):
        assert audio.state == pb.AUDIO_STATE_REJECTED
        assert audio.rejection.reason == file.answer.reason, audio.rejection
        assert audio.rejection.message.endswith(".")
        assert "\n" not in audio.rejection.message
    else:
        assert isinstance(file.answer, Ready)
        assert audio.state == pb.AUDIO_STATE_READY, audio.rejection
        seconds = audio.duration.ToTimedelta().total_seconds()
        assert seconds == pytest.approx(
            file.answer.seconds, abs=file.answer.tolerance + 1e-6, rel=0
        )
        assert audio.truncated == file.answer.truncated


def test_good_recordings_beside_them_become_what_they_are_alone(preparation: Preparation) -> None:
    (alone, slices), *others = preparation.good

    assert alone.state == pb.AUDIO_STATE_READY
    assert slices
    for audio, its_slices in others:
        assert audio.state == pb.AUDIO_STATE_READY
        assert its_slices == slices


def test_no_process_takes_more_memory_than_it_may(preparation: Preparation) -> None:
    assert 0 < preparation.most_bytes < MOST_BYTES


def test_a_file_takes_no_more_of_the_processor_than_good_ones_do(preparation: Preparation) -> None:
    files = len(preparation.audio) + len(preparation.good)
    assert 0 < preparation.cpu_seconds < CPU_SECONDS_A_FILE * files


def test_no_decoder_and_no_file_is_left(preparation: Preparation) -> None:
    assert preparation.processes == []
    assert preparation.files == []


async def test_every_object_has_a_row_and_no_upload_is_open(
    preparation: Preparation, objects: ObjectStore
) -> None:
    async with open_pool(PostgresSettings()) as pool, pool.connection() as db:
        rows = await (await db.execute(OBJECTS)).fetchall()
    named = tuple(row["object_key"] for row in rows)
    open_uploads = await asyncio.to_thread(objects._client._list_multipart_uploads, "steno")

    assert [key for key in await objects.list_prefix("") if not key.startswith(named)] == []
    assert open_uploads.uploads == []


OBJECTS = """
SELECT object_key FROM upload.audio
UNION SELECT object_key FROM upload.slices
UNION SELECT context_object_key FROM upload.slices WHERE context_object_key <> ''
UNION SELECT object_key FROM upload.removals
"""
"""What the service knows of: of removals, also all that lies below."""


async def test_when_they_are_deleted_nothing_is_left_of_them(
    preparation: Preparation, uploader: Uploader, objects: ObjectStore
) -> None:
    audio = [*preparation.audio.values(), *(audio for audio, _ in preparation.good)]

    for each in audio:
        await uploader.uploads.DeleteAudio(pb.DeleteAudioRequest(audio_id=each.audio_id))

    assert await objects.list_prefix("") == []
