"""The settings of a server, from flags, the environment and a YAML file; an unknown name is an error."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from variseq.errors import InputError
from variseq.ranking.options import MIN_TEMPERATURE, MIN_UNIFORM_SHARE, SOFTMAX, RecommendOptions
from variseq.serving.schemas import MAX_BATCH_USERS, MAX_POOL, Strategy

ENVIRONMENT_PREFIX = "VARISEQ_SERVE_"


class ServeSettings(BaseModel):
    """All settings of `variseq serve`. Limits of a worker are those of one process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path = Field(description="folder of a finished run, or of an exported model")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port; 0 takes a free one")
    store: str = Field("sqlite:///events.db", min_length=1, description="URL of the store of histories")
    import_histories: Literal["auto", "yes", "no"] = Field("auto", description="import the run's histories")
    model_dir: Path | None = Field(None, description="folder of models that can replace the run")
    images: Path | None = Field(None, description="folder of the pictures of items")
    keys: Path | None = Field(None, description="file of API keys")
    audit_log: Path | None = Field(None, description="file for the audit log")
    exposures: Path | None = Field(None, description="folder for exposures")
    experiment: Path | None = Field(None, description="file of an experiment")
    exposures_days: int | None = Field(None, ge=1, le=36_500, description="days to keep exposures")
    workers: int = Field(1, ge=1, le=64, description="processes")
    rate_limit: float | None = Field(None, gt=0, le=1e6, description="requests a second for each key and worker")
    burst: int | None = Field(None, ge=1, le=1_000_000, description="requests at once; twice the rate where not given")
    queue_length: int = Field(1024, ge=1, le=100_000, description="requests that may wait for the model, a worker")
    batch_size: int = Field(32, ge=1, le=1024, description="requests answered in one pass")
    batch_users: int = Field(100, ge=1, le=MAX_BATCH_USERS, description="users in one request of /v1/recommend/batch")
    timeout_seconds: float = Field(5.0, gt=0, le=300, description="time for an answer")
    request_timeout_seconds: float = Field(10.0, gt=0, le=300, description="time for a client to send a request")
    keep_alive_seconds: float = Field(30.0, gt=0, le=3600, description="time an idle connection is kept open")
    shutdown_grace_seconds: float = Field(
        1.0, ge=0, le=300, description="time between 'not ready' and the end of listening"
    )
    cache_megabytes: float = Field(64.0, ge=0, le=1e6, description="decoded histories in RAM, a worker")
    max_connections: int = Field(1024, ge=1, le=100_000, description="open connections, a worker")
    strategy: Strategy = Field("greedy", description="of requests that name none")
    temperature: float = Field(RecommendOptions.temperature, ge=MIN_TEMPERATURE, description="of the strategy softmax")
    pool: int = Field(RecommendOptions.pool, ge=1, le=MAX_POOL, description="items among which the softmax draws")
    uniform_share: float = Field(
        RecommendOptions.uniform_share,
        ge=MIN_UNIFORM_SHARE,
        le=1 - MIN_UNIFORM_SHARE,
        description="share of the last place for the whole pool",
    )
    log_requests: bool = Field(True, description="a line for each request")

    @property
    def policy(self) -> dict[str, Any]:
        """What `RecommendOptions` has of requests that name nothing else."""
        return {name: getattr(self, name) for name in ("strategy", *SOFTMAX)}


def serve_settings(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> ServeSettings:
    """Flags (None is not given) before `VARISEQ_SERVE_*` of the environment before the YAML file.

    Raises InputError for a file that is no YAML mapping, an unknown name or a value that is not allowed.

    >>> serve_settings({"run": "runs/first", "port": None}, {"VARISEQ_SERVE_PORT": "9000"}).port
    9000
    """
    of_server = {name: value for name, value in environment.items() if name.startswith(ENVIRONMENT_PREFIX)}
    named = of_server.pop(f"{ENVIRONMENT_PREFIX}CONFIG", None)
    file = file or (None if named is None else Path(named))
    merged: dict[str, Any] = {}
    for source, prefix, values in (
        (f"the configuration {file}", "", {} if file is None else _from_file(file)),
        ("the environment", ENVIRONMENT_PREFIX, of_server),
        ("the command line", "", {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in values.items():
            setting = name.removeprefix(prefix).lower() if prefix else name
            if setting not in ServeSettings.model_fields:
                raise InputError(
                    f"{name!r} in {source} is no setting of the server. There are: "
                    f"{', '.join(ServeSettings.model_fields)}."
                )
            merged[setting] = value
    return _checked(merged)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(values: dict[str, Any]) -> ServeSettings:
    if "run" not in values:
        raise InputError("There is no run to serve. Give its folder: variseq serve runs/first")
    try:
        settings = ServeSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"The setting {name}={first['input']!r} is not allowed: {first['msg']}.") from error
    if settings.keys is None and not is_loopback(settings.host):
        raise InputError(
            f"Without keys the server listens on loopback addresses only, and {settings.host!r} is not one. "
            "Make keys (variseq keys create --name shop --role read --file keys.yaml) and give them with --keys, or "
            "leave --host out."
        )
    if settings.workers > 1 and settings.store.startswith("memory:"):
        raise InputError(
            f"{settings.workers} workers cannot share the store memory://. Use sqlite:///events.db or one worker."
        )
    return settings


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The configuration {path} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(f"The configuration {path} is no YAML mapping of names to values.")
    return values
