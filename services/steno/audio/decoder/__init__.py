"""The decoder: the child process in which untrusted audio is opened.

The parent (`steno.audio.sandbox`) starts it with an empty environment and talks to it over its
standard input and output (`wire`). The child loads libav, locks itself in (`jail`) and only then
looks at the first byte: it tells the container by its signature (`containers`), asks the parent
for ranges of bytes (`remote`) and sends back 16 kHz mono PCM (`decode`).

The package imports the standard library and PyAV, nothing else of Steno, so that the child
carries no numpy, no settings and no clients.
"""
