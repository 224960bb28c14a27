"""Options of reading for the command line, and the events that it names: files, or a store of live events."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from variseq.errors import InputError

if TYPE_CHECKING:
    from variseq.events.options import ColumnNames, ReadOptions
    from variseq.serving.stores.protocol import DurableStore

ReadFlags = dict[str, Any]
"""The settings `read.<name>` that flags set; None where a flag was not given."""


def _flag(kind: Any, text: str, *names: str) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=text)]


# One for each field of `variseq.events.options.ReadOptions` that has a flag.
_FLAGS = {
    "columns": _flag(str, "Names in the file: user_id=uid,item_id=sku,... Without a header by index: user_id,..."),
    "item_columns": _flag(str, "The same for --items: item_id=sku,title=name,..."),
    "format": _flag(str, "csv, tsv, jsonl or parquet (default: by suffix or content)."),
    "explode": _flag(str, "The list within each JSON line that holds the events."),
    "time_unit": _flag(str, "auto, seconds, milliseconds, microseconds, nanoseconds, iso, ..."),
    "time_format": _flag(str, "How times are written: %d.%m.%y %H:%M, ..."),
    "time_zone": _flag(str, "Zone of times that name none: Europe/Berlin, ..."),
    "delimiter": _flag(str, "Delimiter of text files (default: detected)."),
    "quoting": _flag(str, "auto, or none where quotes are text."),
    "quote": _flag(str, "The character around quoted fields."),
    "escape": _flag(str, "The character before a quote within a quoted field."),
    "visit_gap": _flag(str, "Events at most this long apart are one visit, a set: 30m, 1d, ..."),
    "min_user_events": _flag(int, "Drop users with fewer events (k-core with the next)."),
    "min_item_events": _flag(int, "Drop items with fewer events."),
    "collapse_repeats": _flag(bool, "Keep the first of repeated events in a row.", "--collapse-repeats"),
    "ties": _flag(str, "Events of a user at one time: keep the order of the input, or shuffle."),
    "missing_value": _flag(str, "Missing values: keep, zero or mean."),
    "min_value": _flag(float, "Events with a lower value (bad ratings) are low, see the next."),
    "low_values": _flag(str, "leave-out drops them; negative keeps them in histories, never as a next event."),
    "memory_limit": _flag(str, "Memory of the database, such as 1GB."),
    "rejects": _flag(Path, "File for rejected rows (.csv or .parquet)."),
}


def takes_read_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the flags of reading; their values reach its parameter `read`."""
    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "read"]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _FLAGS.items()
    ]

    @wraps(command)
    def with_flags(**values: Any) -> None:
        read = {f"read.{name}": values.pop(name) for name in _FLAGS}
        for name in ("read.columns", "read.item_columns"):
            read[name] = read_columns(read[name])
        command(read=read, **values)

    vars(with_flags)["__signature__"] = inspect.Signature([*own, *flags])
    with_flags.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
    return with_flags


def read_columns(text: str | None) -> dict[str, str | int] | list[str] | None:
    """`a=b,c=d` as a dictionary; `a,b,c`, names by index, as a list."""
    if text is None:
        return None
    if "=" not in text:
        return [name.strip() for name in text.split(",")]
    pairs = [part.partition("=") for part in text.split(",")]
    named = [name.strip() for name, _, _ in pairs]
    if len(set(named)) < len(named):
        raise InputError(f"--columns {text!r} names a column twice. Give each once.")
    if any(not equals for _, equals, _ in pairs):
        raise InputError(
            f"--columns {text!r} is not of the form user_id=uid,item_id=sku, or by place user_id,item_id,timestamp."
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


def options_of_more_events(of_log: dict[str, Any], columns: ColumnNames | None = None) -> ReadOptions:
    """The options of a log for a file of other events, without the limits on rare users and items, which would hide
    some of them."""
    from variseq.events.options import ReadOptions

    changes: dict[str, Any] = {"min_user_events": 1, "min_item_events": 1}
    return ReadOptions(**{**of_log, **changes, **({} if columns is None else {"columns": columns})})


STORES = ("sqlite:", "postgresql:", "postgres:")
"""How the address of a store begins that has all its events itself."""


@contextmanager
def events_source(source: str | list[str]) -> Iterator[str | list[str]]:
    """The source; for the address of a store, all its events in a file that is there as long as they are read.

    So a model is fitted again on what a server has taken in, and without those who were erased, by one command:
    `variseq fit sqlite:///events.db --out runs/second`.
    """
    if isinstance(source, list):
        if any(one.startswith(STORES) for one in source):
            raise InputError("A store is read alone. Give its address and no files with it.")
        yield source
        return
    if not source.startswith(STORES):
        yield source
        return
    from variseq.serving.stores.transfer import export_events

    store = open_durable_store(source)
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "events.parquet"
            if export_events(store, target) == 0:
                raise InputError(f"The store at {source} holds no events yet.")
            yield str(target)
    finally:
        store.close()


def open_durable_store(address: str) -> DurableStore:
    """The store of an address; a file must be there. Raises InputError and StoreUnavailable."""
    from variseq.serving.stores import open_store
    from variseq.serving.stores.protocol import DurableStore

    if not address.startswith(STORES):
        raise InputError(f"There is no store at {address}. Write sqlite:///events.db, or postgresql://HOST/DATABASE")
    path = Path(address.removeprefix("sqlite:///").partition("?")[0])
    if address.startswith("sqlite:") and not path.is_file():
        raise InputError(f"There is no store at {address}: {path} is no file. Write sqlite:///events.db")
    store = open_store(address)
    assert isinstance(store, DurableStore)
    return store
