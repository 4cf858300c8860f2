"""Recognises speech: a worker for the slices of jobs, and Recognize for short audio.

__main__.py  wiring
settings.py  the environment
domain.py    what a model can be asked for, and why a request is refused
engine.py    what is asked of any engine
threaded.py  an engine of a model in this process
whisper.py   the Whisper model; batcher.py shares its batches between callers, windows.py says how
             speech is cut into windows and words become segments, decoding.py decodes them
remote.py    an engine that is a server elsewhere; answers.py reads what it answers
worker.py    tasks from the queue; lease.py holds each while it is worked on, and isolation.py keeps
             others away from one that failed before
servicer.py  gRPC; short.py does what Recognize promises
wire.py      between the contracts and the domain
metrics.py   of models and remote servers
"""

import os

# numpy's only products here are small. A second thread of OpenBLAS gains nothing with them, and
# spins while it waits for the next: 4 % of all that a busy platform took. Read by numpy's import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
