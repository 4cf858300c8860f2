"""Bugs of live sessions, and what each breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from planting import Edit
from simulation import planted, promises, session_promises, session_statements
from simulation.database import Row, Transaction
from simulation.planted import Bug
from steno.concatenation import statements as sql
from steno.concatenation.domain import Session
from steno.concatenation.finish import Finisher
from steno.concatenation.ingest import Ingest
from steno.concatenation.recording import Recordings
from steno.concatenation.store import Store
from steno.concatenation.watch import Watchers
from steno.concatenation.worker import Workers
from steno.platform.subscriber import Subscriber

Parameters = Mapping[str, Any]

Statement = partial(planted.Statement, session_statements.STATEMENTS)


def _nothing(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return []


def _limit_of_all(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return session_statements.add_session(tx, {**p, "tenant_max_open": p["max_open"]})


def _open_as_ever(tx: Transaction, p: Parameters) -> Sequence[Row]:
    return [session for session in tx.rows("sessions") if session["state"] == "OPEN"]


def _whoever_has_it(tx: Transaction, p: Parameters) -> Sequence[Row]:
    """CLAIM_SESSIONS without a look at the lease."""
    found = []
    for session in [*tx.rows("sessions")]:
        if not session["finished"] and tx.lock_if_free("sessions", session["session_id"]):
            changes = {
                "attempt": session["attempt"] + 1,
                "lease_time": tx.clock,
                "lease_until": tx.clock + p["lease"],
            }
            found.append(tx.update("sessions", session["session_id"], session, changes))
    return found


def _removed_once(tx: Transaction, p: Parameters) -> Sequence[Row]:
    tx.lock("removals", p["removal_id"])
    tx.delete("removals", p["removal_id"])
    return []


BUGS = (
    Bug(
        "a chunk's row is written before its bytes",
        (
            Edit(
                Ingest,
                "write",
                {
                    'await self._put(key, b"".join(parts))': "pass",
                    "    record(appended)": (
                        '    if parts:\n        await self._put(key, b"".join(parts))\n'
                        "    record(appended)"
                    ),
                },
            ),
        ),
        (session_promises.rows_name_what_is_there,),
    ),
    Bug(
        "what comes after the end is written, and refused then",
        (Edit(Ingest, "write", {"if parts and session.state.ended:": "if False:"}),),
        (session_promises.no_bytes_are_left,),
    ),
    Bug(
        "a session that has ended takes chunks",
        (
            Edit(Ingest, "write", {"if parts and session.state.ended:": "if False:"}),
            Edit(Session, "accepted", {"if self.state.ended:\n": "if False:\n"}),
        ),
        (session_promises.closed_sessions_take_nothing,),
    ),
    Bug(
        "a producer's own late stream is taken for another's",
        (Edit(Ingest, "stream", {"taken.producer_id is not None and": "False and"}),),
        (session_promises.refusals_are_true,),
        mix="producers",
    ),
    Bug(
        "append does not check the epoch",
        (Edit(Session, "accepted", {"epoch is not None and epoch != self.epoch": "False"}),),
        (session_promises.a_stale_epoch_changes_nothing,),
    ),
    Bug(
        "a stream that takes over has the epoch of the one before",
        (Edit(Session, "taken_over", {"epoch=self.epoch + 1": "epoch=max(1, self.epoch)"}),),
        (session_promises.one_stream_writes,),
    ),
    Bug(
        "who was replaced takes over again",
        (Edit(Session, "taken_over", {"epoch not in (0, self.epoch) and not own": "False"}),),
        (session_promises.producers_do_not_take_turns,),
        mix="producers",
    ),
    Bug(
        "other bytes are acknowledged as those that are there",
        (Edit(Session, "accepted", {"elif digest != chunk.sha256:": "elif False:"}),),
        (session_promises.a_sequence_has_one_content,),
    ),
    Bug(
        "a chunk is taken though silence stands in its place",
        (Edit(Session, "check_sequence", {"if sequence < self.next_sequence:": "if False:"}),),
        (session_promises.acknowledged_chunks_are_recorded,),
    ),
    Bug(
        "chunks behind a missing one are left when a session ends",
        (Edit(Store, "_end", {"while change.session.waits:": "while False:"}),),
        (session_promises.acknowledged_chunks_are_recorded,),
    ),
    Bug(
        "a missing chunk is not waited for",
        (
            Statement(sql.OVERDUE_SESSIONS, _open_as_ever),
            Statement(sql.LOCK_OVERDUE_SESSION, session_statements.lock_session),
        ),
        (session_promises.a_chunk_is_waited_for,),
    ),
    Bug(
        "idle sessions are left open",
        (Statement(sql.IDLE_SESSIONS, _nothing),),
        (session_promises.every_session_ends,),
    ),
    Bug(
        "the session is not locked when chunks come",
        (Statement(sql.LOCK_SESSION, session_statements.get_session),),
        (
            session_promises.only_documented_errors,
            session_promises.a_session_and_its_log_change_together,
        ),
    ),
    Bug(
        "who works on a session does not check the attempt",
        (Statement(sql.LOCK_HELD_SESSION, session_statements.lock_session),),
        (session_promises.a_stale_lease_changes_nothing,),
        mix="leases",
    ),
    Bug(
        "a session is taken from whoever has it",
        (Statement(sql.CLAIM_SESSIONS, _whoever_has_it),),
        (session_promises.nobody_loses_a_lease_that_is_kept,),
    ),
    Bug(
        "a replica that starts takes leases at once",
        (Edit(Workers, "claim", {"self._outages.answered() and lost": "lost"}),),
        (session_promises.nobody_loses_a_lease_that_is_kept,),
    ),
    Bug(
        "sessions of who has died are left",
        (Statement(sql.PARK_LOST, _nothing),),
        (session_promises.every_session_ends,),
    ),
    Bug(
        "each try to import a recording is another request",
        (
            Edit(
                Finisher,
                "import_audio",
                {
                    "request_id=str(session.session_id)": (
                        "request_id=str(uuid5(session.session_id, str(lease.attempt)))"
                    )
                },
            ),
        ),
        (session_promises.every_session_ends,),
        mix="storage",
    ),
    Bug(
        "each try to make the final job is another request",
        (Edit(Finisher, "make_job", {'"final job"': "str(lease.attempt)"}),),
        (session_promises.a_session_becomes_one_audio_and_one_job,),
    ),
    Bug(
        "the final job is on the account of whoever closes the session",
        (Edit(Finisher, "make_job", {"tenant_in(session.tenant)": 'tenant_in("default")'}),),
        (session_promises.a_session_becomes_one_audio_and_one_job,),
    ),
    Bug(
        "a file is made of the pieces that are left",
        (
            Edit(
                Recordings,
                "_read_pieces",
                {"if len(data) != (end_frame - start_frame) * of.frame_bytes:": "if False:"},
            ),
        ),
        (
            session_promises.acknowledged_chunks_are_recorded,
            session_promises.what_plays_is_the_beginning,
            session_promises.only_documented_errors,
        ),
    ),
    Bug(
        "what a chunk was answered is forgotten an hour after the end",
        (
            Statement(
                sql.UNTRIMMED_SESSIONS,
                lambda tx, p: [
                    session
                    for session in session_statements.old_sessions(tx, p)
                    if not session["trimmed"]
                ],
            ),
        ),
        (session_promises.chunks_are_answered_again,),
    ),
    Bug(
        "parts are left when a session is finished",
        (Edit(Store, "finish", {"(lease.session_id):": "(lease.session_id)[:-1]:"}),),
        (session_promises.no_bytes_are_left,),
    ),
    Bug(
        "what is removed is not looked for once more",
        (Statement(session_statements.REMOVALS.settle, _removed_once),),
        (session_promises.no_bytes_are_left,),
        mix="storage",
    ),
    Bug(
        "files of what is recorded so far are left",
        (
            Edit(
                Recordings,
                "_snapshot",
                {"await self._store.remove_later(": "("},
            ),
        ),
        (session_promises.no_bytes_are_left,),
    ),
    Bug(
        "the limit of a tenant is that of all",
        (Statement(sql.ADD_SESSION, _limit_of_all),),
        (session_promises.limits_are_kept,),
    ),
    Bug(
        "a request_id is not remembered",
        (Edit(Store, "create", {"if new.request_id is not None:": "if False:"}),),
        (session_promises.a_request_id_has_one_effect,),
    ),
    Bug(
        "a session is saved with a revision that its log has not",
        (Edit(Store, "_save", {"if not events:": "if change.session.state.ended:"}),),
        (session_promises.a_session_and_its_log_change_together,),
    ),
    Bug(
        "the relay marks what it could not send",
        (
            Edit(
                Watchers,
                "_send",
                {"except Unavailable:\n        raise": "except Unavailable:\n        pass"},
            ),
        ),
        (promises.each_event_reaches_nats,),
    ),
    Bug(
        "watchers are told what comes, whatever its number",
        (Edit(Watchers, "_follow", {"elif update.event.revision == seen + 1:": "elif True:"}),),
        (session_promises.watchers_see_each_revision_once,),
    ),
    Bug(
        "watchers pass over holes",
        (
            Edit(
                Watchers,
                "_follow",
                {"update.event.revision == seen + 1": "update.event.revision > seen"},
            ),
        ),
        (session_promises.watchers_see_each_revision_once,),
    ),
    Bug(
        "watchers of a session that was deleted are not told",
        (Edit(Subscriber, "update", {"state is None": "False"}),),
        (promises.everybody_is_answered,),
    ),
)
