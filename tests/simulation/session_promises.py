"""What live sessions promise, held against what a schedule has left.

Nothing here knows how the service does it: promises are read from the contract, and are held
against what producers, watchers and readers were told, what the database has committed, what came
into the bucket and out of it, and what the recordings have become.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from simulation.database import Row
from simulation.evidence import Change, Evidence, Promise
from simulation.history import Call, Outcome
from simulation.loop import BEGINNING
from simulation.neighbours import NO_SUCH_MODEL, Channel, Made
from simulation.objects import Bucket
from simulation.promises import (
    each_event_reaches_nats,
    everybody_is_answered,
    nothing_fails_in_the_background,
)
from simulation.session_clients import Piece
from simulation.session_service import HOUR, LEASE, UNDECODABLE
from steno.concatenation.domain import (
    ChunkLate,
    ChunkRefused,
    NothingRecorded,
    RequestIdReused,
    SequenceReused,
    SessionNotFound,
    SessionNotOpen,
    SessionTooLong,
    TooFarAhead,
    WriterReplaced,
)
from steno.platform.errors import ResourceExhausted
from steno.platform.wellknown import seconds_of
from steno.v1 import concatenation_pb2 as pb

FRAME_BYTES = 2
"""All sessions have one channel of 16 bits."""

ROUNDING = 1e-4
MOST_LATE = 1.5
"""Seconds from the moment of which a statement knows to the one at which it is committed."""

Place = tuple[UUID, int]
"""A session and a sequence."""


@dataclass
class SessionEvidence(Evidence):
    """What a schedule of live sessions has left.

    Attributes:
        bucket: what came into it, and out of it.
        neighbours: what sessions became.
        tidied: it went on until all was removed that is to be.
        most_open: sessions at once, of all and of a tenant.
    """

    bucket: Bucket
    neighbours: Channel
    tidied: bool
    most_open: tuple[int, int]

    @cached_property
    def sessions(self) -> dict[UUID, Row]:
        """Each session there ever was, as it was last."""
        return {
            change.key: change.new for change in self.changes["sessions"] if change.new is not None
        }

    @cached_property
    def deleted(self) -> dict[UUID, float]:
        """When sessions were removed."""
        return {
            change.key: change.time for change in self.changes["sessions"] if change.new is None
        }

    @cached_property
    def ended(self) -> dict[UUID, float]:
        """When sessions ended, by themselves or not."""
        found: dict[UUID, float] = {}
        for change in self.changes["sessions"]:
            if change.new is not None and change.new["state"] != "OPEN":
                found.setdefault(change.key, change.time)
        return found

    @cached_property
    def log(self) -> dict[UUID, dict[int, bytes]]:
        """The events there ever were, by session and revision."""
        found: dict[UUID, dict[int, bytes]] = defaultdict(dict)
        for change in self.changes["events"]:
            if change.new is not None:
                session_id, revision = change.key
                found[session_id][revision] = change.new["payload"]
        return found

    @cached_property
    def events(self) -> dict[UUID, list[pb.SessionEvent]]:
        """The same, in order, to be read."""
        return {
            session_id: [pb.SessionEvent.FromString(log[revision]) for revision in sorted(log)]
            for session_id, log in self.log.items()
        }

    @cached_property
    def stored(self) -> dict[Place, Change]:
        """The chunks there ever were, as they came."""
        return {
            change.key: change
            for change in self.changes["chunks"]
            if change.old is None and change.new is not None
        }

    @cached_property
    def missed(self) -> set[Place]:
        """Sequences in whose place there is silence."""
        return {
            (change.key[0], sequence)
            for change in self.changes["gaps"]
            if change.new is not None
            for sequence in range(change.new["first_sequence"], change.new["last_sequence"] + 1)
        }

    @cached_property
    def sendings(self) -> dict[Place, list[Call]]:
        """How often, and with what, each chunk was sent."""
        found: dict[Place, list[Call]] = defaultdict(list)
        for call in self.history.of("chunk"):
            found[UUID(call.about["session_id"]), call.about["piece"].sequence].append(call)
        return found

    @cached_property
    def audio(self) -> dict[UUID, list[Made]]:
        """What sessions became, by the object's key."""
        found: dict[UUID, list[Made]] = defaultdict(list)
        for made in self.neighbours.audio.values():
            found[UUID(made.request.object_key.rpartition("/")[2].partition(".")[0])].append(made)
        return found

    @cached_property
    def attempts(self) -> dict[tuple[UUID, int], str]:
        """Who has taken each lease."""
        return {
            (change.key, change.new["attempt"]): change.client
            for change in self.changes["sessions"]
            if change.new is not None
            and change.old is not None
            and change.new["attempt"] > change.old["attempt"]
        }

    def commits(self) -> Iterator[tuple[float, str, dict[UUID, Row], dict[str, list[Change]]]]:
        """Each commit: when, for whom, the sessions after it, and the changes by table."""
        sessions: dict[UUID, Row] = {}
        for commit in self.database.log:
            changed: dict[str, list[Change]] = defaultdict(list)
            for (table, key), (old, new) in commit.rows.items():
                changed[table].append(Change(commit.time, commit.client, key, old, new))
                if table == "sessions" and new is not None:
                    sessions[key] = new
                elif table == "sessions":
                    sessions.pop(key, None)
            yield commit.time, commit.client, sessions, changed


