"""Folders of models into the one engine that answers now; a bad one never takes the place of a good one."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

from variseq.errors import CheckpointError, InputError, VariseqError
from variseq.inference.engine import Engine
from variseq.inference.question import Question
from variseq.serving.exporting import exported_model

log = logging.getLogger("variseq.serving")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
CURRENT = "current"
MAX_CURRENT_BYTES = 128
FileState = tuple[int, int, int]


class ModelFolder:
    """The folder of --models: each folder in it is a model to choose, the file `current` names the chosen one."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        if not self.root.is_dir():
            raise InputError(f"The folder of models {root} does not exist. Make it, and put folders of models in it.")
        self.current_file = self.root / CURRENT

    def names(self) -> list[str]:
        """What can be chosen."""
        with os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_dir())

    def folder(self, name: str) -> Path:
        """The folder of a name. Raises CheckpointError for a name that is none, and for one that leads elsewhere."""
        folder = (self.root / name).resolve() if NAME.fullmatch(name) else None
        if folder is None or folder == self.root or not folder.is_relative_to(self.root) or not folder.is_dir():
            raise CheckpointError(f"There is no model {name[:64]!r}. See GET /v1/admin/models for those there are.")
        return folder

    def current(self) -> str | None:
        """The chosen name; None where none was chosen yet."""
        try:
            with self.current_file.open("rb") as stream:
                return stream.read(MAX_CURRENT_BYTES).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return None

    def choose(self, name: str) -> None:
        """Write the choice down, whole or not at all; every worker and every later start follows it.

        Workers may choose at the same time, so each has a temporary name of its own.
        """
        partial = self.root / f".{CURRENT}.{os.getpid()}.partial"
        try:
            with partial.open("w", encoding="utf-8") as stream:
                stream.write(name + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, self.current_file)
        finally:
            partial.unlink(missing_ok=True)

    def state(self) -> FileState | None:
        """Changes whenever the choice is written."""
        try:
            stat = self.current_file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


class Models:
    """The engine that answers, and how it is replaced. Whoever reads `engine` once has one version throughout."""

    def __init__(self, run: Path, folder: ModelFolder | None) -> None:
        self.shelf = folder
        self.name: str | None = None
        self.problem: str | None = None
        self.num_refused = 0
        self._swapping = threading.Lock()
        self._seen = folder.state() if folder is not None else None
        chosen = folder.current() if folder is not None else None
        if folder is not None and chosen is not None:
            try:
                self.engine = load_engine(folder.folder(chosen))
                self.name = chosen
                return
            except VariseqError as error:
                self._refused(chosen, error)
        self.engine = load_engine(run)
        if folder is not None and run.resolve().parent == folder.root:
            self.name = run.resolve().name

    def swap(self, name: str) -> None:
        """Load a model and let it answer from now on. Raises CheckpointError, and then nothing has changed."""
        with self._swapping:
            if self.shelf is None:
                raise CheckpointError("This server has one model only. Start it with --models FOLDER to swap models.")
            engine = self._fitting(load_engine(self.shelf.folder(name)))
            try:
                self.shelf.choose(name)
            except OSError as error:
                raise CheckpointError(
                    f"The choice cannot be written down ({error.strerror}); nothing changed."
                ) from error
            self._seen = self.shelf.state()
            self._take(engine, name)

    def follow(self) -> bool:
        """Take over what was chosen elsewhere since the last look; True when another engine answers now."""
        if self.shelf is None or self.shelf.state() == self._seen:
            return False
        with self._swapping:
            state = self.shelf.state()
            chosen = self.shelf.current()
            if state == self._seen or chosen is None:
                return False
            self._seen = state
            before = self.engine
            try:
                self._take(self._fitting(load_engine(self.shelf.folder(chosen))), chosen)
            except VariseqError as error:
                self._refused(chosen, error)
            return self.engine is not before

    def without_root(self, text: str) -> str:
        """A message without the place of the models on this machine."""
        return text if self.shelf is None else text.replace(f"{self.shelf.root}{os.sep}", "")

    def _fitting(self, engine: Engine) -> Engine:
        """Raises CheckpointError for a model of other kinds of ids: it would know nobody in the store."""
        now, then = engine.vocabulary, self.engine.vocabulary
        if (now.users.type, now.items.type) != (then.users.type, then.items.type):
            raise CheckpointError("Its ids are of another type (text or whole numbers) than those that are served.")
        return engine

    def _take(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.problem = None
        log.info("model %s (%s) answers from now on", name, engine.version)

    def _refused(self, name: str, error: VariseqError) -> None:
        shown = name if NAME.fullmatch(name) else "that was chosen"
        self.problem = f"The model {shown} was refused and the one before goes on; the log of the server says why."
        self.num_refused += 1
        log.error("the model %s was refused: %s", shown, error)


def load_engine(folder: Path) -> Engine:
    """The engine of a run or of an exported model, once it has answered a first question.

    Raises CheckpointError whatever is wrong with the folder.
    """
    try:
        engine = Engine.load(exported_model(folder))
        (answer,) = engine.answer([(engine.history([]), Question(k=1))])
        if isinstance(answer, InputError):
            raise answer
        return engine
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"The model in {folder.name} cannot be loaded ({type(error).__name__}).") from error
