"""Makes jobs and sees them through: state, tasks, leases, the event log, watchers, transcripts."""
