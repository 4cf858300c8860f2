"""Takes in audio, keeps it, and prepares it for the workers.

__main__.py    wiring, and the loops
settings.py    the environment, of the preparation too
domain.py      what uploads, audio and slices are, how they may change, what can be wrong with them
servicer.py    UploadService for clients, SliceService and ImportService for other services
uploads.py     files in parts; streams.py in one stream; imports.py those that services have left
library.py     what can be done with stored audio
messages.py    the domain's values as protobuf messages, and back
store.py       uploads, audio and slices; statements.py its SQL
keys.py        where bytes lie in the object store
events.py      what other services learn of audio
reconcile.py   audio whose message was lost
sweep.py       what is past its time: uploads, and bytes that must go
prepare.py     the other process: decodes audio, cuts it, stores the slices
worker.py      its work loop: whose turn it is, and how each attempt ends; turns.py shares places
"""
