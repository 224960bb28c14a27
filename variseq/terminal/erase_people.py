"""Erases people from a store, runs, tables and backups; fits runs again; writes the receipts."""

from __future__ import annotations

import platform
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from variseq.artifacts.catalog_changes import locked
from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from variseq.artifacts.folder import COUNTS, HISTORIES, MANIFEST, WEIGHTS, needs_refit, read_manifest
from variseq.artifacts.lineage import STARTED_FROM, earlier_run
from variseq.atomic import replace_directory, restore_replaced
from variseq.erasure import fit_again, marked, without_users
from variseq.errors import CheckpointError, InputError
from variseq.events.vocabulary import Id
from variseq.exposures.erasing import erase_users
from variseq.exposures.folder import read_key
from variseq.output.printable import printable
from variseq.output.progress import ProgressPrinter
from variseq.privacy.erased_users import ErasedUsers, user_hash
from variseq.privacy.merkle import data_tree
from variseq.privacy.receipts import Receipts, proof_of, source_sha256
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import HistoryStore
from variseq.serving.stores.sqlite import SqliteStore
from variseq.terminal.personal_data import DERIVED, TABLES, Found, Kind, find, ids_of, remove_rows
from variseq.terminal.read_options import STORES, open_durable_store
from variseq.training.run import RunContext, choose_device

ACTIONS: dict[Kind, str] = {
    "run": "histories, ids and counts of {num} without them; the weights have learned from them until a refit",
    "descendant": "names nobody of them, but began with a run that has learned from them; marked until a refit",
    "export": "left: its weights and counts have learned from them; export the run again after a refit",
    "unfinished run": "removed: it has learned from them and cannot go on without them",
    "rest of a write": "removed",
    "table": "{num} rows removed",
    "exposures": "{num} lines removed",
    "nameless": "left: it names nobody, so whether it has learned from them is not known; if so, make it again",
    "start elsewhere": "left: it began with a run that is not here; if that one had them, fit it again from the log",
    "improved run": "left: it names nobody of them, but its offsets may be of their exposures; if so, improve again",
    "unreadable": "left: it cannot be read; remove it by hand",
}
NOT_KNOWN: tuple[Kind, ...] = ("export", "nameless", "start elsewhere", "improved run")
LEFT: tuple[Kind, ...] = (*NOT_KNOWN, "unreadable")
RUNS: tuple[Kind, ...] = ("run", "descendant")


@dataclass(frozen=True)
class EraseOptions:
    """What to erase, and from where.

    Args:
        users: User ids as text.
        runs: A folder of runs.
        receipts: The folder of the receipts.
        store: URL of the store of a server.
        backups: Copies of stores, tables, and folders of runs.
        exposures: The folder of exposures of a server.
        refit: Whether the runs are fitted again.
        dry_run: Whether nothing is changed.
    """

    users: tuple[str, ...]
    runs: Path
    receipts: Path
    store: str | None = None
    backups: tuple[Path, ...] = ()
    exposures: Path | None = None
    refit: bool = False
    dry_run: bool = False

    @property
    def ids(self) -> list[Id]:
        """What the texts may stand for."""
        return [one for text in self.users for one in ids_of(text)]

    @property
    def folders(self) -> list[Path]:
        """Folders of runs."""
        return [self.runs, *(path for path in self.backups if path.is_dir())]

    @property
    def searched(self) -> list[Path]:
        """Folders of runs, backups that are tables, and exposures."""
        tables = (path for path in self.backups if path.is_file() and path.suffix in TABLES)
        return [*self.folders, *tables, *([] if self.exposures is None else [self.exposures])]


def erase_people(options: EraseOptions) -> None:
    """List what holds the people, remove them, write a receipt, and fit runs again where that is wanted.

    All of a run is written beside it, and then takes its place in one step. What is interrupted is done again by the
    same command.

    Raises:
        InputError: Nobody is named, a store, a backup or a folder is not there, or a run cannot do without them.
        StoreUnavailable: A store cannot be written now.
    """
    if not options.users and not options.refit:
        raise InputError("There is nobody to erase. Give --user ID, or --refit alone to fit marked runs again.")
    if options.exposures is not None:
        read_key(options.exposures)
    if not options.runs.is_dir():
        raise InputError(f"The folder of runs {options.runs} does not exist. Give one with --runs.")
    with ExitStack() as opened:
        stores = {name: opened.enter_context(closing(store)) for name, store in _stores(options).items()}
        if options.dry_run:
            _listed(options, stores)
            return
        receipts = Receipts.open(options.receipts)
        opened.enter_context(locked(receipts.folder))
        for folder in options.folders:
            restore_replaced(folder)
        num_left = _erase(options, stores, receipts) if options.users else 0
        if options.refit:
            _refit(options, receipts)
    if num_left:
        raise InputError(f"{num_left} of what is listed above may still hold them. Remove it by hand.")


