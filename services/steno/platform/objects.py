"""S3: bytes under keys that the server makes and never writes again.

The minio client has the calls of a multipart upload one by one, but marks them private; they are
used here and nowhere else, and the client's version is pinned.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from socket import socket
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider
from minio.datatypes import Part
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.helpers import BaseURL
from prometheus_client import Counter, Histogram
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from steno.platform.ending import ended
from steno.platform.errors import Unavailable
from steno.platform.settings import S3Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 32
"""Calls at once. The others wait."""
_WAIT_SECONDS = 30.0
"""Longest wait for one of them to end."""
_CONNECT_SECONDS = 3.0
_SILENCE_SECONDS = 20.0
"""A store that sends and takes nothing for so long is away."""
_WORK_SECONDS = 60.0
"""The same, where the store has work to do before it answers."""
_WORK = ("complete_multipart", "copy_part", "remove_prefix")
_CALL_SECONDS = 300.0
"""Longest call, all tries together: so long a store may take that gives or takes little by little.
Above what silence alone makes of it."""
_PIECE_BYTES = 2**20
_RENEW_SECONDS = 300.0
"""Between two looks for credentials that end: most are good for an hour."""
_AGAIN_SECONDS = 1.0

SECONDS = Histogram("steno_s3_seconds", "Length of calls to S3.", ["operation"])
BYTES = Counter(
    "steno_s3_bytes",
    "Bytes of objects sent to S3 and read from it; of copy_part: copied inside the store.",
    ["operation"],
)


class ObjectNotFound(Exception):
    """The store has no object, or no multipart upload, of this name."""

    reason = "OBJECT_NOT_FOUND"


@dataclass(frozen=True)
class UploadedPart:
    """A part of a multipart upload that is in the store."""

    part_number: int
    size_bytes: int
    etag: str


@dataclass
class _Call:
    """A call, as its thread sees it."""

    operation: str
    given_up: bool = False
    """Nobody waits for it any more."""

    def check(self) -> None:
        """Ends the call in its thread if it was given up."""
        if self.given_up:
            raise _GivenUp


class _GivenUp(Exception):
    """Nobody sees this."""


class _Running(threading.local):
    call = _Call("")  # that of this thread; the client's own threads have this one


_running = _Running()


class _Retry(urllib3.Retry):
    """Tries again, but for nobody."""

    def increment(self, *args: Any, **options: Any) -> Self:
        _running.call.check()
        return super().increment(*args, **options)


class _Patient(HTTPConnection):
    """A connection that is made soon, and then takes long requests piece by piece.

    urllib3 has one timeout for both: for connecting, and for a whole request to be sent.
    """

    def _new_conn(self) -> socket:
        silence, self.timeout = self.timeout, _CONNECT_SECONDS
        try:
            connected = super()._new_conn()
        finally:
            self.timeout = silence
        connected.settimeout(silence)  # else what is sent has the time for connecting
        return connected

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes):
            super().send(data)
            return
        for offset in range(0, len(data), _PIECE_BYTES):
            _running.call.check()
            super().send(data[offset : offset + _PIECE_BYTES])


class _PatientTls(_Patient, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Patient


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _PatientTls


class _Http(urllib3.PoolManager):
    """Connections on which nothing is waited for without end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def urlopen(self, method: str, url: str, *args: Any, **options: Any) -> BaseHTTPResponse:
        silence = _WORK_SECONDS if _running.call.operation in _WORK else _SILENCE_SECONDS
        options["timeout"] = urllib3.Timeout(connect=silence, read=silence)
        return super().urlopen(method, url, *args, **options)


