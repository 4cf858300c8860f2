"""The parsers that we wrote ourselves, fed with any bytes: by hypothesis, and by atheris."""
