"""What the job service's SQL does, and what its schema refuses, as functions over rows.

Each function is called as the constant that holds its statement. That they do the same as Postgres
is shown by tests/integration/job/test_conformance.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation

from simulation.database import Row, Transaction
from simulation.statements import Parameters, assigned, free, locked, statements_of, there
from steno.job import statements, turns
from steno.job.domain import JobFilter, JobState

TABLES = ("jobs", "tasks", "events", "request_ids")

UNFINISHED = ("QUEUED", "RUNNING")

# Jobs


def remember_requests(tx: Transaction, p: Parameters) -> Sequence[Row]:
    columns = ("tenants", "methods", "request_ids", "body_sha256s", "job_ids")
    names = [name.removesuffix("s") for name in columns]
    calls = [*zip(*(p[name] for name in columns), strict=True)]
    for call in calls:
        if tx.get("request_ids", call[:3]) is None:
            tx.lock("request_ids", call[:3])
    noted: list[Row] = []
    for call in calls:
        if tx.get("request_ids", call[:3]) is None:
            row = dict(zip(names, call, strict=True))
            tx.insert("request_ids", call[:3], row | {"create_time": tx.now})
            noted.append({"job_id": row["job_id"]})
    return noted


def find_request(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("request_ids", (p["tenant"], p["method"], p["request_id"])))


def clocks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = []
    for tenant, model, priority in zip(p["tenants"], p["models"], p["priorities"], strict=True):
        line = [
            task
            for task in tx.rows("tasks")
            if (task["tenant"], task["model"], task["priority"]) == (tenant, model, priority)
        ]
        started = [task["turn"] for task in line if _on_its_way(task)]
        waiting = [task["turn"] for task in line if _unsent(task)]
        turn = max(started) if started else min(waiting, default=0)
        found.append(
            {
                "now": tx.clock,
                "tenant": tenant,
                "model": model,
                "priority": priority,
                "turn": turn,
            }
        )
    return found


def insert_jobs(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for row in p["rows"].obj:
        columns = {**row, "model": row["config"]["model"], "audio_check_time": tx.now}
        tx.insert("jobs", row["job_id"], columns)
    return []


def get_job(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("jobs", p["job_id"]))


def tenant_of_job(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("jobs", p["job_id"]))


def lock_job(tx: Transaction, p: Parameters) -> Sequence[Row]:
    if tx.get("jobs", p["job_id"]) is None:
        return []
    tx.lock("jobs", p["job_id"])
    return [_with_now(tx, job) for job in get_job(tx, p)]


def lock_job_if_free(tx: Transaction, p: Parameters) -> Sequence[Row]:
    job = tx.get("jobs", p["job_id"])
    if job is None or not tx.lock_if_free("jobs", p["job_id"]):
        return []
    return [_with_now(tx, job)]


def job_exists(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [{}] if tx.get("jobs", p["job_id"]) is not None else []


def job_of_task(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return there(tx.get("tasks", p["task_id"]))


_SAVED = assigned(statements.SAVE_JOBS)


def save_jobs(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for row in p["rows"].obj:
        job = locked(tx, "jobs", row["job_id"])
        if job is not None:
            tx.update("jobs", row["job_id"], job, {name: row[name] for name in _SAVED})
    return []


def loads(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found: dict[str, dict[str, Any]] = {}
    for job in tx.rows("jobs"):
        if job["state"] in UNFINISHED:
            new = {"tenant": job["tenant"], "jobs": 0, "samples": 0}
            load = found.setdefault(job["tenant"], new)
            load["jobs"] += 1
            load["samples"] += job["sample_count"] - job["transcribed_sample_count"]
    return [*found.values()]


def load_of_tenant(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [load for load in loads(tx, p) if load["tenant"] == p["tenant"]]


def delete_job(tx: Transaction, p: Parameters) -> Sequence[Row]:
    job_id = p["job_id"]
    if locked(tx, "jobs", job_id) is None:
        return []
    rows = [
        (table, key(row))
        for table, key in _KEYS.items()
        if table != "jobs"
        for row in tx.rows(table)
        if row["job_id"] == job_id
    ]
    for table, each in rows:
        tx.lock(table, each)
    for table, each in [*rows, ("jobs", job_id)]:
        tx.delete(table, each)
    return []


def old_jobs(tx: Transaction, p: Parameters) -> Sequence[Row]:
    before = tx.now - p["age"]
    found = [
        job
        for job in tx.rows("jobs")
        if job["end_time"] is not None
        and job["end_time"] < before
        and job["job_id"] not in p["aside"]
    ]
    return sorted(found, key=lambda job: job["end_time"])[: p["limit"]]


def list_jobs(tx: Transaction, p: Parameters) -> Sequence[Row]:
    labels = p["labels"].obj.items()
    found = [
        job
        for job in tx.rows("jobs")
        if job["tenant"] == p["tenant"]
        and (not p["states"] or job["state"] in p["states"])
        and labels <= job["labels"].items()
        and (p["create_time_from"] is None or job["create_time"] >= p["create_time_from"])
        and (p["create_time_to"] is None or job["create_time"] < p["create_time_to"])
        and (
            p["before_time"] is None
            or (job["create_time"], job["job_id"]) < (p["before_time"], p["before_job_id"])
        )
    ]
    found.sort(key=lambda job: (job["create_time"], job["job_id"]), reverse=True)
    return found[: p["limit"]]


def jobs_with_retried(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = []
    for job_id in p["job_ids"]:
        job = tx.get("jobs", job_id)
        if job is None:
            continue
        retried = sorted(
            (
                task
                for task in tx.rows("tasks")
                if task["job_id"] == job_id
                and task["failure_count"] > 0
                and task["state"] in ("PENDING", "LEASED")
            ),
            key=lambda task: (-task["failure_count"], task["slice_index"]),
        )
        first = retried[0] if retried else dict.fromkeys(_RETRIED)
        found.append(
            {
                **job,
                "retried_count": len(retried) or None,
                **{name: first[name] for name in _RETRIED},
            }
        )
    return found


_RETRIED = ("slice_index", "failure_count", "last_error", "next_attempt_time")


def queue(tx: Transaction, p: Parameters) -> Sequence[Row]:
    """Without the time left, which promises nothing."""
    waiting = [
        job
        for job in tx.rows("jobs")
        if job["state"] in UNFINISHED and (job["not_before"] is None or job["not_before"] <= tx.now)
    ]
    waiting.sort(
        key=lambda job: (
            job["priority"],
            job["turn"] - job["sample_count"] + job["transcribed_sample_count"],
            job["create_time"],
            job["job_id"],
        )
    )
    before: dict[str, int] = defaultdict(int)
    positions: list[int | None] = []
    for job in waiting:
        queued = job["state"] == "QUEUED"
        positions.append(before[job["model"]] if queued else None)
        before[job["model"]] += queued
    row = {
        "job_ids": [job["job_id"] for job in waiting] or None,
        "positions": positions,
        "remaining_seconds": [None] * len(waiting),
    }
    return [row]


def late_jobs(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = [
        job
        for job in tx.rows("jobs")
        if job["deadline"] is not None
        and job["state"] in UNFINISHED
        and job["deadline"] < tx.clock
        and job["job_id"] not in p["aside"]
    ]
    return sorted(found, key=lambda job: job["deadline"])[: p["limit"]]


# Events


def insert_events(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for job_id, revision, payload in zip(p["job_ids"], p["revisions"], p["payloads"], strict=True):
        tx.insert(
            "events",
            (job_id, revision),
            {
                "job_id": job_id,
                "revision": revision,
                "payload": payload,
                "published": False,
                "create_time": tx.now,
            },
        )
    return []


def events_after(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return _events(tx, p["job_id"], p["revision"] + 1, p["limit"])


def events_from(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [
        event
        for job_id, revision in sorted(zip(p["job_ids"], p["revisions"], strict=True))
        for event in _events(tx, job_id, revision, p["limit"])
    ]


def _events(tx: Transaction, job_id: UUID, first: int, limit: int) -> list[Row]:
    found: list[Row] = []
    # The log has no holes.
    while len(found) < limit and (event := tx.get("events", (job_id, first))) is not None:
        found.append(event)
        first += 1
    return found


def unpublished_events(tx: Transaction, p: Parameters) -> Sequence[Row]:
    aside = set(zip(p["job_ids_aside"], p["revisions_aside"], strict=True))
    waiting = sorted(
        (
            event
            for event in tx.rows("events")
            if not event["published"] and (event["job_id"], event["revision"]) not in aside
        ),
        key=lambda event: (event["create_time"], event["job_id"], event["revision"]),
    )
    found: list[Row] = []
    for event in waiting:
        if len(found) == p["limit"]:
            break
        if tx.lock_if_free("events", (event["job_id"], event["revision"])):
            found.append({name: event[name] for name in ("job_id", "revision", "payload")})
    return found


def mark_published(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for key in zip(p["job_ids"], p["revisions"], strict=True):
        event = locked(tx, "events", key)
        if event is not None:
            tx.update("events", key, event, {"published": True})
    return []


# Tasks


def insert_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for row in p["rows"].obj:
        _insert_task(tx, row)
    return []


def _insert_task(tx: Transaction, p: Parameters) -> None:
    task_id = UUID(int=tx.server.loop.random.getrandbits(128), version=4)
    tx.insert(
        "tasks",
        task_id,
        _NEW_TASK | {"task_id": task_id, "create_time": tx.now, "message_check_time": tx.now, **p},
    )
    place = (p["job_id"], p["slice_index"])
    if [(each["job_id"], each["slice_index"]) for each in tx.rows("tasks")].count(place) > 1:
        raise UniqueViolation(f"tasks: there is slice {place[1]} of job {place[0]} already")


_NEW_TASK: dict[str, Any] = {
    "state": "PENDING",
    "attempt": 0,
    "failures": 0,
    "failure_count": 0,
    "next_attempt_time": None,
    "lease_request_id": None,
    "last_error": "",
    "worker_id": None,
    "lease_time": None,
    "lease_expire_time": None,
    "end_time": None,
    "transcribed_sample_count": 0,
    "result": None,
    "released": False,
    "dispatch_count": 0,
    "message_sequence": None,
    "priority": 2,
    "turn": 0,
}

_COPIED = (
    "tenant",
    "model",
    "slice_index",
    "start_sample",
    "sample_count",
    "speech_sample_count",
    "left_context_sample_count",
    "right_context_sample_count",
    "context_object_key",
    "gaps",
    "object_key",
    "state",
    "transcribed_sample_count",
    "result",
    "end_time",
)


def copy_done_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    done = [
        task
        for task in tx.rows("tasks")
        if task["job_id"] == p["retry_of_job_id"] and task["state"] == "DONE"
    ]
    for task in done:
        _insert_task(tx, {"job_id": p["job_id"], **{name: task[name] for name in _COPIED}})
    return done


def lock_free_jobs_of_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    tasks = (tx.get("tasks", task_id) for task_id in p["task_ids"])
    found: list[Row] = []
    for job_id in dict.fromkeys(task["job_id"] for task in tasks if task is not None):
        found += lock_job_if_free(tx, {"job_id": job_id})
    return found


def get_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    tasks = (tx.get("tasks", task_id) for task_id in dict.fromkeys(p["task_ids"]))
    return [task for task in tasks if task is not None]


def save_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for row in p["rows"].obj:
        task = locked(tx, "tasks", row["task_id"])
        if task is not None:
            tx.update("tasks", row["task_id"], task, _saved(tx, task, row, p["lease"]))
    return []


def _saved(tx: Transaction, task: Row, row: Row, lease: timedelta) -> Row:
    state = str(row["state"])
    leased_anew = task["attempt"] < row["attempt"]
    return {
        **{name: row[name] for name in _SAVED_OF_TASKS},
        "result": row["result"] if row["result"] is not None else task["result"],
        "lease_time": tx.clock if leased_anew else task["lease_time"],
        "lease_expire_time": tx.clock + lease if state == "LEASED" else None,
        "end_time": tx.clock if state in ("DONE", "FAILED") else None,
        "message_sequence": task["message_sequence"] if state != "PENDING" else None,
    }


_SAVED_OF_TASKS = assigned(statements.SAVE_TASKS)


def cancel_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    for task in _locked_tasks(tx, p["job_id"], lambda task: task["state"] in ("PENDING", "LEASED")):
        changes = {"state": "CANCELLED", "end_time": tx.clock, "lease_expire_time": None}
        tx.update("tasks", task["task_id"], task, changes)
    return []


def release_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    held = _locked_tasks(
        tx,
        p["job_id"],
        lambda task: (
            task["slice_index"] <= p["last_index"]
            and not task["released"]
            and task["state"] == "PENDING"
        ),
    )
    for task in held:
        tx.update("tasks", task["task_id"], task, {"released": True})
    return []


def ended_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return _slices(
        tx,
        p["job_id"],
        lambda task: (
            task["state"] in ("DONE", "FAILED") and task["slice_index"] >= p["first_index"]
        ),
    )[: p["limit"]]


def unjoined_jobs(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found: list[Row] = []
    for task in tx.rows("tasks"):
        job = tx.get("jobs", task["job_id"])
        assert job is not None, "its tasks go with a job"
        if (
            task["state"] in ("DONE", "FAILED")
            and job["state"] in UNFINISHED
            and 0 < job["joined_count"] < job["task_count"]
            and task["slice_index"] == job["joined_count"]
            and job["job_id"] not in p["aside"]
        ):
            found.append({"job_id": job["job_id"]})
    return found[: p["limit"]]


def joined_results(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return _slices(
        tx,
        p["job_id"],
        lambda task: p["first_index"] <= task["slice_index"] < p["end_index"],
    )


def past_leases(tx: Transaction, p: Parameters) -> Sequence[Row]:
    found = [
        task
        for task in tx.rows("tasks")
        if task["state"] == "LEASED"
        and task["lease_expire_time"] < tx.clock
        and task["task_id"] not in p["aside"]
    ]
    return sorted(found, key=lambda task: task["lease_expire_time"])[: p["limit"]]


# The outbox: tasks


def due_tasks(tx: Transaction, p: Parameters) -> Sequence[Row]:
    due = [
        task
        for task in tx.rows("tasks")
        if _unsent(task)
        and (task["next_attempt_time"] is None or task["next_attempt_time"] <= tx.now)
        and task["task_id"] not in p["aside"]
    ]
    if not due:
        return []
    room = {
        model: _room(tx, model, p["least_waiting"], p["moment"])
        for model in sorted({task["model"] for task in due})
    }
    had: dict[tuple[str, str, int], int] = defaultdict(int)
    for task in tx.rows("tasks"):
        lately = task["model"] in room and _was_done_since(task, tx.now - p["a_while"])
        if _on_its_way(task) or lately:
            had[task["model"], task["tenant"], task["priority"]] += task["sample_count"]
    placed = []
    for model in room:
        placed += _in_order(tx, model, due, room[model], had, p["least_share"])[: room[model]]
    placed.sort(key=lambda each: each[0])
    return [_due_row(tx, task) for _, task in placed][: p["limit"]]


def _room(tx: Transaction, model: str, least: int, moment: Any) -> int:
    waiting = done = 0
    for task in tx.rows("tasks"):
        if task["model"] == model:
            waiting += task["state"] == "PENDING" and task["message_sequence"] is not None
            done += _was_done_since(task, tx.now - moment)
    return max(0, max(least, done) - waiting)


def _in_order(
    tx: Transaction,
    model: str,
    due: Sequence[Row],
    room: int,
    had: Mapping[tuple[str, str, int], int],
    least_share: float,
) -> list[tuple[int, Row]]:
    """A model's tasks, each with its place, from 1."""
    lines: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for task in due:
        if task["model"] == model and _may_begin(tx, task):
            lines[task["tenant"], task["priority"]].append(task)
    ordered: list[tuple[int, Row]] = []
    for (tenant, _), line in sorted(lines.items()):
        line.sort(key=lambda task: (task["turn"], task["slice_index"]))
        so_far = sum(samples for key, samples in had.items() if key[:2] == (model, tenant))
        for task in line[:room]:
            ordered.append((so_far, task))
            so_far += task["sample_count"]
    ordered.sort(key=lambda each: (each[0], each[1]["turn"], each[1]["slice_index"]))
    share = least_share * sum(samples for key, samples in had.items() if key[0] == model)
    begun: dict[int, int] = defaultdict(int)
    for (of_model, _, priority), samples in had.items():
        if of_model == model:
            begun[priority] += samples
    keys = []
    for tenant_had, task in ordered:
        beyond = begun[task["priority"]] >= share
        begun[task["priority"]] += task["sample_count"]
        keys.append((beyond, task["priority"], tenant_had, task["turn"], task["slice_index"]))
    in_turn = sorted(range(len(keys)), key=lambda n: keys[n])
    return [(place, ordered[n][1]) for place, n in enumerate(in_turn, 1)]