def samples_of(content: bytes) -> bytes | None:
    """What is behind the header of a file; None if that tells another length."""
    if content.startswith(b"RIFF"):
        size, begin = struct.unpack_from("<I", content, 40)[0], 44
    else:
        begin = content.index(b"data") + 24
        size = struct.unpack_from("<Q", content, begin - 8)[0] - 24
    return content[begin:] if len(content) == begin + size else None


def _samples_of_chunk(session: Row, piece: Piece) -> bytes:
    return piece.content[1:] if session["encoding"] == "CONTAINER" else piece.content


def _frames(session: Row, offset: Any) -> int:
    rate = 16_000 if session["encoding"] == "CONTAINER" else session["sample_rate_hertz"]
    return round(seconds_of(offset) * rate)


def every_session_ends(seen: SessionEvidence) -> Iterator[str]:
    """It is closed or expires; then it becomes what it becomes, and nothing is left to do."""
    for session_id, session in seen.sessions.items():
        if session_id not in seen.deleted and not session["finished"]:
            yield f"session {session_id} is {session['state']}, and not finished"


def acknowledged_chunks_are_recorded(seen: SessionEvidence) -> Iterator[str]:
    """A recording is its chunks in order, once each, and silence where the log tells of a gap.

    What was acknowledged is in it; what was refused, and nothing else was said of it, is not.
    """
    for session_id, made in seen.audio.items():
        samples = samples_of(made[0].content)
        if samples is None:
            yield f"session {session_id}: the file's header tells another length"
        else:
            yield from _misplaced(seen, session_id, samples)
    for (session_id, sequence), calls in seen.sendings.items():
        if session_id not in seen.deleted and any(map(_is_taken_sound, calls)):
            known = sequence < seen.sessions[session_id]["next_sequence"]
            if not known or session_id not in seen.audio:
                yield f"chunk {sequence} of session {session_id} was acknowledged and is lost"


def _is_taken_sound(call: Call) -> bool:
    """It was acknowledged, and can be decoded."""
    return call.ok and not call.about["piece"].content.startswith(UNDECODABLE)


def _misplaced(seen: SessionEvidence, session_id: UUID, samples: bytes) -> Iterator[str]:
    session, at, sequence = seen.sessions[session_id], 0, 0
    silence: dict[int, tuple[int, int]] = {}
    for event in seen.events[session_id]:
        if event.HasField("gap_added"):
            gap = event.gap_added
            begin = _frames(session, gap.span.start_offset) * FRAME_BYTES
            end = _frames(session, gap.span.end_offset) * FRAME_BYTES
            silence[gap.first_sequence] = gap.last_sequence, end - begin
            if any(samples[begin:end]):
                yield f"session {session_id}: there is sound in the gap {gap.first_sequence}"
    while sequence < session["next_sequence"]:
        what = f"chunk {sequence} of session {session_id}"
        if sequence in silence:
            last, size = silence[sequence]
            for missed in range(sequence, last + 1):
                if any(map(_is_taken_sound, seen.sendings[session_id, missed])):
                    yield f"chunk {missed} of session {session_id} was acknowledged and is a gap"
            sequence, at = last + 1, at + size
            continue
        calls = seen.sendings[session_id, sequence]
        taken = [call for call in calls if call.ok] or calls
        # Forged chunks begin as the others do, and are longer.
        for call in sorted(taken, key=lambda call: -len(call.about["piece"].content)):
            content = _samples_of_chunk(session, call.about["piece"])
            if samples[at : at + len(content)] == content:
                break
        else:
            yield f"{what} is not where it belongs"
            return
        same = [each for each in calls if each.about["piece"] == call.about["piece"]]
        if all(each.outcome is Outcome.FAILED for each in same):
            yield f"{what} was refused, and is recorded"
        sequence, at = sequence + 1, at + len(content)
    if at != len(samples):
        yield f"session {session_id} has {len(samples) - at} bytes more than its chunks"


