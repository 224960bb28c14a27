"""The model that answers requests, and the registry of models it can be replaced by."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from variseq.artifacts.folder import ENCODER, has_file
from variseq.atomic import write_durably
from variseq.errors import CheckpointError, InputError, VariseqError
from variseq.inference.engine import load_engine as engine_of_folder
from variseq.ranking.engine import Engine, Request
from variseq.ranking.options import RecommendOptions

log = logging.getLogger("variseq.serving")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
CURRENT = "current"
MAX_CURRENT_BYTES = 128
FileState = tuple[int, int, int]
Report = Callable[[str], None]


def exported_model(folder: Path, report: Report = lambda text: None) -> Path:
    """The folder of a run or an export, exported in a child process where it was not.

    The server does not import what training needs. `report` takes lines about the export. Raises CheckpointError for a
    folder that is neither, and where the export fails.
    """
    if not has_file(folder, ENCODER):
        with _locked(folder):
            if not has_file(folder, ENCODER):
                _export(folder, report)
    return folder


def _export(folder: Path, report: Report) -> None:
    report("Preparing the model for serving. This happens once and takes some seconds.")
    start = monotonic()
    command = [sys.executable, "-c", "from variseq.cli import main; main()", "export", str(folder.resolve())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        raise CheckpointError(f"{folder} could not be exported: {lines[-1].removeprefix('error: ')}")
    report(f"The model was prepared in {monotonic() - start:.1f} s.")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Of several processes that need the same export, one makes it and the others wait."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def file_state(path: Path | None) -> FileState | None:
    """Changes whenever the file is written; None where there is none."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_ino, stat.st_size)


class ModelManager:
    """The engine that answers, and how it is replaced. Read `engine` once to have one version throughout.

    Each folder in `root` (--model-dir) is a model that can be chosen, and its file `current` names the chosen one.
    """

    def __init__(self, run: Path, root: Path | None) -> None:
        if root is not None and not root.is_dir():
            raise InputError(f"The folder of models {root} does not exist. Make it, and put folders of models in it.")
        self.root = None if root is None else root.resolve()
        self.name: str | None = None
        self.problem: str | None = None
        self.num_rejected = 0
        self._swap_lock = threading.Lock()
        self._current_file = None if self.root is None else self.root / CURRENT
        self._seen = file_state(self._current_file)
        chosen = self._chosen()
        if chosen is not None:
            try:
                self.engine = load_engine(self.folder(chosen))
                self.name = chosen
                return
            except VariseqError as error:
                self._reject(chosen, error)
        self.engine = load_engine(run)
        if run.resolve().parent == self.root:
            self.name = run.resolve().name

    def names(self) -> list[str]:
        """What can be chosen."""
        if self.root is None:
            return []
        with os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_dir())

    def folder(self, name: str) -> Path:
        """The folder of a name. Raises CheckpointError for an unknown name and for one outside the folder of models."""
        if self.root is None:
            raise CheckpointError("This server has one model only. Start it with --model-dir FOLDER to swap models.")
        folder = (self.root / name).resolve() if NAME.fullmatch(name) else None
        if folder is None or folder == self.root or not folder.is_relative_to(self.root) or not folder.is_dir():
            raise CheckpointError(f"There is no model {name[:64]!r}. See GET /v1/admin/models for those there are.")
        return folder

    def swap(self, name: str) -> None:
        """Load a model and let it answer from now on; every worker and every later start follows.

        Raises CheckpointError, and then nothing has changed.
        """
        with self._swap_lock:
            engine = self._compatible(self.folder(name))
            assert self._current_file is not None
            try:
                write_durably(self._current_file, f"{name}\n".encode(), 0o644)
            except OSError as error:
                raise CheckpointError(f"The choice cannot be written ({error.strerror}); nothing changed.") from error
            self._seen = file_state(self._current_file)
            self._activate(engine, name)

    def follow(self) -> bool:
        """Load what another process chose since the last call; True when another engine answers now."""
        if file_state(self._current_file) == self._seen:
            return False
        with self._swap_lock:
            state, chosen, before = file_state(self._current_file), self._chosen(), self.engine
            if state != self._seen and chosen is not None:
                self._seen = state
                try:
                    self._activate(self._compatible(self.folder(chosen)), chosen)
                except VariseqError as error:
                    self._reject(chosen, error)
            return self.engine is not before

    def without_root(self, text: str) -> str:
        """A message without the path of the models on this machine."""
        return text if self.root is None else text.replace(f"{self.root}{os.sep}", "")

    def _chosen(self) -> str | None:
        """The name in the file `current`; None where none was chosen yet."""
        if self._current_file is None or not self._current_file.is_file():
            return None
        with self._current_file.open("rb") as stream:
            return stream.read(MAX_CURRENT_BYTES).decode("utf-8", "replace").strip()

    def _compatible(self, folder: Path) -> Engine:
        """Raises CheckpointError for a model with other types of ids: it would find no user in the store."""
        engine = load_engine(folder)
        now, then = engine.vocabulary, self.engine.vocabulary
        if (now.users.type, now.items.type) != (then.users.type, then.items.type):
            raise CheckpointError("Its ids are of another type (text or whole numbers) than those that are served.")
        return engine

    def _activate(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.problem = None
        log.info("model %s (%s) answers from now on", name, engine.version)

    def _reject(self, name: str, error: VariseqError) -> None:
        known_name = name if NAME.fullmatch(name) else "that was chosen"
        self.problem = f"The model {known_name} was refused and the one before goes on; see the log of the server."
        self.num_rejected += 1
        log.error("the model %s was refused: %s", known_name, error)


def load_engine(folder: Path) -> Engine:
    """The engine of a run or of an exported model, once it has answered a first question.

    Raises CheckpointError whatever is wrong with the folder.
    """
    try:
        engine = engine_of_folder(exported_model(folder))
        (answer,) = engine.answer([(engine.history([]), Request(RecommendOptions(k=1)))])
        if isinstance(answer, InputError):
            raise answer
        return engine
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"The model in {folder.name} cannot be loaded ({type(error).__name__}).") from error
