"""Each recipe on a made-up data set of its own format: it runs, and its record says what it stands on."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))  # as it is when a recipe is run as a script

from amazon_beauty import amazon_beauty, by_time, shuffled
from command import Recipe, command
from data_files import find_files
from mind import mind
from movielens_1m import movielens_1m, with_request_time, with_time
from record import Record, Request, summary
from sequence_file import events_in_order
from taobao import taobao
from unknown_order import as_order, events_with_gaps, ties_shuffled
from yoochoose import yoochoose

import variseq
from variseq.errors import InputError

pytestmark = pytest.mark.filterwarnings(
    "ignore::variseq.errors.PosteriorCollapseWarning"
)  # one epoch teaches next to nothing

RECIPES_FOLDER = Path(__file__).parents[2] / "recipes"
NUM_USERS, NUM_ITEMS = 30, 15
NUM_EXACT_USERS = 12
FIRST_SECOND = 1_511_539_200
TINY = (
    "size=tiny",
    "model.hidden_size=8",
    "model.latent_dim=8",
    "model.attention_dim=4",
    "training.max_epochs=1",
)


def histories() -> list[list[int]]:
    """Items of each user, oldest first; each item is somewhere in them."""
    random = np.random.default_rng(0)
    return [[1 + (user + place) % NUM_ITEMS for place in range(random.integers(5, 10))] for user in range(NUM_USERS)]


def write_sequences(path: Path) -> None:
    lines = [" ".join(map(str, [user, *items])) for user, items in enumerate(histories(), start=1)]
    path.write_text("\n".join(lines) + "\n")


def write_movielens(folder: Path) -> None:
    write_sequences(folder / "sequences_5core_items.txt")
    movies = [f'{item},"Film {item}, the (1990)",Drama|Comedy' for item in range(1, NUM_ITEMS + 1)]
    (folder / "movies.csv").write_text("\n".join(["item,title,genres", *movies]) + "\n")
    rows = [
        f"{user},{item},{1 + item % 5},{978300000 + 3600 * place**2 + 10 * user}"
        for user, items in enumerate(histories(), start=1)
        for place, item in enumerate(items)
    ]
    with gzip.open(folder / "ratings_users_1_2999.dat.csv.gz", "wt") as file:
        file.write("\n".join(["user,item,rating,timestamp", *rows]) + "\n")
    events = [
        {
            "user": user,
            "item": item,
            "pos": place,
            "timestamp": 978300000 + 3600 * place**2 + 10 * user if user <= NUM_EXACT_USERS or place % 2 else None,
            "timestamp_est": 978300000 + 3600 * place**2 + 10 * user,
        }
        for user, items in enumerate(histories(), start=1)
        for place, item in enumerate(items)
    ]
    rare = {"user": 1, "item": NUM_ITEMS + 7, "pos": None, "timestamp": 978300000, "timestamp_est": 978300000}
    pa.parquet.write_table(pa.Table.from_pylist([rare, *reversed(events)]), folder / "interactions.parquet")


def write_beauty(folder: Path) -> None:
    write_sequences(folder / "Beauty.txt")
    titles = [f'{item},B{item},"Cream, no. {item}"' for item in range(1, NUM_ITEMS)]
    (folder / "item_titles.csv").write_text("\n".join(["item_id,asin,title", *titles]) + "\n")
    (folder / "Beauty_item2attributes.json").write_text(json.dumps({"1": [4, 7], "2": [7]}))
    lines, rows = [], ["user,item,timestamp"]
    for user, items in enumerate(histories(), start=1):
        days = [place % 2 * (1 + place // 4) for place in range(len(items))]  # two events a day
        gaps = " ".join(str(86_400 * day) for day in days)
        lines.append(f"{user} {' '.join(map(str, items))}\t{gaps}")
        times = 1_300_000_000 + 86_400 * (user % 7 + np.cumsum(days))
        rows += [f"{user},{item},{time}" for item, time in zip(items, times, strict=True)]
    (folder / "Beauty_with_time_gaps.txt").write_text("\n".join(lines) + "\n")
    with gzip.open(folder / "Beauty_absolute_time_subset.csv.gz", "wt") as file:
        file.write("\n".join(rows) + "\n")


def write_taobao(folder: Path) -> None:
    behaviors = ("pv", "pv", "cart", "fav", "buy")
    rows = [
        f"{user},{item},{100 + item % 3},{behaviors[place % 5]},{FIRST_SECOND + 3600 * place + user}"
        for user, items in enumerate(histories(), start=1)
        for place, item in enumerate(items)
    ]
    rows[3:3] = [f"1,1,101,pv,{FIRST_SECOND - 1}", "2,1,101,pv,1"]
    rare = f"5,999,101,pv,{FIRST_SECOND + 60}"
    (folder / "UserBehavior.csv").write_text("\n".join([*rows, rare, "30,2,102,pv"]))


def write_mind(folder: Path) -> None:
    lines = []
    for user, items in enumerate(histories(), start=1):
        news = [f"N{item}" for item in items]
        shown = f"N{1 + (items[0] + 20) % NUM_ITEMS}-0 {news[-2]}-1"
        lines.append(f"{2 * user}\tU{user}\t11/12/2019 2:14:46 PM\t{' '.join(news[:-2])}\t{shown}")
        lines.append(f"{2 * user + 1}\tU{user}\t11/13/2019 9:00:00 AM\t{' '.join(news[:-2])}\t{news[-1]}-1")
    (folder / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    news_lines = [
        f'N{item}\tnews\tworld\tHe said "{item}"\tabstract\turl\t[]\t[]' for item in (1, 2, 3, NUM_ITEMS + 100)
    ]
    (folder / "news.tsv").write_text("\n".join(news_lines) + "\n")


def write_yoochoose(folder: Path) -> None:
    header, day = "SessionId\tItemId\tTime", 86_400
    train, test = [header], [header]
    for session, items in enumerate(histories(), start=1):
        start = FIRST_SECOND + (session % 3) * day + 60 * session
        rows = [f"{session}\t{item}\t{start + place}.25" for place, item in enumerate(items)]
        (test if session % 3 == 2 else train).extend(rows)
    (folder / "clicks_train_full.txt").write_text("\n".join(train) + "\n")
    (folder / "clicks_test.txt").write_text("\n".join(test) + "\n")


Write = Callable[[Path], None]
RECIPES: list[tuple[Recipe, Write]] = [
    (movielens_1m, write_movielens),
    (with_request_time, write_movielens),
    (with_time, write_movielens),
    (amazon_beauty, write_beauty),
    (shuffled, write_beauty),
    (by_time, write_beauty),
    (taobao, write_taobao),
    (mind, write_mind),
    (yoochoose, write_yoochoose),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Record]]:
    """Each recipe's folder (data/, run/, results.jsonl) and what it gave back."""
    done = {}
    for recipe, write in RECIPES:
        folder = tmp_path_factory.mktemp(recipe.__name__)
        (folder / "data").mkdir()
        write(folder / "data")
        request = Request(folder / "run", 3, TINY, folder / "results.jsonl", quiet=True)
        done[recipe.__name__] = folder, recipe(folder / "data", request)
    return done


