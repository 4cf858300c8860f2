"""The whole platform on one machine: real servers, and every service, as child processes.

up.py          the platform in the foreground
supervisor.py  servers, migrations and services together, restarted when they crash
servers.py     Postgres, NATS and S3; also what the tests run on
health.py      whether a process is ready
child.py       one child process; leash.py what ends it when we are gone
data_dir.py    the folder that holds everything; ports.py free ports
"""
