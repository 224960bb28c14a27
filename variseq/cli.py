"""The command line: a thin command for each step from a log to a server."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, cast

import typer

from variseq.errors import MissingDependencyError, VariseqError
from variseq.output.printable import printable, printable_lines
from variseq.terminal.audit import commands as audit_commands
from variseq.terminal.experiment import commands as experiment_commands
from variseq.terminal.exposures import commands as exposures_commands
from variseq.terminal.federate import commands as federate_commands
from variseq.terminal.improve import commands as improve_commands
from variseq.terminal.items import commands as items_commands
from variseq.terminal.ope import commands as ope_commands
from variseq.terminal.prepare import commands as prepare_commands
from variseq.terminal.privacy import commands as privacy_commands
from variseq.terminal.read_options import ReadFlags, events_source, read_columns, takes_read_options
from variseq.terminal.serve import commands as serve_commands
from variseq.terminal.server_files import backup_commands, keys_commands
from variseq.threads import use_threads

if TYPE_CHECKING:
    from variseq.ranking.item_codes import Compression

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for name, group in (
    *(("keys", keys_commands), ("items", items_commands), ("federate", federate_commands)),
    *(("exposures", exposures_commands), ("experiment", experiment_commands)),
    *((None, one) for one in (serve_commands, backup_commands, privacy_commands, audit_commands, ope_commands)),
    *((None, one) for one in (improve_commands, prepare_commands)),
):
    app.add_typer(group, name=name)


def option(text: str, *names: str) -> Any:
    """An option with its help; names are needed where they differ from that of the parameter."""
    return typer.Option(*names, help=text)


Source = Annotated[
    list[str],
    typer.Argument(
        help="Event files or globs: CSV, TSV, JSON lines, Parquet (text may be .gz); or sqlite:///events.db."
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Users = Annotated[str | None, option("File with user_id and attributes; for people without events.")]
Items = Annotated[str | None, option("File with item_id, title, category and more.")]
TestFile = Annotated[str | None, option("Events to evaluate on, never trained on; in place of a test part.")]
K = Annotated[int, option("How many items.", "-k", "--k")]
Device = Annotated[str | None, option("auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to compute with; one for each core otherwise.")]
Texts = list[str] | None
Seen = "--exclude-seen/--include-seen"


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
        bool | None, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
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
    out: Annotated[Path, option("Folder for the run; must not exist yet.")],
    items: Items = None,
    users: Users = None,
    split: Annotated[str | None, option("time, leave-one-out, user-time or users.")] = None,
    test: Annotated[str | None, option("Test part: a share such as 0.1, or 7d; none: no test part.")] = None,
    test_file: TestFile = None,
    calendar: Annotated[
        str | None, option("Time zone of hours and days for recommend --at, or none; UTC otherwise.")
    ] = None,
    targets_of: Annotated[
        Texts, option("Behaviors that are targets; others are history only. Repeat or use commas.")
    ] = None,
    size: Annotated[str | None, option("tiny, small, medium or large.")] = None,
    seed: Annotated[int | None, option("Seed of everything random.")] = None,
    device: Device = None,
    threads: Threads = None,
    config: Annotated[Path | None, option("YAML file with size, read, split, model, training.")] = None,
    settings: Annotated[Texts, option("A setting: model.hidden_size=128, ...", "--set")] = None,
    from_run: Annotated[
        Path | None, option("Earlier run to start from, with 0.3 of the epochs; read old and new events.", "--from")
    ] = None,
    exposures: Annotated[
        Path | None, option("Lists that were shown: a folder of `serve --exposures`, or a table of impressions.")
    ] = None,
    private: Annotated[
        float | None, option("ε of a differentially private fit of counts; --items is then the public catalog.")
    ] = None,
    delta: Annotated[float | None, option("δ of a private fit; users^−1.1 otherwise.")] = None,
    max_user_events: Annotated[
        int | None, option("For a private fit: the last events of each user that count; 1000 otherwise.")
    ] = None,
    pairs: Annotated[
        str | None,
        option("For a private fit: near; next where an item follows from the last one; auto pays to choose."),
    ] = None,
    content: Annotated[
        str | None, option("For a private fit: weight of like content, 0 to 1; otherwise auto, which pays for it.")
    ] = None,
    network: Annotated[
        str | None, option("For a private fit: yes, no, or auto, which trains a network where users are many enough.")
    ] = None,
    resume: Annotated[bool, option("Go on with an unfinished run.", "--resume")] = False,
    tensorboard: Annotated[bool, option("Also write TensorBoard files.", "--tensorboard")] = False,
    quiet: Annotated[bool, option("Print the results only.", "--quiet")] = False,
    verbose: Annotated[bool, option("Print KL, β, noise and swap gap of each epoch.", "--verbose")] = False,
) -> None:
    """Read and split a log, train and evaluate a model, save it. More options of reading: --set read.NAME=VALUE."""
    use_threads(threads)
    from variseq.estimator import load
    from variseq.model.processes import connected
    from variseq.terminal.fit import fit_run, settings_of
    from variseq.terminal.fit_private import fit_private, privacy_options
    from variseq.terminal.run_config import run_config

    flags = {
        "size": size,
        "seed": seed,
        "device": device,
        "split.by": split,
        "split.test": _size(test),
        "split.targets_of": _names(targets_of),
        "training.calendar": calendar,
        **read,
    }
    typed = dict(locals())
    if (budget := privacy_options(typed)) is not None:
        wanted = run_config(config, flags, settings or [], {"split": {"by": "leave-one-out"}})
        fit_private(_source(source), wanted, out, items, budget, quiet, resume)
        return
    start = None if from_run is None else load(from_run, device or "auto")
    wanted = run_config(config, flags, settings or [], None if start is None else settings_of(start))
    level = 0 if quiet else 1 + verbose
    with connected(wanted.device):
        fit_run(_source(source), wanted, out, items, users, test_file, start, resume, tensorboard, level, exposures)


@app.command()
def encode(
    source: Annotated[str, typer.Argument(metavar="ITEMS", help="File with item_id and what is known of the items.")],
    out: Annotated[Path, option("File for the items with their vectors: .parquet. Replaces an existing one.")],
    text: Annotated[str, option("tfidf (fit does it, nothing is encoded here), sentence or none.")] = "tfidf",
    image: Annotated[str | None, option("color, efficientnet or none; color where a column has paths.")] = None,
    audio: Annotated[str | None, option("mel or none, of WAV files; mel where a column has paths.")] = None,
    files: Annotated[Path | None, option("Folder that the paths are below; that of ITEMS otherwise.")] = None,
    vectors: Annotated[Texts, option("Your own vectors as a further column: NAME=FILE.npy; repeatable.")] = None,
    vector_ids: Annotated[Path | None, option("Text file with the item id of each row of --vectors.")] = None,
    item_columns: Annotated[str | None, option("Names in ITEMS: item_id=sku,title=name,...")] = None,
    threads: Threads = None,
) -> None:
    """Make vectors of texts, pictures and sounds of items, for fit --items. A second run computes nothing again."""
    use_threads(threads)
    from variseq.terminal.encode import encode_run

    columns = read_columns(item_columns)
    encode_run(source, out, text, image, audio, files, vectors or [], vector_ids, columns)


@app.command()
def evaluate(
    run: RunFolder,
    k: K = 10,
    targets: Annotated[str, option("last, first or all targets of each user.")] = "last",
    exclude_seen: Annotated[
        bool | None, option("Leave out items of the history, or rank them too (as in the fit).", Seen)
    ] = None,
    test_file: TestFile = None,
    columns: Annotated[str | None, option("Names in the test file: user_id=uid,item_id=sku,...")] = None,
    users: Annotated[str | None, option("Table with user_id and columns; compare its groups.")] = None,
    compare_with: Annotated[list[Path] | None, option("Another run of the same log and split; repeatable.")] = None,
    mc_dropout: Annotated[
        bool, option("Add runs with dropout on (needs training.refit_fraction=0).", "--mc-dropout")
    ] = False,
    request_time: Annotated[
        bool, option("Let the models know the time of each target, as recommend --at does.", "--request-time")
    ] = False,
    all_users: Annotated[
        bool, option("Evaluate everybody, and not a sample of users where the log is large.", "--all-users")
    ] = False,
    content_parts: Annotated[
        bool, option("Add rows without each part of the content: text, image, audio.", "--content-parts")
    ] = False,
    exposures: Annotated[
        Path | None, option("Rank lists that were shown, in place of the catalog: a folder or a table.")
    ] = None,
    json: Annotated[Path | None, option("Write the whole table as JSON.")] = None,
    threads: Threads = None,
) -> None:
    """Evaluate a run with its baselines on its test part or on a test file, with intervals."""
    typed = dict(locals())
    use_threads(threads)
    if exposures is not None:
        from variseq.terminal.evaluate_lists import evaluate_lists

        typer.echo(printable_lines(evaluate_lists(typed)))
        return
    from variseq.terminal.evaluate import evaluate_run

    how = {"k": k, "targets": targets, "exclude_seen": exclude_seen, "users": users, "mc_dropout": mc_dropout}
    how |= {"request_time": request_time, "all_users": all_users, "content_parts": content_parts}
    typer.echo(printable_lines(evaluate_run(run, test_file, read_columns(columns), compare_with or [], json, **how)))


@app.command()
def compare(
    first: RunFolder,
    second: RunFolder,
    metric: Annotated[str, option("ndcg, recall, mrr, nll, brier.")] = "ndcg",
    k: K = 10,
) -> None:
    """Compare two runs on their common test part, paired by user."""
    from variseq.estimator import compare as compare_runs
    from variseq.terminal.evaluate import comparison_sentence

    names = printable(first), printable(second)
    typer.echo(comparison_sentence(*names, k, compare_runs(first, second, metric, k)))


@app.command()
def recommend(
    run: RunFolder,
    user: Annotated[Texts, option("A user id; repeatable.")] = None,
    history: Annotated[Texts, option("Item ids of somebody else, oldest first: i9,i3; repeated: one id each.")] = None,
    history_json: Annotated[str | None, option('The same as JSON: ["i9","i3"], [{"item_id":"i9",...}].')] = None,
    all_users: Annotated[bool, option("Everybody; needs --out.", "--all-users")] = False,
    out: Annotated[str | None, option("File for --all-users: .parquet or .csv. Replaces an existing one.")] = None,
    engine: Annotated[str | None, option("spark: answer everybody in --histories; writes --out.")] = None,
    histories: Annotated[str | None, option("For --engine spark: Parquet path, or table:NAME of the catalog.")] = None,
    workers: Annotated[int, option("Processes for --all-users; the file is the same.")] = 1,
    approximate: Annotated[
        bool, option("For --all-users: through the index of an exported run.", "--approximate")
    ] = False,
    k: K = 10,
    exclude: Annotated[Texts, option("Item ids to leave out: i1,i2; repeated: one id each.")] = None,
    candidates: Annotated[Texts, option("Item ids to choose from; repeated: one id each.")] = None,
    categories: Annotated[Texts, option("Keep items of this category; repeatable.")] = None,
    exclude_seen: Annotated[
        bool | None, option("Leave out what the user knows, or not; else as the log suggested.", Seen)
    ] = None,
    strategy: Annotated[str, option("greedy; softmax: lists are drawn; thompson: by a posterior sample.")] = "greedy",
    temperature: Annotated[float, option("Of the softmax: small is close to greedy.")] = 0.3,
    pool: Annotated[int, option("The softmax draws among so many of the best items.")] = 100,
    uniform_share: Annotated[float, option("Share of the last place that all items of the pool get equally.")] = 0.05,
    seed: Annotated[int | None, option("Of what is drawn; else one by chance.")] = None,
    diversity: Annotated[float, option("0 to 1: trade relevance for spread.")] = 0.0,
    new_items_share: Annotated[float, option("0 to 1: at least this share of a list is new items.")] = 0.0,
    next: Annotated[str, option("event, or visit: probabilities of being in the next visit.")] = "event",
    conformal_level: Annotated[
        float | None, option("0.5 to 0.99: the smallest set with the next item at this probability.")
    ] = None,
    boost_items: Annotated[Texts, option("Rank an item as if that much more probable: i9=1.5.")] = None,
    boost_categories: Annotated[Texts, option("The same for a category: Drama=2.")] = None,
    boost_columns: Annotated[Texts, option("Rank by p times a number of the item to a power: price=0.5.")] = None,
    query: Annotated[str | None, option("Rank items whose content is like this text higher.")] = None,
    pin: Annotated[Texts, option("Put an item at a rank: 1=i9.")] = None,
    reasons: Annotated[bool, option("Name the earlier items behind each item.", "--reasons/--no-reasons")] = True,
    items: Annotated[str | None, option("Another catalog in place of the run's own; with --history.")] = None,
    attributes: Annotated[Texts, option("Of a person without events: age=30,country=DE; repeated: one each.")] = None,
    at: Annotated[str | None, option("When the answer is wanted: now, 2026-11-24T15:00:00Z, or seconds.")] = None,
    ranks_only: Annotated[bool, option("The order alone, several times as fast.", "--ranks-only")] = False,
    json: Annotated[bool, option("Print records as JSON in place of a table.", "--json")] = False,
    threads: Threads = None,
) -> None:
    """Who should see what next, how probable it is, and why."""
    typed = dict(locals())
    use_threads(threads)
    if engine is not None or histories is not None:
        from variseq.terminal.recommend_on_spark import recommend_table

        recommend_table(run, typed)
        return
    from variseq.terminal.recommend import recommend_run

    recommend_run(run, typed)


@app.command()
def when(
    run: RunFolder,
    user: Annotated[Texts, option("A user id; repeatable.")] = None,
    history_json: Annotated[str | None, option('In place of users: [{"item_id":"i9","timestamp":...},...].')] = None,
    at: Annotated[str | None, option("Nothing happened until then: now, or 2026-11-24T15:00:00Z.")] = None,
    level: Annotated[float, option("Probability of the interval.")] = 0.9,
    within: Annotated[Texts, option("Durations to tell the probability of an event for: 1d,7d,30d.")] = None,
    json: Annotated[bool, option("Print records as JSON in place of a table.", "--json")] = False,
) -> None:
    """When the next event of a user is expected, and how probable it is within some days."""
    from variseq.terminal.when import when_run

    when_run(run, user, history_json, at, level, _names(within), json)


@app.command()
def vectors(
    run: RunFolder,
    out: Annotated[Path, option("File for the vectors: .parquet.")],
    of: Annotated[str, option("items or users.")] = "items",
) -> None:
    """The vectors of items or users as a Parquet file, for a vector index or another model."""
    from rich.progress import Progress

    from variseq.estimator import load
    from variseq.output.console import console

    shown = console(stderr=True)
    bar = Progress(console=shown, transient=True)
    with bar if shown.is_terminal else nullcontext():
        task = bar.add_task(f"Vectors of {of}", total=None)
        num_rows = load(run).vectors_to_file(out, of, lambda done, total: bar.update(task, completed=done, total=total))
    console().print(f"{num_rows:,} vectors of {of}: {printable(out)}", soft_wrap=True)


@app.command()
def report(run: RunFolder, k: K = 10) -> None:
    """Write one HTML page with figures: training, latent, accuracy, calibration, attention, items."""
    from variseq.estimator import load
    from variseq.reports.report import write_report

    typer.echo(f"Report: {printable(write_report(load(run), run, k))}")


@app.command()
def diagnose(
    run: RunFolder,
    json: Annotated[Path | None, option("Write the diagnosis as JSON.")] = None,
) -> None:
    """Show whether a run uses its latent, what is wrong, and what to change."""
    from variseq.output.console import console
    from variseq.terminal.diagnose import diagnose_run

    diagnose_run(run, console(), json)


@app.command()
def simulate(
    out: Annotated[Path, option("File for the events: .parquet or .csv. Replaces an existing one.")],
    users: Annotated[int, option("Number of users.")] = 1000,
    items: Annotated[int, option("Number of items.")] = 500,
    mean_events: Annotated[int, option("Events per user, on average.")] = 30,
    seed: Annotated[int, option("Seed.")] = 0,
) -> None:
    """Simulate a log whose true next-item probabilities are known."""
    from variseq.events.simulate import SimulationOptions
    from variseq.events.simulate import simulate as simulate_log

    options = SimulationOptions(num_users=users, num_items=items, mean_events=mean_events, seed=seed)
    events, item_columns = simulate_log(options).write(out)
    typer.echo(f"Events: {printable(events)}\nItems:  {printable(item_columns)}")


@app.command()
def demo(
    out: Annotated[Path | None, option("Folder for the run.")] = None,
    seed: Annotated[int, option("Seed.")] = 0,
) -> None:
    """Fit and evaluate MovieLens-100K, and show recommendations and a report, in minutes on 2 cores."""
    from variseq.output.console import console
    from variseq.terminal.demo import run_demo

    run_demo(out, seed, console())


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, option("Folder for the export; into the run otherwise.")] = None,
    compress: Annotated[str, option("Item vectors in fewer bytes: none, int8 or pq.")] = "none",
) -> None:
    """Export a run, so that it is served without torch."""
    from variseq.export import export as export_run
    from variseq.export import recall_of_index

    folder = export_run(run, out, cast("Compression", compress))
    typer.echo(f"Export: {printable(folder)}")
    if (recall := recall_of_index(run, folder)) is not None:
        typer.echo(f"Index: it finds {recall:.1%} of the ten best items of a sample of users.")


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
