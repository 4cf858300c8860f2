"""Every RPC of every service, called as a client finds it: by reflection."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from calling import stub_of
from contract import SERVICES, fill, methods, request_type
from platform_client import Client
from steno.platform.errors import Failure, read_failure


async def call(client: Client, method: MethodDescriptor, request: Message) -> Failure | None:
    """Calls an RPC and returns how it failed, or None."""
    stub = stub_of(client.channels[SERVICES[method.containing_service.full_name]], method)
    argument = iter([request]) if method.client_streaming else request
    try:
        if method.server_streaming:
            async for _ in stub(argument, timeout=20):
                break
        else:
            await stub(argument, timeout=20)
    except grpc.aio.AioRpcError as error:
        return read_failure(error)
    return None


@pytest.mark.parametrize("service", SERVICES)
def test_reflection_describes_the_service_as_the_contract_does(
    client: Client, service: str
) -> None:
    with grpc.insecure_channel(client.addresses[SERVICES[service]]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        described = descriptor_pool.DescriptorPool(database).FindServiceByName(service)
        listed = database.get_services()

    expected = {m.name for m in methods() if m.containing_service.full_name == service}
    assert {method.name for method in described.methods} == expected
    assert {service, "grpc.health.v1.Health"} <= set(listed)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
async def test_an_id_that_nobody_has_is_no_internal_error(
    client: Client, method: MethodDescriptor
) -> None:
    request = request_type(method)()
    fill(request)

    failure = await call(client, method, request)

    if failure is not None:
        assert failure.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), failure
        assert failure.reason, f"{failure} has no ErrorInfo"
