"""Services with bugs that are planted on purpose, of the kinds that have been.

`faults.find_planted` looks for them. What a silence of the harness is worth is known only from what
it says of these. Other bugs, which a certain order of events brings to light, are the simulation's
(`simulation.job_planted`, `simulation.session_planted`).
"""

from __future__ import annotations

import os
import runpy
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from planting import Change, Constant, Edit, Inherited, Method
from simulation import job_planted, session_planted
from steno.concatenation.finish import Finisher
from steno.concatenation.ingest import Ingest
from steno.concatenation.recording import Recordings
from steno.platform import database
from steno.platform.database import Connection, Pool
from steno.platform.process import return_large_blocks, run
from steno.upload import prepare
from steno.upload import store as upload_store
from steno.upload.prepare import Preparation
from steno.upload.settings import PrepareSettings
from steno.upload.statements import HELD
from steno.upload.worker import Worker

BUG = "STENO_PLANTED"
MODULE = "STENO_PLANTED_MODULE"
SERVICE = "STENO_PLANTED_SERVICE"


@dataclass(frozen=True)
class Bug:
    """A bug of one service.

    Attributes:
        name: what is wrong.
        service: package that has it, or `platform` for all.
        edits: what makes it so.
        faults: those that bring it to light.
        halts: whether it takes processes that stand still for good.
    """

    name: str
    service: str
    edits: tuple[Change, ...]
    faults: tuple[str, ...]
    halts: bool = False


@asynccontextmanager
async def _transaction(self: Pool) -> Any:
    async with (
        AsyncConnectionPool.connection(self) as connection,
        connection.pipeline(),
        connection.transaction(),
    ):
        yield connection


async def _as_it_is(connection: Connection) -> None:
    """Whatever it is in the middle of."""


def _simulated(name: str, *faults: str, service: str = "job") -> Bug:
    """A bug that the simulation knows too."""
    known = {"job": job_planted.BUGS, "concatenation": session_planted.BUGS}[service]
    (bug,) = (bug for bug in known if bug.name == name)
    return Bug(name, service, bug.edits, faults)


KILLS = ("kill", "pause-past-lease")
UNKNOWN = ("commit-unknown", "lose-answers", "callers-leave")

BUGS = (
    Bug(
        "a cancelled caller leaves a transaction open, and the next one speaks in it",
        "platform",
        (
            Inherited(Connection, "wait"),
            Inherited(Pool, "getconn"),
            Method(Pool, "transaction", _transaction),
            Constant(database, "_returned", lambda _: _as_it_is),
        ),
        ("callers-leave",),
    ),
    Bug(
        "nobody's patience with a lock ends",
        "platform",
        (Constant(database, "SESSION", lambda _: {}),),
        ("pause-past-lease",),
        halts=True,
    ),
    _simulated(
        "a chunk's row is written before its bytes",
        *("kill", "s3-503", "callers-leave"),
        service="concatenation",
    ),
    Bug(
        "bytes that could not be written are taken for written",
        "concatenation",
        (
            Edit(
                Ingest,
                "_put",
                {
                    "await asyncio.shield(putting)": (
                        "await asyncio.gather(asyncio.shield(putting), return_exceptions=True)"
                    )
                },
            ),
        ),
        ("s3-503", "sever"),
    ),
    Bug(
        "a chunk that comes twice moves those behind it",
        "concatenation",
        (
            Edit(
                Ingest,
                "write",
                {
                    "            parts.append(chunk.content)\n            offset += size": (
                        "            parts.append(chunk.content)\n        offset += size"
                    )
                },
            ),
        ),
        ("callers-leave", "sever"),
    ),
    Bug(
        "a piece of a recording is read from the beginning of its object",
        "concatenation",
        (Edit(Recordings, "_read_pieces", {"piece.object_offset + (": "("}),),
        (),
    ),
    Bug(
        "the final job is asked for anew each time",
        "concatenation",
        (
            Edit(
                Finisher,
                "make_job",
                {'uuid5(session.session_id, "final job")': '__import__("uuid").uuid4()'},
            ),
        ),
        ("kill", *UNKNOWN),
    ),
    Bug(
        "the audio of a session is asked for anew each time",
        "concatenation",
        (
            Edit(
                Finisher,
                "import_audio",
                {"=str(session.session_id)": '=str(__import__("uuid").uuid4())'},
            ),
        ),
        ("kill", *UNKNOWN),
    ),
    Bug(
        "a preparation that goes on forgets what was cut before",
        "upload",
        (
            Edit(
                Preparation,
                "prepare",
                {"lease.slice_count, lease.sample_count": "lease.slice_count, 0"},
            ),
        ),
        ("kill", "restart"),
    ),
    Bug(
        "slices are cut under a lease that is over",
        "upload",
        (
            Constant(
                upload_store,
                "RECORD_SLICE",
                lambda sql: sql.replace(
                    f"WHERE {HELD} AND slice_count = %(index)s AND sample_count = %(start_sample)s",
                    "WHERE audio_id = %(audio_id)s",
                ),
            ),
        ),
        ("pause-past-lease",),
    ),
    Bug(
        "slices of an earlier attempt are removed though they are recorded",
        "upload",
        (
            Edit(
                Preparation,
                "_tidy",
                {"attempt < lease.attempt and key not in recorded": "attempt < lease.attempt"},
            ),
        ),
        KILLS,
    ),
    Bug(
        "an audio whose preparation died three times is rejected",
        "upload",
        (
            Edit(
                Worker,
                "_attempt",
                {
                    '    log.info("attempt %d"': (
                        "    if lease.attempt > 3:\n"
                        '        lost = Rejection("PREPARATION_FAILED", "It kills.")\n'
                        "        return await self._reject(lease, lost)\n"
                        '    log.info("attempt %d"'
                    )
                },
            ),
        ),
        KILLS,
    ),
    _simulated("complete does not check the attempt", "stale-worker", "pause-past-lease"),
    _simulated("a cancelled job leaves its tasks"),
    _simulated("the relay marks before it publishes", "wipe-nats", "kill"),
    _simulated("watchers are told what comes, whatever its number", "repeat-messages", "kill"),
    _simulated("messages that NATS has lost are not missed", "wipe-nats", "cut-nats-short"),
    _simulated("leases that are past their time are left", "kill"),
    _simulated("a result that is told again is a failure", "stale-worker", "lose-answers"),
)

BY_NAME = {bug.name: bug for bug in BUGS}


def serve() -> None:
    """Runs the service of the environment, with the bug if it is one of this service's."""
    module, bug = os.environ[MODULE], BY_NAME[os.environ[BUG]]
    if bug.service in ("platform", os.environ[SERVICE]):
        patch = pytest.MonkeyPatch()
        for edit in bug.edits:
            edit.make(patch)
    if module == prepare.__name__:  # it is imported already, and can't be once more
        return_large_blocks()
        run("prepare", PrepareSettings, prepare.main)
        return
    sys.argv[0] = module
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve()
