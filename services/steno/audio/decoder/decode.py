"""Opens a recording with libav and turns its best audio track into 16 kHz mono PCM.

Everything flows: one packet is read, decoded, mixed down and sent before the next is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

import av
import av.error
import av.stream

from .containers import (
    MP3_DELAY_SAMPLES,
    Rejected,
    after_id3,
    has_frame_count,
    identify,
    is_ogg_whole,
    mpeg_frame_bytes,
    wav_data,
)
from .mixer import SAMPLE_BYTES, Mixer
from .remote import RemoteFile
from .wire import BLOCK_SAMPLES, SAMPLE_RATE_HERTZ, Reason

DECODERS = (
    "aac,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,alac,amrnb,amrwb,eac3,flac,g722,gsm,gsm_ms,"
    "libopencore_amrnb,libopencore_amrwb,libopus,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,"
    "pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,"
    "pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,vorbis"
)
"""Audio decoders that may run on hostile bytes. No video decoder ever does."""

MAX_CHANNELS = 8

MIN_HERTZ, MAX_HERTZ = 4_000, 192_000
"""Sample rates of what people record. A second at a lower one is so few bytes that a small file
would be hours long."""

UNSIGNED_CONTAINERS = frozenset({"mp3", "aac"})
"""Containers without a signature: what looks like some of their frames may be anything."""

LEAST_SHARE = 0.25
LEAST_SECONDS = 10
"""So much of a file without a signature must be sound, or so long what is, to be a recording."""

TIMED_CONTAINERS = frozenset({"mp4", "matroska", "ogg"})
"""Containers that carry a clock of their own, which may jump."""

GAP_SAMPLES = SAMPLE_RATE_HERTZ // 10
"""Holes in a container's clock from 100 ms on are filled, so that what follows keeps its time."""

MAX_GAP_SAMPLES = 600 * SAMPLE_RATE_HERTZ
"""Holes beyond 10 minutes are taken for broken timestamps and not filled."""

MAX_DEMUX_ERRORS = 100
"""Errors in a row after which the rest of a container is given up."""

END_TOLERANCE_SECONDS = 0.25
"""How much less than announced may come out of a lossy codec before its end counts as missing:
priming and padding are counted differently by different writers."""

PCM_END_TOLERANCE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Job:
    """What the parent asks for."""

    size_bytes: int | None
    max_samples: int
    """Most samples of output."""
    max_decoded_samples: int
    """Most samples over all channels before they are mixed down."""


def decode(
    file: RemoteFile,
    job: Job,
    send_info: Callable[[dict[str, Any]], None],
    send_pcm: Callable[[bytes], None],
) -> dict[str, Any]:
    """Decodes a whole recording and returns its end record.

    Raises `Rejected` if it can't be decoded or passes a limit.
    """
    name, demuxer = identify(file)
    options = {
        # `io_open` below refuses too; so a container that names other files or URLs gets nothing.
        "protocol_whitelist": "none",
        "codec_whitelist": DECODERS,
    }
    wav_end = None
    if name == "wav":
        offset, wav_size = wav_data(file)
        if not offset:
            _reject_unreadable(name)
        if wav_size is None:
            options["ignore_length"] = "1"
        else:
            wav_end = offset + wav_size
    try:
        container = av.open(
            file,
            format=demuxer,
            container_options=options,
            metadata_errors="replace",
            io_open=_refuse,
        )
    except av.error.MemoryError:
        raise _out_of_memory() from None
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, av.error.EOFError) and name in ("mp3", "aac", "amr", "au"):
            raise Rejected(Reason.NO_SAMPLES, _no_samples(name)) from None
        _reject_unreadable(name)
    with container:
        track = _Track(file, job, name, container, send_info, send_pcm)
        track.play()
        truncation = track.missing_end(wav_end)
    return {
        "sample_count": track.sample_count,
        "truncation": truncation,
        "damaged_packets": track.damaged_packets,
    }


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a recording can't open anything")


def _reject_unreadable(name: str) -> NoReturn:
    raise Rejected(
        Reason.UNREADABLE, f"The file begins like {name.upper()}, but it can't be read."
    ) from None


