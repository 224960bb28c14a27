"""Event histories of users: durable, ordered, shared by processes, erasable. `open_store` opens one by URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from variseq.errors import InputError, MissingDependencyError
from variseq.serving.stores.protocol import HistoryStore, without_password
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import Durability, SqliteOptions

ALLOWED = (
    "Allowed: sqlite:///events.db (a file in this folder), sqlite:////var/lib/variseq/events.db (an absolute path), "
    "memory:// (lost at the end), postgresql://USER@HOST:PORT/DATABASE, "
    "redis://HOST:PORT/0?durable_log=sqlite:///events.db (and rediss://, unix://)."
)
OF_LIBPQ = ("host", "sslmode", "sslrootcert", "options")
"""Options of an address of PostgreSQL that are handed on."""
MAX_HISTORY_LIMIT = 1_000_000
MAX_LOCK_SECONDS = 300.0


def open_store(url: str) -> HistoryStore:
    """Open the store at a URL; the options follow a "?" and are joined with "&".

    - `history_limit=1000`: the latest so many events of a user are kept.
    - `durability=durable` or `fast` (sqlite, postgresql): see `SqliteOptions`.
    - `lock_seconds=5` (sqlite): how long to wait for another process that holds the file.
    - `host`, `sslmode`, `sslrootcert` and `options` (postgresql): those of libpq.
    - `durable_log=sqlite:///...` (redis, needed): the durable log of this replica, whose own options follow a "%3F".

    Raises InputError for another scheme or option, MissingDependencyError without a client of Redis or PostgreSQL,
    StoreUnavailable.

    >>> store = open_store("memory://?history_limit=50")
    >>> store.counts()
    StoreCounts(users=0, events=0, erased=0)
    >>> store.close()
    """
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise InputError(f"The store {url!r} is no URL ({error}). {ALLOWED}") from error
    if address.scheme == "sqlite":
        return _open_sqlite(address, 1000)
    if address.scheme == "memory":
        if address.netloc or address.path:
            raise InputError(f"The store memory:// has no name; got {url!r}. {ALLOWED}")
        return SqliteStore(None, SqliteOptions("fast", _history_limit(_options(address, "history_limit"))))
    if address.scheme in ("redis", "rediss", "unix"):
        return _open_redis(address)
    if address.scheme in ("postgresql", "postgres"):
        return _open_postgresql(address)
    raise InputError(f"There is no store {address.scheme or url!r}. {ALLOWED}")


def _open_sqlite(address: SplitResult, history_limit: int) -> SqliteStore:
    if address.netloc or len(address.path) < 2:
        raise InputError(f"A sqlite address has three slashes, or four; got {address.geturl()!r}. {ALLOWED}")
    options = _options(address, "durability", "history_limit", "lock_seconds")
    durability = _durability(options)
    try:
        lock_seconds = float(options.get("lock_seconds", "5"))
    except ValueError:
        lock_seconds = float("nan")
    if not 0 < lock_seconds <= MAX_LOCK_SECONDS:
        raise InputError(
            f"lock_seconds is a number above 0, up to {MAX_LOCK_SECONDS:g}; got {options['lock_seconds']!r}."
        )
    limit = _history_limit(options, history_limit)
    return SqliteStore(Path(unquote(address.path[1:])), SqliteOptions(durability, limit, lock_seconds))


def _open_redis(address: SplitResult) -> HistoryStore:
    options = _options(address, "durable_log", "history_limit")
    log_url = options.get("durable_log", "")
    if not log_url.startswith("sqlite:"):
        raise InputError(
            f"Redis is never the only copy: {log_url or 'there is no durable log'!r}. Add its durable log: "
            f"{address.scheme}://...?durable_log=sqlite:///events.db"
        )
    limit = _history_limit(options)
    try:
        # Here and not above: who has no Redis needs no client of it.
        from variseq.serving.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        raise MissingDependencyError("redis", "redis") from error
    log = _open_sqlite(urlsplit(log_url), limit)
    try:
        return RedisStore(f"{address.scheme}://{address.netloc}{address.path}", log, limit)
    except BaseException:
        log.close()
        raise


def _open_postgresql(address: SplitResult) -> HistoryStore:
    if not address.path.strip("/"):
        raise InputError(
            f"The address of PostgreSQL names no database: {without_password(address.geturl())}. {ALLOWED}"
        )
    options = _options(address, "durability", "history_limit", *OF_LIBPQ)
    limit, durability = _history_limit(options), _durability(options)
    try:
        # Here and not above: who has no PostgreSQL needs no client of it.
        from variseq.serving.stores.postgresql import PostgresqlStore
    except ModuleNotFoundError as error:
        raise MissingDependencyError("psycopg", "postgresql") from error
    query = urlencode({name: one for name, one in options.items() if name in OF_LIBPQ}, quote_via=quote)
    return PostgresqlStore(address._replace(query=query).geturl(), limit, durability)


def _options(address: SplitResult, *allowed: str) -> dict[str, str]:
    url = without_password(address.geturl())
    if address.fragment:
        raise InputError(f"The store {url!r} has a part after '#', which means nothing here. Write '#' as %23.")
    try:
        pairs = parse_qsl(address.query, keep_blank_values=True, strict_parsing=True) if address.query else []
    except ValueError as error:
        raise InputError(f"The options of the store {url!r} cannot be read; write name=value&name=value.") from error
    options = dict(pairs)
    if len(options) != len(pairs):
        raise InputError(f"The store {url!r} has an option twice; give each once.")
    if unknown := [name for name in options if name not in allowed]:
        raise InputError(f"The {address.scheme} store has no option {unknown[0]!r}. Allowed: {', '.join(allowed)}.")
    return options


def _durability(options: dict[str, str]) -> Durability:
    match options.get("durability", "durable"):
        case "durable":
            return "durable"
        case "fast":
            return "fast"
        case other:
            raise InputError(f"durability is durable or fast; got {other!r}.")


def _history_limit(options: dict[str, str], default: int = 1000) -> int:
    text = options.get("history_limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_HISTORY_LIMIT):
        raise InputError(f"history_limit is a whole number from 1 to {MAX_HISTORY_LIMIT:,}; got {text!r}.")
    return int(text)
