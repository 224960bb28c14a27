"""The commands `federate keys`, `serve` and `join`: one run of several logs that stay where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from variseq.errors import InputError, MissingDependencyError
from variseq.output.printable import printable
from variseq.terminal.read_options import ReadFlags, events_source, read_columns, takes_read_options

if TYPE_CHECKING:
    from variseq.evaluation.splits import Part
    from variseq.federation.public_features import PublicFeatures
    from variseq.log import Log
    from variseq.privacy.contributions import Pairs

commands = typer.Typer(
    help="One run of several logs that stay where they are.", no_args_is_help=True, rich_markup_mode=None
)
Catalog = Annotated[Path, typer.Option("--items", help="The public catalog: the same file for every party.")]
Timeout = Annotated[float, typer.Option(help="Seconds without progress, or without an answer, after which it ends.")]


@commands.command()
def keys(
    parties: Annotated[int, typer.Option(help="How many keep a log; at least three.")],
    out: Annotated[Path, typer.Option(help="Folder for the files; must not exist yet.")],
) -> None:
    """Make a key file for each party, and one of public keys for the coordinator."""
    with _dependencies():
        from variseq.federation.keys import create_keys

    for file in create_keys(out, parties):
        typer.echo(printable(file))


@commands.command()
def serve(
    parties: Annotated[int, typer.Option(help="How many keep a log; at least three.")],
    items: Catalog,
    users: Annotated[int, typer.Option(min=1, help="Users of all parties, rounded up. It is public.")],
    keys: Annotated[Path, typer.Option(help="The file coordinator.json of `federate keys`.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; must not exist yet.")],
    private: Annotated[float | None, typer.Option(help="ε of a private release; exact sums otherwise.")] = None,
    delta: Annotated[float | None, typer.Option(help="δ of a private release; users^−1.1 otherwise.")] = None,
    max_user_events: Annotated[int, typer.Option(help="The last events of each user that count.")] = 1000,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--include-seen", help="Leave items of the history out of answers, or not.")
    ] = True,
    pairs: Annotated[str, typer.Option(help="near, or next where an item follows from the last one.")] = "near",
    network: Annotated[
        bool, typer.Option("--network", help="Train a network, too; with --private by noisy steps.")
    ] = False,
    size: Annotated[str | None, typer.Option(help="Of a network without privacy: tiny, small, medium, large.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Of the training of a network without privacy; 40 otherwise.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of the training of a network without privacy.")
    ] = None,
    server_optimizer: Annotated[
        str | None, typer.Option(help="What moves a network without privacy to the mean of a round: sgd, adam.")
    ] = None,
    server_rate: Annotated[float | None, typer.Option(help="Its learning rate; 1 otherwise.")] = None,
    server_momentum: Annotated[float | None, typer.Option(help="Its momentum; 0 otherwise.")] = None,
    proximal: Annotated[
        float | None, typer.Option(help="Weight μ of FedProx, where silos differ; 0 otherwise.")
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="A network without privacy learns from titles and categories, too.")
    ] = False,
    item_columns: Annotated[str | None, typer.Option(help="Names in --items: item_id=sku,title=name,...")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another machine's needs TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8100,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
    timeout: Timeout = 3600.0,
) -> None:
    """Coordinate a federation, and write its run. The coordinator sees sums of all parties only."""
    with _dependencies():
        from msgspec.structs import replace

        from variseq.federation.coordinator import Coordinator
        from variseq.federation.federated_run import new_terms, read_public_catalog, save_run
        from variseq.federation.keys import read_public_keys, refuse_other_number
        from variseq.federation.messages import network_terms
        from variseq.federation.public_features import PublicFeatures
        from variseq.federation.server import Address, serve

    from variseq.atomic import refuse_existing
    from variseq.privacy.release import PrivacyOptions
    from variseq.terminal.run_config import run_config

    given: dict[str, Any] = {"size": size, "rounds": rounds, "seed": seed, "proximal": proximal}
    given |= {"server_optimizer": server_optimizer, "server_rate": server_rate, "server_momentum": server_momentum}
    chosen = {name: value for name, value in given.items() if value is not None}
    if (chosen or content) and (private is not None or not network):
        reason = "is for a network without privacy" if network else "is for --network"
        raise InputError(f"--{next(iter(chosen), 'content').replace('_', '-')} {reason}. Leave it out.")
    trained = network_terms(chosen) if network else None
    refuse_existing(out)
    refuse_other_number(parties)
    public_keys = read_public_keys(keys)
    if len(public_keys.public_keys) != parties:
        raise InputError(f"{keys} has the keys of {len(public_keys.public_keys)} parties, and not of {parties}.")
    address = Address(host, port, tls_cert, tls_key)
    options = run_config(None, {"read.item_columns": read_columns(item_columns)}, []).read
    vocabulary, table = read_public_catalog(str(items), options)
    features = None
    if trained is not None and content:
        features = PublicFeatures.of(table, vocabulary)
        trained = replace(trained, content=features.digest, num_features=features.number)
    epsilon = math.inf if private is None else private
    wanted = PrivacyOptions(epsilon, delta, max_user_events, exclude_seen, cast("Pairs", pairs))
    terms = new_terms(vocabulary, parties, users, wanted, private is not None, trained)
    coordinator = Coordinator(terms, public_keys, _print, features)

    def save() -> None:
        save_run(coordinator.rounds, vocabulary, table, out)
        _print(f"Run: {out}")

    with address.bind() as listener:
        scheme, where = "http" if tls_cert is None else "https", f"[{host}]" if ":" in host else host
        _print(f"Coordinator: {scheme}://{where}:{listener.getsockname()[1]}, catalog {terms.catalog[:16]}.")
        serve(coordinator, address, listener, timeout, save)


@commands.command()
@takes_read_options
def join(
    log: Annotated[list[str], typer.Argument(help="The log of this party, as for fit.")],
    read: ReadFlags,
    items: Catalog,
    server: Annotated[str, typer.Option(help="URL of the coordinator.")],
    key: Annotated[Path, typer.Option(help="The key file of this party.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the run, here too; must not exist yet.")] = None,
    max_epsilon: Annotated[
        float | None, typer.Option(help="Refuse a federation with a larger ε, or without privacy.")
    ] = None,
    timeout: Timeout = 600.0,
) -> None:
    """Take part in a federation with a log. The log stays here; the same command starts again."""
    with _dependencies():
        from variseq.events.vocabulary import catalog_digest
        from variseq.federation.connection import Connection
        from variseq.federation.federated_run import save_run
        from variseq.federation.keys import read_party_key
        from variseq.federation.party import take_part

    from variseq.atomic import refuse_existing
    from variseq.log import read as read_log
    from variseq.terminal.run_config import run_config

    if out is not None:
        refuse_existing(out)
    party_key, connection = read_party_key(key), Connection(server, timeout)
    with events_source(log[0] if len(log) == 1 else log) as events:
        found = read_log(events, options=run_config(None, read, []).read).on_catalog(str(items))
    digest = catalog_digest(found.vocabulary.items)

    def features() -> PublicFeatures:
        from variseq.federation.public_features import PublicFeatures

        assert found.items is not None
        return PublicFeatures.of(found.items, found.vocabulary)

    federated = take_part(
        connection, party_key, digest, _validation_part(found), max_epsilon, _print, features=features
    )
    if out is not None:
        assert found.items is not None
        save_run(federated, found.vocabulary, found.items, out)
        _print(f"Run: {out}")
    _print(f"Done: {connection.num_bytes:,} bytes were sent and received.")


def _validation_part(log: Log) -> Part:
    """The last event of each user. Raises InputError where what is kept of one user depends on others."""
    from variseq.private_model import refuse_dependent_reading

    train, valid, _ = log.split("leave-one-out", test="none")
    refuse_dependent_reading(train)
    return valid.part


@contextmanager
def _dependencies() -> Iterator[None]:
    """Raises MissingDependencyError for a library of the extra that is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "variseq").startswith("variseq"):
            raise
        raise MissingDependencyError(error.name or "a library", "federate") from error


def _print(text: Any) -> None:
    from variseq.output.console import console

    console().print(printable(text), soft_wrap=True)
