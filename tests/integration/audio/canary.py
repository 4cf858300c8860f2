"""Does in the decoder's child what a broken decoder would: every deed that must be denied.

It sits in the place of `decode.decode`, so that it runs where decoding does: in a child that the
fork server has forked and that has locked itself in. What came of each deed it sends back as if it
were sound. Nothing can be loaded there, so all that it needs is loaded before.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import socket
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
parent = os.getpid()  # of the children: this is loaded by the fork server
is_arm = platform.machine() == "aarch64"
page = mmap.mmap(-1, mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
pointer = ctypes.c_void_p(address)

TERABYTE = 1 << 40
PROT_EXEC = 4
PTRACE_ATTACH = 16
PR_SET_DUMPABLE = 4
CLONE_NEWUSER = 0x1000_0000
X32 = 0x4000_0000
NO_CLOCK = 9999  # or, if it could, it would set one


def called(result: int) -> None:
    """Raises what a function of the C library says with -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def system_call(number: int, *arguments: Any) -> None:
    """A system call that the C library has no function for."""
    called(libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))


def on(x86_64: int, aarch64: int) -> int:
    """A number that is another on each machine."""
    return aarch64 if is_arm else x86_64


def read_secrets() -> None:
    """Of the service's environment, from its own."""
    if not any(name.startswith("STENO_") for name in os.environ):
        raise KeyError("there are none")


DEEDS: dict[str, tuple[Callable[[], Any], str]] = {
    # the deed: (how it is tried, what denies it)
    "make a socket to the internet": (lambda: socket.socket(), "EPERM"),
    "make a socket to this machine": (lambda: socket.socket(socket.AF_UNIX), "EPERM"),
    "make a socket to the kernel": (lambda: socket.socket(16, socket.SOCK_RAW), "EPERM"),
    "make a pair of sockets": (lambda: socket.socketpair(), "EPERM"),
    "connect the socket that it has": (lambda: called(libc.connect(0, pointer, 16)), "EPERM"),
    "listen on the socket that it has": (lambda: called(libc.listen(0, 1)), "EPERM"),
    "send a file descriptor to its parent": (
        lambda: called(libc.sendmsg(0, pointer, 0)),
        "EPERM",
    ),
    "copy a file descriptor": (lambda: os.dup(0), "EPERM"),
    "make a pipe": (lambda: os.pipe(), "EPERM"),
    "read a file": (lambda: os.open("/etc/passwd", os.O_RDONLY), "EPERM"),
    "read its parent's environment": (lambda: os.open(f"/proc/{parent}/environ", 0), "EPERM"),
    "read its own memory as a file": (lambda: os.open("/proc/self/mem", os.O_RDWR), "EPERM"),
    "read secrets in its environment": (read_secrets, "KeyError"),
    "look whether a file is there": (lambda: os.stat("/etc/passwd"), "EPERM"),
    "list a folder": (lambda: os.listdir("/"), "EPERM"),
    "write a file": (lambda: os.open("/tmp/canary", os.O_WRONLY | os.O_CREAT), "EPERM"),
    "make a folder": (lambda: os.mkdir("/tmp/canary"), "EPERM"),
    "make a link": (lambda: os.symlink("/etc/passwd", "/tmp/canary"), "EPERM"),
    "remove a file": (lambda: os.unlink("/tmp/canary"), "EPERM"),
    "make a file in memory": (lambda: called(libc.memfd_create(b"canary", 0)), "EPERM"),
    "change its folder": (lambda: os.chdir("/"), "EPERM"),
    "fork": (lambda: os.fork() or os._exit(0), "EPERM"),
    "clone": (lambda: system_call(435, address, 88), "EPERM"),
    "start a thread": (lambda: start_new_thread(print, ()), "RuntimeError"),
    "start a program": (lambda: os.execv("/bin/true", ["true"]), "EPERM"),
    "start a program by its descriptor": (
        lambda: system_call(on(322, 281), 0, address, 0, 0, 0x1000),
        "EPERM",
    ),
    "signal its parent": (lambda: os.kill(parent, 0), "EPERM"),
    "signal all that it may": (lambda: os.kill(-1, 0), "EPERM"),
    "get a descriptor of its parent": (lambda: system_call(434, parent, 0), "EPERM"),
    "trace its parent": (lambda: called(libc.ptrace(PTRACE_ATTACH, parent, 0, 0)), "EPERM"),
    "read its parent's memory": (
        lambda: called(libc.process_vm_readv(parent, pointer, 1, pointer, 1, 0)),
        "EPERM",
    ),
    "make memory executable": (
        lambda: called(libc.mprotect(pointer, mmap.PAGESIZE, 7)),
        "EPERM",
    ),
    "map executable memory": (lambda: mmap.mmap(-1, 4096, prot=7), "EPERM"),
    "map a terabyte": (lambda: mmap.mmap(-1, TERABYTE), "ENOMEM"),
    "take a gigabyte": (lambda: bytes(1 << 30), "MemoryError"),
    "become root": (lambda: os.setuid(0), "EPERM"),
    "become root in a namespace": (lambda: called(libc.unshare(CLONE_NEWUSER)), "EPERM"),
    "enter another namespace": (lambda: called(libc.setns(0, 0)), "EPERM"),
    "change its root": (lambda: os.chroot("/"), "EPERM"),
    "mount": (lambda: called(libc.mount(b"none", b"/no/where", b"tmpfs", 0, None)), "EPERM"),
    "raise its limits": (
        lambda: resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999)),
        "ValueError",
    ),
    "let others look into it": (lambda: called(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)), "EPERM"),
    "replace its filter of system calls": (lambda: system_call(on(317, 277), 1, 0, 0), "EPERM"),
    "load a program into the kernel": (lambda: system_call(on(321, 280), 5, address, 48), "EPERM"),
    "measure other processes": (
        lambda: system_call(on(298, 241), address, -1, 0, -1, 0),
        "EPERM",
    ),
    "handle page faults by itself": (lambda: system_call(on(323, 282), 0), "EPERM"),
    "talk to the kernel through a ring": (lambda: system_call(425, 1, address), "EPERM"),
    "read the kernel's keys": (lambda: system_call(on(250, 219), 0, 0), "EPERM"),
    "call the kernel as another architecture": (
        lambda: system_call(X32 | on(2, 56), address, 0),
        "EPERM",
    ),
    "type into its terminal": (lambda: called(libc.ioctl(0, 0x5412, pointer)), "EPERM"),
    "set the clock": (lambda: called(libc.clock_settime(NO_CLOCK, pointer)), "EPERM"),
}


def outcome(deed: Callable[[], Any]) -> str:
    """What denies a deed; nothing, if nothing does."""
    try:
        deed()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except Exception as error:
        return type(error).__name__
    return ""


def sing(file: Any, job: Any, send_info: Callable[..., Any], send_pcm: Callable[..., Any]) -> Any:
    """Stands in for `decode.decode`."""
    send_info(
        {
            "container": "canary",
            "codec": "",
            "sample_rate_hertz": 0,
            "channel_count": 0,
            "bit_rate": None,
            "declared_duration_seconds": None,
        }
    )
    song = json.dumps({name: outcome(deed) for name, (deed, _) in DEEDS.items()}).encode()
    song += b" " * (len(song) % 2)
    send_pcm(song)
    return {"sample_count": len(song) // 2, "truncation": "", "damaged_packets": 0}


INSTALLED = f"""
import runpy, sys
sys.path.append(sys.argv[1])
from decoder import decode
decode.decode = runpy.run_path({__file__!r})["sing"]
"""
"""What the fork server runs before all else."""
