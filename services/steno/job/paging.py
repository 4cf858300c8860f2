"""Page tokens: where a listing goes on, and for which filter."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime
from uuid import UUID

from steno.job.domain import Job, JobFilter
from steno.platform.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 50

Place = tuple[datetime, UUID]
"""create_time and id of the last job of a page."""


def token_after(job: Job, where: JobFilter) -> str:
    """Returns the token of the page that begins after a job."""
    place = [_digest(where), job.create_time.isoformat(), str(job.job_id)]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def read_token(token: str, where: JobFilter) -> Place | None:
    """Returns where the page begins; None is the start.

    Raises:
        InvalidArgument: the token is none, or belongs to another filter.
    """
    if not token:
        return None
    try:
        digest, create_time, job_id = json.loads(base64.urlsafe_b64decode(token))
        place = datetime.fromisoformat(create_time), UUID(job_id)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidArgument.of("page_token", "is none that this server made") from error
    if digest != _digest(where) or place[0].tzinfo is None:
        raise InvalidArgument.of("page_token", "belongs to another filter")
    return place


def _digest(where: JobFilter) -> str:
    parts = [
        sorted(where.states),
        sorted(where.labels.items()),
        str(where.create_time_from),
        str(where.create_time_to),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
