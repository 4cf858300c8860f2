"""The fork server: loads libav once, and forks a child for each recording.

It never sees a byte of a recording, so that what it hands to its children is the same for all. It
ends, and its children with it, when the process that started it is gone.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress

from . import child, wire


class ForkServer:
    """Obeys the commands that come on standard input (`wire.COMMAND`)."""

    def __init__(self) -> None:
        self._control = socket.socket(fileno=0)
        self._pids: dict[int, int] = {}
        # The kernel's word that a child has ended, as a byte to wait for.
        self._ended, self._end = socket.socketpair()
        self._end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._end.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Forks until the other side is gone."""
        with suppress(Exception):  # each child meets it again, and reports it
            child.load()
        gc.freeze()  # or collecting would copy what children share
        while True:
            ready, _, _ = select.select([self._control, self._ended], [], [])
            if self._ended in ready:
                self._ended.recv(4096)
                self._reap()
            if self._control in ready and not self._obey():
                break
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)

    def _obey(self) -> bool:
        command, descriptors, _, _ = socket.recv_fds(self._control, wire.COMMAND.size, 1)
        if not command:
            return False
        kind, number = wire.COMMAND.unpack(command)
        if kind == wire.Command.FORK:
            (descriptor,) = descriptors
            try:
                self._pids[number] = self._fork(descriptor)
            except OSError:  # no room for one more process, or no memory
                self._answer(wire.Answer.ENDED, number, 1)
            else:
                self._answer(wire.Answer.FORKED, number, self._pids[number])
            os.close(descriptor)
        elif number in self._pids:
            os.kill(self._pids[number], signal.SIGKILL)
        return True

    def _fork(self, descriptor: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(descriptor, 0)  # which closes the child's copy of the control socket
            os.dup2(descriptor, 1)
            for own in (descriptor, self._ended.fileno(), self._end.fileno()):
                os.close(own)
            status = child.run()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        for number, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[number]
                self._answer(wire.Answer.ENDED, number, os.waitstatus_to_exitcode(status))

    def _answer(self, kind: wire.Answer, number: int, value: int) -> None:
        self._control.sendall(wire.ANSWER.pack(kind, number, value))


if __name__ == "__main__":
    try:
        ForkServer().run()
    except ConnectionError:
        sys.exit(1)  # the other side is gone
