"""The command line: one thin command per leg of the journey."""

from __future__ import annotations

import os
import sys
import warnings
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from variseq.errors import MissingDependencyError, VariseqError
from variseq.output.printable import printable, printable_lines
from variseq.terminal.read_options import ReadFlags, events_source, read_columns, takes_read_options
from variseq.terminal.serve_command import keys, serving
from variseq.threads import use_threads

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.registered_commands += serving.registered_commands
app.add_typer(keys, name="keys")

Source = Annotated[
    list[str],
    typer.Argument(
        help="Event files or globs: CSV, TSV, JSON lines, Parquet (text may be .gz); or sqlite:///events.db."
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Items = Annotated[str | None, typer.Option(help="File with item_id, title, category and more.")]
TestFile = Annotated[str | None, typer.Option(help="Events to evaluate on, never trained on; in place of a test part.")]
K = Annotated[int, typer.Option("-k", "--k", help="How many items.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting: model.hidden_size=128, training.max_epochs=20, ...")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to compute with; one for each core otherwise.")]


def _size(text: str | None) -> float | str | None:
    """The size of a part: a share as a number, other words as they are."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _names(texts: list[str] | None) -> list[str] | None:
    """What was given several times or with commas, one by one."""
    return None if texts is None else [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _source(paths: list[str]) -> Any:
    return paths[0] if len(paths) == 1 else paths


def _show_version(wanted: bool | None) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"variseq {version('variseq')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end."),
    ] = None,
) -> None:
    """From an event log to recommendations, with a variational attention model."""


@app.command()
@takes_read_options
def check(source: Source, read: ReadFlags, items: Items = None) -> None:
    """What is in a log, and what is wrong with it: counts, reasons, span, histories, warnings."""
    from variseq.log import read as read_log
    from variseq.output.console import console
    from variseq.terminal.run_config import run_config

    with events_source(_source(source)) as events:
        console().print(read_log(events, items, run_config(None, read, []).read).check())


@app.command()
@takes_read_options
def fit(
    source: Source,
    read: ReadFlags,
    out: Annotated[Path, typer.Option(help="Folder for the run; must not exist yet.")],
    items: Items = None,
    split: Annotated[str | None, typer.Option(help="time or leave-one-out.")] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Test part of the time split: 0.1 or 7d; none: no test part (any split)."),
    ] = None,
    test_file: TestFile = None,
    targets_of: Annotated[
        list[str] | None,
        typer.Option(
            help="Behaviors that are targets, such as purchase; others are history only. Repeat or use commas."
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small, medium or large.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    device: Device = None,
    threads: Threads = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with size, read, split, model, training.")] = None,
    settings: Set = None,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Warm start from an earlier run, with 0.3 of the epochs; the source has old and new events."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the results only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print KL, β, noise and swap gap of each epoch.")] = False,
) -> None:
    """Read and split a log, train and evaluate a model, save it. More options of reading: --set read.NAME=VALUE."""
    use_threads(threads)
    from variseq.estimator import load
    from variseq.terminal.fit import FitRequest, fit_run, settings_of
    from variseq.terminal.run_config import run_config

    flags = {
        "size": size,
        "seed": seed,
        "device": device,
        "split.by": split,
        "split.test": _size(test),
        "split.targets_of": _names(targets_of),
        **read,
    }
    start = None if from_run is None else load(from_run, device or "auto")
    wanted = run_config(config, flags, settings or [], None if start is None else settings_of(start))
    fit_run(
        _source(source),
        wanted,
        FitRequest(out, items, resume, tensorboard, 0 if quiet else 1 + verbose, test_file, start),
    )


@app.command()
def evaluate(
    run: RunFolder,
    k: K = 10,
    targets: Annotated[str, typer.Option(help="last, first or all targets of each user.")] = "last",
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--include-seen",
            help="Leave out items of the user's history, or rank them too (default: as in the fit).",
        ),
    ] = None,
    test_file: TestFile = None,
    columns: Annotated[str | None, typer.Option(help="Names in the test file: user_id=uid,item_id=sku,...")] = None,
    users: Annotated[str | None, typer.Option(help="Table with user_id and columns; compare its groups.")] = None,
    compare_with: Annotated[
        list[Path] | None, typer.Option(help="Another run of the same log and split; may be given several times.")
    ] = None,
    mc_dropout: Annotated[
        bool,
        typer.Option("--mc-dropout", help="Add every run with dropout left on (needs training.refit_fraction=0)."),
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the whole table as JSON.")] = None,
    threads: Threads = None,
) -> None:
    """Evaluate a run with its baselines on its test part or on a test file, with intervals."""
    use_threads(threads)
    from variseq.terminal.evaluate import EvaluateRequest, evaluate_run

    request = EvaluateRequest(
        k, targets, exclude_seen, users, compare_with or [], mc_dropout, test_file, read_columns(columns)
    )
    typer.echo(printable_lines(evaluate_run(run, request, json)))


@app.command()
def compare(
    first: RunFolder,
    second: RunFolder,
    metric: Annotated[str, typer.Option(help="ndcg, recall, mrr, nll, brier.")] = "ndcg",
    k: K = 10,
) -> None:
    """Compare two runs on their common test part, paired by user."""
    from variseq.estimator import compare as compare_runs
    from variseq.terminal.tables import comparison_sentence

    names = printable(first), printable(second)
    typer.echo(comparison_sentence(*names, k, compare_runs(first, second, metric, k)))


@app.command()
def recommend(
    run: RunFolder,
    user: Annotated[list[str] | None, typer.Option(help="A user id; may be given several times.")] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(help="Item ids of somebody else, oldest first: i9,i3; given several times, each is one id."),
    ] = None,
    history_json: Annotated[
        str | None, typer.Option(help='The same as a JSON list of ids or events: ["i9","i3"], [{"item_id":"i9",...}].')
    ] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="Everybody; needs --out.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for --all-users: .parquet or .csv.")] = None,
    k: K = 10,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Item ids to leave out: i1,i2; given several times, each is one id.")
    ] = None,
    candidates: Annotated[
        list[str] | None, typer.Option(help="Item ids to choose from; given several times, each is one id.")
    ] = None,
    categories: Annotated[
        list[str] | None, typer.Option(help="Keep items of this category; may be given several times.")
    ] = None,
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--include-seen",
            help="Leave out what the user knows, or not; otherwise as the log suggested.",
        ),
    ] = None,
    explore: Annotated[str | None, typer.Option(help="thompson: rank by one sample of each posterior.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    diversity: Annotated[float, typer.Option(help="0 to 1: trade relevance for spread.")] = 0.0,
    conformal_level: Annotated[
        float | None, typer.Option(help="0.5 to 0.99: the smallest set that holds the next item with this probability.")
    ] = None,
    boost_items: Annotated[
        list[str] | None, typer.Option(help="Rank an item as if that much more probable: i9=1.5.")
    ] = None,
    boost_categories: Annotated[list[str] | None, typer.Option(help="The same for a category: Drama=2.")] = None,
    pin: Annotated[list[str] | None, typer.Option(help="Put an item at a rank: 1=i9.")] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons/--no-reasons", help="Name the earlier items behind each item; slower.")
    ] = True,
    ranks_only: Annotated[
        bool, typer.Option("--ranks-only", help="The order alone, several times as fast: no probabilities, no reasons.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print records as JSON in place of a table.")] = False,
    threads: Threads = None,
) -> None:
    """Who should see what next, how probable it is, and why."""
    use_threads(threads)
    from variseq.terminal.recommend import RecommendCommand, recommend_run

    options = {
        "k": k,
        "candidates": candidates,
        "exclude": exclude,
        "categories": categories,
        "exclude_seen": exclude_seen,
        "boost_items": boost_items,
        "boost_categories": boost_categories,
        "pin": pin,
        "explore": explore,
        "seed": seed,
        "diversity": diversity,
        "conformal_level": conformal_level,
        "ranks_only": ranks_only,
        "reasons": reasons,
    }
    recommend_run(run, RecommendCommand(user or [], history, history_json, all_users, out, json, options))


@app.command()
def vectors(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="File for the vectors: .parquet.")],
    of: Annotated[str, typer.Option(help="items or users.")] = "items",
) -> None:
    """The vectors of items or users as a Parquet file, for a vector index or another model."""
    from variseq.terminal.vectors import write_vectors

    write_vectors(run, out, of)


@app.command()
def report(run: RunFolder, k: K = 10) -> None:
    """Write one HTML page with figures: training, latent, accuracy, calibration, attention, items."""
    from variseq.estimator import load
    from variseq.reports.report import write_report

    typer.echo(f"Report: {printable(write_report(load(run), run, k))}")


@app.command()
def diagnose(
    run: RunFolder,
    json: Annotated[Path | None, typer.Option(help="Write the diagnosis as JSON.")] = None,
) -> None:
    """Show whether a run uses its latent, what is wrong, and what to change."""
    from variseq.output.console import console
    from variseq.terminal.diagnose import diagnose_run

    diagnose_run(run, console(), json)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="File for the events: .parquet or .csv.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = 1000,
    items: Annotated[int, typer.Option(help="Number of items.")] = 500,
    mean_events: Annotated[int, typer.Option(help="Events per user, on average.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Simulate a log whose true next-item probabilities are known."""
    from variseq.events.simulate import SimulationOptions
    from variseq.events.simulate import simulate as simulate_log

    options = SimulationOptions(num_users=users, num_items=items, mean_events=mean_events, seed=seed)
    events, item_columns = simulate_log(options).write(out)
    typer.echo(f"Events: {printable(events)}\nItems:  {printable(item_columns)}")


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder for the run.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Fit and evaluate MovieLens-100K, and show recommendations and a report, in minutes on 2 cores."""
    from variseq.output.console import console
    from variseq.terminal.demo import run_demo

    run_demo(out, seed, console())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In place of the one of `warnings`, which also prints a place in the code."""
    typer.echo(f"warning: {printable(message)}", err=True)


def main() -> None:
    """Runs a command; a user's mistake or a full disk is one message and exit code 2, never a stack trace."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        try:
            app(standalone_mode=True)
        except BrokenPipeError:
            sys.exit(1)
        except (VariseqError, OSError) as error:
            _fail(error)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            _fail(MissingDependencyError("torch", "train"))
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            sys.exit(130)
        finally:
            _flush()


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"error: {printable(error)}", err=True)
    sys.exit(2)


def _flush() -> None:
    """Write what is left. A reader that has gone away wants no more, and no message about it when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