def _no_samples(name: str) -> str:
    return f"The file is {name.upper()} with a header but no audio in it."


def _wrong_shape(channels: int, hertz: int) -> bool:
    return not (1 <= channels <= MAX_CHANNELS and MIN_HERTZ <= hertz <= MAX_HERTZ)


def _check_shape(channels: int, hertz: int) -> None:
    """Refuses what nobody records; 0 is not known yet."""
    if channels > MAX_CHANNELS:
        raise Rejected(
            Reason.UNSUPPORTED_CHANNELS,
            f"The recording has {channels} channels; 1 to {MAX_CHANNELS} are supported.",
        )
    if hertz and not MIN_HERTZ <= hertz <= MAX_HERTZ:
        raise Rejected(
            Reason.UNSUPPORTED_SAMPLE_RATE,
            f"The recording has a sample rate of {hertz} Hz; "
            f"{MIN_HERTZ} to {MAX_HERTZ} Hz are supported.",
        )


def _out_of_memory() -> Rejected:
    return Rejected(Reason.MEMORY_LIMIT, "Decoding the file takes more memory than is allowed.")


class _Track:
    """The best audio track of an open container, on its way to PCM."""

    def __init__(
        self,
        file: RemoteFile,
        job: Job,
        name: str,
        container: Any,
        send_info: Callable[[dict[str, Any]], None],
        send_pcm: Callable[[bytes], None],
    ) -> None:
        self.sample_count = 0
        """Samples of output so far."""
        self.damaged_packets = 0
        self._file = file
        self._job = job
        self._name = name
        self._container = container
        self._send_info = send_info
        self._send_pcm = send_pcm
        self._stream = self._best_stream()
        self._announced = False
        self._decoded_samples = 0
        self._decoded_bytes = 0
        self._mixer: Mixer | None = None
        self._origin: int | None = None
        self._last_packet_damaged = False
        self._broken = False
        self._pending = bytearray()
        self._lead_in: int | None = None  # samples of output still to be dropped
        self._last_packet: Any = None

        declared = self._declared_seconds()
        if declared is not None and declared > job.max_samples / SAMPLE_RATE_HERTZ:
            raise Rejected(
                Reason.TOO_LONG,
                f"The recording is {declared:.0f} s long; "
                f"the limit is {job.max_samples // SAMPLE_RATE_HERTZ} s.",
            )

    def _best_stream(self) -> Any:
        streams = self._container.streams
        if not streams.audio:
            raise Rejected(Reason.NO_AUDIO_TRACK, "The file has no audio track.")
        stream = streams.best("audio") or streams.audio[0]
        for other in streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        codec = stream.codec_context
        if codec is None or codec.name not in DECODERS.split(","):
            codec_name = codec.name if codec else "unknown"
            raise Rejected(
                Reason.UNSUPPORTED_CODEC, f"The audio codec ({codec_name}) is not supported."
            )
        _check_shape(codec.channels, codec.sample_rate)
        codec.thread_count = 1  # the jail lets no thread start
        return stream

    # From packets to samples

    def play(self) -> None:
        """Decodes the track to its end, past whatever is broken on the way."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.MemoryError:
                raise _out_of_memory() from None
            except av.error.FFmpegError:
                frames = []
                self.damaged_packets += 1
                self._last_packet_damaged = True
            else:
                self._last_packet_damaged = bool(packet.is_corrupt)
                self._decoded_bytes += packet.size
            self._last_packet = packet
            for frame in frames:
                self._take(frame)
        try:
            for frame in self._stream.codec_context.decode(None):
                self._take(frame)
        except av.error.FFmpegError:
            self._last_packet_damaged = True
        self._flush_mixer()
        self._flush_pending()
        if not self.sample_count:
            if self.damaged_packets or self._broken:
                _reject_unreadable(self._name)
            raise Rejected(Reason.NO_SAMPLES, _no_samples(self._name))
        self._check_share()

    def _check_share(self) -> None:
        """Refuses a file in which frames were found by chance."""
        whole = self._file.size_bytes
        if self._name not in UNSIGNED_CONTAINERS or whole is None:
            return
        whole -= after_id3(self._file.read_at(0, 10))
        short = self.sample_count < LEAST_SECONDS * SAMPLE_RATE_HERTZ
        if short and self._decoded_bytes < LEAST_SHARE * whole:
            raise Rejected(
                Reason.UNSUPPORTED_FORMAT,
                "The file is not a recording: hardly anything in it can be decoded.",
            )

    def _packets(self) -> Iterator[Any]:
        errors = 0
        while errors < MAX_DEMUX_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        errors = 0
                        yield packet
            except av.error.MemoryError:
                raise _out_of_memory() from None
            except av.error.FFmpegError:
                errors += 1
                continue
            break
        self._broken = errors > 0

    def _take(self, frame: Any) -> None:
        channels = frame.layout.nb_channels
        if not frame.samples or _wrong_shape(channels, frame.sample_rate):
            if frame.samples and not self._announced:  # not damaged: it is like that
                _check_shape(channels, frame.sample_rate)
            self.damaged_packets += 1
            return
        self._decoded_samples += frame.samples * channels
        if self._decoded_samples > self._job.max_decoded_samples:
            self._too_many()
        self._announce(frame, channels)
        if self._lead_in is None:
            self._lead_in = self._warm_up(frame) * SAMPLE_RATE_HERTZ // frame.sample_rate
        if self._name in TIMED_CONTAINERS and frame.pts is not None:
            self._keep_time(frame)
        if self._mixer is None or not self._mixer.fits(frame):
            self._flush_mixer()
            self._mixer = Mixer(frame, start=self.sample_count)
        for pcm in self._mixer.push(frame):
            self._emit(pcm)

    def _announce(self, frame: Any, channels: int) -> None:
        if self._announced:
            return
        self._announced = True
        codec = self._stream.codec_context.codec
        self._send_info(
            {
                "container": self._name,
                "codec": codec.canonical_name,
                "sample_rate_hertz": frame.sample_rate,
                "channel_count": channels,
                "bit_rate": self._stream.bit_rate or self._container.bit_rate or None,
                "declared_duration_seconds": self._declared_seconds(),
            }
        )

    def _keep_time(self, frame: Any) -> None:
        """Fills a hole in the container's clock with silence."""
        at = round(frame.pts * Fraction(self._stream.time_base) * SAMPLE_RATE_HERTZ)
        if self._origin is None:
            start = self._container.start_time  # in microseconds
            start = at if start is None else round(start * SAMPLE_RATE_HERTZ / av.time_base)
            self._origin = min(at, start)
        hole = at - self._origin - self._position()
        if GAP_SAMPLES <= hole <= MAX_GAP_SAMPLES:
            self._flush_mixer()
            hole = at - self._origin - self.sample_count
            while hole > 0:
                part = min(hole, BLOCK_SAMPLES)
                self._emit(bytes(part * SAMPLE_BYTES))
                hole -= part
        elif abs(hole) >= GAP_SAMPLES:
            self._origin += hole  # the clock jumped; from here on it is believed again

    def _warm_up(self, frame: Any) -> int:
        """Samples at the start that only warm the codec up and that the container can't tell."""
        if self._name == "aac":
            return int(frame.samples)  # the first frame of any AAC encoder
        if self._name == "mp3" and not has_frame_count(self._file):
            return MP3_DELAY_SAMPLES
        return 0

    def _position(self) -> int:
        return self._mixer.position() if self._mixer else self.sample_count

    def _flush_mixer(self) -> None:
        if self._mixer:
            for pcm in self._mixer.flush():
                self._emit(pcm)
            self._mixer = None

    def _emit(self, pcm: bytes | memoryview) -> None:
        if self._lead_in:
            dropped = min(self._lead_in, len(pcm) // SAMPLE_BYTES)
            self._lead_in -= dropped
            pcm = pcm[dropped * SAMPLE_BYTES :]
        room = self._job.max_samples - self.sample_count
        self.sample_count += len(pcm) // SAMPLE_BYTES
        self._pending += pcm[: room * SAMPLE_BYTES]
        if self.sample_count > self._job.max_samples:
            self._flush_pending()  # who can use a beginning has all of it
            self._too_many()
        while len(self._pending) >= BLOCK_SAMPLES * SAMPLE_BYTES:
            self._send_pcm(bytes(self._pending[: BLOCK_SAMPLES * SAMPLE_BYTES]))
            del self._pending[: BLOCK_SAMPLES * SAMPLE_BYTES]

    def _flush_pending(self) -> None:
        if self._pending:
            self._send_pcm(bytes(self._pending))
            self._pending.clear()

    def _too_many(self) -> NoReturn:
        raise Rejected(
            Reason.TOO_MANY_SAMPLES,
            "The recording unfolds to more audio than is allowed "
            f"({self._job.max_samples // SAMPLE_RATE_HERTZ} s).",
        )

    # What the header announces, and whether it came

    def _declared_seconds(self) -> float | None:
        """Duration from the header, None if there is none or it is libav's guess."""
        stream, container = self._stream, self._container
        if self._name in ("aac", "amr", "ogg") or self._file.size_bytes is None:
            return None
        if self._name == "mp3" and not has_frame_count(self._file):
            return None
        if self._name == "flac" and not _flac_sample_count(stream.codec_context.extradata):
            return None
        if self._name == "wav" and wav_data(self._file)[1] is None:
            return None
        if self._name == "matroska":
            tagged = _clock_seconds(stream.metadata.get("DURATION", ""))
            if tagged is not None:
                return tagged
            if len(container.streams) > 1:
                return None
        if stream.duration:
            return float(stream.duration * Fraction(stream.time_base))
        if container.duration:
            return float(container.duration / av.time_base)
        return None

    def missing_end(self, wav_end: int | None) -> str:
        """Says in one sentence how the recording's end is missing; empty if it is all there.

        Args:
            wav_end: where a WAV's samples end by its header, in bytes; None if unknown.
        """
        at = f"after {self.sample_count / SAMPLE_RATE_HERTZ:.1f} s"
        size_bytes = self._file.size_bytes
        if self._file.ended_early:
            return f"The file has fewer bytes than announced; it ends {at}."
        if self._broken:
            return f"The file can't be read any further {at}."
        if self._name == "wav":
            if wav_end is not None and size_bytes is not None and wav_end > size_bytes:
                return (
                    f"The header announces {wav_end - size_bytes} bytes more; the file ends {at}."
                )
            return ""
        pcm = self._stream.codec_context.name.startswith("pcm_")
        if (not pcm or self._name in ("w64", "caf")) and (
            self._last_packet_damaged or self._is_last_packet_short()
        ):
            return f"The file breaks off in the middle of a packet {at}."
        declared = self._declared_seconds()
        if declared is not None:
            tolerance = PCM_END_TOLERANCE_SECONDS if pcm else END_TOLERANCE_SECONDS
            if self.sample_count / SAMPLE_RATE_HERTZ < declared - tolerance:
                return f"The header announces {declared:.1f} s; the file ends {at}."
        if self._name == "ogg" and size_bytes and not is_ogg_whole(self._file):
            return f"The file has no end page; it ends {at}."
        return ""

    def _is_last_packet_short(self) -> bool:
        if self._name != "mp3" or self._last_packet is None:
            return False
        packet = bytes(self._last_packet)
        return len(packet) < 7 or len(packet) < mpeg_frame_bytes(packet, 0)


def _flac_sample_count(stream_info: bytes | None) -> int:
    """Number of samples in a FLAC's STREAMINFO; 0 if the writer did not know it."""
    if not stream_info or len(stream_info) < 18:
        return 0
    return (stream_info[13] & 15) << 32 | int.from_bytes(stream_info[14:18])


def _clock_seconds(clock: str) -> float | None:
    """Reads Matroska's DURATION tag, "HH:MM:SS.nnnnnnnnn"."""
    try:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
