"""The recording as a file whose bytes lie with the parent."""

from __future__ import annotations

import os

from .wire import MAX_READ_BYTES, READ_REQUEST, Channel, Kind

FIRST_READ_BYTES = 64 * 1024


class RemoteFile:
    """A readable, seekable file that asks the parent for ranges.

    Reads ahead in a window that doubles while the reading is sequential (up to `MAX_READ_BYTES`)
    and starts small again after a jump, so that a long recording takes few requests and a look at
    a header does not fetch a megabyte. A file of unknown size can be read but not sought in.
    """

    def __init__(self, channel: Channel, size_bytes: int | None) -> None:
        self.size_bytes = size_bytes
        self.ended_early = False
        """True once the parent had fewer bytes than it announced."""
        self._channel = channel
        self._position = 0
        self._window = b""
        self._window_start = 0
        self._read_ahead = FIRST_READ_BYTES

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True if the end is known."""
        return self.size_bytes is not None

    def tell(self) -> int:
        """Returns the offset in bytes of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset in bytes; costs no request."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            if self.size_bytes is None:
                raise OSError("the end of this recording is not known yet")
            offset += self.size_bytes
        if offset < 0:
            raise OSError("seek before the start of the recording")
        self._position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """Returns up to `size` bytes; fewer at the end of the window, none at the end."""
        begin = self._position - self._window_start
        if not 0 <= begin < len(self._window):
            self._fetch()
            begin = 0
        part = self._window[begin : begin + size] if size >= 0 else self._window[begin:]
        self._position += len(part)
        return part

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes from `offset` on, fewer only at the end of the recording."""
        here = self._position
        self.seek(offset)
        parts = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        self._position = here
        return b"".join(parts)

    def _fetch(self) -> None:
        sequential = self._position == self._window_start + len(self._window)
        self._read_ahead = (
            min(self._read_ahead * 2, MAX_READ_BYTES)
            if sequential and self._window
            else FIRST_READ_BYTES
        )
        size = self._read_ahead
        if self.size_bytes is not None:
            size = max(0, min(size, self.size_bytes - self._position))
        self._window_start = self._position
        self._window = b""
        if size:
            self._channel.send(Kind.READ, READ_REQUEST.pack(self._position, size))
            self._window = self._channel.receive(Kind.DATA)
        if self.size_bytes is not None and len(self._window) < size:
            self.ended_early = True
