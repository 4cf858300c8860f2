"""Makes jobs and sees them through: state, tasks, leases, the event log, watchers, transcripts.

__main__.py     wiring, and the loops
settings.py     the environment
domain.py       what jobs and tasks are, how they may change, what can be wrong with them
servicer.py     JobService for callers, TaskService for workers
jobs.py         what callers can do with jobs; paging.py where a listing goes on
transcripts.py  the transcript of a job, in each format
watch.py        WatchJob: streams of what happens to jobs
audio.py        what the upload service knows of audio
store.py        jobs, tasks and events: whatever changes them, and reads them for callers
writer.py       what a transaction has to write, together
statements.py   the SQL of both stores; rows.py the columns, and rows as the domain's values
turns.py        the fair queue: whose turn it is, and its SQL
messages.py     the domain's values as protobuf messages, and back
outbox.py       what must go out of Postgres, and the marks that it has
dispatch.py     tasks to the work queue; relay.py events to NATS
reconcile.py    what got lost: messages, and changes of audio
sweep.py        what is past its time: leases, deadlines, old jobs
aside.py        rows that a loop can't deal with, left for later
metrics.py      what Prometheus and the logs learn
"""