class _Identity(Provider):
    """Credentials that end, given to whom a pod's identity shows to be allowed.

    To ask for those that are known waits for nobody.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._http = _http()
        self._known: Credentials | None = None

    def retrieve(self) -> Credentials:
        """Those that were fetched last.

        Raises:
            Unavailable: there are none that are good.
        """
        if self._known is None or self._known.is_expired():
            raise Unavailable("there are no credentials for the object store; try again")
        return self._known

    def renew(self) -> None:
        """Fetches others; blocks."""
        # The variable is that of AWS's own clients: another issuer than AWS's.
        issuer = os.environ.get("AWS_ENDPOINT_URL_STS")
        provider = IamAwsProvider(
            custom_endpoint=issuer, http_client=self._http, region=self._region
        )
        self._known = provider.retrieve()


class ObjectStore:
    """One bucket. Each call runs in a thread; Unavailable if the store is away.

    A thread can't be cancelled: a call that was given up ends its request, and tries it no more.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._bucket = settings.s3_bucket
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
        self._free = asyncio.Semaphore(_THREADS)
        self._leftovers: set[asyncio.Task[None]] = set()
        self._credentials = _credentials(settings)
        self._client = _client(settings, settings.s3_endpoint, self._credentials)
        # Signing names the host, so URLs for clients are signed with the address they use.
        public = settings.s3_public_endpoint or settings.s3_endpoint
        self._public = _client(settings, public, self._credentials)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def stay_known(self) -> None:
        """Fetches credentials again and again, before they end; returns if they do not."""
        while isinstance(self._credentials, _Identity):
            try:
                await self._call("renew_credentials", self._credentials.renew)
                pause = _RENEW_SECONDS
            except Exception as error:  # whatever the issuer answers
                log.warning("no credentials for S3: %s", error, extra={"action": "s3"})
                pause = _AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def check(self) -> None:
        """Raises Unavailable if the store does not answer."""
        await self._call("check", partial(self._client.bucket_exists, self._bucket))

    async def ensure_bucket(self) -> None:
        """Makes the bucket if it is missing."""

        def ensure() -> None:
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)

        await self._call("ensure_bucket", ensure)

    async def put(
        self, key: str, data: bytes, content_type: str = "application/octet-stream"
    ) -> None:
        """Writes an object in one piece."""
        put = self._client.put_object
        await self._call(
            "put", lambda: put(self._bucket, key, BytesIO(data), len(data), content_type)
        )
        BYTES.labels("put").inc(len(data))

    async def get(self, key: str) -> bytes:
        """Reads a whole object.

        Raises:
            ObjectNotFound: there is none.
        """
        data = await self._call("get", partial(self._read, key, 0, 0))
        BYTES.labels("get").inc(len(data))
        return data

    async def get_range(self, key: str, offset: int, size: int) -> bytes:
        """Reads `size` bytes from `offset` on, or fewer at the end of the object.

        Raises:
            ObjectNotFound: there is none.
        """
        data = await self._call("get_range", partial(self._read, key, offset, size))
        BYTES.labels("get_range").inc(len(data))
        return data

    def _read(self, key: str, offset: int, size: int) -> bytes:
        with self._opened(key, offset, size) as response:
            return b"".join(_pieces(response))

    @contextmanager
    def _opened(self, key: str, offset: int, size: int) -> Iterator[BaseHTTPResponse]:
        response = self._client.get_object(self._bucket, key, offset, size)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    async def pass_range(
        self, key: str, offset: int, size: int, take: Callable[[bytes], object]
    ) -> None:
        """Passes a range to a function piece by piece, in a thread: it is never in memory whole.

        Raises:
            ObjectNotFound: there is none.
        """

        def read() -> int:
            passed = 0
            with self._opened(key, offset, size) as response:
                for piece in _pieces(response):
                    take(piece)
                    passed += len(piece)
            return passed

        BYTES.labels("get_range").inc(await self._call("get_range", read))

    async def stat(self, key: str) -> int:
        """Length of an object in bytes.

        Raises:
            ObjectNotFound: there is none.
        """
        stat = await self._call("stat", partial(self._client.stat_object, self._bucket, key))
        return stat.size or 0

    async def remove(self, key: str) -> None:
        """Removes an object, if it is there."""
        await self._call("remove", partial(self._client.remove_object, self._bucket, key))

    async def remove_prefix(self, prefix: str) -> None:
        """Removes all objects whose keys begin so."""

        def remove() -> None:
            found = self._client.list_objects(self._bucket, prefix, recursive=True)
            names = [DeleteObject(entry.object_name) for entry in found if entry.object_name]
            for error in self._client.remove_objects(self._bucket, names):
                raise Unavailable(f"the object store kept {error.name}: {error.message}")

        await self._call("remove_prefix", remove)

    async def list_prefix(self, prefix: str) -> list[str]:
        """Keys that begin so, sorted."""

        def keys() -> list[str]:
            found = self._client.list_objects(self._bucket, prefix, recursive=True)
            return sorted(entry.object_name for entry in found if entry.object_name)

        return await self._call("list", keys)

    def presigned_get(
        self, key: str, expires: timedelta, headers: Mapping[str, str] | None = None
    ) -> str:
        """URL under which a client can read an object.

        Args:
            key: of the object.
            expires: how long the URL works.
            headers: of the answer, in place of the object's own, such as Content-Type.
        """
        instead = {f"response-{name.lower()}": value for name, value in (headers or {}).items()}
        return self._public.get_presigned_url(
            "GET", self._bucket, key, expires, response_headers=dict(instead)
        )

    async def create_multipart(self, key: str, content_type: str) -> str:
        """Starts a multipart upload; returns its id."""
        create = self._client._create_multipart_upload
        creating = asyncio.create_task(
            self._call(
                "create_multipart",
                lambda: create(self._bucket, key, {"Content-Type": content_type}),
            )
        )
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            # It begins all the same, and nobody else will know its id.
            leftover = asyncio.create_task(self._undo(key, creating))
            self._leftovers.add(leftover)
            leftover.add_done_callback(self._leftovers.discard)
            raise

    async def _undo(self, key: str, creating: asyncio.Task[str]) -> None:
        with suppress(Unavailable):
            await self.abort_multipart(key, await creating)

    def presigned_parts(
        self, key: str, upload: str, sizes: Mapping[int, int], expires: timedelta
    ) -> dict[int, str]:
        """URLs under which a client can PUT parts, as often as it likes until completion.

        The length is signed too, which the client's own signing can't: the store refuses a PUT of
        more bytes, or fewer.

        Args:
            key: of the object to come.
            upload: id of the multipart upload.
            sizes: length in bytes of each part, by its number.
            expires: how long the URLs work.
        """
        region, base = self._settings.s3_region, self._public._base_url
        signing = _Signing(self._credentials.retrieve(), region, base, self._bucket, key, expires)
        return {
            number: signing.part(upload, number, size_bytes) for number, size_bytes in sizes.items()
        }

    async def upload_part(
        self, key: str, upload: str, part_number: int, data: bytes
    ) -> UploadedPart:
        """Writes one part.

        Raises:
            ObjectNotFound: the multipart upload was completed or aborted.
        """
        send = self._client._upload_part
        etag = await self._call(
            "upload_part", lambda: send(self._bucket, key, data, None, upload, part_number)
        )
        BYTES.labels("upload_part").inc(len(data))
        return UploadedPart(part_number, len(data), etag)

    async def copy_part(
        self, key: str, upload: str, part_number: int, source_key: str, size: int
    ) -> UploadedPart:
        """Makes a whole object, of so many bytes, one part: no byte passes through here.

        Raises:
            ObjectNotFound: the object, or the multipart upload, is not there.
        """
        copy = self._client._upload_part_copy
        headers: dict[str, str | list[str] | tuple[str]] = {
            "x-amz-copy-source": f"/{self._bucket}/{source_key}"
        }
        etag, _ = await self._call(
            "copy_part", lambda: copy(self._bucket, key, upload, part_number, headers)
        )
        BYTES.labels("copy_part").inc(size)
        return UploadedPart(part_number, size, etag)

    async def list_parts(self, key: str, upload: str) -> list[UploadedPart]:
        """Parts that have landed, in order.

        Raises:
            ObjectNotFound: the multipart upload was completed or aborted.
        """

        def parts() -> list[UploadedPart]:
            landed: list[Part] = []
            marker: str | None = None
            while True:
                page = self._client._list_parts(
                    self._bucket, key, upload, part_number_marker=marker
                )
                landed += page.parts
                if not page.is_truncated:
                    return _last_written(landed)
                marker = str(landed[-1].part_number)

        return await self._call("list_parts", parts)

    async def complete_multipart(self, key: str, upload: str, parts: list[UploadedPart]) -> None:
        """Joins parts into the object.

        Raises:
            ObjectNotFound: the multipart upload was completed or aborted.
        """
        complete = self._client._complete_multipart_upload
        joined = [Part(part.part_number, part.etag) for part in parts]
        await self._call("complete_multipart", lambda: complete(self._bucket, key, upload, joined))

    async def abort_multipart(self, key: str, upload: str) -> None:
        """Gives a multipart upload up and removes its parts, if it is there."""
        abort = self._client._abort_multipart_upload
        try:
            await self._call("abort_multipart", lambda: abort(self._bucket, key, upload))
        except ObjectNotFound:
            return

    async def _call(self, operation: str, work: Callable[[], T]) -> T:
        call = _Call(operation)

        def timed() -> T:
            _running.call = call
            with SECONDS.labels(operation).time():
                return work()

        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("the object store is slow; try again") from None
        running = self._threads.submit(timed)
        loop = asyncio.get_running_loop()

        def ended(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self._free.release)

        running.add_done_callback(ended)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await asyncio.wrap_future(running)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchUpload", "NoSuchBucket"):
                raise ObjectNotFound(str(error)) from error
            raise Unavailable(f"the object store refused: {error.code}") from error
        except (MinioException, HTTPError, OSError) as error:
            raise Unavailable("the object store does not answer; try again") from error
        finally:
            call.given_up = True