def _may_begin(tx: Transaction, task: Row) -> bool:
    job = tx.get("jobs", task["job_id"])
    return job is not None and (job["not_before"] is None or job["not_before"] <= tx.now)


def _due_row(tx: Transaction, task: Row) -> Row:
    job = tx.get("jobs", task["job_id"])
    assert job is not None
    names = ("task_id", "job_id", "model", "priority", "attempt", "dispatch_count")
    return {name: task[name] for name in names} | {"trace": job["trace"]}


def mark_dispatched(tx: Transaction, p: Parameters) -> Sequence[Row]:
    sent = zip(p["task_ids"], p["attempts"], p["counts"], p["sequences"], strict=True)
    for task_id, attempt, count, sequence in sent:
        task = tx.get("tasks", task_id)
        if task is None or not tx.lock_if_free("tasks", task_id):
            continue
        if task["dispatch_count"] == count:
            changes = {
                "dispatch_count": count + 1,
                "message_sequence": sequence if task["attempt"] == attempt else None,
                "message_check_time": tx.now,
            }
            tx.update("tasks", task_id, task, changes)
    return []


def claim_messages_to_check(tx: Transaction, p: Parameters) -> Sequence[Row]:
    waiting = [
        task
        for task in tx.rows("tasks")
        if task["state"] == "PENDING"
        and task["message_sequence"] is not None
        and task["message_check_time"] < tx.now - p["age"]
    ]
    waiting.sort(key=lambda task: task["message_check_time"])
    return [
        tx.update("tasks", task["task_id"], task, {"message_check_time": tx.now})
        for task in free(tx, "tasks", waiting, _KEYS["tasks"], p["limit"])
    ]


