"""The decoder: the child process in which untrusted audio is opened.

The parent (`steno.audio.sandbox`) starts a fork server with an empty environment (`__main__`). It
loads libav once and forks a child for each recording, which talks to the parent over its standard
input and output (`wire`). The child locks itself in (`jail`) and only then looks at the first byte
(`child`): it tells the container by its signature (`containers`), asks the parent for ranges of
bytes (`remote`) and sends back 16 kHz mono PCM (`decode`).

The package imports the standard library and PyAV, nothing else of Steno, so that the child
carries no numpy, no settings and no clients.
"""
