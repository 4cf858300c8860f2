"""Playlists, scripts and documents that name other files, under the names of recordings."""

from __future__ import annotations

from corpus.answers import Rejected
from corpus.files import File, constant
from steno.audio import Reason

URL = "http://127.0.0.1:9/never.ts"

TEXTS = {
    "an M3U playlist of a URL": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{URL}\n",
    "an M3U playlist of a file": "#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n",
    "an M3U playlist behind a byte order mark": "\ufeff#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n",
    "a PLS playlist": f"[playlist]\nFile1={URL}\n",
    "an XSPF playlist": "<?xml version='1.0'?><playlist xmlns='http://xspf.org/ns/0/'/>",
    "a DASH manifest": "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>/etc/</BaseURL></MPD>",
    "an XML document with an entity from a file": (
        "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>"
    ),
    "an SDP session": "v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "a script that joins files": "ffconcat version 1.0\nfile /etc/passwd\n",
    "a script that joins files, behind a comment": "# x\nffconcat version 1.0\nfile /etc/passwd\n",
    "a URL that joins files": "concat:/etc/passwd|/etc/group",
    "a pattern of file names": "/etc/%03d.wav",
    "a cue sheet": 'FILE "/etc/passwd" WAVE\n  TRACK 01 AUDIO\n',
    "a drawing that names a file": "push graphic-context\nimage over 0,0 0,0 'file:///etc/passwd'\n",
    "a shell script": "#!/bin/sh\ncat /etc/passwd\n",
    "an HTML page": f"<!doctype html><script src='{URL}'></script>",
    "an SVG picture": "<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
    "subtitles": "WEBVTT\n\n00:00.000 --> 00:01.000\nwords\n",
    "text": "These are the words.\n" * 500,
}

NAMES = ("call.mp3", "call.wav", "call.m4a", "call.ogg", "call.flac", "call.webm", "call.opus")

FILES = tuple(
    File(
        name,
        constant(text.encode()),
        Rejected(Reason.UNSUPPORTED_FORMAT),
        NAMES[number % len(NAMES)],
    )
    for number, (name, text) in enumerate(TEXTS.items())
)