def _stores(options: EraseOptions) -> dict[str, HistoryStore]:
    """The live store and the copies of stores, by what they are called. Raises InputError for one that is not there."""
    if missing := [path for path in options.backups if not path.exists()]:
        raise InputError(f"The backup {missing[0]} does not exist. Give a file or a folder that does.")
    found: dict[str, HistoryStore] = {}
    if options.store is not None:
        has_all = options.store.startswith(STORES)
        found["store"] = open_durable_store(options.store) if has_all else open_store(options.store)
    for path in options.backups:
        if path.is_file() and path.suffix not in TABLES:
            found[f"backup {path}"] = SqliteStore(path)
    return found


def _listed(options: EraseOptions, stores: dict[str, HistoryStore]) -> list[Found]:
    """Print a line for each thing that holds the people, with what is done about it."""
    found = find(options.searched, options.users, options.receipts)
    for name, store in stores.items():
        num_events = sum(len(store.history(one)) for one in options.ids)
        typer.echo(printable(f"{name}: {num_events:,} events removed; older events are refused from now on"))
    for one in found:
        typer.echo(printable(f"{one.kind} {one.path}: {ACTIONS[one.kind].format(num=one.num)}"))
        made = [name for name in DERIVED if one.kind in RUNS and (one.path / name).exists()]
        if made:
            typer.echo(printable(f"  {', '.join(made)}: removed, as made of them; make them again"))
        if one.is_improved:
            typer.echo("  offsets of variseq improve: left until the refit, which has none; then improve the run again")
    if not found and not stores:
        typer.echo("Nothing holds them.")
    return found


def _erase(options: EraseOptions, stores: dict[str, HistoryStore], receipts: Receipts) -> int:
    """Remove the people and write the receipt; how many things may still hold them."""
    now = time.time_ns() // 1000
    # First of all, so that no run brings them back while the rest is going on.
    _remember(options, now)
    found = _listed(options, stores)
    for name, store in stores.items():
        _erase_from_store(name, store, options.ids, now)
    # Those of a server even where nothing was found: it may have something that is not written yet.
    exposures = [one.path for one in found if one.kind == "exposures"]
    for folder in dict.fromkeys(exposures if options.exposures is None else [options.exposures, *exposures]):
        erase_users(folder, options.ids)
    for one in found:
        if one.kind == "table":
            remove_rows(one.path, options.users)
        elif one.kind in ("unfinished run", "rest of a write"):
            shutil.rmtree(one.path)
    markers = [user_hash(receipts.key, user_id) for user_id in options.ids]
    changed = [one for one in found if one.kind not in LEFT]
    runs, entries = [one for one in changed if one.kind in RUNS], []
    for one in list(runs):
        try:
            before = load_checkpoint(one.path)
            assert before.histories is not None
            after = without_users(before, one.users) if one.kind == "run" else marked(before)
        except InputError as error:
            runs.remove(one)
            changed.remove(one)
            typer.echo(printable(f"{one.path}: {error}"), err=True)
            continue
        _remember(options, int(before.histories.rows(one.users).timestamp.max(initial=now)))
        entries.append(_prepared(one.path, before, after, markers, receipts.key))
    left = [one for one in found if one not in changed]
    _write_receipt(receipts, len(options.users), markers, entries, _counted(changed, left, len(stores)))
    for one in runs:
        _replace(one.path)
    if runs and not options.refit:
        typer.echo("The weights of these runs have learned from them. The same command with --refit fits them again.")
    return sum(one.kind not in NOT_KNOWN for one in left)


def _erase_from_store(name: str, store: HistoryStore, users: Sequence[Id], now: int) -> None:
    for user_id in users:
        store.erase(user_id)
        if any(event.timestamp <= now for event in store.history(user_id)):
            raise InputError(f"{name}: events were found after the erasure. Give the same command again.")


def _counted(changed: Sequence[Found], left: Sequence[Found], num_stores: int) -> dict[str, Any]:
    """How many things were changed or removed, and how many were left, by kind."""
    return {
        "changed": Counter(one.kind for one in changed),
        "left": Counter(one.kind for one in left),
        "num_stores": num_stores,
    }


