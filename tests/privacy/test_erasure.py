"""People are erased from runs, tables and stores by one command, and a refit is one that never had them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import SHORT_TRAINING, SMALL_NETWORK
from tests.terminal.invoke import refuse, succeed, variseq
from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from variseq.artifacts.folder import IMPROVEMENT, MANIFEST, WEIGHTS, read_manifest
from variseq.artifacts.lineage import weights_digest
from variseq.erasure import remaining_parts, without_users
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.events.options import ReadOptions
from variseq.events.simulate import Simulation
from variseq.export import export
from variseq.inference.engine import load_engine
from variseq.log import Log, LogPart, read
from variseq.pipeline import split_of
from variseq.privacy.erased_users import ERASED_USERS
from variseq.privacy.merkle import data_tree
from variseq.privacy.receipts import read_key
from variseq.ranking.mixture import SCORE_OFFSET
from variseq.recommend.network_model import count_events
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.transfer import import_run
from variseq.terminal.personal_data import find

pytestmark = pytest.mark.unchecked
Parts = tuple[LogPart, LogPart, LogPart]
ERASED = ("u007", "u042")
ONLY = "only-once"
"""An item that one of the erased people alone has."""


def model() -> VariationalAttention:
    """Of the settings that are not set here, some are others without the erased people."""
    network = {name: value for name, value in SMALL_NETWORK.items() if name != "max_seq_len"}
    training = {name: value for name, value in SHORT_TRAINING.items() if name != "item_weight_decay"}
    return VariationalAttention("tiny", 0, "cpu", network, training | {"max_epochs": 3})


def with_one_more_item(events: pa.Table) -> pa.Table:
    """The events, of which the last one of an erased person is of an item that nobody else has."""
    row = max(index for index, user in enumerate(events.column("user_id").to_pylist()) if user == ERASED[0])
    items = events.column("item_id").to_pylist()
    items[row] = ONLY
    return events.set_column(events.schema.get_field_index("item_id"), "item_id", pa.array(items))


def without(events: pa.Table) -> pa.Table:
    return events.filter(pc.invert(pc.is_in(events.column("user_id"), value_set=pa.array(ERASED))))


@pytest.fixture(scope="module")
def events(shop: Simulation) -> pa.Table:
    table = shop.events()
    names = sorted(set(table.column("user_id").to_pylist()))
    index = pc.index_in(table.column("user_id"), value_set=pa.array(names)).to_pylist()
    column = pa.array([f"u{number:03}" for number in index])
    return with_one_more_item(table.set_column(table.schema.get_field_index("user_id"), "user_id", column))


@pytest.fixture(scope="module")
def original(events: pa.Table, shop: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned from everybody."""
    train, valid, _ = read(events, items=shop.items()).split("leave-one-out")
    folder = tmp_path_factory.mktemp("original") / "run"
    model().fit(train, valid, folder, verbose=0)
    return folder


