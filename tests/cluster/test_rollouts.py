"""Pods are replaced while customers go on: none of their calls may fail."""

from __future__ import annotations

import asyncio

from cluster.release import Release
from customers import customers_of
from platform_client import Client


async def test_no_call_fails_while_all_pods_are_restarted(steno: Release, client: Client) -> None:
    before = names(steno)

    async with customers_of(client):
        await asyncio.to_thread(steno.restart)

    assert not before & names(steno)


async def test_no_call_fails_while_another_version_is_installed_and_rolled_back(
    steno: Release, client: Client
) -> None:
    async with customers_of(client):
        await asyncio.to_thread(steno.upgrade, {"image": {"tag": "next"}})
        assert images(steno) == {"localhost/steno:next"}
        await asyncio.to_thread(steno.roll_back)

    assert images(steno) == {"localhost/steno:latest"}


def names(steno: Release) -> set[str]:
    return {pod["metadata"]["name"] for pods in steno.services().values() for pod in pods}


def images(steno: Release) -> set[str]:
    return {
        container["image"]
        for pods in steno.services().values()
        for pod in pods
        for container in pod["spec"]["containers"]
    }