def forget_message(tx: Transaction, p: Parameters) -> Sequence[Row]:
    def is_waiting(task: Row | None) -> bool:
        return (
            task is not None
            and task["message_sequence"] == p["sequence"]
            and task["state"] == "PENDING"
        )

    if is_waiting(tx.get("tasks", p["task_id"])):
        task = locked(tx, "tasks", p["task_id"])
        if task is not None and is_waiting(task):
            tx.update("tasks", p["task_id"], task, {"message_sequence": None})
    return []


# The outbox: audio


def claim_audio_to_check(tx: Transaction, p: Parameters) -> Sequence[Row]:
    def age(job: Row) -> Any:
        return p["preparing_age"] if job["audio_state"] == "PREPARING" else p["ready_age"]

    waiting = [
        job
        for job in tx.rows("jobs")
        if job["state"] in UNFINISHED and job["audio_check_time"] < tx.now - age(job)
    ]
    waiting.sort(key=lambda job: job["audio_check_time"])
    return [
        _audio_row(tx.update("jobs", job["job_id"], job, {"audio_check_time": tx.now}))
        for job in free(tx, "jobs", waiting, _KEYS["jobs"], p["limit"])
    ]


def jobs_of_audio(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [
        _audio_row(job)
        for job in tx.rows("jobs")
        if job["audio_id"] == p["audio_id"] and job["state"] in UNFINISHED
    ]


def _audio_row(job: Row) -> Row:
    return {name: job[name] for name in ("job_id", "audio_id", "task_count")}


# What the functions above are made of


def _with_now(tx: Transaction, job: Row) -> Row:
    return {**job, "now": tx.clock}


def _locked_tasks(tx: Transaction, job_id: UUID, where: Callable[[Row], bool]) -> list[Row]:
    found = [task for task in tx.rows("tasks") if task["job_id"] == job_id and where(task)]
    for task in found:
        tx.lock("tasks", task["task_id"])
    return found


def _slices(tx: Transaction, job_id: UUID, where: Callable[[Row], bool]) -> list[Row]:
    found = [task for task in tx.rows("tasks") if task["job_id"] == job_id and where(task)]
    return sorted(found, key=lambda task: task["slice_index"])


def _on_its_way(task: Row) -> bool:
    return task["state"] == "LEASED" or (
        task["state"] == "PENDING" and task["message_sequence"] is not None
    )


def _unsent(task: Row) -> bool:
    return bool(
        task["state"] == "PENDING" and task["released"] and task["message_sequence"] is None
    )


def _was_done_since(task: Row, since: Any) -> bool:
    return bool(
        task["state"] == "DONE" and task["lease_time"] is not None and task["end_time"] > since
    )


_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "jobs": lambda row: row["job_id"],
    "tasks": lambda row: row["task_id"],
    "events": lambda row: (row["job_id"], row["revision"]),
    "request_ids": lambda row: (row["tenant"], row["method"], row["request_id"]),
}


