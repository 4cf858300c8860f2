"""Each RPC says who may call it, and what it is about."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from contract import methods, name_of, rules_of
from steno.platform import access
from steno.platform.access import Owned, Resource, rule_of
from steno.platform.tenancy import tenant_in
from steno.v1 import access_pb2, concatenation_pb2, job_pb2

RESOURCES = {"upload_id", "audio_id", "job_id", "session_id"}
"""Names of the fields with the ids of what tenants own."""

TOLD_BY_OTHERS = {
    ("JobService.CreateJob", "audio_id"),
    ("JobService.BatchCreateJobs", "requests.audio_id"),
}
"""What another service owns, which is asked whose it is."""


def ids_in(message: Descriptor, prefix: str = "") -> Iterator[str]:
    """Paths of the fields that name a resource."""
    for field in message.fields:
        if field.name in RESOURCES and rules_of(field).uuid:
            yield prefix + field.name
        if field.message_type is not None and field.message_type.full_name.startswith("steno."):
            yield from ids_in(field.message_type, f"{prefix}{field.name}.")


@pytest.mark.parametrize("method", methods(), ids=name_of)
def test_each_rpc_has_a_scope(method: MethodDescriptor) -> None:
    assert rule_of(method).scope != access_pb2.SCOPE_UNSPECIFIED


@pytest.mark.parametrize("method", methods(), ids=name_of)
def test_each_rpc_of_clients_names_the_resource_that_its_request_is_about(
    method: MethodDescriptor,
) -> None:
    if rule_of(method).scope in access.FOR_SERVICES:
        assert not rule_of(method).resource, "services act for all tenants"
        return
    told = {path for name, path in TOLD_BY_OTHERS if name == name_of(method)}

    assert set(ids_in(method.input_type)) - told == {rule_of(method).resource} - {""}


@pytest.mark.parametrize(
    "method", [each for each in methods() if rule_of(each).resource], ids=name_of
)
def test_a_resource_is_named_by_an_id_that_is_there(method: MethodDescriptor) -> None:
    *parents, name = rule_of(method).resource.split(".")
    message = method.input_type
    for parent in parents:
        inner = message.fields_by_name[parent].message_type
        assert inner is not None
        message = inner
    field = message.fields_by_name[name]

    assert field.type == FieldDescriptor.TYPE_STRING
    assert rules_of(field).uuid
    assert rules_of(field).required


class NotThere(Exception):
    pass


class Registry:
    """Whose jobs are, and how often that was asked."""

    def __init__(self) -> None:
        self.owners: dict[UUID, str] = {}
        self.asked = 0

    async def tenant_of(self, job_id: UUID) -> str | None:
        self.asked += 1
        return self.owners.get(job_id)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def owned(registry: Registry) -> Owned:
    jobs = Resource(registry.tenant_of, NotThere)
    return Owned({"job_id": jobs, "session_id": jobs})


async def test_what_is_of_another_tenant_is_not_there(registry: Registry, owned: Owned) -> None:
    job_id = uuid4()
    registry.owners[job_id] = "one"
    request = job_pb2.GetJobRequest(job_id=str(job_id))

    with tenant_in("one"):
        await owned.check("job_id", request)
    for name in ("two", "default"):
        with tenant_in(name), pytest.raises(NotThere):
            await owned.check("job_id", request)


async def test_only_what_is_ones_own_is_known_without_a_look(
    registry: Registry, owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_REMEMBERED", 2)
    jobs = [uuid4() for _ in range(3)]
    registry.owners = dict.fromkeys(jobs, "one")
    requests = [job_pb2.GetJobRequest(job_id=str(each)) for each in (*jobs, uuid4())]

    with tenant_in("one"):
        for request in (requests[0], requests[1], requests[0], requests[2], requests[0]):
            await owned.check("job_id", request)
        assert registry.asked == 3
        await owned.check("job_id", requests[1])  # the one that was not named for longest
        assert registry.asked == 4
    with tenant_in("two"):
        for request in requests:  # whether it is there does not change what is done
            with pytest.raises(NotThere):
                await owned.check("job_id", request)
    assert registry.asked == 4 + len(requests)


async def test_of_a_stream_the_message_that_names_it_is_looked_at(
    registry: Registry, owned: Owned
) -> None:
    session_id = uuid4()
    registry.owners[session_id] = "one"
    start = concatenation_pb2.StreamAudioStart(session_id=str(session_id))

    with tenant_in("two"):
        with pytest.raises(NotThere):
            await owned.check("start.session_id", concatenation_pb2.StreamAudioRequest(start=start))
        chunk = concatenation_pb2.StreamAudioRequest(chunk=concatenation_pb2.Chunk(content=b"x"))
        await owned.check("start.session_id", chunk)
    assert registry.asked == 1
