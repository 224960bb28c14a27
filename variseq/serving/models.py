"""The model that answers requests, and the registry of models it can be replaced by."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from variseq.artifacts.catalog_changes import locked, read_changes, write_changes
from variseq.artifacts.folder import CHANGES, TABLES, has_file
from variseq.atomic import write_durably
from variseq.errors import CheckpointError, InputError, VariseqError
from variseq.inference.engine import load_engine as engine_of_folder
from variseq.ranking.catalog_changes import CatalogChanges, ChangeCounts
from variseq.ranking.changed_engine import ChangeableEngine
from variseq.ranking.engine import Engine, Request
from variseq.ranking.options import RecommendOptions

log = logging.getLogger("variseq.serving")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
CURRENT = "current"
MAX_CURRENT_BYTES = 128
FileState = tuple[int, int, int]
Report = Callable[[str], None]
Change = Callable[[ChangeableEngine, CatalogChanges], tuple[CatalogChanges, ChangeCounts]]


def exported_model(folder: Path, report: Report = lambda text: None) -> Path:
    """The folder of a run or an export, exported in a child process where it was not.

    The server does not import what training needs. `report` takes lines about the export. Raises CheckpointError for a
    folder that is neither, and where the export fails.
    """
    if not has_file(folder, TABLES):
        # Of several processes that need the same export, one makes it and the others wait.
        with locked(folder):
            if not has_file(folder, TABLES):
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


def file_state(path: Path | None) -> FileState | None:
    """Changes whenever the file is written; None where there is none."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_ino, stat.st_size)


class ModelManager:
    """The engine that answers, and how it is replaced. Read `engine` once to have one version throughout.

    Each folder in `root` (--model-dir) is a model that can be chosen, and its file `current` names the chosen one. What
    was changed of the catalog is in a file there, so that it holds for every model; without `root` it is in the run.
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
        self._changes_folder = run if self.root is None else self.root
        if self.root is not None and not (self.root / CHANGES).exists() and (run / CHANGES).exists():
            write_changes(self.root, read_changes(run))
        self._changes_seen = self._changes_state()
        chosen = self._chosen()
        if chosen is not None:
            try:
                self._use(*self._with_changes(load_engine(self.folder(chosen))), chosen)
                return
            except VariseqError as error:
                self._reject(_shown(chosen), error)
        name = run.resolve().name if run.resolve().parent == self.root else None
        problem = self.problem
        self._use(*self._with_changes(load_engine(run)), name)
        self.problem = problem

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
            engines, engine = self._with_changes(self._compatible(self.folder(name)))
            assert self._current_file is not None
            try:
                write_durably(self._current_file, f"{name}\n".encode(), 0o644)
            except OSError as error:
                raise CheckpointError(f"The choice cannot be written ({error.strerror}); nothing changed.") from error
            self._seen = file_state(self._current_file)
            self._activate(engines, engine, name)

    def change(self, how: Change) -> ChangeCounts:
        """Change the catalog: on the disk, then here; other workers follow.

        Raises InputError and CheckpointError, and then nothing has changed.
        """
        with self._swap_lock:
            with locked(self._changes_folder):
                before = read_changes(self._changes_folder)
                after, counts = how(self.engines, before)
                engine = _answering(self.engines.engine(after))
                if after != before:
                    write_changes(self._changes_folder, after)
                self._changes_seen = self._changes_state()
            self._activate(self.engines, engine, self.name)
        return counts

    def follow(self) -> bool:
        """Load what another process chose or changed since the last call; True when another engine answers now."""
        if file_state(self._current_file) == self._seen and self._changes_state() == self._changes_seen:
            return False
        with self._swap_lock:
            state, chosen, before = file_state(self._current_file), self._chosen(), self.engine
            of_changes, name, new = self._changes_state(), self.name, CHANGES
            try:
                engines = self.engines
                if state != self._seen and chosen is not None:
                    self._seen, name = state, chosen
                    new = _shown(chosen)
                    engines = ChangeableEngine(self._compatible(self.folder(chosen)))
                if engines is not self.engines or of_changes != self._changes_seen:
                    self._changes_seen = of_changes
                    self._activate(*self._with_changes(engines), name)
            except VariseqError as error:
                self._reject(new, error)
            return self.engine is not before

    def _changes_state(self) -> FileState | None:
        return file_state(self._changes_folder / CHANGES)

    def _with_changes(self, trained: Engine | ChangeableEngine) -> tuple[ChangeableEngine, Engine]:
        """The engines of a model, and the one under all changes of the catalog. Raises VariseqError."""
        engines = trained if isinstance(trained, ChangeableEngine) else ChangeableEngine(trained)
        changes = read_changes(self._changes_folder)
        return engines, _answering(engines.engine(changes))

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

    def _activate(self, engines: ChangeableEngine, engine: Engine, name: str | None) -> None:
        self._use(engines, engine, name)
        log.info("model %s (%s) answers from now on", name or "of the run", engine.version)

    def _use(self, engines: ChangeableEngine, engine: Engine, name: str | None) -> None:
        self.engines = engines
        self.engine = engine
        self.name = name
        self.problem = None

    def _reject(self, what: str, error: VariseqError) -> None:
        self.problem = f"{what} was refused and the one before goes on; see the log of the server."
        self.num_rejected += 1
        log.error("%s was refused: %s", what, error)


def load_engine(folder: Path) -> Engine:
    """The engine of a run or of an exported model, once it has answered a first question.

    Raises CheckpointError whatever is wrong with the folder.
    """
    try:
        return _answering(engine_of_folder(exported_model(folder)))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"The model in {folder.name} cannot be loaded ({type(error).__name__}).") from error


def _answering(engine: Engine) -> Engine:
    """The engine, once it has answered a first question. Raises InputError."""
    (answer,) = engine.answer([(engine.history([]), Request(RecommendOptions(k=1)))])
    if isinstance(answer, InputError):
        raise answer
    return engine


def _shown(name: str) -> str:
    return f"The model {name if NAME.fullmatch(name) else 'that was chosen'}"