# What the schema refuses

_MOVES = {
    ("PENDING", "LEASED"),
    ("PENDING", "CANCELLED"),
    ("LEASED", "PENDING"),
    ("LEASED", "DONE"),
    ("LEASED", "FAILED"),
    ("LEASED", "CANCELLED"),
}


def rules(tx: Transaction, table: str, old: Row | None, new: Row | None) -> str:
    """What is wrong with a change of a row, or "": the constraints and triggers."""
    match table:
        case "jobs":
            return _wrong_with_job(old, new)
        case "tasks":
            return _wrong_with_task(tx, old, new)
        case "events":
            return _wrong_with_event(tx, old, new)
    return ""


def _wrong_with_job(old: Row | None, new: Row | None) -> str:
    if new is None:
        assert old is not None
        return "a job that has not ended stays" if old["state"] in UNFINISHED else ""
    state = new["state"]
    ended = state not in UNFINISHED
    if old is None:
        if state != "QUEUED":
            return "a job begins QUEUED"
    else:
        if old["state"] not in UNFINISHED:
            return "a job that has ended does not change"
        if (old["state"], state) == ("RUNNING", "QUEUED"):
            return "a job that runs is not queued again"
        if any(new[name] < old[name] for name in _RISING):
            return "progress never goes back"
        if old["language_code"] not in ("", new["language_code"]):
            return "the language stays once it is known"
    covered = new["speech_sample_count"] + new["silence_sample_count"] + new["gap_sample_count"]
    if (
        not 0 <= new["progress"] <= 1
        or (new["progress"] == 1) != (state == "SUCCEEDED")
        or (new["end_time"] is not None) != ended
        or (new["start_time"] is None and state == "RUNNING")
        or not 0 <= new["transcribed_sample_count"] <= new["sample_count"]
        or not 0 <= new["joined_count"] <= new["task_count"]
        or not 0 <= new["failed_count"] <= new["task_count"]
        or covered > new["sample_count"]
        or (
            state == "SUCCEEDED"
            and (new["joined_count"] != new["task_count"] or new["audio_state"] != "READY")
        )
        or (new["error_reason"] is None) != (new["error_message"] is None)
        or (state == "FAILED" and new["error_reason"] is None)
        or (new["error_reason"] is not None and state != "FAILED" and not new["failed_count"])
    ):
        return "a constraint of jobs is broken"
    return ""


