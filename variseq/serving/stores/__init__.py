"""Event histories of users: durable, ordered, shared by processes, erasable. `open_store` opens one by URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from variseq.errors import InputError, MissingDependencyError
from variseq.serving.stores.protocol import HistoryStore
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import SqliteOptions

ALLOWED = (
    "Allowed: sqlite:///events.db (a file in this folder), sqlite:////var/lib/variseq/events.db (an absolute path), "
    "memory:// (lost at the end), redis://HOST:PORT/0?durable_log=sqlite:///events.db (and rediss://, unix://)."
)
MAX_HISTORY_LIMIT = 1_000_000
MAX_LOCK_SECONDS = 300.0


def open_store(url: str) -> HistoryStore:
    """Open the store at a URL; the options follow a "?" and are joined with "&".

    - `history_limit=1000`: the latest so many events of a user are kept.
    - `durability=durable` or `fast` (sqlite): see `SqliteOptions`.
    - `lock_seconds=5` (sqlite): how long to wait for another process that holds the file.
    - `durable_log=sqlite:///...` (redis, needed): the durable log of this replica, whose own options follow a "%3F".

    Raises InputError for another scheme or option, MissingDependencyError without a client of Redis, StoreUnavailable.

    >>> store = open_store("memory://?history_limit=50")
    >>> store.counts()
    StoreCounts(users=0, events=0, erased=0)
    >>> store.close()
    """
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise InputError(f"The store {url!r} is no URL ({error}). {ALLOWED}") from error
    options = _options(address, url)
    if address.scheme == "sqlite":
        return _open_sqlite(address, options)
    if address.scheme == "memory":
        if address.netloc or address.path:
            raise InputError(f"The store memory:// has no name; got {url!r}. {ALLOWED}")
        limit = _history_limit(options)
        _refuse_the_rest(options, address.scheme, ["history_limit"])
        return SqliteStore(None, SqliteOptions("fast", limit))
    if address.scheme in ("redis", "rediss", "unix"):
        return _open_redis(address, options)
    raise InputError(f"There is no store {address.scheme or url!r}. {ALLOWED}")


def _open_sqlite(address: SplitResult, options: dict[str, str]) -> SqliteStore:
    if address.netloc or len(address.path) < 2:
        raise InputError(f"A sqlite address has three slashes, or four; got {address.geturl()!r}. {ALLOWED}")
    durability = options.pop("durability", "durable")
    if durability not in ("durable", "fast"):
        raise InputError(f"durability is durable or fast; got {durability!r}.")
    limit = _history_limit(options)
    lock_seconds = _number(options.pop("lock_seconds", "5"), "lock_seconds", MAX_LOCK_SECONDS)
    _refuse_the_rest(options, address.scheme, ["durability", "history_limit", "lock_seconds"])
    chosen = SqliteOptions("durable" if durability == "durable" else "fast", limit, lock_seconds)
    return SqliteStore(Path(unquote(address.path[1:])), chosen)


def _open_redis(address: SplitResult, options: dict[str, str]) -> HistoryStore:
    log_url = options.pop("durable_log", None)
    if log_url is None or not log_url.startswith("sqlite:"):
        raise InputError(
            f"Redis is never the only copy: {'there is no durable log' if log_url is None else log_url!r}. Add its "
            f"durable log: {address.scheme}://...?durable_log=sqlite:///events.db"
        )
    limit = _history_limit(options)
    _refuse_the_rest(options, address.scheme, ["history_limit", "durable_log"])
    try:
        # Here and not above: who has no Redis needs no client of it.
        from variseq.serving.stores.redis import open_redis_store
    except ModuleNotFoundError as error:
        raise MissingDependencyError("redis", "redis") from error
    log_address = urlsplit(log_url)
    log_options = _options(log_address, log_url)
    log = _open_sqlite(log_address, {"history_limit": str(limit), **log_options})
    try:
        return open_redis_store(f"{address.scheme}://{address.netloc}{address.path}", log, limit)
    except BaseException:
        log.close()
        raise


def _options(address: SplitResult, url: str) -> dict[str, str]:
    if address.fragment:
        raise InputError(f"The store {url!r} has a part after '#', which means nothing here. Write '#' as %23.")
    try:
        pairs = parse_qsl(address.query, keep_blank_values=True, strict_parsing=True) if address.query else []
    except ValueError as error:
        raise InputError(f"The options of the store {url!r} cannot be read; write name=value&name=value.") from error
    options = dict(pairs)
    if len(options) != len(pairs):
        raise InputError(f"The store {url!r} has an option twice; give each once.")
    return options


def _history_limit(options: dict[str, str]) -> int:
    text = options.pop("history_limit", "1000")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_HISTORY_LIMIT):
        raise InputError(f"history_limit is a whole number from 1 to {MAX_HISTORY_LIMIT:,}; got {text!r}.")
    return int(text)


def _number(text: str, name: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= most:
        raise InputError(f"{name} is a number above 0, up to {most:g}; got {text!r}.")
    return value


def _refuse_the_rest(options: dict[str, str], scheme: str, allowed: list[str]) -> None:
    if options:
        raise InputError(
            f"The {scheme} store has no option {next(iter(options))!r}. Allowed: {', '.join(sorted(allowed))}."
        )
