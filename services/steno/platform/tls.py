"""TLS for servers and channels, from PEM files."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

log = logging.getLogger(__name__)


def server_credentials(certificate: str, key: str) -> grpc.ServerCredentials:
    """A server's credentials. Files that were renewed hold from the next connection on.

    Args:
        certificate: file with the server's chain.
        key: file with its private key.

    Raises:
        OSError: a file can't be read.
    """
    return _Files(Path(certificate), Path(key)).credentials()


class _Files:
    """A chain and its key, read again when one of the files has changed."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._version = self._look()

    def credentials(self) -> grpc.ServerCredentials:
        # The function may answer None, which its type stubs do not say.
        return grpc.dynamic_ssl_server_credentials(self._read(), self._renewed)  # type: ignore[arg-type]

    def _look(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = self._key.read_bytes(), self._certificate.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair])

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked at each connection; None where nothing has changed."""
        try:
            version = self._look()
            if version == self._version:
                return None
            renewed = self._read()
        except OSError as error:
            log.warning("the certificate can't be read: %s", error, extra={"action": "tls"})
            return None
        self._version = version
        log.info("the certificate is renewed", extra={"action": "tls"})
        return renewed


def channel_credentials(authorities: str) -> grpc.ChannelCredentials:
    """Credentials of a client that believes these authorities.

    Args:
        authorities: PEM file; empty for those that gRPC brings.

    Raises:
        OSError: the file can't be read.
    """
    return grpc.ssl_channel_credentials(Path(authorities).read_bytes() if authorities else None)


def trusted(authorities: str) -> grpc.ChannelCredentials | None:
    """Credentials of a service that calls others; None, for plain HTTP/2, without authorities."""
    return channel_credentials(authorities) if authorities else None
