"""A node goes while customers go on, announced or not: none of their calls may fail for good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cluster.machines import Cluster
from cluster.release import Release
from customers import customers_of
from platform_client import Client
from waiting import eventually


@pytest.fixture
def whole(cluster: Cluster, steno: Release) -> Iterator[None]:
    """Each service has a pod on both nodes; afterwards both nodes are there again."""
    steno.spread()
    yield
    cluster.bring_back("node2")


@pytest.mark.usefixtures("whole")
async def test_no_call_fails_while_a_node_is_drained(
    cluster: Cluster, steno: Release, client: Client
) -> None:
    async with customers_of(client):
        await asyncio.to_thread(
            cluster.kubectl,
            *("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data"),
            "--timeout=150s",
        )
        assert on_nodes(steno) == {"node1"}
        await asyncio.to_thread(steno.wait)


@pytest.mark.usefixtures("whole")
async def test_what_a_lost_node_did_is_done_by_others(
    cluster: Cluster, steno: Release, client: Client
) -> None:
    async with customers_of(client) as customers:
        await eventually(lambda: customers.transcripts)
        await asyncio.to_thread(cluster.nodes["node2"].kill)
        # Its pods are replaced, and the others carry on meanwhile.
        await eventually(lambda: on_nodes(steno) == {"node1"}, within=90, every=1)
        await asyncio.to_thread(steno.wait)
        before = len(customers.transcripts)
        await eventually(lambda: len(customers.transcripts) > before)


def on_nodes(steno: Release) -> set[str]:
    """The nodes that have a pod which is not on its way out."""
    return {pod["spec"]["nodeName"] for pods in steno.services().values() for pod in pods}
