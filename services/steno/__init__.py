"""Steno: self-hosted speech-to-text on Kubernetes, or on one machine."""

__version__ = "0.1.0"
