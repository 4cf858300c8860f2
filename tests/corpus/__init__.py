"""Bad inputs, each with the answer that it must get.

`FILES` are files that strangers upload, `CALLS` what they say in calls. All is made by script: what
is drawn by chance is drawn from a seed, the input's own name. `python -m corpus` shows them.
"""

from corpus import bombs, containers, headers, names, scripts, signals, sizes
from corpus.answers import Answer, NotTaken, Ready, Rejected
from corpus.calls import CALLS, BadCall
from corpus.files import File

FILES: tuple[File, ...] = (
    *sizes.FILES,
    *headers.FILES,
    *bombs.FILES,
    *containers.FILES,
    *scripts.FILES,
    *signals.FILES,
    *names.FILES,
)

__all__ = ["CALLS", "FILES", "Answer", "BadCall", "File", "NotTaken", "Ready", "Rejected"]
