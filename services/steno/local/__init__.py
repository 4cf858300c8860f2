"""The whole platform on one machine: real servers, and every service, as child processes.

* `servers`: Postgres, NATS and S3; also what the tests run on.
* `supervisor`: servers, migrations and services together, restarted when they crash.
* `up`: the platform in the foreground.
* `child`, `leash`: one child process, and what ends it when we are gone.
* `data_dir`, `ports`: the folder that holds everything, and free ports.
"""
