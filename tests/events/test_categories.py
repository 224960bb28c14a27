"""Categories are divided by what the whole column shows, and a note says how."""

import pytest

from variseq.events.categories import split_categories

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
    "words for nothing": (["N/A", "nan", "A|None", " "], [[], [], ["A"], []], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_column_is_divided_as_it_shows(case: str) -> None:
    entries, expected, words = CASES[case]
    found, notes = split_categories(entries)
    assert found == expected
    assert words in " ".join(notes)
    assert bool(notes) == bool(words)
