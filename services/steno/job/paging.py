"""Where a listing of jobs goes on, and for which filter."""

from __future__ import annotations

from steno.job.domain import Job, JobFilter
from steno.platform import paging
from steno.platform.paging import DEFAULT_PAGE_SIZE, Place

__all__ = ["DEFAULT_PAGE_SIZE", "read_token", "token_after"]


def token_after(job: Job, where: JobFilter) -> str:
    """Returns the token of the page that begins after a job."""
    return paging.write_token((job.create_time, job.job_id), _parts(where))


def read_token(token: str, where: JobFilter) -> Place | None:
    """Returns where the page begins; None is the start.

    Raises:
        InvalidArgument: the token is none, or belongs to another filter.
    """
    return paging.read_token(token, _parts(where))


def _parts(where: JobFilter) -> list[object]:
    return [
        where.tenant,
        sorted(where.states),
        sorted(where.labels.items()),
        str(where.create_time_from),
        str(where.create_time_to),
    ]
