"""On whose account a call is made. It passes down to the calls that are made for it.

A tenant shares workers and limits with others; it is a name, not a proof of identity. Whoever
reaches the services may name any: a gateway in front of them sets the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from steno.platform.errors import InvalidArgument

HEADER = "x-steno-tenant"
"""Metadata key of a call."""

DEFAULT = "default"
"""The tenant of calls that name none."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_tenant: ContextVar[str] = ContextVar("tenant", default=DEFAULT)


def tenant() -> str:
    """The tenant of the call that is being served."""
    return _tenant.get()


@contextmanager
def tenant_in(name: str) -> Iterator[None]:
    """Inside, everything is on this account. Raises InvalidArgument for what is no name."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument.of(HEADER, "must be a DNS label: at most 63 of a-z, 0-9 and -")
    token = _tenant.set(name)
    try:
        yield
    finally:
        _tenant.reset(token)
