"""The `steno` command: speaks gRPC to the services, and runs them on one machine.

* `__main__`: the parser, and which function each command is.
* `connection`: where the services are, and calls that outlast their restarts.
* `transcribe`, `uploading`, `following`: a file's way to a transcript; `recognition`: its options.
* `jobs`, `audio`, `transcripts`, `models`, `status`: what is there.
* `progress`, `rendering`, `failures`: what a person sees; failures are one line and an exit code.

Results go to stdout, all else to stderr.
"""
