"""The files of the page: plain, small, and unable to reach anything but their own server."""

from __future__ import annotations

import re
from importlib.resources import files

FOLDER = files("variseq.serving").joinpath("explore")
FILES = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir() if file.is_file()}
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))
MARKUP_FROM_TEXT = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser")


def test_no_script_makes_markup_of_text() -> None:
    found = [(name, word) for name in SCRIPTS for word in MARKUP_FROM_TEXT if word in FILES[name]]
    assert found == []


def test_nothing_is_fetched_from_elsewhere() -> None:
    content = "\n".join(FILES.values())
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", content))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert "url(" not in content


def test_page_holds_no_inline_script_or_style() -> None:
    page = FILES["index.html"]
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []


def test_every_module_that_is_imported_exists() -> None:
    imported = {name for script in SCRIPTS for name in re.findall(r'from "\./([^"]+)"', FILES[script])}
    named = set(re.findall(r'(?:src|href)="explore/([^"]+)"', FILES["index.html"]))
    assert imported | named <= set(FILES)
    assert set(SCRIPTS) <= imported | named  # and none lies about unused


def test_every_module_is_fetched_at_once_and_not_one_after_another() -> None:
    preloaded = set(re.findall(r'rel="modulepreload" href="explore/([^"]+)"', FILES["index.html"]))
    assert preloaded == set(SCRIPTS) - {"explore.js", "theme.js"}
