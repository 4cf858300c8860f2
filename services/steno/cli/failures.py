"""What went wrong, as one line on stderr and an exit code."""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from steno.cli.recognition import FLAG_OF

if TYPE_CHECKING:
    from steno.platform.errors import Failure


class Exit(IntEnum):
    """Exit codes. With several files the highest is the command's."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130


class CliError(Exception):
    """Ends a command, or one file of many.

    Args:
        message: one sentence.
        code: exit code.
        subject: what it is about, such as a file's name; comes before the sentence.
        reason: for machines.
        hint: what to do next.
    """

    def __init__(
        self,
        message: str,
        code: Exit = Exit.FAILED,
        *,
        subject: str = "",
        reason: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.subject = subject
        self.reason = reason or code.name
        self.hint = hint

    def about(self, subject: str) -> CliError:
        """The same error, saying what it is about unless it does so already."""
        return CliError(
            self.message,
            self.code,
            subject=self.subject or subject,
            reason=self.reason,
            hint=self.hint,
        )


def unreachable(what: str, address: str) -> CliError:
    """Nobody answers at an address."""
    return CliError(
        f"{what} does not answer at {address}",
        Exit.UNREACHABLE,
        hint="is it running? start it with: steno up",
    )


def refused_or_failed(failure: Failure) -> CliError:
    """An error that a service answered with. It did answer, so it is not unreachable."""
    message = failure.message or failure.code.name.lower().replace("_", " ")
    if failure.violations:
        wrong = ((_option(v.field), v.description) for v in failure.violations)
        message = "; ".join(f"{name} {description}" for name, description in wrong)
    if failure.reason == "CHECKSUM_MISMATCH":
        message = "the file changed while it was sent; try again"
    return CliError(
        message,
        Exit.REFUSED if _is_refusal(failure) else Exit.FAILED,
        reason=failure.reason or failure.code.name,
    )


def ended_badly(reason: str, message: str) -> CliError:
    """A job that failed, by its `error`."""
    return CliError(
        message or f"the job failed: {reason}",
        Exit.REFUSED if reason == "AUDIO_REJECTED" else Exit.FAILED,
        reason=reason,
    )


def report(error: CliError, as_json: bool) -> None:
    """Writes an error to stderr: `steno: talk.txt: the reason`, or one JSON object."""
    if as_json:
        fields = {"reason": error.reason, "message": error.message, "exit_code": int(error.code)}
        if error.subject:
            fields["subject"] = error.subject
        line = json.dumps({"error": fields}, ensure_ascii=False)
    else:
        sentence = " ".join(error.message.split())
        parts = ("steno", error.subject, sentence)
        line = ": ".join(part for part in parts if part)
        if error.hint:
            line += f"; {error.hint}" if not line.endswith((".", "?")) else f" {error.hint}"
    print(line, file=sys.stderr, flush=True)


def _is_refusal(failure: Failure) -> bool:
    return failure.reason in _REFUSED_REASONS or failure.code.name in _REFUSED_CODES


_REFUSED_CODES = {"INVALID_ARGUMENT", "OUT_OF_RANGE"}
_REFUSED_REASONS = {"AUDIO_REJECTED", "FILE_TOO_LONG"}


def _option(field: str) -> str:
    name = field.partition("[")[0]
    return field.replace(name, _OPTIONS.get(name, name), 1)


_OPTIONS = {
    **FLAG_OF,
    "labels": "--label",
    "not_before": "--not-before",
    "deadline": "--deadline",
    "page_size": "--limit",
    "page_token": "--page-token",
    "after_revision": "--after-revision",
    "job_id": "JOB",
    "session_id": "SESSION",
    "audio_id": "AUDIO",
    "size_bytes": "its size in bytes",
}
"""What a person calls the fields of requests."""