def a_sequence_has_one_content(seen: SessionEvidence) -> Iterator[str]:
    """What is acknowledged is what is stored; other bytes are told that they are."""
    for (session_id, sequence), calls in seen.sendings.items():
        stored = seen.stored.get((session_id, sequence))
        for call in calls:
            if call.ok:
                digest = stored and stored.new and stored.new["sha256"]
                if digest != call.about["piece"].sha256:
                    yield f"chunk {sequence} of session {session_id} was acknowledged with others"


def refusals_are_true(seen: SessionEvidence) -> Iterator[str]:
    """A chunk is late where there is silence, reused where others are, and so on."""
    for (session_id, sequence), calls in seen.sendings.items():
        for call in calls:
            what = f"chunk {sequence} of session {session_id}: {_reason(call)}"
            stored = seen.stored.get((session_id, sequence))
            match _reason(call):
                case "CHUNK_LATE" if (session_id, sequence) not in seen.missed:
                    yield what
                case "SEQUENCE_REUSED":
                    other = stored is not None and stored.time <= call.ended
                    digest = stored and stored.new and stored.new["sha256"]
                    if not other or digest == call.about["piece"].sha256:
                        yield what
    for call in seen.history.of("chunk", "stream"):
        session_id = UUID(call.about["session_id"])
        if isinstance(call.error, SessionNotOpen):
            if seen.ended.get(session_id, float("inf")) > call.ended:
                yield f"session {session_id} was open: {call.error}"
        elif isinstance(call.error, SessionTooLong) and session_id not in seen.deleted:
            session = seen.sessions[session_id]
            most = session["max_duration"].total_seconds() * session["sample_rate_hertz"]
            if session["frame_count"] < most:
                yield f"session {session_id} has {session['frame_count']} frames: {call.error}"
        elif isinstance(call.error, WriterReplaced) and not any(
            change.new is not None
            and change.key == session_id
            and change.new["epoch"] > max(call.about["epoch"], call.about.get("is", 0))
            and change.new["producer_id"] != call.about["producer"]
            and change.time <= call.ended
            for change in seen.changes["sessions"]
        ):
            yield f"no other producer has taken over: {call.error}"


def chunks_are_answered_again(seen: SessionEvidence) -> Iterator[str]:
    """The same bytes are answered as before, until an hour after the session is an audio."""
    finished = {
        change.key: change.time
        for change in reversed(seen.changes["sessions"])
        if change.new is not None and change.new["finished"]
    }
    for place, calls in seen.sendings.items():
        stored, until = seen.stored.get(place), finished.get(place[0], float("inf")) + HOUR
        for call in calls:
            if (
                isinstance(call.error, SessionNotOpen)
                and stored is not None
                and stored.new is not None
                and place[0] not in seen.deleted
                and stored.time < call.began
                and stored.new["sha256"] == call.about["piece"].sha256
                and call.ended < until - MOST_LATE
            ):
                yield f"chunk {place[1]} of session {place[0]}: {call.error}"


def _reason(call: Call) -> str:
    if isinstance(call.error, ChunkRefused):
        return call.error.reason
    return str(call.about.get("reason", ""))


def streams_answer_all(seen: SessionEvidence) -> Iterator[str]:
    """A stream that the producer has ended ends when each of its chunks is answered."""
    for call in seen.history.of("stream"):
        if call.ok and not call.about["ends"] and call.about["left"]:
            yield f"{call.who}: {len(call.about['left'])} chunks were not answered"


def acknowledgements_tell_what_is_in_order(seen: SessionEvidence) -> Iterator[str]:
    """All before `next_sequence` are durable, or gaps."""
    for call in seen.history.of("chunk"):
        if call.ok:
            session_id = UUID(call.about["session_id"])
            for sequence in range(call.answer.next_sequence):
                place = (session_id, sequence)
                if place not in seen.stored and place not in seen.missed:
                    yield f"chunk {sequence} of session {session_id} is not there"


