"""Page tokens: where a listing goes on, and for which filter."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime
from uuid import UUID

from steno.platform.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 50

Place = tuple[datetime, UUID]
"""create_time and id of the last thing of a page."""


def write_token(place: Place, where: object) -> str:
    """Returns the token of the page that begins after a place.

    Args:
        place: of the last thing of the page before.
        where: the filter, as JSON has it.
    """
    parts = [_digest(where), place[0].isoformat(), str(place[1])]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def read_token(token: str, where: object) -> Place | None:
    """Returns where the page begins; None is the start.

    Raises:
        InvalidArgument: the server did not issue the token, or it belongs to another filter.
    """
    if not token:
        return None
    try:
        digest, create_time, identifier = json.loads(base64.urlsafe_b64decode(token))
        place = datetime.fromisoformat(create_time), UUID(identifier)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidArgument.of("page_token", "was not issued by this server") from error
    if digest != _digest(where) or place[0].tzinfo is None:
        raise InvalidArgument.of("page_token", "belongs to another filter")
    return place


def _digest(where: object) -> str:
    return hashlib.sha256(json.dumps(where).encode()).hexdigest()[:16]
