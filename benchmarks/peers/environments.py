"""The packages of a rival into a Python of its own, made once and again when the packages change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from systems import Environment

from variseq.errors import InputError

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def python_of(environment: Environment | None, folder: Path) -> Path:
    """The interpreter to run a system with; that of the project for None. Takes minutes the first time.

    Raises InputError when the packages cannot be installed.
    """
    if environment is None:
        return Path(sys.executable)
    home = folder / environment.name
    python, marker = home / "bin" / "python", home / "installed.txt"
    wanted = "\n".join([*environment.first, *environment.packages]) + "\n"
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return python
    print(f"preparing {home.name} (a few minutes the first time)", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    steps = [[sys.executable, "-m", "venv", str(home)]]
    steps += [[str(python), *PIP, *names] for names in (environment.first, environment.packages) if names]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                f"The environment of {environment.name} cannot be made: {done.stderr.strip()[-500:]} Is there a "
                f"network? Otherwise leave its systems out with --systems, and remove {home}."
            )
    marker.write_text(wanted, encoding="utf-8")
    return python
