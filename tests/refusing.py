"""An object store that refuses one key."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from steno.platform.errors import Unavailable


def refused(
    key: str, call: Callable[..., Coroutine[Any, Any, object]]
) -> Callable[..., Coroutine[Any, Any, object]]:
    """A call that the store refuses for one object."""

    async def refuse(object_key: str, *rest: Any) -> object:
        if object_key == key:
            raise Unavailable("the object store refused: AccessDenied")
        return await call(object_key, *rest)

    return refuse
