"""Jobs are taken in while NATS is away, by a service that has never seen it, too."""

from __future__ import annotations

from steno.local.servers import LocalServers
from steno.platform.messaging import Messaging

from .conftest import StartReplica, Upload, Worker


async def test_a_job_made_before_nats_was_there_is_sent_to_a_worker_when_it_comes(
    start_replica: StartReplica, upload: Upload, messaging: Messaging, servers: LocalServers
) -> None:
    await servers.nats.kill()
    servers.nats.wipe()
    try:
        replica = await start_replica()
        job = await replica.create(upload.record(slices=1))
    finally:
        await servers.nats.start()

    work = await Worker(replica.tasks, messaging).take()

    assert work.lease.job_id == job.job_id
