from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from steno.local.child import Child, Command, StartError
from waiting import eventually

Run = Callable[..., Child]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Starts a child that runs this Python code; ends it after the test."""
    children = []

    def start(code: str, **command: object) -> Child:
        arguments = [sys.executable, "-c", textwrap.dedent(code)]
        log = tmp_path / "child.log"
        child = Child("child", Command(arguments, dict(os.environ), log, **command))  # type: ignore[arg-type]
        children.append(child)
        child.start()
        return child

    yield start
    for child in children:
        await child.kill()


def runs(pid: int) -> bool:
    """Whether a process runs. One that has ended and is not buried yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


async def written(child: Child) -> str:
    return await eventually(child.log_tail)


async def test_it_is_asked_to_end_before_it_is_made_to(run: Run) -> None:
    child = run("""
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        print("here", flush=True)
        signal.pause()
    """)
    await written(child)

    await child.stop(grace=30)

    assert child.exit_status == 7


async def test_one_that_does_not_listen_is_killed_after_its_grace(run: Run) -> None:
    child = run("""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("here", flush=True)
        while True: signal.pause()
    """)
    await written(child)

    await child.stop(grace=0.1)

    assert child.exit_status == -signal.SIGKILL


async def test_what_it_has_started_ends_with_it(run: Run) -> None:
    child = run("""
        import signal, subprocess
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
        signal.pause()
    """)
    grandchild = int(await written(child))

    await child.stop()

    await eventually(lambda: not runs(grandchild))


async def test_it_can_be_started_again(run: Run) -> None:
    child = run("print('once')")
    await child.wait(30)

    child.start()
    await child.wait(30)

    assert child.command.log.read_text() == "once\nonce\n"
    assert child.log_tail() == "once"


async def test_one_that_ends_before_it_is_ready_is_an_error_with_its_last_words(run: Run) -> None:
    async def never() -> None:
        raise ConnectionError

    child = run("import sys; sys.exit('no such model')")

    with pytest.raises(StartError, match=r"child ended \(exit status 1\): no such model\nlog: "):
        await child.ready(never, timeout=30)


async def test_one_that_takes_too_long_is_an_error_that_says_what_it_lacked(run: Run) -> None:
    async def never() -> None:
        raise ConnectionError("not listening")

    child = run("import signal; signal.pause()")

    with pytest.raises(StartError, match=r"not ready after 0.1 s.*not listening"):
        await child.ready(never, timeout=0.1)


async def test_work_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", "import sys; sys.exit('no database')"]

    with pytest.raises(StartError, match=r"migrate ended \(exit status 1\): no database"):
        await Child("migrate", Command(arguments, {}, tmp_path / "log")).done(30)


async def test_work_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    child = Child("migrate", Command(["sleep", "600"], dict(os.environ), tmp_path / "log"))

    with pytest.raises(StartError, match=r"migrate took longer than 0.1 s"):
        await child.done(0.1)

    assert not child.running


async def test_it_inherits_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    code = "import os; print(os.environ.get('PGDATA'))"
    child = Child("bare", Command([sys.executable, "-c", code], {}, tmp_path / "log"))

    child.start()
    await child.wait(30)

    assert child.log_tail() == "None"


PARENT = """
import os, signal, sys
from pathlib import Path
from steno.local.child import Child, Command
child = Child("child", Command(["sleep", "600"], dict(os.environ), Path(sys.argv[1])))
child.start()
print(child.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux keeps the leash")
async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path / "log")), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    pid = int(await parent.stdout.readline())
    await eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))

    parent.kill()
    await parent.wait()

    await eventually(lambda: not runs(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_who_is_no_longer_root_finds_programs_where_only_root_may_go(
    tmp_path: Path, run: Run
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    program = private / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    child = run(
        f"""
        import os
        print(os.getuid() != 0 and os.access({str(program)!r}, os.R_OK | os.X_OK), flush=True)
        print(*(line for line in open("/proc/self/status") if line.startswith("CapEff")))
        """,
        user="nobody",
    )

    found, capabilities = (await eventually(lambda: said(child))).split("\n", 1)
    assert found == "True"
    # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: of root's other powers none is left.
    assert int(capabilities.split()[1], 16) == 0b110


def said(child: Child) -> str | None:
    log = child.log_tail()
    return log if "CapEff" in log else None
