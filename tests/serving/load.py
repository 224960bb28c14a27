"""Requests from several threads while something happens, and what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Load:
    """What came back. A connection that was refused was never a request; anything else without an answer is lost."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    num_refused: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def wait_for_end(self) -> None:
        """Until every client was refused or failed."""
        for thread in self.threads:
            thread.join(60)

    def wait_for(self, num_answers: int) -> None:
        """Until so many more answers have come."""
        end, wanted = time.monotonic() + 60, len(self.answers) + num_answers
        while len(self.answers) < wanted:
            assert time.monotonic() < end, (len(self.answers), self.failed[:3])
            time.sleep(0.01)


@contextmanager
def load(address: str, num_threads: int, body: dict[str, Any]) -> Iterator[Load]:
    """Ask for recommendations all the time."""
    found = Load()

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=30.0) as client:
            while not found.is_over.is_set():
                try:
                    response = client.post("/v1/recommend", json=body)
                except httpx.ConnectError:
                    found.num_refused += 1
                    return
                except httpx.HTTPError as error:
                    found.failed.append(repr(error))
                    return
                if response.status_code == 200:
                    found.answers.append(response.json())
                else:
                    found.failed.append(f"{response.status_code} {response.text}")

    found.threads = [threading.Thread(target=ask) for _ in range(num_threads)]
    for thread in found.threads:
        thread.start()
    try:
        yield found
    finally:
        found.is_over.set()
        found.wait_for_end()
