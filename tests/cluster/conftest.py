"""One cluster for all tests, and Steno on it, as `make cluster-test` has them run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.machines import Cluster
from cluster.release import VALUES, Release
from manifests import merged
from platform_client import Client

HAS_CLUSTER = "STENO_CLUSTER_PROGRAMS" in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(240))
            if not HAS_CLUSTER:
                item.add_marker(pytest.mark.skip(reason="needs a cluster: make cluster-test"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, of which the second is for Steno's own pods only: Postgres outlives it."""
    programs, images, folder = (
        Path(os.environ[f"STENO_CLUSTER_{name}"]) for name in ("PROGRAMS", "IMAGES", "FOLDER")
    )
    with Cluster(programs, images, folder) as cluster:
        cluster.kubectl("taint", "node", "node2", "servers=elsewhere:NoSchedule")
        yield cluster


@pytest.fixture(scope="session")
def steno(cluster: Cluster) -> Release:
    """Two pods of each service, on both nodes."""
    release = Release(cluster, "speech")
    release.make_namespace()
    tolerations = [{"key": "servers", "operator": "Exists"}]
    release.install(merged(VALUES, {"defaults": {"replicas": 2, "tolerations": tolerations}}))
    return release


@pytest.fixture
async def client(cluster: Cluster, steno: Release) -> AsyncIterator[Client]:
    """An application outside the cluster that has a route to its pods, and finds them by name."""
    with cluster.forwarded(steno.namespace, "service/steno-s3", 8333, at=8333):
        async with Client(steno.addresses) as client:
            yield client
