"""The live transcript: what is said, while it is said.

The recording is read in order. Silero VAD tells where an utterance begins and ends; while
somebody speaks, all of the utterance so far goes to transcription once a second, and what two
results in a row agree on is shown as stable (LocalAgreement-2; Macháček, Dabre, Bojar 2023). When
it ends, or after 28 s, the whole utterance goes there once more, and that result is final.

Everything waits for transcription but the recording: when it is slow, interim results are left
out; when it is away, the loop stands still, holds no sound in memory, and catches up afterwards. An
utterance at which it fails again and again is passed over, like speech that gives no text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc

from steno.audio import SAMPLE_RATE_HERTZ, SpeechDetector, VadModel
from steno.concatenation.domain import Lease, SessionConfig
from steno.concatenation.latest import Latest
from steno.concatenation.metrics import RESULTS
from steno.concatenation.recording import Recordings
from steno.concatenation.samples import Resampler, Samples
from steno.concatenation.store import Store
from steno.concatenation.utterances import MARGIN_SECONDS, Agreement, Endpointer, Utterance
from steno.concatenation.windows import TIMEOUT_SECONDS, Refused, Unanswered, Windows
from steno.platform.wellknown import duration_of
from steno.speech import parse_segment, render_segment
from steno.transcript import Segment
from steno.v1 import concatenation_pb2 as pb
from steno.v1.transcription_pb2 import RecognizeWindowResponse

log = logging.getLogger(__name__)

Publish = Callable[[pb.WatchSessionResponse], Awaitable[None]]

INTERIM_SECONDS = 0.6
"""Least time between two questions about one utterance."""

INTERIM_LAG_SECONDS = 3.0
"""Whoever is further behind leaves interim results out."""

QUIET_SECONDS = 10.0
"""Silence after which it is noted that nothing was said."""

_BLOCK_SECONDS = 0.25
_RUN_WINDOWS = 4
"""Windows that the VAD judges at once: 128 ms."""
_PAUSES = (0.5, 1.0, 2.0, 5.0)

MOST_FAILURES = 5
"""Failures of transcription at one utterance after which it is passed over."""

LONGEST_TIMEOUT_SECONDS = 600.0
"""Longest time that an answer may take after failures."""

_RESTARTED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""gRPC reports either for a server that is absent or stopping."""


