"""Where the services are, and calls that outlast their restarts."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from steno.cli.failures import CliError, Exit, refused_or_failed, unreachable
from steno.local.data_dir import Running, default_folder

if TYPE_CHECKING:
    import grpc

    from steno.v1.concatenation_pb2_grpc import ConcatenationServiceAsyncStub
    from steno.v1.job_pb2_grpc import JobServiceAsyncStub
    from steno.v1.transcription_pb2_grpc import TranscriptionServiceAsyncStub
    from steno.v1.upload_pb2_grpc import UploadServiceAsyncStub

SERVICES = ("upload", "job", "transcription", "concatenation")
USUAL = {service: f"127.0.0.1:{50051 + place}" for place, service in enumerate(SERVICES)}

CALL_SECONDS = 30.0
"""Time for one answer."""
PATIENCE_SECONDS = 60.0
"""Time that a service may be away while files are on their way, for example to be started again."""
_BRIEF_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 1.0

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True)
class Addresses:
    """Where each service is, and where that is known from.

    `here` is the platform of this machine that they belong to, if they do.
    """

    upload: str
    job: str
    transcription: str
    concatenation: str
    source: str
    here: Running | None = None

    @classmethod
    def resolve(cls, options: argparse.Namespace, environment: Mapping[str, str]) -> Addresses:
        """Finds the services.

        The first of these that says something about one counts: `--address`; `--data-dir`;
        STENO_UPLOAD_ADDRESS and so on; STENO_ADDRESS; the platform that runs in $STENO_HOME or the
        default folder; the usual ports of this machine.

        Raises CliError if `--data-dir` names a folder in which nothing runs.
        """
        if options.address:
            return cls(**dict.fromkeys(SERVICES, options.address), source="--address")
        if options.data_dir:
            folder = Path(options.data_dir)
            running = Running.read(folder)
            if running is None:
                raise CliError(
                    f"nothing runs in {folder}",
                    Exit.UNREACHABLE,
                    hint=f"start it with: steno up --data-dir {folder}",
                )
            return cls.running(running.addresses, str(folder), running)
        own = {s: environment.get(f"STENO_{s.upper()}_ADDRESS") for s in SERVICES}
        shared = environment.get("STENO_ADDRESS")
        found = {s: address for s in SERVICES if (address := own[s] or shared)}
        if len(found) == len(SERVICES):
            return cls.running(found, "environment")
        running = Running.read(default_folder())
        if running is not None and not found:
            return cls.running(running.addresses, str(default_folder()), running)
        here = running.addresses if running is not None else {}
        return cls.running(here | found, "environment" if found else "usual ports")

    @classmethod
    def running(
        cls, addresses: Mapping[str, str], source: str, here: Running | None = None
    ) -> Addresses:
        """By service; the usual ones for those that are not there. Others are not looked at."""
        found = {service: addresses.get(service, USUAL[service]) for service in SERVICES}
        return cls(**found, source=source, here=here)

    def of(self, service: str) -> str:
        """Address of one of SERVICES."""
        return str(getattr(self, service))


class Services:
    """The services, each connected to when it is first asked."""

    def __init__(
        self,
        addresses: Addresses,
        patience: float,
        exit_stack: AsyncExitStack,
        tls: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.addresses = addresses
        self._tls = tls
        self.patience = patience
        self._exit_stack = exit_stack
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.answered = False

    async def uploads(self) -> UploadServiceAsyncStub:
        """UploadService."""
        from steno.v1.upload_pb2_grpc import UploadServiceStub

        return UploadServiceStub(await self._channel("upload"))

    async def jobs(self) -> JobServiceAsyncStub:
        """JobService."""
        from steno.v1.job_pb2_grpc import JobServiceStub

        return JobServiceStub(await self._channel("job"))

    async def transcription(self) -> TranscriptionServiceAsyncStub:
        """TranscriptionService."""
        from steno.v1.transcription_pb2_grpc import TranscriptionServiceStub

        return TranscriptionServiceStub(await self._channel("transcription"))

    async def sessions(self) -> ConcatenationServiceAsyncStub:
        """ConcatenationService."""
        from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub

        return ConcatenationServiceStub(await self._channel("concatenation"))

    async def _channel(self, service: str) -> grpc.aio.Channel:
        from steno.platform.client import open_channel

        if service not in self._channels:
            self._channels[service] = await self._exit_stack.enter_async_context(
                open_channel(self.addresses.of(service), tls=self._tls, proxied=True)
            )
        return self._channels[service]

    async def call(
        self,
        service: str,
        method: Callable[..., Awaitable[Response]],
        request: object,
        *,
        timeout: float = CALL_SECONDS,
        patience: float | None = None,
    ) -> Response:
        """Makes a call that is safe to repeat, and repeats it while its service is away.

        A platform that never answered is given up at once: it is not running. One that did will
        come back, so the call waits for it.

        Raises CliError.
        """
        clock = asyncio.get_running_loop().time
        give_up = clock() + (self.patience if patience is None else patience)
        while True:
            try:
                response = await method(request, timeout=timeout)
            except Exception as error:
                pause = self.pause_after(service, error)
                if clock() + pause > give_up:
                    raise self.explain(service, error) from error
                await asyncio.sleep(pause)
            else:
                self.answered = True
                return response

    def pause_after(self, service: str, error: Exception) -> float:
        """Seconds to wait before a failed call is made again. Raises CliError if that is vain."""
        import grpc

        from steno.platform.errors import read_failure

        if not isinstance(error, grpc.aio.AioRpcError):
            raise error
        failure = read_failure(error)
        away = failure.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if failure.retry_delay is not None:
            self.answered = True
            return max(failure.retry_delay.total_seconds(), _PAUSE_SECONDS)
        if away and (self.answered or failure.reason):
            return _PAUSE_SECONDS
        raise self.explain(service, error) from error

    def explain(self, service: str, error: Exception) -> CliError:
        """The failure of a call, for the terminal."""
        import grpc

        from steno.platform.errors import read_failure

        if not isinstance(error, grpc.aio.AioRpcError):
            raise error
        failure = read_failure(error)
        if failure.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            if failure.reason:  # it did answer: something behind it is away
                return CliError(failure.message, Exit.UNREACHABLE, reason=failure.reason)
            return unreachable(f"the {service} service", self.addresses.of(service))
        return refused_or_failed(failure)


@asynccontextmanager
async def connect(
    options: argparse.Namespace, patience: float = _BRIEF_PATIENCE_SECONDS
) -> AsyncIterator[Services]:
    """The services that a command's options and the environment name.

    Args:
        options: of the command line.
        patience: seconds to wait for a service that is away for a while.
    """
    from steno.platform import tenancy
    from steno.platform.errors import InvalidArgument

    addresses = Addresses.resolve(options, os.environ)
    # What gRPC's core notes on stderr is for developers; failures are told as ours.
    os.environ.setdefault("GRPC_VERBOSITY", "INFO" if options.debug else "NONE")
    async with AsyncExitStack() as stack:
        name = options.tenant or os.environ.get("STENO_TENANT") or tenancy.DEFAULT
        try:
            stack.enter_context(tenancy.tenant_in(name))
        except InvalidArgument as error:
            raise CliError(f"--tenant {error.violations[0].description}", Exit.USAGE) from None
        tls = credentials(options, os.environ, addresses)
        yield Services(addresses, patience, stack, tls)


def credentials(
    options: argparse.Namespace, environment: Mapping[str, str], addresses: Addresses
) -> grpc.ChannelCredentials | None:
    """Whose certificates to believe; None for plain HTTP/2.

    TLS is spoken with `--tls`, or where STENO_TLS_CA names a file with authorities; what runs on
    this machine is spoken to plainly. Raises CliError if the file can't be read.
    """
    authorities = environment.get("STENO_TLS_CA", "")
    if not options.tls and (not authorities or addresses.here is not None):
        return None
    from steno.platform.tls import channel_credentials

    try:
        return channel_credentials(authorities)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CliError(f"STENO_TLS_CA: {authorities}: {why}", Exit.USAGE) from error