every_recipe = pytest.mark.parametrize("name", [recipe.__name__ for recipe, _ in RECIPES])
Finished = dict[str, tuple[Path, Record]]


@every_recipe
def test_recipe_leaves_a_run_that_loads_and_its_evaluation(finished: Finished, name: str) -> None:
    folder, record = finished[name]
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text())
    assert {part: evaluation[part] for part in ("protocol", "rows")} == {
        part: record[part] for part in ("protocol", "rows")
    }
    models = [row["model"] for row in evaluation["rows"]]
    assert models == ["variseq", "popular", "recent-popular", "last-item-transitions", "item-knn"]
    model = variseq.load(folder / "run")
    assert len(model.recommend(users=model.vocabulary.user_ids([0]), k=3)) == 3


@every_recipe
def test_record_is_one_line_that_says_what_the_numbers_depend_on(finished: Finished, name: str) -> None:
    folder, record = finished[name]
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    assert json.loads(line) == summary(record)
    for file, digest in record["data"]["sha256"].items():
        assert hashlib.sha256((folder / "data" / file).read_bytes()).hexdigest() == digest
    config = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert {part: record["settings"][part] for part in ("model", "training")} == {
        part: config[part] for part in ("model", "training")
    }
    assert record["seed"] == config["training"]["seed"] == 3
    assert len(record["protocol"]["split_hash"]) == 64
    assert record["peak_megabytes"] > 50
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert record["training_seconds"] == manifest["seconds"]
    assert record["data"]["num_events"] == manifest["log"]["num_events"] > 0
    assert record["posterior"].keys() == {"epoch", "num_epochs", "rate", "active_share", "swap_gap", "alarms"}
    assert record["hardware"]["threads"] == 1
    assert str(folder) not in line, "a record must not tell the paths of a machine"


