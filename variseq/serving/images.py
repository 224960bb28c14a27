"""Pictures of items, read from one folder of the server; what is no picture is not served."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath

from variseq.content.media import read_file
from variseq.content.paths import path_below
from variseq.errors import InputError
from variseq.serving.http import Page

MAX_IMAGE_BYTES = 4_000_000
FIRST_BYTES = {b"\xff\xd8\xff": b"image/jpeg", b"\x89PNG\r\n\x1a\n": b"image/png"} | dict.fromkeys(
    (b"GIF87a", b"GIF89a"), b"image/gif"
)
CACHE = b"private, max-age=300"


class ImageFolder:
    """The pictures below a folder. Raises InputError where there is no such folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"The folder of pictures {folder} does not exist. Give another with --images.")
        self.folder = folder

    def page(self, path: str) -> Page | None:
        """The picture at a path of the table of items; None where there is no file.

        Raises InputError for a path that leads out of the folder, and for what is no picture or too large.
        """
        if PurePath(path).is_absolute() or ".." in PurePath(path).parts:
            raise InputError("is no path from the folder of pictures")
        file = path_below(self.folder, path)
        if file is None:
            return None
        content = read_file(file, MAX_IMAGE_BYTES)
        etag = b'"' + hashlib.sha256(content).hexdigest()[:32].encode() + b'"'
        return Page(content, media_type(content), cache=CACHE, etag=etag)


def media_type(content: bytes) -> bytes:
    """JPEG, PNG, WebP or GIF, by the first bytes. Raises InputError for others, such as SVG and HTML.

    >>> media_type(b"RIFF....WEBPVP8 ")
    b'image/webp'
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return b"image/webp"
    for first, found in FIRST_BYTES.items():
        if content.startswith(first):
            return found
    raise InputError("is no JPEG, PNG, WebP or GIF")
