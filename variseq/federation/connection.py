"""HTTP to a coordinator, by TLS or on the same machine only."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from time import monotonic, sleep
from typing import TypeVar
from urllib.parse import urlsplit

from variseq.errors import InputError
from variseq.federation.messages import Envelope, State, Terms, decoded, encode

TERMS_PATH, MESSAGES_PATH = "/v1/terms", "/v1/messages"
ANSWER_SECONDS = 600.0
OUTDATED = 409
"""The status of a message that came too late; the next poll says what is awaited."""
MESSAGE_CHARACTERS = 2_000
_ANSWER = "The answer of the server"
_Answer = TypeVar("_Answer")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, without asking for its address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("10.0.0.1"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Connection:
    """Sends messages and waits while the coordinator cannot be reached.

    Args:
        url: https://HOST:PORT, or http:// on this machine.
        timeout_seconds: How long the coordinator may be out of reach.
        poll_seconds: Time between two attempts and two polls.

    Raises:
        InputError: For a URL of another form, and for plain HTTP to another machine.
    """

    def __init__(self, url: str, timeout_seconds: float, poll_seconds: float = 0.5) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise InputError(f"The server {url!r} is not of the form https://HOST:PORT.")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise InputError(f"{url} would not be encrypted. Use https:// for another machine.")
        self._url, self._is_tls, self._host = url, parts.scheme == "https", parts.hostname
        try:
            self._port = parts.port
        except ValueError as error:
            raise InputError(f"The port of {url!r} is not possible. Give 1 to 65535.") from error
        self._timeout_seconds, self.poll_seconds = timeout_seconds, poll_seconds
        self.num_bytes = 0
        """The bytes of all bodies, sent and received."""

    def terms(self) -> Terms:
        """What the coordinator declares. Raises InputError."""
        terms: Terms = self.waiting(lambda: decoded(self._exchange("GET", TERMS_PATH), Terms, _ANSWER))
        return terms

    def send(self, envelope: Envelope) -> State:
        """The state after a message. Raises InputError where it is refused, and OSError where nothing answers."""
        state: State = decoded(self._exchange("POST", MESSAGES_PATH, encode(envelope)), State, _ANSWER)
        return state

    def waiting(self, exchange: Callable[[], _Answer]) -> _Answer:
        """The answer, tried again while nothing answers. Raises InputError when that takes too long."""
        deadline = monotonic() + self._timeout_seconds
        while True:
            try:
                return exchange()
            except OSError as error:
                if monotonic() > deadline:
                    raise InputError(
                        f"The coordinator at {self._url} did not answer for {self._timeout_seconds:g} seconds "
                        f"({error}). Start it, or give another --server, and start this command again."
                    ) from error
                sleep(self.poll_seconds)

    def _exchange(self, method: str, path: str, body: bytes = b"") -> bytes:
        connection = HTTPConnection(self._host, self._port, timeout=ANSWER_SECONDS)
        if self._is_tls:
            context = ssl.create_default_context()
            connection = HTTPSConnection(self._host, self._port, timeout=ANSWER_SECONDS, context=context)
        try:
            connection.request(method, path, body, {"Content-Type": "application/vnd.msgpack"})
            response = connection.getresponse()
            answer = response.read()
        except ssl.SSLError as error:
            raise InputError(
                f"{self._url} has no certificate that is trusted ({error}). The variable SSL_CERT_FILE names a file of "
                "certificates to trust."
            ) from error
        except HTTPException as error:
            raise OSError(f"no answer of HTTP: {error!r}") from error
        finally:
            connection.close()
        self.num_bytes += len(body) + len(answer)
        if response.status != 200:
            text = answer[:MESSAGE_CHARACTERS].decode("utf-8", "replace")
            if response.status == OUTDATED:
                raise OSError(text)
            raise InputError(f"The coordinator refused: {text}")
        return answer