_RISING = ("progress", "revision", "transcribed_sample_count", "joined_count", "task_count")


def _wrong_with_task(tx: Transaction, old: Row | None, new: Row | None) -> str:
    if new is None:
        return ""
    state = new["state"]
    if old is None:
        if state not in ("PENDING", "DONE") or new["attempt"] != 0:
            return "a task begins PENDING, or DONE in a retry, and never leased"
        if tx.get("jobs", new["job_id"]) is None:
            return "a task belongs to a job"
    else:
        if old["state"] != state and (old["state"], state) not in _MOVES:
            return "no such move"
        if new["attempt"] != old["attempt"] + ((old["state"], state) == ("PENDING", "LEASED")):
            return "each lease, and nothing else, raises the attempt by one"
        if any(
            new[name] < old[name]
            for name in ("transcribed_sample_count", "failures", "dispatch_count")
        ):
            return "progress never goes back"
        if old["result"] is not None and new["result"] != old["result"]:
            return "a result is written once"
    if (
        not 0 <= new["transcribed_sample_count"] <= new["sample_count"]
        or (new["result"] is not None) != (state == "DONE")
        or (state == "DONE" and new["transcribed_sample_count"] != new["sample_count"])
        or (new["lease_expire_time"] is not None) != (state == "LEASED")
        or (state == "LEASED" and (new["worker_id"] is None or new["lease_time"] is None))
    ):
        return "a constraint of tasks is broken"
    return ""


