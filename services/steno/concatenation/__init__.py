"""The concatenation service: chunks in; a growing recording and a live transcript out.

    chunks --ingest--> sessions in order --------------------------> pieces of the recording
                            '--decode (containers, sandboxed)--------^      |
                                                      recording: parts, one file, HLS
                                                      live: utterances, results
                                                      finish: an audio, a job

Producers wait for `ingest` only; `worker` does the rest behind it, for each session on the replica
that holds its lease.

__main__.py    wiring, and the loops
settings.py    the environment
domain.py      sessions, chunks, gaps: how they change, what can be wrong with them
servicer.py    ConcatenationService
sessions.py    what callers can do with sessions, beside sending chunks
ingest.py      chunks into the object store, then into the database; room.py bounds their memory
watch.py       WatchSession: streams of what happens to sessions
store.py       sessions, chunks, recordings and events: transactions
statements.py  their SQL; rows.py the columns, and rows as the domain's values
messages.py    the domain's values as protobuf messages, and back
keys.py        keys of objects; recent.py those that were just written, in memory
worker.py      leases, and what is done for a session side by side; latest.py what it waits on
sweep.py       what is due without a call: gaps, idle sessions, rows and bytes that must go
decode.py      containers become sound; container.py the bytes of one that is streamed
recording.py   the recording: read, joined, made one file; hls.py for players
live.py        the live transcript; utterances.py where speech begins and ends
windows.py     the transcription service, window by window
samples.py     samples of all encodings as numbers, and at 16 kHz
finish.py      what a session becomes when it has ended: an audio, a job
metrics.py     what Prometheus sees
"""
