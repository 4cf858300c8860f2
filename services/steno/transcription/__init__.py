"""Recognises speech: a worker for the slices of jobs, and Recognize for short audio.

engine.py      one loaded model
windows.py     how speech is cut into windows, and words become segments; decoding.py decodes them
recognizer.py  shares the model between callers
worker.py      tasks from the queue; lease.py holds each while it is worked on
servicer.py    gRPC; short.py does what Recognize promises
wire.py        between the contracts and the domain
"""

import os

# numpy's only products here are small. A second thread of OpenBLAS gains nothing with them, and
# spins while it waits for the next: 4 % of all that a busy platform took. Read by numpy's import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