def a_stale_epoch_changes_nothing(seen: SessionEvidence) -> Iterator[str]:
    """Nothing that a stream sends is kept once another has taken over."""
    for _, _, sessions, changed in seen.commits():
        for change in changed["chunks"]:
            if change.old is not None or change.new is None:
                continue
            epochs = {
                call.about["epoch"]
                for call in seen.sendings[change.key]
                if call.about["piece"].sha256 == change.new["sha256"]
            }
            session_id, sequence = change.key
            if None not in epochs and sessions[session_id]["epoch"] not in epochs:
                yield f"chunk {sequence} of session {session_id} came by the streams {epochs}"


def producers_do_not_take_turns(seen: SessionEvidence) -> Iterator[str]:
    """A stream that goes on from another is refused if another producer has taken over since."""
    producers = {
        (change.key, change.new["epoch"]): change.new["producer_id"]
        for change in seen.changes["sessions"]
        if change.new is not None
    }
    for call in seen.history.of("stream"):
        session_id, epoch = UUID(call.about["session_id"]), call.about["epoch"]
        last = call.about.get("is", 0) - 1
        if epoch and last > epoch and producers[session_id, last] != call.about["producer"]:
            yield f"{call.who} went on from stream {epoch} of session {session_id} after {last}"


def one_stream_writes(seen: SessionEvidence) -> Iterator[str]:
    """No two streams have the same epoch."""
    streams: set[tuple[str, int]] = set()
    for call in seen.history.of("stream"):
        if epoch := call.about.get("is", 0):
            if (call.about["session_id"], epoch) in streams:
                yield f"two streams of session {call.about['session_id']} are number {epoch}"
            streams.add((call.about["session_id"], epoch))


WORK = (
    *("part_count", "joined_frame_count", "live_frame_count", "live_segment_count", "live_done"),
    *("decoded_sequence", "audio_id", "job_id", "job_error", "finished"),
)
"""Columns that only whoever works on a session changes."""


def a_stale_lease_changes_nothing(seen: SessionEvidence) -> Iterator[str]:
    """The work behind a session is done by who has leased it last, and is numbered so."""
    for time, client, sessions, changed in seen.commits():
        for change in changed["sessions"]:
            if change.old is None or change.new is None:
                continue
            # Once it has ended, only its work writes it.
            names = WORK if change.old["state"] == "OPEN" else (*WORK, "update_time")
            worked = [name for name in names if change.old[name] != change.new[name]]
            attempt = change.new["attempt"]
            if worked and seen.attempts.get((change.key, attempt)) != client:
                yield f"{client} changed {worked} of session {change.key} at {time:.3f}"
        for change in changed["parts"]:
            if change.old is None and change.new is not None:
                attempt = int(change.new["object_key"].split("/")[3])
                if attempt != sessions[change.key[0]]["attempt"]:
                    yield f"attempt {attempt} joined part {change.key[1]} of {change.key[0]}"
        for change in changed["events"]:
            if change.old is None and change.new is not None:
                event = pb.SessionEvent.FromString(change.new["payload"])
                text = event.result_added.segment.text
                if text and int(text.split()[0]) != sessions[change.key[0]]["attempt"]:
                    yield f"attempt {text.split()[0]} heard in session {change.key[0]}"


def nobody_loses_a_lease_that_is_kept(seen: SessionEvidence) -> Iterator[str]:
    """A session is taken from who was silent for a whole lease, and only once he let go of it."""
    for change in seen.changes["sessions"]:
        old, new = change.old, change.new
        if old is None or new is None or old["lease_until"] is None:
            continue
        what = f"session {change.key} at attempt {old['attempt']}, at {change.time:.3f}"
        until = (old["lease_until"] - BEGINNING).total_seconds()
        if new["attempt"] > old["attempt"]:
            yield f"{what}: it was taken while another had it"
        if new["lease_until"] is None and new["failure_reason"] == "WORKER_LOST":
            if new["failure_count"] == old["failure_count"]:
                continue
            if until > change.time + ROUNDING:
                yield f"{what}: its lease was to last until {until:.3f}"
            if change.time < seen.started[change.client] + LEASE:
                yield f"{what}: {change.client} had not heard anybody yet"


