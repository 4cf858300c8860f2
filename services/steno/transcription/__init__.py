"""Recognises speech: a worker for the slices of jobs, and Recognize for short audio.

__main__.py    wiring
settings.py    the environment
domain.py      what a model can be asked for, and why a request is refused
servicer.py    gRPC; short.py does what Recognize promises
worker.py      tasks from the queue; lease.py holds each while it is worked on
isolation.py   which slices run side by side, and which alone
recognizer.py  shares the model between callers
engine.py      one loaded model; batcher.py puts the windows of all callers into its batches
windows.py     cuts speech into windows, and makes words segments; decoding.py decodes them
wire.py        between the contracts and the domain
"""

import os

# numpy's only products here are small. A second thread of OpenBLAS gains nothing with them, and
# spins while it waits for the next: 4 % of all that a busy platform took. Read by numpy's import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
