"""The microphone, for `steno live --microphone`. Needs the extra `microphone`."""

from __future__ import annotations

from steno.cli.failures import CliError, Exit

RATE_HERTZ = 16_000
SAMPLE_BYTES = 2


class Microphone:
    """Sound as it is made, in samples of 16 bits, mono: read like a file that ends with `stop`."""

    def __init__(self) -> None:
        """Opens the system's usual microphone. Raises CliError."""
        try:
            import sounddevice
        except ImportError as error:
            hint = "install Steno with its extra 'microphone'"
            raise CliError("the microphone needs sounddevice", Exit.USAGE, hint=hint) from error
        except OSError as error:  # the package is there, the library that it needs is not
            hint = "install it, for example: apt install libportaudio2"
            raise CliError("the microphone needs PortAudio", Exit.USAGE, hint=hint) from error
        try:
            self._stream = sounddevice.RawInputStream(RATE_HERTZ, channels=1, dtype="int16")
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise CliError(f"the microphone can't be opened: {error}", Exit.USAGE) from error
        self._stopped = False

    def stop(self) -> None:
        """Nothing more is heard: the next read is the end."""
        self._stopped = True

    def read(self, size: int) -> bytes:
        """Waits for so many bytes; nothing means that it was stopped."""
        if self._stopped:
            self._stream.close()
            return b""
        samples, _ = self._stream.read(size // SAMPLE_BYTES)
        return bytes(samples)