def a_session_becomes_one_audio_and_one_job(seen: SessionEvidence) -> Iterator[str]:
    """What was recorded is one audio; where a final job is wanted, that has one, on its account."""
    jobs: dict[str, list[Made]] = defaultdict(list)
    for made in seen.neighbours.jobs.values():
        jobs[made.request.audio_id].append(made)
    for session_id, session in seen.sessions.items():
        audio = seen.audio.get(session_id, [])
        of_audio = [job for each in audio for job in jobs[str(each.id)]]
        deleted = session_id in seen.deleted
        what = f"session {session_id}, of {session['frame_count']} frames,"
        if len(audio) > 1 or len(of_audio) > 1:
            yield f"{what} became {len(audio)} audio and {len(of_audio)} jobs"
        if any(job.tenant != session["tenant"] for job in of_audio):
            yield f"{what} has its job on another account"
        if of_audio and not session["final_job"]:
            yield f"{what} has a job that nobody wanted"
        if deleted:
            continue
        if session["audio_id"] != (audio[0].id if audio else None):
            yield f"{what} has {session['audio_id']}, not {audio}"
        if bool(audio) != (session["frame_count"] > 0):
            yield f"{what} has become {audio}"
        refused = NO_SUCH_MODEL.encode() in session["final_job_config"]
        wanted = bool(session["final_job"] and audio and not refused)
        if session["job_id"] != (of_audio[0].id if of_audio else None) or (
            bool(of_audio) != wanted
        ):
            yield f"{what} has the job {session['job_id']}, not {of_audio}"
        if bool(session["job_error"]) != bool(session["final_job"] and audio and refused):
            yield f"{what} has the job's error {session['job_error']!r}"


def the_audio_knows_the_gaps(seen: SessionEvidence) -> Iterator[str]:
    """The spans that are silence in place of chunks are those that the log tells of."""
    for session_id, made in seen.audio.items():
        if session_id in seen.deleted:
            continue
        session = seen.sessions[session_id]
        rate = 16_000 if session["encoding"] == "CONTAINER" else session["sample_rate_hertz"]
        told = [
            (
                _frames(session, event.gap_added.span.start_offset) * 16_000 // rate,
                _frames(session, event.gap_added.span.end_offset) * 16_000 // rate,
            )
            for event in seen.events[session_id]
            if event.HasField("gap_added")
        ]
        spans = [(span.start_sample, span.end_sample) for span in made[0].request.gaps]
        if spans != sorted(each for each in told if each[0] < each[1]):
            yield f"session {session_id} has the gaps {told}, its audio {spans}"


def live_results_tell_each_sample_once(seen: SessionEvidence) -> Iterator[str]:
    """Final results are numbered, follow the recording without holes, and hear it to its end."""
    for session_id, events in seen.events.items():
        results = [each.result_added.segment for each in events if each.HasField("result_added")]
        session = seen.sessions[session_id]
        if [each.index for each in results] != [*range(len(results))]:
            yield f"session {session_id} has the results {[each.index for each in results]}"
        heard = "".join(each.text.split()[1] for each in results)
        if session_id in seen.audio:
            samples = samples_of(seen.audio[session_id][0].content) or b""
            whole = session["live_results"] and session_id not in seen.deleted
            if not samples.hex().startswith(heard) or (whole and len(heard) != 2 * len(samples)):
                yield f"session {session_id} heard something else than it has recorded"


def what_plays_is_the_beginning(seen: SessionEvidence) -> Iterator[str]:
    """A file of what is recorded so far is there, and is how the whole begins, to the sample."""
    for call in seen.history.of("play"):
        session_id = UUID(call.about["session_id"])
        told, content = call.answer
        if content is None:
            if seen.deleted.get(session_id, float("inf")) > call.began:
                yield f"session {session_id}: there is nothing at {told.url}"
            continue
        samples = samples_of(content)
        session = seen.sessions[session_id]
        if samples is None or len(samples) != _frames(session, told.duration) * FRAME_BYTES:
            yield f"session {session_id}: the file at {told.url} has another length"
        elif session_id in seen.audio:
            whole = samples_of(seen.audio[session_id][0].content)
            if whole is not None and not whole.startswith(samples):
                yield f"session {session_id}: {told.url} is not how it begins"


