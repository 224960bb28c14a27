"""Each data set in a small simulated file of its own format: how it is read, and what a recipe records."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import variseq
from measurement.datasets import DATASETS, LoadedDataset, load_dataset, sequences, shuffle_ties
from measurement.records import read_records
from recipes.__main__ import main
from tests.conftest import BASELINES
from variseq.errors import InputError

NUM_USERS, NUM_ITEMS, FIRST_SECOND = 30, 15, 1_511_539_200
TINY = ("size=tiny", "model.hidden_size=8", "model.latent_dim=8", "model.attention_dim=4", "training.max_epochs=1")


def histories() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [[1 + (user + n) % NUM_ITEMS for n in range(generator.integers(5, 10))] for user in range(NUM_USERS)]


EVENTS = [(user, n, item) for user, items in enumerate(histories(), start=1) for n, item in enumerate(items)]


def write_lines(path: Path, lines: list[str], end: str = "\n") -> None:
    text = "\n".join(lines) + end
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_movielens(folder: Path) -> None:
    write_lines(folder / "u.data", [f"{user}\t{item}\t{1 + item % 5}\t{1000 + n}" for user, n, item in EVENTS])
    users = [" ".join(map(str, [user, *items])) for user, items in enumerate(histories(), start=1)]
    write_lines(folder / "sequences_5core_items.txt", users)
    films = [f'{item},"Film {item}, the (1990)",Drama|Comedy' for item in range(1, NUM_ITEMS + 1)]
    write_lines(folder / "movies.csv", ["item,title,genres", *films])
    time = [978_300_000 + 3600 * n**2 + 10 * user for user, n, _ in EVENTS]
    ratings = [f"{user},{item},{1 + item % 5},{t}" for (user, _, item), t in zip(EVENTS, time, strict=True)]
    write_lines(folder / "ratings_users_1_2999.dat.csv.gz", ["user,item,rating,timestamp", *ratings])
    rows = [{"user": u, "item": i, "pos": n, "timestamp_est": t} for (u, n, i), t in zip(EVENTS, time, strict=True)]
    rare = {"user": 1, "item": NUM_ITEMS + 7, "pos": None, "timestamp_est": 978_300_000}
    pa.parquet.write_table(pa.Table.from_pylist([rare, *reversed(rows)]), folder / "interactions.parquet")


def write_beauty(folder: Path) -> None:
    users = [" ".join(map(str, [user, *items])) for user, items in enumerate(histories(), start=1)]
    write_lines(folder / "Beauty.txt", users)
    titles = [f'{item},B{item},"Cream, no. {item}"' for item in range(1, NUM_ITEMS)]
    write_lines(folder / "item_titles.csv", ["item_id,asin,title", *titles])
    (folder / "Beauty_item2attributes.json").write_text(json.dumps({"1": [4, 7], "2": [7]}))
    days = [[n % 2 * (1 + n // 4) for n in range(len(items))] for items in histories()]  # Two events a day.
    gaps = [
        f"{line}\t{' '.join(str(86_400 * day) for day in of_user)}" for line, of_user in zip(users, days, strict=True)
    ]
    write_lines(folder / "Beauty_with_time_gaps.txt", gaps)
    dated = [f"{u},{i},{1_300_000_000 + 86_400 * (u % 7 + sum(days[u - 1][: n + 1]))}" for u, n, i in EVENTS]
    write_lines(folder / "Beauty_absolute_time_subset.csv.gz", ["user,item,timestamp", *dated])


def write_taobao(folder: Path) -> None:
    behaviors = ("pv", "pv", "cart", "fav", "buy")
    rows = [f"{u},{i},{100 + i % 3},{behaviors[n % 5]},{FIRST_SECOND + 3600 * n + u}" for u, n, i in EVENTS]
    rows[3:3] = [f"1,1,101,pv,{FIRST_SECOND - 1}", "2,1,101,pv,1"]
    write_lines(folder / "UserBehavior.csv", [*rows, f"5,999,101,pv,{FIRST_SECOND + 60}", "30,2,102,pv"], end="")


def write_mind(folder: Path) -> None:
    lines = []
    for user, items in enumerate(histories(), start=1):
        news = [f"N{item}" for item in items]
        shown = f"N{1 + (items[0] + 20) % NUM_ITEMS}-0 {news[-2]}-1"
        lines.append(f"{2 * user}\tU{user}\t11/12/2019 2:14:46 PM\t{' '.join(news[:-2])}\t{shown}")
        lines.append(f"{2 * user + 1}\tU{user}\t11/13/2019 9:00:00 AM\t{' '.join(news[:-2])}\t{news[-1]}-1")
    write_lines(folder / "behaviors.tsv", lines)
    write_lines(folder / "news.tsv", [f'N{i}\tnews\tworld\tHe said "{i}"\ta\tu\t[]\t[]' for i in (1, 2, 3, 115)])


def write_yoochoose(folder: Path) -> None:
    rows = [(u % 3, f"{u}\t{i}\t{FIRST_SECOND + u % 3 * 86_400 + 60 * u + n}.25") for u, n, i in EVENTS]
    for name, is_test in (("train_full", False), ("test", True)):
        chosen = [row for day, row in rows if (day == 2) == is_test]
        write_lines(folder / f"clicks_{name}.txt", ["SessionId\tItemId\tTime", *chosen])


def write_places(folder: Path) -> None:
    for name in ("foursquare", "geolife"):
        for number, part in enumerate(("train", "valid", "test")):
            rows = [f"{u},{i},{n // 2},{30 + n},{i / 10},{-i / 20},{1 + i}" for u, n, i in EVENTS if n % 3 == number]
            head = "user_id,location_id,start_day,start_min,latitude,longitude,duration"
            write_lines(folder / f"{name}_{part}.csv.gz", [head, *rows])


WRITERS = {"ml": write_movielens, "amazon": write_beauty, "taobao": write_taobao, "mind": write_mind}


def write_stays(folder: Path) -> None:
    for number, kind in enumerate(("diagnosis", "treatment")):
        rows = [f"{u},code {i},{n // 3 - 1}" for u, n, i in EVENTS if n % 2 == number]
        write_lines(folder / f"{kind}.csv.gz", [f"patientunitstayid,{kind}string,{kind}offset", *rows])


def write_patients(folder: Path) -> None:
    encounters = sorted({(u, n // 2) for u, n, _ in EVENTS})
    rows = [f"e{u}.{n},2015-01-{n + 1:02}T08:00:00Z,{u}" for u, n in encounters]
    write_lines(folder / "encounters.csv.gz", ["Id,START,PATIENT", *rows])
    for number, kind in enumerate(("conditions", "procedures", "medications")):
        rows = [f'{u},e{u}.{n // 2},{100 + i},"Code {i}, of {kind}"' for u, n, i in EVENTS if i % 3 == number]
        write_lines(folder / f"{kind}.csv.gz", ["PATIENT,ENCOUNTER,CODE,DESCRIPTION", *rows])


def write_students(folder: Path) -> None:
    lines = []
    for items in histories():
        correct = [str(int((item + n) % 3 > 0)) for n, item in enumerate(items)]
        lines += [str(len(items)), ",".join(map(str, items)), ",".join(correct) + ","]
    write_lines(folder / "train.csv", lines)
    write_lines(folder / "test.csv", lines[:15])


def write_transactions(folder: Path) -> None:
    rows = [
        f"C{u},{f'M{i}' if i % 3 else ''},{'POS' if i % 3 else f'PAY {i}'},{f'S{i % 4}' if i % 3 else ''},"
        f"2018-08-{n + 1:02}T0{u % 10}:01:15.000+0000,{i}.25"
        for u, n, i in EVENTS
    ]
    head = "customer_id,merchant_id,txn_description,merchant_suburb,extraction,amount"
    write_lines(folder / "transactions.csv.gz", [head, *rows])


WRITERS |= {"foursquare": write_places, "geolife": write_places, "eicu": write_stays, "synthea": write_patients}
WRITERS |= {"assist2009": write_students, "anz": write_transactions}
WRITE = {name: WRITERS.get(name.partition("-")[0], write_yoochoose) for name, spec in DATASETS.items() if spec.files}
every_dataset = pytest.mark.parametrize("name", WRITE)


@pytest.fixture
def loaded(tmp_path: Path, name: str) -> LoadedDataset:
    WRITE[name](tmp_path)
    return load_dataset(name, tmp_path)


@every_dataset
def test_data_set_is_read_with_the_hashes_of_its_files(loaded: LoadedDataset, name: str, tmp_path: Path) -> None:
    assert loaded.log.vocabulary.num_users == NUM_USERS
    assert loaded.log.vocabulary.num_items == NUM_ITEMS
    assert loaded.log.histories.num_events == len(EVENTS)
    for file, digest in loaded.description["sha256"].items():
        assert hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() == digest


@every_dataset
def test_folder_without_the_files_is_the_users_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize("content", [b"not what it says it is\n", b"\xff\xfe\x00\x01\n", b""])
@pytest.mark.parametrize(
    ("name", "file"),
    [(name, spec.files[0]) for name, spec in DATASETS.items() if spec.files and name != "yoochoose"]
    + [("assist2009", "test.csv"), ("synthea", "procedures.csv.gz")]
    + [("yoochoose", "clicks_test.txt"), ("mind", "news.tsv"), ("amazon-beauty", "Beauty_item2attributes.json")],
)
def test_file_of_another_form_is_the_users_mistake(name: str, file: str, content: bytes, tmp_path: Path) -> None:
    WRITE[name](tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError):
        load_dataset(name, tmp_path)


def test_user_with_two_lines_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "events.txt", ["1 5 6", "2 5", "1 7"])
    with pytest.raises(InputError):
        sequences(tmp_path / "events.txt")


@pytest.mark.parametrize("name", ["ml-1m-request-time"])
def test_an_event_has_the_time_of_the_next_request(loaded: LoadedDataset, name: str) -> None:
    for user, items in enumerate(histories(), start=1):
        times = 978_300_000 + 3600 * np.arange(len(items)) ** 2 + 10 * user
        row = loaded.log.vocabulary.user_ids(range(NUM_USERS)).index(user)
        found = loaded.log.histories.history(row).timestamp // 1_000_000
        assert found.tolist() == [*times[1:], times[-1]]


def test_shuffling_moves_events_within_a_day_only_and_is_the_same_again(tmp_path: Path) -> None:
    write_beauty(tmp_path)
    events = sequences(tmp_path / "Beauty_with_time_gaps.txt", with_gaps=True)
    drawn, _ = shuffle_ties(events)
    assert drawn.equals(shuffle_ties(events)[0])
    assert not drawn.equals(events)
    assert drawn.select(["user_id", "timestamp"]).equals(events.select(["user_id", "timestamp"]))
    everything = [(name, "ascending") for name in ("user_id", "timestamp", "item_id")]
    assert drawn.sort_by(everything).equals(events.sort_by(everything))
    counted = {"user_id": [1, 1, 1, 2, 2], "item_id": [5, 6, 7, 5, 6], "timestamp": [10, 10, 20, 20, 30]}
    assert shuffle_ties(pa.table(counted))[1].startswith("2 of 5 events")


@pytest.mark.parametrize("name", ["taobao"])
def test_taobao_counts_what_is_left_out_and_keeps_each_behavior(loaded: LoadedDataset, name: str) -> None:
    early, broken = loaded.description["notes"]
    assert early.startswith("2 of ")
    assert broken.endswith(": 1.")
    assert set(loaded.log.vocabulary.behaviors) == {"pv", "cart", "fav", "buy"}


@pytest.mark.parametrize("name", ["mind"])
def test_history_of_mind_is_before_the_first_impression_in_its_order(loaded: LoadedDataset, name: str) -> None:
    users = loaded.log.vocabulary.user_ids(range(NUM_USERS))
    for user, items in enumerate(histories(), start=1):
        found = loaded.log.histories.history(users.index(f"U{user}"))
        assert loaded.log.vocabulary.item_ids(found.item) == [f"N{item}" for item in items]
        gaps = np.diff(found.timestamp) / 1e6
        assert (gaps[: len(items) - 2] == 1).all()
        assert gaps[-1] > 3600


@pytest.mark.parametrize("name", ["assist2009"])
def test_students_of_the_test_file_are_other_people(loaded: LoadedDataset) -> None:
    assert loaded.test is not None
    assert loaded.test.vocabulary.num_users == 5
    users = [set(log.vocabulary.user_ids(range(log.vocabulary.num_users))) for log in (loaded.log, loaded.test)]
    assert not users[0] & users[1]
    assert set(np.unique(loaded.log.histories.value)) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["anz", "geolife-dwell"])
def test_value_is_the_logarithm_of_the_amount_or_of_the_minutes(loaded: LoadedDataset, name: str) -> None:
    values = np.log([item + (0.25 if name == "anz" else 1.0) for _, _, item in EVENTS])
    np.testing.assert_allclose(np.sort(loaded.log.histories.value), np.sort(values), rtol=1e-6)


@pytest.mark.parametrize("name", ["anz"])
def test_transaction_without_a_merchant_has_its_kind_as_item(loaded: LoadedDataset) -> None:
    ids = loaded.log.vocabulary.item_ids(range(loaded.log.vocabulary.num_items))
    assert sum(str(one).startswith("PAY ") for one in ids) == NUM_ITEMS // 3


@pytest.mark.parametrize("name", ["synthea"])
def test_what_an_encounter_holds_is_one_visit(loaded: LoadedDataset) -> None:
    assert len(loaded.log.histories.visits) == len({(u, n // 2) for u, n, _ in EVENTS})
    assert set(loaded.log.vocabulary.behaviors) == {"conditions", "procedures", "medications"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "others", "metric"),
    [("assist2009", ["mean", "item mean", "item and user bias", "item and running user bias"], "value_auc")],
)
def test_recipe_of_a_field_is_one_line_that_is_read_as_a_record_a_model(
    name: str, others: list[str], metric: str, tmp_path: Path
) -> None:
    WRITE[name](tmp_path)
    out = tmp_path / "records.jsonl"
    changes = [word for change in TINY for word in ("--set", change)]
    assert main([name, str(tmp_path), "--run", str(tmp_path / "run"), "--out", str(out), "--quiet", *changes]) == 0
    assert len(out.read_text().splitlines()) == 1
    records = read_records(out)
    assert [record["case"]["model"] for record in records] == ["variseq", *others]
    assert all(0 <= record["metrics"][metric] <= 1 for record in records)
    assert [record["seed"] for record in records] == [0, None, None, None, None]
    values = variseq.load(tmp_path / "run").evaluate(load_dataset(name, tmp_path).test, targets="all").values
    assert values is not None
    # People of a test file are new, whatever their number is there.
    assert (values.summary()["num_values"], values.summary()["num_values_warm"]) == (
        records[0]["metrics"]["num_values"],
        0,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
def test_recipe_leaves_a_run_and_a_record_for_each_model(tmp_path: Path) -> None:
    write_movielens(tmp_path)
    run, out = tmp_path / "run", tmp_path / "records.jsonl"
    data = tmp_path / "movies.csv"  # A file of the data set stands for its folder.
    changes = [word for change in TINY for word in ("--set", change)]
    words = ["ml-1m", str(data), "--run", str(run), "--out", str(out), "--seed", "3", "--quiet", *changes]
    assert main(words) == 0
    records = read_records(out)
    models = [record["case"]["model"] for record in records]
    assert models == ["variseq", *BASELINES]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert records[0]["metrics"]["ndcg@10"] == pytest.approx(evaluation["rows"][0]["ndcg@10"], rel=1e-5)
    assert (records[0]["seed"], records[0]["settings"]["model"]["hidden_size"]) == (3, 8)
    assert len(records[0]["settings"]["protocol"]["split_hash"]) == 64
    assert str(tmp_path) not in out.read_text()
    similar = variseq.load(run).similar_items([1], k=2)
    assert all(str(title).endswith(", the (1990)") for title in similar["title"])


@pytest.mark.parametrize(
    "words", [["--out", "records.csv"], ["--set", "model.hidden=8"], ["--set", "split.test=none"]], ids=" ".join
)
def test_mistake_ends_before_training_with_exit_code_2(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movielens(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["ml-1m", str(tmp_path), "--run", "run", "--quiet", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "run").exists()
