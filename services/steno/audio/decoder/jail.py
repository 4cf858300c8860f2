"""Locks the calling process in: after `lock_down` it can compute, and read and write what it has.

Every step works without root and without a helper program. What a system does not offer (seccomp
outside Linux, another uid without root) is left out and told in the returned `Protections`; whether
that is enough is the other side's matter.

Sources: seccomp(2), prctl(2), getrlimit(2); syscall numbers from Linux's
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from dataclasses import dataclass

NOBODY = 65534
"""The uid and gid that own nothing."""

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

SECCOMP_RET_KILL_PROCESS = 0x8000_0000
SECCOMP_RET_ERRNO = 0x0005_0000
SECCOMP_RET_ALLOW = 0x7FFF_0000

BPF_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
BPF_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
BPF_JUMP_IF_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
BPF_RETURN = 0x06  # BPF_RET | BPF_K

DATA_SYSCALL = 0  # offsets in struct seccomp_data
DATA_ARCH = 4
DATA_THIRD_ARGUMENT = 32

PROT_EXEC = 4

AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

MEMORY_MAPPING = {
    # name: (x86_64, aarch64); allowed unless they make memory executable
    "mmap": (9, 222),
    "mprotect": (10, 226),
}

ALLOWED = {
    # name: (x86_64, aarch64); no way to a file, a socket, a process or a signal is among them
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "futex": (202, 98),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}


@dataclass(frozen=True, slots=True)
class Protections:
    """Which of the walls that not every system offers are standing."""

    seccomp: bool
    """Only the system calls in `ALLOWED` work; the others answer EPERM."""
    unprivileged: bool
    """The process is not root."""
    dies_with_parent: bool
    """The kernel kills the process when its parent dies."""


def lock_down(*, memory_bytes: int, cpu_seconds: int) -> Protections:
    """Gives up everything but computing and the file descriptors that are open now.

    Call it after every import, from the only thread: no module can be loaded afterwards.

    Args:
        memory_bytes: address space that may be taken beyond what is in use now.
        cpu_seconds: processor time after which the kernel ends the process.
    """
    _limit_resources(memory_bytes, cpu_seconds)
    unprivileged = _drop_root()
    dies_with_parent = _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after setuid, which clears it
    _prctl(PR_SET_DUMPABLE, 0)
    seccomp = _prctl(PR_SET_NO_NEW_PRIVS, 1) and _install_filter()
    return Protections(seccomp, unprivileged, dies_with_parent)


class Meter:
    """Tells what this process has used; made before `lock_down`, it works behind it too."""

    def __init__(self) -> None:
        # getrusage's peak would be the parent's: it is handed down through fork and exec.
        self._status = os.open("/proc/self/status", os.O_RDONLY) if sys.platform == "linux" else -1

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def peak_memory_bytes(self) -> int:
        """Most memory held so far; 0 where the system does not tell. Can be asked once."""
        if self._status >= 0:
            for line in os.read(self._status, 1 << 16).splitlines():
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0


def _limit_resources(memory_bytes: int, cpu_seconds: int) -> None:
    address_space = _address_space_bytes() + memory_bytes
    limits = {
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),  # SIGXCPU, then SIGKILL
        resource.RLIMIT_AS: (address_space, address_space),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NPROC: (0, 0),
        resource.RLIMIT_NOFILE: (3, 3),
    }
    for limit, (soft, hard) in limits.items():
        _, ceiling = resource.getrlimit(limit)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(limit, (soft, hard))


def _address_space_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 << 20  # what Python and libav map on a system without /proc


def _drop_root() -> bool:
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:  # root of a container without CAP_SETUID
            return False
    return True


def _prctl(option: int, value: int, pointer: object = None) -> bool:
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0) == 0)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _install_filter() -> bool:
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        return False
    instructions = filter_program(machine)
    program = _Program(len(instructions) // 8, instructions)
    return _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))


def filter_program(machine: str) -> bytes:
    """Assembles the seccomp filter for a machine of `AUDIT_ARCH`, 8 bytes an instruction."""
    column = list(AUDIT_ARCH).index(machine)
    mapping = [numbers[column] for numbers in MEMORY_MAPPING.values()]
    allowed = [numbers[column] for numbers in ALLOWED.values()]

    # Jumps are relative: "n further" skips n instructions.
    checks = [(BPF_LOAD_WORD, 0, 0, DATA_SYSCALL)]
    after = len(mapping) + len(allowed)
    for number in mapping:
        after -= 1
        checks.append((BPF_JUMP_IF_EQUAL, after + 1, 0, number))  # to the look at PROT_EXEC
    for number in allowed:
        after -= 1
        checks.append((BPF_JUMP_IF_EQUAL, after + 4, 0, number))  # to ALLOW
    program = [
        (BPF_LOAD_WORD, 0, 0, DATA_ARCH),
        (BPF_JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (BPF_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        *checks,
        (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
        (BPF_LOAD_WORD, 0, 0, DATA_THIRD_ARGUMENT),
        (BPF_JUMP_IF_ANY_BIT, 0, 1, PROT_EXEC),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
