"""The concatenation service: chunks in; a growing recording and a live transcript out.

    chunks --ingest--> sessions in order --------------------------> pieces of the recording
                            '--decode (containers, sandboxed)--------^      |
                                                      recording: parts, one file, HLS
                                                      live: utterances, results
                                                      finish: an audio, a job

`ingest.py` is what producers wait for; `work.py` does the rest behind it, for each session on the
replica that holds its lease.
"""