def a_chunk_is_waited_for(seen: SessionEvidence) -> Iterator[str]:
    """No gap before its time; no session expires while chunks come."""
    came: dict[UUID, dict[int, float]] = defaultdict(dict)
    last: dict[UUID, float] = {}
    for time, _, sessions, changed in seen.commits():
        for change in changed["gaps"]:
            session_id, first = change.key
            if change.old is None and change.new is not None and change.new["cause"] == "MISSING":
                session = sessions[session_id]
                later = [t for n, t in came[session_id].items() if n > first]
                waited = time - min(later, default=time)
                limit = session["gap_timeout"].total_seconds() - MOST_LATE
                if session["state"] == "OPEN" and waited < limit:
                    yield f"chunk {first} of session {session_id} was waited for {waited:.3f} s"
        for change in changed["chunks"]:
            if change.old is None:
                came[change.key[0]][change.key[1]] = last[change.key[0]] = time
        for change in changed["sessions"]:
            if change.old is None and change.new is not None:
                last[change.key] = (change.new["create_time"] - BEGINNING).total_seconds()
            elif _expired(change):
                idle = time - last[change.key]
                if idle < sessions[change.key]["idle_timeout"].total_seconds() - MOST_LATE:
                    yield f"session {change.key} expired after {idle:.3f} s"


def _expired(change: Change) -> bool:
    states = [row["state"] for row in (change.old, change.new) if row is not None]
    return states == ["OPEN", "EXPIRED"]


def closed_sessions_take_nothing(seen: SessionEvidence) -> Iterator[str]:
    """After an OK of CloseSession no chunk is added, and the session is told as ended."""
    for call in seen.history.of("close"):
        session_id = UUID(call.about["session_id"])
        if not call.ok:
            continue
        if call.answer.session.state == pb.SESSION_STATE_OPEN:
            yield f"session {session_id} was closed, and is open"
        for place, change in seen.stored.items():
            if place[0] == session_id and change.time > call.ended:
                yield f"chunk {place[1]} came into session {session_id} after it was closed"


def limits_are_kept(seen: SessionEvidence) -> Iterator[str]:
    """Nobody opens a session who could see that as many are open as may be.

    Those that are opened at the same moment do not see each other.
    """
    most, tenant_most = seen.most_open
    since: dict[UUID, float] = {}
    for time, _, sessions, changed in seen.commits():
        for change in changed["sessions"]:
            if change.old is not None or change.new is None:
                continue
            began = (change.new["create_time"] - BEGINNING).total_seconds()
            tenants = [
                session["tenant"]
                for session_id, session in sessions.items()
                if session["state"] == "OPEN" and since.get(session_id, began) < began
            ]
            if len(tenants) >= most or tenants.count(change.new["tenant"]) >= tenant_most:
                yield f"{tenants} were open when {change.key} was opened at {began:.3f}"
            since[change.key] = time


def nobody_is_refused_without_cause(seen: SessionEvidence) -> Iterator[str]:
    """A session can't be opened while as many are open as may be, and only then."""
    most, tenant_most = seen.most_open
    counts: list[tuple[float, list[str]]] = [(0.0, [])]
    for time, _, sessions, changed in seen.commits():
        if changed["sessions"]:
            tenants = [each["tenant"] for each in sessions.values() if each["state"] == "OPEN"]
            counts.append((time, tenants))
    for call in seen.history.of("create", "reuse"):
        if not isinstance(call.error, ResourceExhausted):
            continue
        # As it was when the call began, and whatever it was until it was answered.
        before = [tenants for time, tenants in counts if time < call.began][-1:]
        during = [tenants for time, tenants in counts if call.began <= time <= call.ended]
        tenant = call.about["tenant"]
        if not any(
            len(tenants) >= most or tenants.count(tenant) >= tenant_most
            for tenants in [*before, *during]
        ):
            yield f"{call.who} at {call.began:.3f}: {call.error}"


def a_request_id_has_one_effect(seen: SessionEvidence) -> Iterator[str]:
    """Calls with one request_id open one session, and are all answered with it."""
    answers: dict[str, set[str]] = defaultdict(set)
    for call in seen.history.of("create"):
        if call.ok:
            answers[call.about["request"]].add(call.answer.session.session_id)
    for request, made in answers.items():
        # A call is forgotten with its session.
        if len(made) > 1 and not {*map(UUID, made)} & {*seen.deleted}:
            yield f"request {request} opened the sessions {sorted(made)}"
    names = [row["display_name"] for row in seen.sessions.values()]
    for name in {*names}:
        if names.count(name) > 1 and not seen.deleted:
            yield f"{name} has {names.count(name)} sessions"
    for call in seen.history.of("reuse"):
        if call.ok and not seen.deleted:
            yield f"request {call.about['request']} was taken with another body"


