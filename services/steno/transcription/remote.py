"""An engine elsewhere: a server that answers OpenAI's `POST /v1/audio/transcriptions`.

What the server says is one of these, and decides what becomes of a slice:

* busy or away (408, 425, 429, 502, 503, 504, no connection): it is asked again until it answers,
  however long that takes. A slice does not fail by it.
* denied (401, 403, 404, redirects and the like): the configuration is wrong. The engine is not
  ready until the server answers, and slices go back.
* refused (400, 413, 415, 422): the slice fails for good, unless the server refuses silence too:
  then the configuration is wrong.
* failed (other 5xx, no answer in time, an answer without a transcript): it is asked three times,
  then for silence. If it answers that, and fails at the slice once more, the slice has failed;
  else the server counts as away. A connection that breaks after the request is such a failure if
  the server answers silence right after; else the server is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import numpy as np

from steno.audio import VadModel, encode_slice, from_float, speech_spans
from steno.platform.errors import ResourceExhausted, Unavailable
from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span, cover
from steno.transcription.answers import Answer, Unintelligible, error_message, parse_answer
from steno.transcription.domain import InputRefused, NotReady, Refusal, ServedModel
from steno.transcription.engine import Line, Samples
from steno.transcription.metrics import MODEL_SECONDS, REMOTE_REQUESTS, REMOTE_SECONDS

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""Patience for a connection; after it the server counts as away."""

TRIES = 3
"""Failures in a row after which the server is asked for silence, and then once more."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two requests of one slice: the pause doubles from the first to the longest."""

LONGEST_RETRY_AFTER_SECONDS = 600.0
"""No pause is longer, whatever the server wishes."""

MOST_ANSWER_BYTES = 16 * 1024 * 1024
"""No answer to a slice is nearly as long: a minute of speech has some KiB of words."""

_MOST_SAID = 500
"""Characters of an error of the server that are repeated."""

_BUSY = (408, 425, 429, 502, 503, 504)
_REFUSED = (400, 413, 415, 422)


class Busy(Exception):
    """The server answers that it can't answer now.

    Attributes:
        retry_after: seconds after which the server wants to be asked again; 0: it does not say.
    """

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Away(Exception):
    """The server is not reached, or the connection breaks before it has answered."""


class Broken(Away):
    """The connection breaks after the request was sent: the request may be what broke it."""


class Failed(Exception):
    """The server fails at this request, or does not answer it in time."""

    reason = "ENGINE_FAILED"


_ENDS: Mapping[type[Exception], str] = {
    Busy: "busy",
    Away: "away",
    Failed: "failed",
    InputRefused: "refused",
    NotReady: "denied",
}
"""How requests without an answer are counted."""


@dataclass(frozen=True)
class Request:
    """What is asked of the server.

    Attributes:
        samples: the audio.
        language: code of its language; empty: the server is to detect it.
        prompt: text before the audio.
        words: ask for the time of each word.
    """

    samples: Samples
    language: str
    prompt: str
    words: bool

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.samples) / SAMPLE_RATE


SILENCE = Request(np.zeros(SAMPLE_RATE, np.float32), "", "", True)
"""What any server answers whose configuration is right."""