@pytest.fixture(scope="module")
def never(events: pa.Table, shop: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the log without the erased people."""
    train, valid, _ = read(without(events), items=shop.items()).split("leave-one-out")
    folder = tmp_path_factory.mktemp("never") / "run"
    model().fit(train, valid, folder, verbose=0)
    return folder


def weights_of(run: Path) -> str:
    return str(read_manifest(run)["sha256"][WEIGHTS])


def positions_of(checkpoint: Checkpoint) -> np.ndarray:
    return checkpoint.vocabulary.user_positions(list(ERASED))


def as_after_reading(checkpoint: Checkpoint) -> Checkpoint:
    return without_users(checkpoint, positions_of(checkpoint))


def test_histories_and_bounds_are_those_of_the_log_without_them(original: Path, never: Path) -> None:
    after, expected = as_after_reading(load_checkpoint(original)), load_checkpoint(never)
    assert after.vocabulary.users.equals(expected.vocabulary.users)
    np.testing.assert_array_equal(after.bounds, expected.bounds)
    np.testing.assert_array_equal(after.histories.offsets, expected.histories.offsets)
    np.testing.assert_array_equal(after.histories.timestamp, expected.histories.timestamp)
    key = b"k" * 32
    roots = [data_tree(one.histories, one.vocabulary, key).root for one in (after, expected)]
    assert roots[0] == roots[1]
    before = load_checkpoint(original)
    assert data_tree(before.histories, before.vocabulary, key).root != roots[0]


def test_counts_equal_a_recount_bit_for_bit(original: Path, events: pa.Table, shop: Simulation) -> None:
    before = load_checkpoint(original)
    after = as_after_reading(before)
    known = split_of(after)[1].history_with_targets()
    for name, tensor in count_events(before.vocabulary.num_items, known).items():
        assert name == "is_new" or torch.equal(after.counts[name], tensor), name
    # The same, from the log: a pair of items counts as often as it stands there.
    ids = after.vocabulary.items.to_pylist()
    expected: dict[tuple[str, str], int] = {}
    for history in without(events).to_pandas().groupby("user_id", sort=False):
        items = history[1].sort_values("timestamp", kind="stable")["item_id"].tolist()
        items = items[:-1] if len(items) >= 3 else items
        for pair in pairwise(items):
            expected[pair] = expected.get(pair, 0) + 1
    offsets, item, value = (after.counts[name].tolist() for name in ("offsets", "item", "value"))
    found = {
        (ids[row], ids[item[cell]]): value[cell] for row in range(len(ids)) for cell in range(*offsets[row : row + 2])
    }
    assert found == expected


def test_item_that_they_alone_had_keeps_a_probability(original: Path, tmp_path: Path) -> None:
    save_checkpoint(as_after_reading(load_checkpoint(original)), tmp_path / "run")
    answer = load(tmp_path / "run").recommend(history=["i00"], k=41, exclude_seen=False)
    assert answer.probability[list(answer.item_id).index(ONLY)] > 0


def test_manifest_is_marked_and_quotes_nobody(original: Path, tmp_path: Path) -> None:
    after = as_after_reading(load_checkpoint(original))
    assert after.needs_refit
    assert after.manifest["erasures"]["num_people"] == len(ERASED)
    assert after.manifest["protocol"]["num_users"] == len(after.histories)
    assert sum(after.manifest["log"]["behaviors"].values()) == after.histories.num_events
    assert not after.manifest["log"]["first_faults"]
    save_checkpoint(after, tmp_path / "run")
    with pytest.raises(InputError, match="erased"):
        model().fit(*remaining_parts(after), start=load(tmp_path / "run"), verbose=0)


@pytest.fixture(scope="module")
def shop_run(original: Path, events: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a run and everything that comes of it; `erased` by one command, with a refit."""
    root = tmp_path_factory.mktemp("company")
    runs = root / "runs"
    shutil.copytree(original, runs / "first")
    (runs / "first" / "evaluation.json").write_text("{}")
    (runs / "first" / "notes.txt").write_text("ours")
    manifest = json.loads((original / MANIFEST).read_bytes())
    fingerprint = {"data.split_hash": manifest["protocol"]["split_hash"]}
    for name, marks in (("second", fingerprint), ("other", {"data.split_hash": "another log"})):
        (runs / f"{name}.unfinished").mkdir()
        (runs / f"{name}.unfinished" / "settings.json").write_text(json.dumps(marks))
    load(original).save(runs / "export", with_histories=False)
    shutil.copytree(original, runs / ".second.partial")
    pq.write_table(events.select(["user_id", "item_id"]), runs / "recommended.parquet")
    (runs / "recommended.csv").write_bytes(
        b'user_id,"title"\r\nu007,"a, ""b""\r\nc"\r\nu008,"d\r\ne"\r\n\r\nu042,f\r\n'
    )
    (runs / "titles.csv").write_text("item_id,title\nu007,u007\n")
    for name in ("events.db", "copy.db"):
        store = SqliteStore(root / name)
        import_run(store, original, "yes")
        store.close()
    return root


def words(root: Path, *more: object) -> list[object]:
    users = [word for user in ERASED for word in ("--user", user)]
    places = ["--store", f"sqlite:///{root / 'events.db'}", "--backup", root / "copy.db"]
    return ["erase", *users, "--runs", root / "runs", "--receipts", root / "receipts", *places, *more]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dry_run_lists_everything_and_changes_nothing(shop_run: Path) -> None:
    before = content(shop_run / "runs")
    out = succeed(*words(shop_run, "--dry-run")).out
    for name in ("first", "second.unfinished", "export", ".second.partial", "recommended.parquet", "recommended.csv"):
        assert f"{shop_run / 'runs' / name}:" in out, name
    assert "evaluation.json" in out
    assert "copy.db" in out
    assert f"nameless {shop_run / 'runs' / 'other.unfinished'}: left" in out
    assert "titles.csv" not in out
    assert content(shop_run / "runs") == before
    assert not (shop_run / "receipts").exists()


@pytest.fixture(scope="module")
def erased(shop_run: Path, original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after the command."""
    root = tmp_path_factory.mktemp("erased") / "company"
    shutil.copytree(shop_run, root)
    succeed(*words(root))
    return root


def names_them(path: Path) -> bool:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        texts = {str(value) for column in table.columns for value in column.to_pylist()}
        return bool(texts & set(ERASED))
    return any(user.encode() in path.read_bytes() for user in ERASED)


def test_nothing_names_them_afterwards(erased: Path) -> None:
    files = [path for path in erased.rglob("*") if path.is_file() and path.name != "titles.csv"]
    assert len(files) > 10
    assert [path for path in files if names_them(path)] == []
    for name in ("events.db", "copy.db"):
        store = SqliteStore(erased / name)
        assert [store.history(user) for user in ERASED] == [[], []]
        assert store.history("u008") != []
        store.close()
    runs = erased / "runs"
    assert (runs / "recommended.csv").read_bytes() == b'user_id,"title"\r\nu008,"d\r\ne"\r\n\r\n'
    assert "u008" in pq.read_table(runs / "recommended.parquet").column("user_id").to_pylist()
    assert sorted(path.name for path in runs.iterdir()) == [
        *(ERASED_USERS, "export", "first", "other.unfinished", "recommended.csv", "recommended.parquet", "titles.csv")
    ]
    assert (runs / "first" / "notes.txt").read_text() == "ours"
    assert not (runs / "first" / "evaluation.json").exists()


def test_marked_run_goes_on_working(erased: Path, original: Path) -> None:
    run = erased / "runs" / "first"
    assert weights_of(run) == weights_of(original)
    assert "u008" in succeed("recommend", run, "--user", "u008", "--user", ERASED[0], "--json").out
    succeed("evaluate", run)
    succeed("diagnose", run)


def test_old_run_does_not_bring_them_back_into_a_new_store(erased: Path, original: Path, tmp_path: Path) -> None:
    old = shutil.copytree(original, erased / "runs" / "old" / "restored")
    store = SqliteStore(tmp_path / "new.db")
    report: list[str] = []
    import_run(store, old, "auto", report.append)
    shutil.rmtree(erased / "runs" / "old")
    assert [store.history(user) for user in ERASED] == [[], []]
    assert store.history("u008") != []
    assert "are of erased users" in report[0]
    store.close()


def test_receipt_is_verified_and_names_nobody(erased: Path) -> None:
    receipt = erased / "receipts" / "receipt-000001.json"
    assert "2 erased ids" in succeed("verify", receipt, "--run", erased / "runs" / "first").out
    record, text = json.loads(receipt.read_bytes()), receipt.read_text()
    assert not any(user in text for user in (*ERASED, "u008", ONLY))
    (run,) = record["runs"]
    assert run["before"]["weights"] == run["after"]["weights"]
    assert run["before"]["root"] != run["after"]["root"]
    assert run["before"]["num_users"] == run["after"]["num_users"] + 2
    assert record["left"] == {"export": 1, "nameless": 1}
    refuse("learned from people", "verify", receipt, "--run", erased / "runs" / "first", "--refit-again")
    refuse("--run", "verify", receipt, "--refit-again")


def test_refit_equals_a_fit_that_never_had_them(erased: Path, never: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(erased, tmp_path / "company"))
    run, receipts = root / "runs" / "first", root / "receipts"
    succeed("erase", "--runs", root / "runs", "--receipts", receipts, "--refit")
    assert weights_of(run) == weights_of(never)
    found, expected = load_checkpoint(run), load_checkpoint(never)
    assert found.vocabulary.items.equals(expected.vocabulary.items)
    assert all(torch.equal(found.counts[name], tensor) for name, tensor in expected.counts.items())
    assert not found.needs_refit
    assert found.config == expected.config != load_checkpoint(erased / "runs" / "first").config
    assert found.manifest["protocol"] == expected.manifest["protocol"]
    second = receipts / "receipt-000002.json"
    printed = succeed("verify", second, "--run", run, "--refit-again").out
    assert "gives the same weights" in printed
    refuse("not those of this receipt", "verify", second.with_name("receipt-000001.json"), "--run", run)
    key = read_key(receipts)
    assert json.loads(second.read_bytes())["runs"][0]["after"]["root"] == (
        data_tree(expected.histories, expected.vocabulary, key).root.hex()
    )
    assert "No run has to be" in succeed("erase", "--runs", root / "runs", "--receipts", receipts, "--refit").out


def test_interrupted_replacement_leaves_the_old_run_and_is_done_again(
    shop_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(shop_run, tmp_path / "company"))
    run = root / "runs" / "first"
    with monkeypatch.context() as patched:
        patched.setattr("variseq.terminal.erase_people.replace_directory", _interrupt)
        with pytest.raises(RuntimeError):
            succeed(*words(root))
    assert ERASED[0] in load_checkpoint(run).vocabulary.users.to_pylist()
    refuse("not those of this receipt", "verify", root / "receipts" / "receipt-000001.json", "--run", run)
    succeed(*words(root))
    assert ERASED[0] not in load_checkpoint(run).vocabulary.users.to_pylist()
    assert not list((root / "runs").glob(".*"))
    succeed("verify", root / "receipts" / "receipt-000002.json", "--run", run)


def _interrupt(*_: object) -> None:
    raise RuntimeError


SPLITS: list[tuple[str, Callable[[Log], Parts]]] = [
    ("time", lambda log: log.split("time", test=0.2)),
    ("time without test", lambda log: log.split("time", test="none", valid="3d")),
    ("leave-one-out without test", lambda log: log.split("leave-one-out", test="none")),
    ("user-time", lambda log: log.split("user-time", test=0.2, valid=0.2)),
    ("users", lambda log: log.split("users", test=0.2)),
    ("targets", lambda log: log.split("time", targets_of="purchase")),
]


@pytest.mark.parametrize(("name", "split"), SPLITS, ids=[name for name, _ in SPLITS])
def test_split_is_made_again_as_the_run_was_split(
    name: str, split: Callable[[Log], Parts], original: Path, events: pa.Table, shop: Simulation
) -> None:
    log, expected = (read(table, items=shop.items()) for table in (events, without(events)))
    parts, checkpoint = split(log), load_checkpoint(original)
    protocol = {key: value for key, value in parts[0].part.protocol.items() if key != "part"}
    bounds = np.stack([parts[0].part.target_end, parts[1].part.target_end])
    method = [key for key in protocol if key in ("method", "test", "valid", "targets_of") or "microseconds" in key]
    run = replace(checkpoint, bounds=bounds, vocabulary=log.vocabulary)
    run = replace(run, manifest=checkpoint.manifest | {"protocol": protocol, "split_params": method})
    found = remaining_parts(without_users(run, positions_of(run)))
    assert found[0].part.protocol == split(expected)[0].part.protocol
    assert found[1].report.behaviors == expected.report.behaviors


def test_rare_items_are_dropped_again(events: pa.Table, shop: Simulation, original: Path) -> None:
    items = events.column("item_id").to_pylist()
    theirs = [item for user, item in zip(events.column("user_id").to_pylist(), items, strict=True) if user in ERASED]
    options = ReadOptions(min_item_events=min(items.count(item) for item in theirs if item != ONLY))
    log, expected = (read(table, shop.items(), options) for table in (events, without(events)))
    assert log.vocabulary.num_items > expected.vocabulary.num_items
    train, valid, _ = log.split("leave-one-out")
    checkpoint = load_checkpoint(original)
    run = replace(
        checkpoint,
        vocabulary=log.vocabulary,
        items=log.items,
        histories=train.part.histories,
        bounds=np.stack([train.part.target_end, valid.part.target_end]),
        manifest=checkpoint.manifest | {"protocol": train.part.protocol, "log": log.report.to_json()},
    )
    found = remaining_parts(without_users(run, positions_of(run)))[0]
    assert found.part.protocol == expected.split("leave-one-out")[0].part.protocol
    assert found.vocabulary.items.equals(expected.vocabulary.items)


@pytest.mark.parametrize(
    ("printed", "given"),
    [
        ("nobody to erase", []),
        ("does not exist", ["--user", "u1", "--backup", "nothing.db"]),
        ("There is no store", ["--user", "u1", "--store", "sqlite:///nothing.db"]),
    ],
)
def test_what_is_not_there_is_one_message(printed: str, given: list[str], tmp_path: Path) -> None:
    refuse(printed, "erase", "--runs", tmp_path, "--receipts", tmp_path / "receipts", *given)
    refuse("does not exist", "erase", "--runs", tmp_path / "none", "--receipts", tmp_path / "receipts", "--user", "u")
    assert list(tmp_path.iterdir()) == []


def test_run_that_cannot_be_fitted_exactly_says_why(original: Path, tmp_path: Path) -> None:
    after = as_after_reading(load_checkpoint(original))
    for folder, changes in (("warm", {"is_warm_start": True}), ("plain", {})):
        save_checkpoint(replace(after, manifest=after.manifest | changes), tmp_path / "runs" / folder)
    finished = variseq("erase", "--runs", tmp_path / "runs", "--receipts", tmp_path / "receipts", "--refit")
    assert finished.code == 2
    assert "fit --from" in finished.err
    assert load_checkpoint(tmp_path / "runs" / "warm").needs_refit
    assert not load_checkpoint(tmp_path / "runs" / "plain").needs_refit


def test_server_says_that_a_refit_is_due(run_folder: Path, tmp_path: Path) -> None:
    before = load_checkpoint(run_folder)
    save_checkpoint(without_users(before, np.array([3])), tmp_path / "run")
    for run, is_due in ((run_folder, False), (tmp_path / "run", True)):
        export(run, tmp_path / f"export {is_due}")
        assert load_engine(tmp_path / f"export {is_due}").health["needs_refit"] is is_due


def test_whole_numbers_and_text_are_both_taken(original: Path, tmp_path: Path) -> None:
    before = load_checkpoint(original)
    three = without_users(before, np.arange(3, before.vocabulary.num_users))
    numbers = replace(three, vocabulary=replace(three.vocabulary, users=pa.array([7, 9, 12])))
    save_checkpoint(numbers, tmp_path / "runs" / "numbers")
    succeed("erase", "--user", "12", "--user", "ann", "--runs", tmp_path / "runs", "--receipts", tmp_path / "receipts")
    assert load_checkpoint(tmp_path / "runs" / "numbers").vocabulary.users.to_pylist() == [7, 9]
    again = ("--runs", tmp_path / "runs", "--receipts", tmp_path / "receipts")
    assert "Nothing holds them" in succeed("erase", "--user", "12", *again).out
    succeed("verify", tmp_path / "receipts" / "receipt-000002.json")
    finished = variseq("erase", "--user", "7", "--user", "9", *again)
    assert finished.code == 2
    assert "leaves no event" in finished.err
    assert load_checkpoint(tmp_path / "runs" / "numbers").vocabulary.users.to_pylist() == [7, 9]
    assert json.loads((tmp_path / "receipts" / "receipt-000003.json").read_bytes())["left"]["run"] == 1


class Chain(NamedTuple):
    """Folders of two runs, of which the second began with the first; and the same without the erased people."""

    runs: Path
    never: Path


@pytest.fixture(scope="module")
def chain(events: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The first run alone has histories of the erased people."""
    times = events.column("timestamp").to_numpy()
    older = events.filter(pa.array(times < np.sort(times)[len(times) // 2]))
    root = tmp_path_factory.mktemp("chain")
    for name, first in (("all", older), ("never", without(older))):
        start = model().fit(*read(first).split("time", test="none")[:2], root / name / "first", verbose=0)
        train, valid, _ = read(without(events)).split("time", test=0.2, valid=0.2)
        model().fit(train, valid, root / name / "a second", verbose=0, start=start)
    return Chain(root / "all", root / "never")


def test_digest_of_weights_is_that_of_their_file(chain: Chain) -> None:
    assert weights_digest(load_checkpoint(chain.runs / "first")) == weights_of(chain.runs / "first")
    assert read_manifest(chain.runs / "a second")["started_from"] == [weights_of(chain.runs / "first")]


def test_run_that_began_with_one_that_knew_them_is_fitted_again_after_it(chain: Chain, tmp_path: Path) -> None:
    runs, receipts = tmp_path / "runs", tmp_path / "receipts"
    shutil.copytree(chain.runs / "first", runs / "first")
    backup = shutil.copytree(chain.runs / "a second", tmp_path / "backup" / "second")
    words = ("--receipts", receipts, "--runs", runs, "--backup", tmp_path / "backup")
    out = succeed("erase", "--user", ERASED[0], "--user", ERASED[1], *words).out
    assert f"descendant {backup}" in out
    folders = (runs / "first", backup)
    assert all(load_checkpoint(folder).needs_refit for folder in folders)
    succeed("erase", *words, "--refit")
    assert [weights_of(folder) for folder in folders] == [
        weights_of(chain.never / one) for one in ("first", "a second")
    ]
    assert not any(load_checkpoint(folder).needs_refit for folder in folders)
    assert read_manifest(backup)["started_from"] == [weights_of(runs / "first")]


def test_run_without_the_run_that_it_began_with_is_listed_and_not_fitted_again(chain: Chain, tmp_path: Path) -> None:
    run = shutil.copytree(chain.runs / "a second", tmp_path / "runs" / "second")
    words = ("erase", "--receipts", tmp_path / "receipts", "--runs", tmp_path / "runs")
    assert "it began with a run that is not here" in succeed(*words, "--user", ERASED[0]).out
    succeed(*words, "--user", "u008")
    finished = variseq(*words, "--refit")
    assert finished.code == 2
    assert "--backup" in finished.err
    assert load_checkpoint(run).needs_refit


def test_run_that_began_with_one_of_a_longer_chain_is_found(chain: Chain, tmp_path: Path) -> None:
    """The run between the two is not there."""
    last = load_checkpoint(chain.runs / "a second")
    started = {"started_from": ["0" * 64, weights_of(chain.runs / "first")]}
    save_checkpoint(replace(last, manifest=last.manifest | started), tmp_path / "last")
    users = (*ERASED, "nobody")
    found = {one.path.name: one.kind for one in find([tmp_path, chain.runs], users, tmp_path / "receipts")}
    assert found == {"last": "descendant", "first": "run", "a second": "descendant"}
    alone = find([tmp_path], users, tmp_path / "receipts")
    assert [one.kind for one in alone] == ["start elsewhere"]


def test_offsets_of_an_improved_run_are_listed_and_a_refit_has_none(original: Path, tmp_path: Path) -> None:
    """They are chosen from exposures, which may be of people whom the run does not have."""
    run = load_checkpoint(original)
    counts = run.counts | {SCORE_OFFSET: torch.ones(run.vocabulary.num_items)}
    improved = replace(run, counts=counts, manifest=run.manifest | {IMPROVEMENT: {}})
    save_checkpoint(improved, tmp_path / "runs" / "better")
    words = ("erase", "--runs", tmp_path / "runs", "--receipts", tmp_path / "receipts")
    assert "improved run" in succeed(*words, "--user", "nobody").out
    assert "left until the refit" in succeed(*words, "--user", ERASED[0], "--user", ERASED[1]).out
    assert SCORE_OFFSET in load_checkpoint(tmp_path / "runs" / "better").counts
    succeed(*words, "--refit")
    again = load_checkpoint(tmp_path / "runs" / "better")
    assert SCORE_OFFSET not in again.counts
    assert IMPROVEMENT not in again.manifest
