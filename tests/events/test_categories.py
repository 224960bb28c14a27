"""Categories are divided by what the whole column shows, and a note says how."""

import pytest

from variseq.events.items import split_categories

CASES = {
    "bars": (["A|B", "B", None], [["A", "B"], ["B"], []], ""),
    "Python lists": (["['A', \"B's\"]", "['A']", "[]"], [["A", "B's"], ["A"], []], "brackets"),
    "JSON lists": (['["A", "B, C"]', "[1, 2]"], [["A", "B, C"], ["1", "2"]], "brackets"),
    "bare lists": (["[A, B]"], [["A", "B"]], "brackets"),
    "commas": (["A, B", "B,C", "C", "A"], [["A", "B"], ["B", "C"], ["C"], ["A"]], "commas"),
    "semicolons": (["A;B", "B; A", "A"], [["A", "B"], ["B", "A"], ["A"]], "';'"),
    "levels": (["Home > Garden", "Home"], [["Home", "Garden"], ["Home"]], "levels"),
    "mixed": (["['A', 'B']", "A|C", "B, A"], [["A", "B"], ["A", "C"], ["B", "A"]], "commas"),
    "names with commas": (["Clothing, Shoes & Jewelry", "Toys"], [["Clothing, Shoes & Jewelry"], ["Toys"]], "one each"),
    "numbers": ([7, 7.0, "7"], [["7"], ["7"], ["7"]], ""),
    "typed lists": ([["A", None, "B"]], [["A", "B"]], ""),
    "numpy lists": (["['Action' 'Indie']", "['Action']", "['A' \"B's\"\n 'it\\'s']", "[1 2]"],
                    [["Action", "Indie"], ["Action"], ["A", "B's", "it's"], ["1", "2"]], "brackets"),
    "Python lists of objects": (["[{'id': 16, 'name': 'Animation'}, {'id': 35, 'name': 'Comedy'}]", "[]"],
                                [["Animation", "Comedy"], []], "brackets"),
    "JSON lists of objects": (['[{"id": 1, "title": "A, B"}]', '{"label": "C"}'], [["A, B"], ["C"]], "brackets"),
    "typed lists of objects": ([[{"id": 1, "name": "A"}, {"id": 2, "name": None}], {"name": "B"}, []],
                               [["A", '{"id": 2, "name": null}'], ["B"], []], "no name"),
    "lists within lists": (['[["Shoes", "Boots"], ["Shoes"]]', "[['Hats']]"], [["Shoes", "Boots"], ["Hats"]],
                           "brackets"),
    "typed lists within lists": ([[["Shoes"], ["Boots"]]], [["Shoes", "Boots"]], ""),
    "doubled": (["Action|Action", "Action"], [["Action"], ["Action"]], ""),
    "floats": ([1.0, 2.5, None], [["1"], ["2.5"], []], ""),
    "floats of a text file": (["1.0", "2.5", ""], [["1"], ["2.5"], []], ""),
    "words for nothing": (["N/A", "nan", "A|None", " "], [[], [], ["A"], []], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_column_is_divided_as_it_shows(case: str) -> None:
    entries, expected, words = CASES[case]
    found, notes = split_categories(entries)
    assert found == expected
    assert words in " ".join(notes)
    assert bool(notes) == bool(words)