def categories_of(folder: Path, item_id: Any) -> tuple[str, ...]:
    checkpoint = variseq.load(folder / "run").checkpoint
    assert checkpoint is not None
    assert checkpoint.items is not None
    return checkpoint.items.categories([checkpoint.vocabulary.item_ids(range(NUM_ITEMS)).index(item_id)])[0]


def test_films_of_movielens_have_titles_and_genres(finished: Finished) -> None:
    folder, _ = finished["movielens_1m"]
    similar = variseq.load(folder / "run").similar_items([1], k=2)
    assert all(str(title).endswith(", the (1990)") for title in similar["title"])
    assert categories_of(folder, 1) == ("Drama", "Comedy")


def test_true_times_and_ratings_are_used_where_they_are_there(finished: Finished) -> None:
    _, record = finished["with_time"]
    assert record["protocol"]["method"] == "time"
    assert record["settings"]["model"]["has_values"]
    assert record["settings"]["model"]["has_gaps"]
    assert not finished["movielens_1m"][1]["settings"]["model"]["has_gaps"], "an order has no gaps to learn from"


def test_request_time_is_all_that_the_second_track_adds(finished: Finished) -> None:
    _, plain = finished["movielens_1m"]
    folder, record = finished["with_request_time"]
    assert record["protocol"] == plain["protocol"] | {"request_time": True}, "one split, two tracks"
    assert record["settings"]["model"]["has_gaps"]
    assert not record["settings"]["model"]["has_values"]
    checkpoint = variseq.load(folder / "run").checkpoint
    assert checkpoint is not None
    assert checkpoint.histories is not None
    for user, items in enumerate(histories(), start=1):
        place = np.arange(len(items))
        times = 978_300_000 + 3600 * place**2 + 10 * user
        told = checkpoint.histories.history(checkpoint.vocabulary.user_ids(range(NUM_USERS)).index(user))
        assert (told.timestamp // 1_000_000).tolist() == [*times[1:], times[-1]]


def test_shuffling_moves_events_within_a_day_only_and_is_the_same_again(finished: Finished) -> None:
    folder, record = finished["shuffled"]
    events = events_with_gaps(folder / "data" / "Beauty_with_time_gaps.txt")
    drawn, note = ties_shuffled(events)
    assert drawn.equals(ties_shuffled(events)[0])
    assert not drawn.equals(events)
    assert note in record["data"]["notes"]
    days = ["user_id", "timestamp"]
    assert drawn.select(days).equals(events.select(days))
    by_all = [(name, "ascending") for name in (*days, "item_id")]
    assert drawn.sort_by(by_all).equals(events.sort_by(by_all))
    ordered = as_order(drawn)
    assert ordered["timestamp"].to_pylist() == [place for items in histories() for place in range(1, len(items) + 1)]
    assert not record["settings"]["model"]["has_gaps"]
    assert record["protocol"]["split_hash"] != finished["amazon_beauty"][1]["protocol"]["split_hash"]


def test_number_of_shuffled_events_is_counted() -> None:
    columns = {"user_id": [1, 1, 1, 2, 2], "item_id": [5, 6, 7, 5, 6], "timestamp": [10, 10, 20, 20, 30]}
    assert ties_shuffled(pa.table(columns))[1].startswith("2 of 5 events")


def test_dated_beauty_is_cut_at_two_moments(finished: Finished) -> None:
    _, record = finished["by_time"]
    assert record["protocol"]["method"] == "time"
    assert record["settings"]["model"]["has_gaps"]


def test_attributes_of_beauty_stand_as_categories(finished: Finished) -> None:
    assert categories_of(finished["amazon_beauty"][0], 1) == ("4", "7")


def test_taobao_counts_what_it_leaves_out_and_keeps_each_behavior(finished: Finished) -> None:
    folder, record = finished["taobao"]
    early, broken = record["data"]["notes"]
    assert early.startswith("2 of ")
    assert broken.endswith(": 1")
    assert record["data"]["filtered"] == {"item with too few events": 1}
    assert set(variseq.load(folder / "run").vocabulary.behaviors) == {"pv", "cart", "fav", "buy"}
    assert categories_of(folder, 1) == ("101",)


def test_history_of_mind_comes_before_the_first_impression_in_its_order(finished: Finished) -> None:
    checkpoint = variseq.load(finished["mind"][0] / "run").checkpoint
    assert checkpoint is not None
    assert checkpoint.histories is not None
    for user_id, items in zip((f"U{user}" for user in range(1, NUM_USERS + 1)), histories(), strict=True):
        user = checkpoint.vocabulary.user_ids(range(NUM_USERS)).index(user_id)
        events = slice(checkpoint.histories.offsets[user], checkpoint.histories.offsets[user + 1])
        assert checkpoint.vocabulary.item_ids(checkpoint.histories.item[events]) == [f"N{item}" for item in items]
        gap_seconds = np.diff(checkpoint.histories.timestamp[events]) / 1e6
        assert (gap_seconds[: len(items) - 2] == 1).all()
        assert gap_seconds[-1] > 3600, "the second impression is a day later"


def test_last_click_of_each_session_is_asked_for(finished: Finished) -> None:
    _, record = finished["yoochoose"]
    row = record["rows"][0]
    assert record["protocol"]["targets"] == "last"
    assert row["num_queries"] == sum(session % 3 == 2 for session in range(1, NUM_USERS + 1))
    assert row["cold_queries"] == 0


def test_bad_data_path_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    words = [sys.executable, str(RECIPES_FOLDER / "movielens_1m.py"), str(tmp_path / "nowhere"), "--out", "run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: DATA ")
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("recipe", "write"), RECIPES, ids=lambda part: part.__name__)
def test_folder_without_the_files_names_them(tmp_path: Path, recipe: Recipe, write: Write) -> None:
    with pytest.raises(InputError, match=r"is needed, and the folder .* has no such file"):
        recipe(tmp_path, Request(tmp_path / "run", quiet=True))