def _wrong_with_event(tx: Transaction, old: Row | None, new: Row | None) -> str:
    if new is None:
        return ""
    if old is not None:
        same = all(new[name] == old[name] for name in ("job_id", "revision", "payload"))
        return "" if same and new["published"] else "an event does not change"
    if tx.get("jobs", new["job_id"]) is None:
        return "an event belongs to a job"
    if new["revision"] > 1 and tx.get("events", (new["job_id"], new["revision"] - 1)) is None:
        return "the log has no holes"
    return ""


def missing_at_commit(tx: Transaction) -> str:
    """A remembered call whose job is not there: that is looked at last."""
    for request in tx.written("request_ids"):
        if tx.get("jobs", request["job_id"]) is None:
            return f"request_ids: there is no job {request['job_id']}"
    return ""


# All of them

NOT_SIMULATED = {"STATISTICS"}
"""What is only measured."""


STATEMENTS = statements_of(globals(), statements, turns, without=NOT_SIMULATED)
for _states, _labels, _from, _to, _first in product((False, True), repeat=5):
    _where = JobFilter(
        tenant="",
        states=frozenset(JobState) if _states else frozenset(),
        labels={"": ""} if _labels else {},
        create_time_from=datetime.min if _from else None,
        create_time_to=datetime.max if _to else None,
    )
    STATEMENTS[statements.list_jobs(_where, first_page=_first)] = ("LIST_JOBS", list_jobs)
