"""The live transcript: what is said, while it is said.

The recording is heard in order. Silero VAD tells where an utterance begins and ends; while
somebody speaks, all of the utterance so far goes to transcription once a second, and what two
results in a row agree on is shown as stable (LocalAgreement-2; Macháček, Dabre, Bojar 2023). When
it ends, or after 28 s, the whole utterance goes there once more, and that result is final.

Everything waits for transcription but the recording: when it is slow, interim results are left
out; when it is away, hearing stands still, holds no sound in memory, and catches up afterwards. An
utterance at which it fails again and again is passed over, like speech that gives no text.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import av
import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from steno.audio import SAMPLE_RATE_HERTZ, WINDOW_SAMPLES, SpeechDetector, VadModel
from steno.concatenation.domain import Lease, PcmFormat, SessionConfig
from steno.concatenation.metrics import RESULTS
from steno.concatenation.progress import Progress
from steno.concatenation.recording import Recordings
from steno.concatenation.samples import to_mono
from steno.concatenation.store import Store
from steno.platform.errors import Failure, read_failure
from steno.platform.wellknown import duration_of
from steno.speech import parse_segment, render_options, render_segment
from steno.transcript import Options, Segment, Word
from steno.v1 import concatenation_pb2 as pb
from steno.v1.transcription_pb2 import RecognizeWindowRequest, RecognizeWindowResponse
from steno.v1.transcription_pb2_grpc import WindowServiceStub

log = logging.getLogger(__name__)

Samples = NDArray[np.int16]
"""16 kHz mono."""

Tell = Callable[[pb.WatchSessionResponse], Awaitable[None]]

INTERIM_SECONDS = 0.6
"""Least time between two questions about one utterance."""

INTERIM_LAG_SECONDS = 3.0
"""Whoever is further behind leaves interim results out."""

LONGEST_SECONDS = 28.0
"""An utterance that is longer is cut where it is quietest. With its margins it fits a window."""

MARGIN_SECONDS = 0.3
"""Heard before an utterance and after it, so that no first sound is lost."""

QUIET_SECONDS = 10.0
"""Silence after which it is noted that nothing was said."""

_BLOCK_SECONDS = 0.25
_RUN_WINDOWS = 4
"""Windows that the VAD hears at once: 128 ms."""
_SPEECH, _SILENCE = 0.5, 0.35
_PAUSES = (0.5, 1.0, 2.0, 5.0)

MOST_FAILURES = 5
"""Failures of transcription at one utterance after which it is passed over."""

TIMEOUT_SECONDS = 60.0
"""Longest time that an answer takes. After each failure the next may take twice as long."""

LONGEST_TIMEOUT_SECONDS = 600.0

_HEALTH_SECONDS = 5.0
_RESTARTED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""Nobody was there, or who was there ended: gRPC says either of a server that stops."""