@pytest.mark.parametrize(
    ("recipe", "write", "file"),
    [
        (movielens_1m, write_movielens, "sequences_5core_items.txt"),
        (with_request_time, write_movielens, "interactions.parquet"),
        (amazon_beauty, write_beauty, "Beauty_item2attributes.json"),
        (shuffled, write_beauty, "Beauty_with_time_gaps.txt"),
        (by_time, write_beauty, "Beauty_absolute_time_subset.csv.gz"),
        (taobao, write_taobao, "UserBehavior.csv"),
        (mind, write_mind, "behaviors.tsv"),
        (mind, write_mind, "news.tsv"),
        (yoochoose, write_yoochoose, "clicks_test.txt"),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
@pytest.mark.parametrize("content", [b"not what it says it is\n", b"\xff\xfe\x00\x01\n", b""])
def test_file_of_another_form_is_the_users_mistake(
    tmp_path: Path, recipe: Recipe, write: Write, file: str, content: bytes
) -> None:
    write(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError):
        recipe(tmp_path, Request(tmp_path / "run", changes=TINY, quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_file_of_the_data_set_stands_for_its_folder(tmp_path: Path) -> None:
    write_movielens(tmp_path)
    names = ("sequences_5core_items.txt", "movies.csv")
    assert find_files(tmp_path / names[0], *names) == find_files(tmp_path, *names) == [tmp_path / n for n in names]
    with pytest.raises(InputError, match="another name"):
        find_files(tmp_path / "ratings_users_1_2999.dat.csv.gz", *names)


def test_user_with_two_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.txt").write_text("1 5 6\n2 5\n1 7\n")
    with pytest.raises(InputError, match="line 3: user 1 has a line already"):
        events_in_order(tmp_path / "events.txt")


@pytest.mark.parametrize("name", ["records.csv", "nowhere/records.jsonl"])
def test_record_that_cannot_be_written_stops_before_training(tmp_path: Path, name: str) -> None:
    write_movielens(tmp_path)
    with pytest.raises(InputError, match="--result"):
        movielens_1m(tmp_path, Request(tmp_path / "run", changes=TINY, result=tmp_path / name, quiet=True))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run.unfinished").exists()


def test_command_line_chooses_variant_seed_and_settings(tmp_path: Path) -> None:
    seen = []

    def first(data: Path, request: Request) -> Record:
        """One."""
        raise AssertionError

    def second(data: Path, request: Request) -> Record:
        """Two."""
        seen.append((data, request))
        return {}

    words = ["DATA", "--out", "run", "--seed", "4", "--set", "size=tiny", "--set", "model.hidden_size=8", "--quiet"]
    assert command(first, second, words=[*words, "--variant", "second"]) == 0
    assert seen == [(Path("DATA"), Request(Path("run"), 4, ("size=tiny", "model.hidden_size=8"), None, True))]


def test_unknown_setting_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_movielens(tmp_path)
    words = [str(tmp_path), "--out", str(tmp_path / "run"), "--set", "model.wdth=8", "--quiet"]
    assert command(movielens_1m, words=words) == 2
    assert "wdth" in capsys.readouterr().err
