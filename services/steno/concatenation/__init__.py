"""The concatenation service: chunks in; a growing recording and a live transcript out.

    chunks --ingest--> sessions in order --------------------------> pieces of the recording
                            '--decode (containers, sandboxed)--------^      |
                                                      recording: parts, one file, HLS
                                                      live: utterances, results
                                                      finish: an audio, a job

`ingest.py` is what producers wait for; `worker.py` does the rest behind it, for each session on the
replica that holds its lease.

    servicer.py    proto to domain and back; messages.py has how
    sessions.py    what callers do with sessions, beside sending chunks
    domain.py      sessions, chunks, gaps: their rules
    store.py       transactions; statements.py has the SQL, rows.py reads and writes rows
    ingest.py      chunks into the object store and the database; room.py bounds their memory
    recent.py      the object store, and in memory what was just written
    keys.py        keys of objects
    worker.py      leases, and what is done for a session side by side; latest.py is what it knows
    sweep.py       what is due without a call
    decode.py      containers become sound; container.py reads one that is streamed
    recording.py   reads, joins, one file; hls.py for players; samples.py for what lies in them
    live.py        the live transcript, of utterances.py, which windows.py has recognised
    finish.py      an audio and a job of a session that has ended
    watch.py       what happens to sessions, to whoever watches
    metrics.py     what Prometheus sees
"""