class RemoteEngine:
    """Sends audio to a server. Inside `async with`, it watches whether the server answers."""

    slices_at_once: int
    """Slices that are sent at the same time."""

    def __init__(
        self,
        name: str,
        url: str,
        model: str,
        api_key: str,
        *,
        concurrency: int,
        timeout_seconds: float,
        with_times: bool = True,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        """Connects to nothing yet.

        Args:
            name: by which jobs ask for the model.
            url: what stands before `/audio/transcriptions`.
            model: name by which the server knows the model.
            api_key: sent with each request; empty: none is.
            concurrency: slices of jobs at once.
            timeout_seconds: longest time for one answer.
            with_times: ask for `verbose_json`, with times, and not for `json`.
            first_pause_seconds: after the first request in vain; it doubles with each.
        """
        self.slices_at_once = concurrency
        self._served = ServedModel(name, "", "remote", "remote", ())
        self._url = f"{url}/audio/transcriptions"
        self._remote_model = model
        self._key = api_key
        self._timeout_seconds = timeout_seconds
        self._with_times = with_times
        self.first_pause_seconds = first_pause_seconds
        self._vad = VadModel()
        self._trouble = "the server has not answered yet"
        self._troubled = asyncio.Event()
        self._troubled.set()
        self._client = httpx2.AsyncClient(
            headers={
                "Accept-Encoding": "identity",  # what is packed has no bound by its length
                **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            },
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency),
        )

    async def __aenter__(self) -> RemoteEngine:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exit: object) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])
        await self._client.aclose()

    @property
    def model(self) -> ServedModel:
        """What the server has said of its model by now."""
        return self._served

    @property
    def call_seconds(self) -> float:
        """Each request ends by itself, so none hangs."""
        return 0.0

    @property
    def bounds_itself(self) -> bool:
        """Each request has its own limit, and its time has the wait for its turn at the server."""
        return True

    def refusals(self, options: Options) -> list[Refusal]:
        """What cannot be asked of a server; languages and lengths of prompts are its own matter."""
        found = []
        if options.translate:
            found.append(Refusal("task", f"{self.model.name} is remote and can't translate"))
        if options.multilingual:
            found.append(
                Refusal("multilingual", f"{self.model.name} is remote: one language a slice")
            )
        if options.accurate:
            found.append(Refusal("quality", f"{self.model.name} is remote and has one quality"))
        return found

    def recognition(self, samples: Samples, line: Line, owner: str = "") -> RemoteRecognition:
        """Prepares to send a stretch of audio."""
        return RemoteRecognition(self, samples, line)

    async def ready(self) -> None:
        """Raises NotReady while the server is away or the configuration is wrong."""
        if self._trouble:
            raise NotReady(self._trouble)

    async def check(self) -> None:
        """The server has answered silence before a slice is said to have failed."""

    async def spoken(self, samples: Samples) -> list[Span]:
        """Where somebody speaks."""
        found = await asyncio.to_thread(speech_spans, self._vad, from_float(samples))
        return [Span(start, end) for start, end in found]

    async def request(self, request: Request) -> Answer:
        """Asks once.

        Raises:
            Busy, Away, Failed: as they say.
            InputRefused: the server refuses this request, and answers silence.
            NotReady: the configuration is wrong.
        """
        try:
            answer = await self._counted(request)
        except InputRefused:
            await self._judge()
            raise
        self._well()
        if answer.revision != self._served.revision:
            self._served = replace(self._served, revision=answer.revision)
        return answer

    async def answers_silence(self) -> bool:
        """Tells a slice that the server fails at from a server that fails."""
        try:
            await self._counted(SILENCE)
        except Busy:
            return True
        except (Away, Failed, InputRefused) as error:
            self._not_well(_of_silence(error))
            return False
        self._well()
        return True

    async def _judge(self) -> None:
        """Tells a verdict about the input from a configuration with which silence is refused too.

        Raises NotReady for the latter.
        """
        try:
            await self._counted(SILENCE)
        except InputRefused as error:
            self._not_well(_of_silence(error))
            raise NotReady(self._trouble) from None
        except (Busy, Away, Failed):
            pass  # it has just answered, and meant the input

    async def _watch(self) -> None:
        """Asks for silence while the server gives trouble, until it answers."""
        pause = self.first_pause_seconds
        while True:
            await self._troubled.wait()
            try:
                await self._counted(SILENCE)
            except (Away, Failed, InputRefused, NotReady) as error:
                self._not_well(_of_silence(error))
            except Busy:
                self._well()
            except Exception as error:  # without this loop the process would never be ready again
                log.exception("the server can't be asked", extra={"action": "remote"})
                self._not_well(f"the server can't be asked: {type(error).__name__}")
            else:
                self._well()
            pause = (
                min(2 * pause, LONGEST_PAUSE_SECONDS) if self._trouble else self.first_pause_seconds
            )
            await asyncio.sleep(pause)

    def _well(self) -> None:
        if self._trouble:
            log.info("the server answers", extra={"action": "remote", "url": self._url})
        self._trouble = ""
        self._troubled.clear()

    def _not_well(self, why: str) -> None:
        if why != self._trouble:
            log.error("not ready: %s", why, extra={"action": "remote", "url": self._url})
        self._trouble = why
        self._troubled.set()

    async def _counted(self, request: Request) -> Answer:
        """Asks once, and counts how that ended.

        Raises Busy, Away, Failed, InputRefused or NotReady; notes the last, and Away, as trouble.
        """
        how = "cancelled"
        try:
            answer = await self._posted(request)
            how = "answered"
            return answer
        except tuple(_ENDS) as error:
            how = next(end for kind, end in _ENDS.items() if isinstance(error, kind))
            if isinstance(error, Away | NotReady):
                self._not_well(str(error))
            raise
        finally:
            REMOTE_REQUESTS.labels(how).inc()

    async def _posted(self, request: Request) -> Answer:
        form: dict[str, str | list[str]] = {
            "model": self._remote_model,
            "response_format": "verbose_json" if self._with_times else "json",
            "temperature": "0",
        }
        if self._with_times:
            form["timestamp_granularities[]"] = ["segment", *(["word"] if request.words else [])]
        if request.language:
            form["language"] = request.language
        if request.prompt:
            form["prompt"] = request.prompt
        file = ("slice.wav", encode_slice(from_float(request.samples)), "audio/wav")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with self._client.stream(
                    "POST", self._url, data=form, files={"file": file}
                ) as response:
                    body = await _body(response)
        # What the library says of its errors may have the key, and its errors would be logged as
        # causes: so they are none.
        except httpx2.ConnectTimeout:
            raise Away(f"no connection to the server in {CONNECT_SECONDS:g} s") from None
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
            raise NotReady(f"the request can't be sent: {type(error).__name__}") from None
        except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError) as error:
            said = self._without_key(f"the connection broke: {error or repr(error)}")
            raise Broken(said) from None
        except httpx2.TransportError as error:
            said = self._without_key(f"the server is away: {error or repr(error)}")
            raise Away(said) from None
        except TimeoutError:
            raise Failed(f"no answer in {self._timeout_seconds:g} s") from None
        if response.is_success:
            try:
                if len(body) > MOST_ANSWER_BYTES:
                    raise Unintelligible(f"the answer has more than {MOST_ANSWER_BYTES} bytes")
                if _is_packed(response.headers):
                    raise Unintelligible("the answer is compressed, which was not asked for")
                return parse_answer(body, request.seconds, request.language, words=request.words)
            except Unintelligible as error:
                raise Failed(self._without_key(str(error))) from None
        status = response.status_code
        message = "" if _is_packed(response.headers) else error_message(body)
        said = self._without_key(f"the server answered {status}: {message}")
        if status in _BUSY:
            raise Busy(said, _retry_after(response.headers))
        if status in _REFUSED:
            raise InputRefused(said)
        if status >= 500:
            raise Failed(said)
        raise NotReady(said)

    def _without_key(self, text: str) -> str:
        """The beginning of a text: some servers repeat the key that they do not know."""
        for key in (self._key, json.dumps(self._key)[1:-1]):
            text = text.replace(key, "***") if key else text
        return text[:_MOST_SAID]


