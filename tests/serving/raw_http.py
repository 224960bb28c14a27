"""Bytes as a client of bad manners sends them, and what comes back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable


def head(method: str, path: str, *lines: str, host: str = "localhost") -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


def answer_to(port: int, parts: Iterable[bytes], pause_seconds: float = 0.0, timeout: float = 20.0) -> bytes:
    """All that comes back until the other side ends the connection or says no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_seconds)
        except OSError:
            pass  # It was ended from the other side; what was said before is read below.
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Until the end of the connection, or of one answer with a length."""
    received = b""
    while True:
        try:
            chunk = connection.recv(65536)
        except ConnectionResetError:
            return received
        received += chunk
        before, _, body = received.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in before.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not chunk or (lengths and len(body) >= int(lengths[0]) and b"connection: close" not in before):
            return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