class Ears:
    """Turns samples of any format into 16 kHz mono."""

    def __init__(self, of: PcmFormat) -> None:
        self._of = of
        self._resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HERTZ)

    def hear(self, data: bytes) -> Samples:
        """Takes the next samples; returns what they sound like, some of it later."""
        mono = to_mono(self._of, data)
        if not len(mono):
            return np.zeros(0, np.int16)
        frame = av.AudioFrame.from_ndarray(mono.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = self._of.rate_hertz
        return self._joined(self._resampler.resample(frame))

    def finish(self) -> Samples:
        """Returns the rest."""
        return self._joined(self._resampler.resample(None))

    def _joined(self, frames: Sequence[av.AudioFrame]) -> Samples:
        parts = [frame.to_ndarray().reshape(-1) for frame in frames]
        return np.concatenate([np.zeros(0, np.int16), *parts])


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its margins, in samples at 16 kHz since hearing began."""

    start_sample: int
    samples: Samples
    ended: bool

    @property
    def end_sample(self) -> int:
        """Where it ends."""
        return self.start_sample + len(self.samples)


class Endpointer:
    """Tells where utterances begin and end. Holds no more than the longest of them."""

    def __init__(self, detector: SpeechDetector, silence_seconds: float) -> None:
        self._detector = detector
        self._silence = _windows(silence_seconds)
        self._margin = _windows(MARGIN_SECONDS)
        self._longest = _windows(LONGEST_SECONDS)
        self._waiting = np.zeros(0, np.int16)  # heard, but not judged yet
        self._windows: list[Samples] = []  # of the utterance, or the margin before the next
        self._probabilities: list[float] = []
        self._start = 0  # window with which they begin
        self._speaking = False
        self._quiet = 0  # windows since somebody spoke

    @property
    def speaking(self) -> bool:
        """An utterance has begun and not ended."""
        return self._speaking

    @property
    def start_sample(self) -> int:
        """What comes before this is said and done."""
        return self._start * WINDOW_SAMPLES

    def so_far(self) -> Utterance:
        """The utterance that has begun."""
        return self._cut(len(self._windows), ended=False)

    def push(self, samples: Samples) -> Iterator[Utterance]:
        """Hears more; yields utterances as they end."""
        self._waiting = np.concatenate([self._waiting, samples])
        yield from self._judge(self._detector.push(samples))

    def finish(self) -> Iterator[Utterance]:
        """Nothing more comes: ends what has begun."""
        rest = self._detector.finish()
        self._waiting = np.pad(self._waiting, (0, -len(self._waiting) % WINDOW_SAMPLES))
        yield from self._judge(rest)
        if self._speaking:
            yield self._cut(len(self._windows), ended=True)
            self._speaking = False

    def _judge(self, probabilities: NDArray[np.float32]) -> Iterator[Utterance]:
        for probability in probabilities.tolist():
            window, self._waiting = (
                self._waiting[:WINDOW_SAMPLES],
                self._waiting[WINDOW_SAMPLES:],
            )
            self._windows.append(window)
            self._probabilities.append(probability)
            if probability >= _SPEECH:
                self._speaking, self._quiet = True, 0
            elif probability < _SILENCE or self._quiet:
                self._quiet += 1
            if not self._speaking:
                self._drop(max(0, len(self._windows) - self._margin))
            elif self._quiet >= max(self._silence, self._margin):
                heard = len(self._windows) - self._quiet + self._margin
                yield self._cut(heard, ended=True)
                self._drop(heard)
                self._speaking = False
            elif len(self._windows) >= self._longest:
                heard = self._quietest()
                yield self._cut(heard, ended=True)
                self._drop(heard)

    def _quietest(self) -> int:
        """Where to cut speech that does not end: in the least probable window of the last 6 s."""
        first = len(self._windows) - _windows(6.0)
        last = self._probabilities[first:]
        return first + min(range(len(last)), key=last.__getitem__) + 1

    def _cut(self, windows: int, *, ended: bool) -> Utterance:
        samples = np.concatenate([np.zeros(0, np.int16), *self._windows[:windows]])
        return Utterance(self._start * WINDOW_SAMPLES, samples, ended)

    def _drop(self, windows: int) -> None:
        del self._windows[:windows], self._probabilities[:windows]
        self._start += windows


def _windows(seconds: float) -> int:
    return max(1, round(seconds * SAMPLE_RATE_HERTZ / WINDOW_SAMPLES))


class Agreement:
    """LocalAgreement-2: words are stable once two results in a row begin with them."""

    def __init__(self) -> None:
        self._stable: list[Word] = []
        self._last: list[Word] = []

    def add(self, words: Sequence[Word]) -> tuple[list[Word], int]:
        """Takes the words of a result; returns what to show, and how many of it are stable."""
        count = len(self._stable)
        for one, other in zip(self._last[count:], words[count:], strict=False):
            if _plain(one.word) != _plain(other.word):
                break
            self._stable.append(other)
        self._last = list(words)
        return [*self._stable, *words[len(self._stable) :]], len(self._stable)


def _plain(word: str) -> str:
    return re.sub(r"\W", "", word).lower()


class Unanswered(Exception):
    """Transcription gave no result; another time it may."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code.name}: {failure.message}")
        self.code = failure.code


class Refused(Exception):
    """Transcription can't do what the session asks for."""