class RemoteRecognition:
    """One stretch of audio that is sent to the server, once for all that is asked of it."""

    in_model = False
    """No call of the server hangs; see `RemoteEngine.call_seconds`."""

    def __init__(self, engine: RemoteEngine, samples: Samples, line: Line) -> None:
        self.begun = False
        self.model_seconds = 0.0
        self._engine = engine
        self._samples = samples
        self._line = line
        self._spoken: list[Span] | None = None
        self._answered: dict[Options, Answer] = {}

    @property
    def audio_seconds(self) -> float:
        """Length of the audio."""
        return len(self._samples) / SAMPLE_RATE

    async def detect_language(self, options: Options) -> str:
        """Asks for the transcript, which tells its language; `segments` asks for the same."""
        answer = await self._answer(options)
        if answer.language:
            self._answered[replace(options, language_code=answer.language)] = answer
        return answer.language

    async def segments(self, options: Options) -> AsyncIterator[Segment]:
        """Yields all segments at once."""
        for segment in (await self._answer(options)).segments:
            yield segment

    async def cover(
        self, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        """Speech that gave no text is a gap; it is not sent again."""
        found = sorted(segments, key=lambda segment: segment.start)
        return found, cover(within, await self._speech(), found)

    async def _speech(self) -> list[Span]:
        if self._spoken is None:
            self._spoken = await self._engine.spoken(self._samples)
        return self._spoken

    async def _answer(self, options: Options) -> Answer:
        if options not in self._answered:
            self._answered[options] = await self._ask(options)
        return self._answered[options]

    async def _ask(self, options: Options) -> Answer:
        """Asks the server: for a job as often as necessary, for others once.

        Raises:
            InputRefused: the server refuses this audio or these options.
            NotReady: the configuration is wrong.
            Failed: the server fails at this audio, and not at silence.
            ResourceExhausted: the server is busy; never for a job.
            Unavailable: the server is away; never for a job.
        """
        if not len(self._samples) or (options.vad_filter and not await self._speech()):
            return Answer()
        prompt = ". ".join(filter(None, (options.hotwords_text, options.prompt)))
        request = Request(self._samples, options.language_code, prompt, options.word_time_offsets)
        failures = 0
        pause = self._engine.first_pause_seconds
        while True:
            wished = 0.0
            try:
                return await self._request(request)
            except Busy as error:
                if self._line is not Line.JOB:
                    delay = timedelta(seconds=error.retry_after or pause)
                    raise ResourceExhausted(str(error), delay) from None
                wished = error.retry_after
                log.warning("asked again later: %s", error, extra={"action": "ask"})
            except Away as error:
                if self._line is not Line.JOB:
                    raise Unavailable(str(error)) from None
                log.warning("asked again later: %s", error, extra={"action": "ask"})
                if isinstance(error, Broken) and await self._engine.answers_silence():
                    failures += 1
                    if failures > TRIES:
                        raise Failed(str(error)) from None
            except InputRefused as error:
                if self._line is Line.LIVE:  # a window says nothing of the rest of its session
                    raise Failed(str(error)) from None
                raise
            except Failed as error:
                failures += 1
                log.warning("failure %d: %s", failures, error, extra={"action": "ask"})
                if self._line is not Line.JOB:
                    raise
                if failures > TRIES:  # it has answered silence since the last
                    raise
                if failures == TRIES and not await self._engine.answers_silence():
                    failures = 0
            # Slices that were turned away together do not come back together.
            await asyncio.sleep(max(wished, pause) * random.uniform(1.0, 1.25))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _request(self, request: Request) -> Answer:
        self.begun = True
        began = time.monotonic()
        try:
            answer = await self._engine.request(request)
        except BaseException:
            self.begun = False
            raise
        seconds = time.monotonic() - began
        self.model_seconds += seconds
        REMOTE_SECONDS.observe(seconds)
        MODEL_SECONDS.labels(self._line.name.lower()).inc(seconds)
        return answer


async def _body(response: httpx2.Response) -> bytes:
    """The body of an answer as it was sent, or its beginning where it is longer than allowed."""
    body = bytearray()
    async for block in response.aiter_raw():
        body += block
        if len(body) > MOST_ANSWER_BYTES:
            break
    return bytes(body)


def _is_packed(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")


def _of_silence(error: Exception) -> str:
    """What is wrong with a server that does not answer a second of silence."""
    refuses = isinstance(error, InputRefused)
    return f"even a second of silence is refused: {error}" if refuses else str(error)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, of which a server may say a number or a date; 0 if it says nothing that is clear."""
    wish = headers.get("retry-after", "")
    try:
        seconds = float(wish)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(wish) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)  # 0 of what is no number, too
