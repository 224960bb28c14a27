"""Readers of logs of four fields: places of people, codes of patients, answers of students, transactions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from measurement.files import lines_of, read_csv
from variseq.errors import InputError

ADMISSION_SECOND = 1_000_000_000
"""Minutes before admission are negative, and times are not."""
INTEGER = pa.int64()
Events = tuple[pa.Table, pa.Table | Path | None, list[str]]
"""Events, items and notes."""


def places(paths: list[Path], with_duration: bool = False) -> Events:
    """Stays of people at places; the files are one log in three parts, with days counted for each person."""
    types = dict.fromkeys(("user_id", "location_id", "start_day", "start_min"), INTEGER)
    types |= {"duration": pa.float64()} if with_duration else {}
    rows = pa.concat_tables([read_csv(path, types, header=True)[0] for path in paths])
    user, place, day, minute, *duration = (column.to_numpy() for column in rows.columns)
    time = 60 * (1440 * day + minute)
    order = np.lexsort((time, user))
    columns = {"user_id": user, "item_id": place, "timestamp": time}
    if duration:
        columns["value"] = np.log(duration[0])
    return pa.table({name: column[order] for name, column in columns.items()}), None, []


def places_and_durations(paths: list[Path]) -> Events:
    """The same with the natural logarithm of the minutes of each stay as value."""
    return places(paths, with_duration=True)


def places_on_map(paths: list[Path]) -> Events:
    """The same with coordinates, which the files have scaled to a box; it is taken for one around New York."""
    events, _, notes = places(paths)
    types = {"location_id": INTEGER, "latitude": pa.float64(), "longitude": pa.float64()}
    rows = pa.concat_tables([read_csv(path, types, header=True)[0] for path in paths])
    box = {"latitude": (40.77, 0.22), "longitude": (-73.975, 0.295)}
    degrees = {name: middle + half * rows[name].to_numpy() for name, (middle, half) in box.items()}
    items = pa.table({"item_id": rows["location_id"], **degrees}).group_by("item_id", use_threads=False)
    items = items.aggregate([(name, "first") for name in box]).rename_columns(["item_id", *box])
    return events, items, notes


def eicu(paths: list[Path]) -> Events:
    """Diagnoses and treatments of stays in intensive care, with minutes counted from admission."""
    rows = []
    for path in paths:
        kind = path.name.split(".")[0]
        types = {"patientunitstayid": INTEGER, f"{kind}string": pa.string(), f"{kind}offset": INTEGER}
        stay, code, minute = read_csv(path, types, header=True)[0].columns
        seconds = [ADMISSION_SECOND + 60 * one for one in minute.to_pylist()]
        rows.append(pa.table({"user_id": stay, "item_id": code, "timestamp": seconds, "event": [kind] * len(seconds)}))
    return pa.concat_tables(rows), None, []


def synthea(paths: list[Path]) -> Events:
    """Conditions, procedures and medications of patients, all of an encounter at its start."""
    encounters = read_csv(paths[0], {"Id": pa.string(), "START": pa.timestamp("s", tz="UTC")}, header=True)[0]
    start = dict(zip(*(column.to_pylist() for column in encounters.columns), strict=True))
    rows, titles = [], {}
    for path in paths[1:]:
        types = dict.fromkeys(("PATIENT", "ENCOUNTER", "CODE", "DESCRIPTION"), pa.string())
        patient, encounter, code, title = (
            column.to_pylist() for column in read_csv(path, types, header=True)[0].columns
        )
        if not set(encounter) <= set(start):
            raise InputError(f"{path} has encounters that {paths[0]} does not have. Give the files of one simulation.")
        columns = {"user_id": patient, "item_id": code, "timestamp": [start[one] for one in encounter]}
        rows.append(pa.table(columns | {"event": [path.name.split(".")[0]] * len(code)}))
        titles |= dict(zip(code, title, strict=True))
    return pa.concat_tables(rows), pa.table({"item_id": list(titles), "title": list(titles.values())}), []


def assistments(paths: list[Path]) -> Events:
    """Three lines a student: how many answers, their skills, and 1 where one is correct."""
    lines = [text.strip().rstrip(",") for _, text in lines_of(paths[0])]
    users, items, values, positions = [], [], [], []
    for number in range(0, len(lines), 3):
        try:
            length, skill, correct = ([int(one) for one in line.split(",")] for line in lines[number : number + 3])
            is_bad = len(length) != 1 or not length[0] == len(skill) == len(correct) or not set(correct) <= {0, 1}
        except ValueError:
            is_bad = True
        if is_bad:
            raise InputError(f"{paths[0]}, lines {number + 1} to {number + 3}, are not a number, skills and 0 or 1.")
        users += [f"{paths[0].stem} {number // 3 + 1}"] * len(skill)
        items, values, positions = items + skill, values + correct, [*positions, *range(1, len(skill) + 1)]
    return pa.table({"user_id": users, "item_id": items, "timestamp": positions, "value": values}), None, []


def transactions(paths: list[Path]) -> Events:
    """Transactions of customers: the merchant, or the kind where there is none; the value is the log of the amount."""
    names = ("customer_id", "merchant_id", "txn_description", "merchant_suburb", "extraction", "amount")
    rows = read_csv(paths[0], dict.fromkeys(names, pa.string()), header=True)[0]
    merchant, kind = pc.if_else(pc.equal(rows["merchant_id"], ""), None, rows["merchant_id"]), rows["txn_description"]
    columns = {
        "user_id": rows["customer_id"],
        "item_id": pc.coalesce(merchant, kind),
        "timestamp": rows["extraction"],
        "value": pc.ln(rows["amount"].cast(pa.float64())),
    }
    of_items = pa.table({"item_id": columns["item_id"], "category": rows["merchant_suburb"]})
    first = of_items.group_by("item_id", use_threads=False).aggregate([("category", "first")])
    return pa.table(columns), first.rename_columns(["item_id", "category"]), []