class LiveTranscript:
    """Makes the live transcript of one session."""

    def __init__(
        self,
        lease: Lease,
        store: Store,
        recordings: Recordings,
        latest: Latest,
        vad: VadModel,
        windows: Windows,
        publish: Publish,
    ) -> None:
        self._lease = lease
        self._store = store
        self._recordings = recordings
        self._latest = latest
        self._windows = windows
        self._publish = publish
        session = latest.session
        self._config: SessionConfig = session.config
        self._of = session.format
        self._language = session.config.language_code or session.live_language_code
        self._begin = self._at = session.live_frame_count
        self._resampler = Resampler(self._of)
        self._endpointer = Endpointer(
            SpeechDetector(vad, _RUN_WINDOWS),
            session.config.endpointing_silence.total_seconds(),
        )
        self._agreement = Agreement()
        self._interim_time = 0.0

    async def run(self) -> None:
        """Goes on until the recording has ended and all of it is transcribed.

        Raises:
            StaleLease: another replica does it.
        """
        if self._latest.session.live_done:
            return
        try:
            await self._transcribe_all()
        except Refused as error:
            log.warning("no live results: %s", error, extra={"action": "live"})
            self._latest.update(await self._store.end_live(self._lease, str(error)))
        else:
            self._latest.update(await self._store.end_live(self._lease))

    async def _transcribe_all(self) -> None:
        most = round(_BLOCK_SECONDS * self._of.rate_hertz)
        while True:
            session = await self._latest.until(lambda s: s.frame_count > self._at or s.drained)
            if session.frame_count == self._at:
                break
            # Far behind, longer blocks cost less.
            until = min(session.frame_count, self._at + most * (1 if self._lag() < 5 else 8))
            data = await self._recordings.read(session, self._at, until)
            self._at = until
            await self._judge(self._resampler.push(data))
        rest = self._resampler.finish()
        await self._judge(rest)
        for utterance in await asyncio.to_thread(list, self._endpointer.finish()):
            await self._finish_utterance(utterance)
        self._latest.update(
            await self._store.add_results(self._lease, [], self._at, self._language)
        )

    def _lag(self) -> float:
        return self._of.seconds(self._latest.session.frame_count - self._at)

    async def _judge(self, samples: Samples) -> None:
        spoke = self._endpointer.speaking
        for utterance in await asyncio.to_thread(list, self._endpointer.push(samples)):
            if not spoke:
                await self._say(pb.SPEECH_EVENT_TYPE_BEGIN, utterance.start_sample)
            await self._say(pb.SPEECH_EVENT_TYPE_END, utterance.end_sample)
            await self._finish_utterance(utterance)
            spoke = False
        if self._endpointer.speaking:
            if not spoke:
                # The first question comes as soon after the first sound as others follow it.
                begun = len(self._endpointer.so_far().samples) / SAMPLE_RATE_HERTZ - MARGIN_SECONDS
                self._interim_time = asyncio.get_running_loop().time() - begun
                await self._say(pb.SPEECH_EVENT_TYPE_BEGIN, self._endpointer.start_sample)
            await self._maybe_interim()
        else:
            await self._note_silence()

    async def _note_silence(self) -> None:
        """Notes a long silence, so that a replica that takes over does not read it again."""
        frame = self._frame(self._endpointer.start_sample)
        known = self._latest.session.live_frame_count
        if self._of.seconds(frame - known) >= QUIET_SECONDS:
            self._latest.update(
                await self._store.add_results(self._lease, [], frame, self._language)
            )

    async def _maybe_interim(self) -> None:
        now = asyncio.get_running_loop().time()
        wanted = self._config.interim_results and self._lag() < INTERIM_LAG_SECONDS
        if not wanted or now - self._interim_time < INTERIM_SECONDS:
            return
        utterance = self._endpointer.so_far()
        self._interim_time = now
        try:
            answer = await self._windows.recognize(
                utterance.samples, self._language, is_final=False
            )
        except Unanswered:
            return
        segments = self._placed(utterance, answer)
        words = [word for segment in segments for word in segment.words]
        if not words:
            return
        shown, stable = self._agreement.add(words)
        segment = Segment(
            start=shown[0].start,
            end=shown[-1].end,
            text="".join(word.word for word in shown),
            words=tuple(shown),
            language=answer.language_code,
            index=self._latest.session.live_segment_count,
        )
        RESULTS.labels("interim").observe(self._lag())
        result = pb.LiveResult(
            segment=render_segment(segment),
            stability=stable / len(shown),
            stable_word_count=stable,
            lag=duration_of(self._lag()),
        )
        await self._publish(pb.WatchSessionResponse(interim=result))

    async def _finish_utterance(self, utterance: Utterance) -> None:
        answer = await self._patiently(utterance)
        self._language = self._language or answer.language_code
        end = self._frame(utterance.end_sample)
        results = [
            pb.LiveResult(
                is_final=True,
                segment=render_segment(segment),
                stability=1.0,
                stable_word_count=len(segment.words),
                lag=duration_of(self._lag()),
            )
            for segment in self._placed(utterance, answer)
            if segment.text.strip()
        ]
        self._latest.update(
            await self._store.add_results(self._lease, results, end, self._language)
        )
        RESULTS.labels("final").observe(self._lag())
        self._agreement = Agreement()
        self._interim_time = asyncio.get_running_loop().time()

    async def _patiently(self, utterance: Utterance) -> RecognizeWindowResponse:
        """Asks until transcription answers, however long it is away or has too much to do.

        Once it has failed too often at this utterance, the answer has no text. A worker that ends
        whenever it is asked looks as if it were away, but for this: before, there was one.
        """
        tries = failures = 0
        served = False
        while failures < MOST_FAILURES:
            try:
                return await self._windows.recognize(
                    utterance.samples,
                    self._language,
                    is_final=True,
                    timeout=min(TIMEOUT_SECONDS * 2**failures, LONGEST_TIMEOUT_SECONDS),
                )
            except Unanswered as error:
                log.info("will ask again: %s", error, extra={"action": "live"})
                if error.code in _RESTARTED:
                    failures += served
                elif error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    failures += 1
            await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
            served = await self._windows.served()
        log.warning(
            "transcription has failed %d times at %.1f s; no live results of it",
            failures,
            self._offset(utterance.start_sample),
            extra={"action": "live"},
        )
        return RecognizeWindowResponse()

    async def _say(self, kind: pb.SpeechEventType.ValueType, sample: int) -> None:
        event = pb.SpeechEvent(type=kind, offset=duration_of(self._offset(sample)))
        await self._publish(pb.WatchSessionResponse(speech=event))

    def _placed(self, utterance: Utterance, answer: RecognizeWindowResponse) -> list[Segment]:
        """The segments of an utterance on the recording's clock; none ends after it."""
        offset, latest = self._offset(utterance.start_sample), self._offset(utterance.end_sample)
        placed = (parse_segment(each).retimed(lambda at: offset + at) for each in answer.segments)
        return [
            replace(each, start=min(latest, each.start), end=min(latest, each.end))
            for each in placed
        ]

    def _offset(self, sample: int) -> float:
        """Seconds on the recording's clock."""
        return self._of.seconds(self._begin) + sample / SAMPLE_RATE_HERTZ

    def _frame(self, sample: int) -> int:
        frame = self._begin + sample * self._of.rate_hertz // SAMPLE_RATE_HERTZ
        return min(frame, self._at)