def _refit(options: EraseOptions, receipts: Receipts) -> None:
    """Fit all marked runs again; each gets a receipt and takes the place of the run before.

    A run that others began with (`fit --from`) is fitted before them.
    """
    folders = marked_runs(options.folders)
    markers = [user_hash(receipts.key, one) for one in options.ids]
    num_failed = 0
    for folder in folders:
        typer.echo(printable(f"Fitting {folder} again."))
        try:
            before = load_checkpoint(folder)
            earlier = earlier_run(before.manifest, options.folders)
            after = fit_again(before, RunContext(choose_device("auto"), ProgressPrinter(verbose=1)), earlier)
        except InputError as error:
            num_failed += 1
            typer.echo(printable(f"{folder}: {error}"), err=True)
            continue
        entry = _prepared(folder, before, after, markers, receipts.key)
        _write_receipt(receipts, len(options.users), markers, [entry], _counted([], [], 0))
        _replace(folder)
        typer.echo(printable(f"Run: {folder}"))
    if not folders:
        typer.echo("No run has to be fitted again.")
    if num_failed:
        raise InputError(f"{num_failed} of {len(folders)} runs could not be fitted again and stay marked; see above.")


def marked_runs(roots: Sequence[Path]) -> list[Path]:
    """The runs below folders whose weights have learned from people who were erased; no run is before its start."""
    found: dict[Path, int] = {}
    for path in (path for root in roots for path in sorted(root.rglob(MANIFEST))):
        try:
            manifest = read_manifest(path.parent)
        except CheckpointError:
            continue
        if not path.parent.name.startswith(".") and HISTORIES in manifest["sha256"] and needs_refit(manifest):
            found.setdefault(path.parent, len(manifest.get(STARTED_FROM, [])))
    return sorted(found, key=lambda folder: found[folder])


def _remember(options: EraseOptions, until: int) -> None:
    """Keep hashes of the ids in each folder of runs, so that its old runs do not bring the people back."""
    for folder in options.folders:
        (ErasedUsers.read(folder) or ErasedUsers()).with_users(options.ids, until).write(folder)


def _new_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.erasing")


def _prepared(
    folder: Path, before: Checkpoint, after: Checkpoint, markers: Sequence[bytes], key: bytes
) -> dict[str, Any]:
    """Save a run beside the one that it will replace; what the receipt says of the two."""
    new = _new_folder(folder)
    shutil.rmtree(new, ignore_errors=True)
    save_checkpoint(after, new)
    tree = tree_of(after, key)
    roots = [{"root": one.root.hex(), "num_users": len(one.leaves)} for one in (tree_of(before, key), tree)]
    return {
        "config": after.config,
        "split": {name: after.manifest["protocol"][name] for name in after.manifest["split_params"]},
        "needs_refit": after.needs_refit,
        "before": state_of(folder) | roots[0],
        "after": state_of(new) | roots[1],
        "absent": {marker.hex(): proof_of(tree.absence(marker)) for marker in markers},
    }


def tree_of(checkpoint: Checkpoint, key: bytes) -> Any:
    """The Merkle tree of a run's histories."""
    assert checkpoint.histories is not None
    return data_tree(checkpoint.histories, checkpoint.vocabulary, key)


def state_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of the weights and of the counts of a run."""
    digests = read_manifest(folder)["sha256"]
    return {"weights": digests[WEIGHTS], "counts": digests[COUNTS]}


def _write_receipt(
    receipts: Receipts, num_people: int, markers: Sequence[bytes], runs: list[dict[str, Any]], counted: dict[str, Any]
) -> None:
    versions = {name: version(name) for name in ("variseq", "torch", "numpy")}
    code = {**versions, "python": platform.python_version(), "machine": platform.machine(), "source": source_sha256()}
    content = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code,
        "num_people": num_people,
        "erased": [marker.hex() for marker in markers],
        "runs": runs,
        **counted,
    }
    typer.echo(printable(f"Receipt: {receipts.add(content)}"))


def _replace(folder: Path) -> None:
    """Let the run beside take the place of a run, with the changes of the catalog and with files of others."""
    new, made = _new_folder(folder), {*DERIVED, "tensorboard"}
    with locked(folder):
        listed = {name.split("/")[0] for name in read_manifest(folder)["sha256"]} | {MANIFEST}
        for path in folder.iterdir():
            if path.name not in listed | made:
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, new / path.name)
        replace_directory(folder, new)
