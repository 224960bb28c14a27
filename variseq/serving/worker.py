"""Settings on standard input and an inherited socket into one worker process; it stops when its parent does.

Run as `python -m variseq.serving.worker SOCKET` by `workers.py`, and by nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from variseq.errors import VariseqError
from variseq.output.printable import printable
from variseq.serving.app import Application
from variseq.serving.logs import LogLines, log_as_json
from variseq.serving.server import run
from variseq.serving.settings import ServeSettings

READY = "ready"
CANNOT_START = 2


def main() -> int:
    """The exit code."""
    settings = ServeSettings.model_validate_json(sys.stdin.readline())
    listener = socket.socket(fileno=int(sys.argv[1]))
    lines = LogLines()
    log_as_json(lines)
    try:
        application = Application(settings, lines)
        threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
        run(application, listener, lambda: print(READY, flush=True))
    except (VariseqError, OSError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return CANNOT_START
    finally:
        lines.close()
    return 0


def _stop_with_parent() -> None:
    """The pipe from the parent ends when the parent does, however it ends."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
