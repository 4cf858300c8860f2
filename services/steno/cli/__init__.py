"""The `steno` command: speaks gRPC to the services, and runs them on one machine.

    __main__.py             the parser, and which function each command is
    connection.py           where the services are, and calls that outlast their restarts
    transcribe.py           `steno transcribe`: files in, transcripts out
    recognition.py          its options, as flags
    uploading.py            a file's way in; following.py jobs and sessions, watched to their end
    reading.py              files that a person names, and files that may never end
    live.py                 `steno live`; microphone.py what it may record
    sessions.py             `steno sessions`; session_transcripts.py what was said in one
    jobs.py                 `steno jobs`; transcripts.py what a job has found
    audio.py                `steno upload` and `steno audio`: stored recordings
    models.py               `steno models`: what speech can be recognised with
    status.py               `steno status`: whether the platform is ready
    up.py                   `steno up`: the platform on this machine; demo.py for one recording
    version.py              `steno version`
    progress.py             how far each file is, on a terminal
    rendering.py            results as tables, lines and JSON
    failures.py             what went wrong, as one line and an exit code

Results go to stdout, all else to stderr.
"""