class Windows:
    """Asks the transcription service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = WindowServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def recognize(
        self,
        samples: Samples,
        language_code: str,
        *,
        is_final: bool,
        timeout: float = TIMEOUT_SECONDS,
    ) -> RecognizeWindowResponse:
        """Recognises a window.

        Raises:
            Unanswered: it is away, has too much to do, takes longer than `timeout`, or fails.
            Refused: it does not know the language, or the like.
        """
        request = RecognizeWindowRequest(
            config=render_options(
                Options(language_code=language_code, word_time_offsets=True, vad_filter=False)
            ),
            samples=samples.astype("<i2", copy=False).tobytes(),
            is_final=is_final,
        )
        try:
            return await self._stub.RecognizeWindow(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            failure = read_failure(error)
            if failure.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                raise Refused(failure.message) from error
            raise Unanswered(failure) from error

    async def served(self) -> bool:
        """Whether there is a worker that serves."""
        request = health_pb2.HealthCheckRequest()
        try:
            answer = await self._health.Check(request, timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class LiveTranscript:
    """Hears one session."""

    def __init__(
        self,
        lease: Lease,
        store: Store,
        recordings: Recordings,
        progress: Progress,
        vad: VadModel,
        windows: Windows,
        tell: Tell,
    ) -> None:
        self._lease = lease
        self._store = store
        self._recordings = recordings
        self._progress = progress
        self._windows = windows
        self._tell = tell
        session = progress.session
        self._config: SessionConfig = session.config
        self._of = session.format
        self._language = session.config.language_code or session.live_language_code
        self._begin = self._at = session.live_frame_count
        self._ears = Ears(self._of)
        self._endpointer = Endpointer(
            SpeechDetector(vad, _RUN_WINDOWS),
            session.config.endpointing_silence.total_seconds(),
        )
        self._agreement = Agreement()
        self._interim_time = 0.0

    async def run(self) -> None:
        """Hears until the recording has ended and all of it is heard.

        Raises:
            StaleLease: another replica does it.
        """
        if self._progress.session.live_done:
            return
        try:
            await self._hear_all()
        except Refused as error:
            log.warning("no live results: %s", error, extra={"action": "live"})
            self._progress.see(await self._store.end_live(self._lease, str(error)))
        else:
            self._progress.see(await self._store.end_live(self._lease))

    async def _hear_all(self) -> None:
        most = round(_BLOCK_SECONDS * self._of.rate_hertz)
        while True:
            session = await self._progress.until(lambda s: s.frame_count > self._at or s.drained)
            if session.frame_count == self._at:
                break
            # Far behind, longer blocks cost less.
            until = min(session.frame_count, self._at + most * (1 if self._lag() < 5 else 8))
            data = await self._recordings.read(session, self._at, until)
            self._at = until
            await self._judge(self._ears.hear(data))
        rest = self._ears.finish()
        await self._judge(rest)
        for utterance in await asyncio.to_thread(list, self._endpointer.finish()):
            await self._finish_utterance(utterance)
        self._progress.see(await self._store.add_results(self._lease, [], self._at, self._language))

    def _lag(self) -> float:
        return self._of.seconds(self._progress.session.frame_count - self._at)

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
                heard = len(self._endpointer.so_far().samples) / SAMPLE_RATE_HERTZ - MARGIN_SECONDS
                self._interim_time = asyncio.get_running_loop().time() - heard
                await self._say(pb.SPEECH_EVENT_TYPE_BEGIN, self._endpointer.start_sample)
            await self._maybe_interim()
        else:
            await self._note_silence()

    async def _note_silence(self) -> None:
        """Keeps a replica that takes over from hearing a long silence again."""
        frame = self._frame(self._endpointer.start_sample)
        known = self._progress.session.live_frame_count
        if self._of.seconds(frame - known) >= QUIET_SECONDS:
            self._progress.see(
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
            heard = await self._windows.recognize(utterance.samples, self._language, is_final=False)
        except Unanswered:
            return
        segments = self._placed(utterance, heard)
        words = [word for segment in segments for word in segment.words]
        if not words:
            return
        shown, stable = self._agreement.add(words)
        segment = Segment(
            start=shown[0].start,
            end=shown[-1].end,
            text="".join(word.word for word in shown),
            words=tuple(shown),
            language=heard.language_code,
            index=self._progress.session.live_segment_count,
        )
        RESULTS.labels("interim").observe(self._lag())
        result = pb.LiveResult(
            segment=render_segment(segment),
            stability=stable / len(shown),
            stable_word_count=stable,
            lag=duration_of(self._lag()),
        )
        await self._tell(pb.WatchSessionResponse(interim=result))

    async def _finish_utterance(self, utterance: Utterance) -> None:
        heard = await self._patiently(utterance)
        self._language = self._language or heard.language_code
        end = self._frame(utterance.end_sample)
        results = [
            pb.LiveResult(
                is_final=True,
                segment=render_segment(segment),
                stability=1.0,
                stable_word_count=len(segment.words),
                lag=duration_of(self._lag()),
            )
            for segment in self._placed(utterance, heard)
            if segment.text.strip()
        ]
        self._progress.see(await self._store.add_results(self._lease, results, end, self._language))
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
        await self._tell(pb.WatchSessionResponse(speech=event))

    def _placed(self, utterance: Utterance, heard: RecognizeWindowResponse) -> list[Segment]:
        """The segments of an utterance on the recording's clock; none ends after it."""
        offset, latest = self._offset(utterance.start_sample), self._offset(utterance.end_sample)
        placed = (parse_segment(each).retimed(lambda at: offset + at) for each in heard.segments)
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