def a_session_and_its_log_change_together(seen: SessionEvidence) -> Iterator[str]:
    """After each commit a session is at the revision of its last event."""
    last: dict[UUID, int] = {}
    for _, _, sessions, changed in seen.commits():
        touched = {change.key for change in changed["sessions"]}
        for change in changed["events"]:
            if change.new is not None:
                session_id, revision = change.key
                last[session_id] = max(last.get(session_id, 0), revision)
                touched.add(session_id)
        for session_id in touched & {*sessions}:
            revision = sessions[session_id]["revision"]
            if revision != last.get(session_id, 0):
                yield f"session {session_id} is at {revision}, its log at {last.get(session_id)}"
                return


RISING = (
    *("revision", "epoch", "attempt", "next_sequence", "max_sequence", "byte_count"),
    *("decoded_sequence", "frame_count", "gap_frame_count", "drained", "part_count"),
    *("joined_frame_count", "live_frame_count", "live_segment_count", "live_done", "finished"),
)


def state_moves_one_way(seen: SessionEvidence) -> Iterator[str]:
    """A session that has ended stays so; what only rises never falls, for any reader."""
    for change in seen.changes["sessions"]:
        old, new = change.old, change.new
        if old is None or new is None:
            continue
        fallen = [name for name in RISING if new[name] < old[name]]
        if fallen or old["state"] not in ("OPEN", new["state"]):
            yield f"session {change.key} went back: {fallen}, {old['state']} to {new['state']}"
        if any(old[name] not in (None, new[name]) for name in ("audio_id", "job_id")):
            yield f"session {change.key} became something else"
    told: dict[str, list[Call]] = defaultdict(list)
    for call in seen.history.of("get"):
        if call.ok:
            told[call.about["session_id"]].append(call)
    for session_id, calls in told.items():
        for before in calls:
            for call in calls:
                if before.ended < call.began and (
                    call.answer.session.revision < before.answer.session.revision
                    or call.answer.session.next_sequence < before.answer.session.next_sequence
                ):
                    yield f"{call.who} saw session {session_id} go back"


def watchers_see_each_revision_once(seen: SessionEvidence) -> Iterator[str]:
    """A stream tells each event once, in order, as it is in the log, and ends with the last."""
    for watch in seen.history.watches:
        revision, log = watch.after_revision, seen.log[watch.of]
        for told in watch.messages:
            if not told.HasField("event"):
                continue
            revision += 1
            if told.event.revision != revision:
                yield f"{watch.who} saw {told.event.revision} where {revision} was next"
                break
            if told.event.SerializeToString() != log.get(revision):
                yield f"{watch.who} saw another revision {revision} than the log has"
        else:
            if watch.outcome is Outcome.OK and revision < max(log):
                yield f"{watch.who}'s stream ended with revision {revision}"


def deleted_sessions_are_not_found(seen: SessionEvidence) -> Iterator[str]:
    """After an OK of DeleteSession nobody finds the session, and nothing is NOT_FOUND before."""
    for call in seen.history.of("delete"):
        if not call.ok:
            continue
        for other in seen.history.of("get", "chunk", "stream", "close", "recording"):
            same = other.about["session_id"] == call.about["session_id"]
            if other.ok and same and other.began > call.ended:
                yield f"session {call.about['session_id']} was found by {other.kind}"
    ends = [(watch.of, watch.error) for watch in seen.history.watches]
    ends += [
        (UUID(call.about["session_id"]), call.error)
        for call in seen.history.calls
        if "session_id" in call.about
    ]
    for session_id, error in ends:
        if isinstance(error, SessionNotFound) and session_id not in seen.deleted:
            yield f"session {session_id}: {error}"