def _pieces(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The rest of an answer, as it comes, for as long as somebody waits for it."""
    while piece := response.read1(_PIECE_BYTES):
        _running.call.check()
        yield piece


class _Signing:
    """Signs PUTs of an object's parts: AWS's Signature Version 4, in the query, with the length.

    The steps and their names are those of
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        base: BaseURL,
        bucket: str,
        key: str,
        expires: timedelta,
    ) -> None:
        now = datetime.now(UTC)
        day, self._time = f"{now:%Y%m%d}", f"{now:%Y%m%dT%H%M%SZ}"
        self._scope = f"{day}/{region}/s3/aws4_request"
        self._credential = f"{credentials.access_key}/{self._scope}"
        self._token = credentials.session_token
        self._expires = str(int(expires.total_seconds()))
        self._url = base.build(
            method="PUT", region=region, bucket_name=bucket, object_name=key, query_params={}
        )
        secret = f"AWS4{credentials.secret_key}".encode()
        for step in (day, region, "s3", "aws4_request"):
            secret = hmac.digest(secret, step.encode(), "sha256")
        self._key = secret

    def part(self, upload: str, number: int, size_bytes: int) -> str:
        """URL of one part."""
        query = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": self._credential,
            "X-Amz-Date": self._time,
            "X-Amz-Expires": self._expires,
            "X-Amz-SignedHeaders": "content-length;host",
            "partNumber": str(number),
            "uploadId": upload,
        }
        if self._token:
            query["X-Amz-Security-Token"] = self._token
        canonical_query = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
        canonical_request = (
            f"PUT\n{self._url.path}\n{canonical_query}\n"
            f"content-length:{size_bytes}\nhost:{self._url.netloc}\n\n"
            "content-length;host\nUNSIGNED-PAYLOAD"
        )
        digest = hashlib.sha256(canonical_request.encode()).hexdigest()
        string_to_sign = f"AWS4-HMAC-SHA256\n{self._time}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._key, string_to_sign.encode(), "sha256").hex()
        signed = f"{canonical_query}&X-Amz-Signature={signature}"
        return urlunsplit(self._url._replace(query=signed))


