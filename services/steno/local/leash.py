"""Becomes another program that ends when the process that started it ends, however it ends.

    python -I -S leash.py PARENT_PID SIGNAL USER PROGRAM ARGUMENT...

SIGNAL is what the program gets when PARENT_PID is gone, also after `kill -9`. USER is a system
user to become, or `-`. A script of its own, and not code between fork and exec, because the parent
may have threads. The kernel keeps the leash on Linux only; elsewhere the program is just started.

Note that the kernel watches the parent's *thread*: start children from the main thread.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITIES_V3 = 0x20080522


def become(user: str) -> None:
    """Gives up root for another user, but keeps root's way into folders.

    Postgres refuses to run as root, yet its programs and its data may lie below a folder such as
    /root that only root may enter. Opening that folder to everybody would be worse.
    """
    import pwd

    entry = pwd.getpwnam(user)
    libc = ctypes.CDLL(None, use_errno=True)
    keep = sys.platform == "linux" and libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    if keep:
        # Else access(2), by which Postgres looks for its own programs, knows nothing of the way
        # that is kept. The next program has what is kept below and no more, in either case.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if not keep:
        return
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        _keep(libc, capability)  # a container may lack one of them


def _keep(libc: ctypes.CDLL, capability: int) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    # effective, permitted and inheritable, each in a low and a high word
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for i in range(3):
        sets[i] |= 1 << capability
    if libc.capset(header, sets) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def main() -> None:
    """Ties this process to its parent, then becomes the program."""
    parent, signal_number, user, *program = sys.argv[1:]
    if user != "-":
        become(user)
    if sys.platform == "linux":
        # After the change of user, which would undo it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # it ended before the leash was on
    os.execvp(program[0], program)


if __name__ == "__main__":
    main()
