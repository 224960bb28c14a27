"""What a process asked of the disk (a record of strace) into what the disk may hold when the power goes at a moment.

The record has every write, truncation, sync, creation and removal in one folder, in order, and what the process told on
its standard output. When the power goes, a disk holds what was synced; of what was written later it holds any part, in
sectors of 512 bytes, in any order. Names are as strict: a file that was made or removed is so for certain only after
its folder was synced; until then the file system has done the first few of such changes, in order.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECTOR_BYTES = 512
CALLS = "openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink,unlinkat,rename"
CALL = re.compile(r"^(\d+) +(\w+)\((.*?)(?:\) += (-?\d+|\?).*| <unfinished \.\.\.>)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>.*\) += (-?\d+).*$")
HANDLE = re.compile(r"^(\d+)<([^>]*)>")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def record(command: list[str], out: Path) -> None:
    """Run a command, and write down what it and its children ask of the disk. Raises CalledProcessError."""
    words = ["strace", "-f", "-y", "-xx", "-s", "1048576", "-e", f"trace={CALLS}", "-o", str(out)]
    subprocess.run([*words, *command], check=True, stdout=subprocess.DEVNULL)


@dataclass
class Call:
    """One call; a write is under way from `begin` to `end` (None: not ended yet), in lines of the record."""

    name: str
    path: str
    begin: int
    content: bytes = b""
    offset: int = 0
    end: int | None = None
    is_output: bool = False


def calls(trace: Path) -> Iterator[tuple[Call, bool]]:
    """(call, whether it has ended) at each begin and each end. A call that fails is left out where it ends at once."""
    under_way: dict[str, Call] = {}
    with trace.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            if (found := RESUMED.match(line)) and found[1] in under_way:
                call = under_way.pop(found[1])
                if int(found[3]) >= 0:
                    call.end = number
                    yield call, True
            elif found := CALL.match(line):
                call_or_none = _call(found[2], found[3], number)
                if call_or_none is None or (found[4] is not None and found[4].startswith("-")):
                    continue
                yield call_or_none, False
                if found[4] is None:
                    under_way[found[1]] = call_or_none
                else:
                    call_or_none.end = number
                    yield call_or_none, True


def _call(name: str, arguments: str, number: int) -> Call | None:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(arguments)]
    if name in ("openat", "unlink", "unlinkat", "rename"):
        if name == "openat" and "O_CREAT" not in arguments:
            return None
        return Call(name, texts[0].decode(), number)
    handle = HANDLE.match(arguments)
    if handle is None:
        return None
    path = bytes.fromhex(handle[2].replace("\\x", "")).decode() if handle[2].startswith("\\x") else handle[2]
    rest = arguments.rsplit(", ", 1)[-1]
    if name == "pwrite64":
        return Call(name, path, number, texts[0], int(rest))
    if name == "write":
        return Call(name, path, number, texts[0], is_output=handle[1] == "1")
    return Call(name, path, number, offset=int(rest) if name == "ftruncate" else 0)


@dataclass
class StoredFile:
    """The bytes that are certain, and the writes and truncations that are not."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def sync(self, begin: int) -> None:
        """What had ended when a sync began is certain when the sync has ended."""
        for call in self.pending:
            if call.end is not None and call.end < begin:
                apply(self.certain, call)
        self.pending = [call for call in self.pending if call.end is None or call.end >= begin]

    def after_power_loss(self, random: Random) -> bytes:
        """Nothing, all, the first, or any sectors of what is pending."""
        content = bytearray(self.certain)
        way = random.choice(("none", "all", "first", "some"))
        cut = {"none": 0, "first": random.randint(0, len(self.pending))}.get(way, len(self.pending))
        for call in self.pending[:cut]:
            if way != "some":
                apply(content, call)
            elif call.name == "ftruncate":
                if random.random() < 0.5:
                    apply(content, call)
            else:
                apply_some(content, call, random)
        return bytes(content)


def apply(content: bytearray, call: Call) -> None:
    if call.name == "ftruncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
    else:
        put(content, call.offset, call.content)


def apply_some(content: bytearray, call: Call, random: Random) -> None:
    """Some sectors of a write."""
    kept = random.choice((0.1, 0.5, 0.9))
    begin = call.offset
    while begin < call.offset + len(call.content):
        end = min(begin - begin % SECTOR_BYTES + SECTOR_BYTES, call.offset + len(call.content))
        if random.random() < kept:
            put(content, begin, call.content[begin - call.offset : end - call.offset])
        begin = end


def put(content: bytearray, offset: int, part: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(part)] = part


class Disk:
    """A folder at a moment of the record; `told` is what the process had told by then. `keeps_syncs` False is a disk
    that says it has written and has not."""

    def __init__(self, folder: Path, keeps_syncs: bool = True) -> None:
        self.folder = str(folder)
        self.keeps_syncs = keeps_syncs
        self.told: list[bytes] = []
        self._now: dict[str, StoredFile] = {}
        self._certain: dict[str, StoredFile] = {}
        self._changes: list[tuple[int, str, StoredFile | None]] = []

    def take(self, call: Call, has_ended: bool) -> None:
        """Go on by one begin or end of a call."""
        if call.is_output and not has_ended:
            self.told.append(call.content)
        elif call.name in ("fsync", "fdatasync") and has_ended and self.keeps_syncs:
            self._sync(call)
        elif Path(call.path).parent == Path(self.folder):
            name = Path(call.path).name
            if call.name in ("pwrite64", "ftruncate", "write") and not has_ended:
                self._now[name].pending.append(call)
            elif has_ended:
                self._change_name(call, name)

    def after_power_loss(self, random: Random) -> dict[str, bytes]:
        """The files by name that the disk may hold if the power goes now."""
        found = dict(self._certain)
        for _, name, file in self._changes[: random.randint(0, len(self._changes))]:
            _set(found, name, file)
        return {name: file.after_power_loss(random) for name, file in found.items()}

    def _sync(self, call: Call) -> None:
        if call.path == self.folder:
            for end, name, file in self._changes:
                if end < call.begin:
                    _set(self._certain, name, file)
            self._changes = [change for change in self._changes if change[0] >= call.begin]
        elif Path(call.path).parent == Path(self.folder):
            self._now[Path(call.path).name].sync(call.begin)

    def _change_name(self, call: Call, name: str) -> None:
        assert call.end is not None
        if call.name == "openat" and name not in self._now:
            self._now[name] = StoredFile()
            self._changes.append((call.end, name, self._now[name]))
        elif call.name in ("unlink", "unlinkat") and name in self._now:
            del self._now[name]
            self._changes.append((call.end, name, None))
        elif call.name == "rename":
            raise NotImplementedError("a store does not rename its files")


def _set(files: dict[str, StoredFile], name: str, file: StoredFile | None) -> None:
    if file is None:
        files.pop(name, None)
    else:
        files[name] = file
