"""What a call may touch: the option `(steno.v1.access)` that stands beside each RPC in proto/.

What belongs to another tenant is answered as what is not there: nobody learns by a refusal which
ids there are, nor by the time that it takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from steno.platform.tenancy import tenant
from steno.v1 import access_pb2
from steno.v1.access_pb2 import AccessRule

MOST_REMEMBERED = 20_000
"""Ids of which it is remembered whose they are: a tenant keeps what it has."""

FOR_SERVICES = frozenset({access_pb2.SCOPE_WORKER, access_pb2.SCOPE_SERVICE})
"""Scopes that no client has: calls of these act for all tenants."""


def rule_of(method: MethodDescriptor) -> AccessRule:
    """The rule that stands beside a method."""
    return method.GetOptions().Extensions[access_pb2.access]


@dataclass(frozen=True)
class Resource:
    """A kind of thing that tenants own.

    Attributes:
        tenant_of: whose the one of an id is; None: there is none.
        missing: the error for an id of which there is none.
    """

    tenant_of: Callable[[UUID], Awaitable[str | None]]
    missing: Callable[[UUID], Exception]


class Owned:
    """Holds the ids in requests against the tenant of the call."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        """Takes the kinds there are, by the name of the field that holds their ids."""
        self._resources = resources
        self._own: OrderedDict[tuple[str, UUID], None] = OrderedDict()

    async def check(self, path: str, request: Message) -> None:
        """Lets a request pass whose id is of the calling tenant.

        Args:
            path: of the field; a message of a stream that lacks it is about nothing new.
            request: is valid.

        Raises what the service raises for an id that is not there.
        """
        *parents, name = path.split(".")
        for parent in parents:
            if not request.HasField(parent):
                return
            request = getattr(request, parent)
        resource_id = UUID(getattr(request, name))
        key = tenant(), resource_id
        if key in self._own:
            self._own.move_to_end(key)
            return
        resource = self._resources[name]
        if await resource.tenant_of(resource_id) != tenant():
            raise resource.missing(resource_id)
        self._own[key] = None
        if len(self._own) > MOST_REMEMBERED:
            self._own.popitem(last=False)