def rows_name_what_is_there(seen: SessionEvidence) -> Iterator[str]:
    """The bytes of a chunk, a piece or a part are there before its row, until nobody needs them."""
    written: dict[str, tuple[float, int]] = {}
    removed: dict[str, float] = {}
    for kept in seen.bucket.log:
        if kept.content is not None:
            written.setdefault(kept.key, (kept.time, len(kept.content)))
        else:
            removed.setdefault(kept.key, kept.time)
    over = dict(seen.deleted)
    for change in seen.changes["sessions"]:
        if change.new is not None and change.new["finished"]:
            over[change.key] = min(change.time, over.get(change.key, change.time))
    for table in ("chunks", "pieces", "parts"):
        for change in seen.changes[table]:
            row = change.new
            if change.old is not None or row is None or row["object_key"] is None:
                continue
            key, what = row["object_key"], f"{table} {change.key[1]} of session {change.key[0]}"
            time, size = written.get(key, (float("inf"), 0))
            if time > change.time or _end_in_object(table, row) > size:
                yield f"{what} names {key}, which was not there"
            if removed.get(key, float("inf")) < over.get(change.key[0], float("inf")):
                yield f"{what} names {key}, which was removed"


def _end_in_object(table: str, row: Row) -> int:
    size = row["size_bytes"] if table == "chunks" else row["frame_count"] * FRAME_BYTES
    return int(size + row.get("object_offset", 0))


def an_object_never_changes(seen: SessionEvidence) -> Iterator[str]:
    """A key is written once, or once more with the same bytes."""
    contents: dict[str, bytes] = {}
    for kept in seen.bucket.log:
        if kept.content is not None and contents.setdefault(kept.key, kept.content) != kept.content:
            yield f"{kept.key} was written with other bytes at {kept.time:.3f}"


def no_bytes_are_left(seen: SessionEvidence) -> Iterator[str]:
    """In the end there is nothing in the bucket but what became an audio.

    But for the file of a session that was deleted between the two: upload may have it, or not.
    """
    owned = {made.request.object_key for made in seen.neighbours.audio.values()}
    for key in seen.bucket.objects if seen.tidied else ():
        session_id = UUID(key.split("/")[1].partition(".")[0])
        if key not in owned and not (key.startswith("recordings/") and session_id in seen.deleted):
            yield f"nobody knows {key}"


REFUSED = ("CHUNK_LATE", "SEQUENCE_REUSED", "TOO_FAR_AHEAD")

DOCUMENTED: dict[str, tuple[type[Exception], ...]] = {
    "create": (),
    "reuse": (RequestIdReused,),
    "stream": (SessionNotFound, SessionNotOpen, WriterReplaced, SessionTooLong),
    "chunk": (
        *(SessionNotFound, SessionNotOpen, ChunkLate),
        *(SequenceReused, TooFarAhead, SessionTooLong),
    ),
    "get": (SessionNotFound,),
    "list": (),
    "close": (SessionNotFound,),
    "recording": (SessionNotFound, NothingRecorded),
    "delete": (SessionNotFound,),
}


def only_documented_errors(seen: SessionEvidence) -> Iterator[str]:
    """Callers are told what the contract says; INTERNAL is always a bug."""
    for call in seen.history.calls:
        if call.outcome is not Outcome.FAILED or call.about.get("reason") in REFUSED:
            continue
        if not isinstance(call.error, DOCUMENTED[call.kind]):
            yield f"{call.kind}: {call.error!r}"
    for watch in seen.history.watches:
        if watch.outcome is Outcome.FAILED and not isinstance(watch.error, SessionNotFound):
            yield f"watch: {watch.error!r}"


PROMISES: tuple[Promise, ...] = (
    every_session_ends,
    everybody_is_answered,
    each_event_reaches_nats,
    acknowledged_chunks_are_recorded,
    a_sequence_has_one_content,
    refusals_are_true,
    chunks_are_answered_again,
    streams_answer_all,
    acknowledgements_tell_what_is_in_order,
    a_stale_epoch_changes_nothing,
    one_stream_writes,
    producers_do_not_take_turns,
    a_stale_lease_changes_nothing,
    nobody_loses_a_lease_that_is_kept,
    a_session_becomes_one_audio_and_one_job,
    the_audio_knows_the_gaps,
    live_results_tell_each_sample_once,
    what_plays_is_the_beginning,
    a_chunk_is_waited_for,
    closed_sessions_take_nothing,
    limits_are_kept,
    nobody_is_refused_without_cause,
    a_request_id_has_one_effect,
    a_session_and_its_log_change_together,
    state_moves_one_way,
    watchers_see_each_revision_once,
    deleted_sessions_are_not_found,
    rows_name_what_is_there,
    an_object_never_changes,
    no_bytes_are_left,
    only_documented_errors,
    nothing_fails_in_the_background,
)