def _last_written(parts: Iterable[Part]) -> list[UploadedPart]:
    """Keeps of each part what was written last.

    S3 does so itself, but SeaweedFS lists every try. Its times are whole seconds: of two different
    tries within one, none can be trusted, and the part counts as not sent.
    """
    tries: dict[int, set[tuple[datetime | None, str, int]]] = {}
    for part in parts:
        entry = (part.last_modified, part.etag, part.size or 0)
        tries.setdefault(part.part_number, set()).add(entry)
    last: list[UploadedPart] = []
    for number, entries in sorted(tries.items()):
        newest = max((time for time, _, _ in entries if time), default=None)
        final = {(etag, size) for time, etag, size in entries if time == newest}
        if len(final) == 1:
            ((etag, size),) = final
            last.append(UploadedPart(number, size, etag))
    return last


@asynccontextmanager
async def open_store(settings: S3Settings) -> AsyncIterator[ObjectStore]:
    """Opens the store."""
    store = ObjectStore(settings)
    knowing = asyncio.create_task(store.stay_known())
    try:
        yield store
    finally:
        await ended(knowing)
        store.close()


def _credentials(settings: S3Settings) -> Provider:
    key, secret = (
        each.get_secret_value() for each in (settings.s3_access_key, settings.s3_secret_key)
    )
    return StaticProvider(key, secret) if key else _Identity(settings.s3_region)


def _client(settings: S3Settings, endpoint: str, credentials: Provider) -> Minio:
    url = urlsplit(endpoint)
    return Minio(
        url.netloc,
        credentials=credentials,
        secure=url.scheme == "https",
        # Named, so that presigning asks the store nothing.
        region=settings.s3_region,
        http_client=_http(),
    )


def _http() -> _Http:
    retries = _Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
    return _Http(maxsize=_THREADS, retries=retries)
