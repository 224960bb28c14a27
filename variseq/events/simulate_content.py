"""Texts, pictures and tones of simulated items, which tell the category of an item only together."""

from __future__ import annotations

import colorsys
import wave
from pathlib import Path

import numpy as np
from jaxtyping import Int

from variseq.errors import MissingDependencyError

TOPICS = tuple(
    words.split()
    for words in (
        "rose seed leaf bloom garden pond",
        "anchor sail wave harbor boat tide",
        "pan spoon recipe oven bowl spice",
        "snow sled glove frost scarf ski",
        "map ticket train suitcase journey hotel",
        "star moon lantern dream candle pillow",
        "moss fox tent trail oak owl",
        "hammer screw plank drill saw bench",
    )
)
OTHER_WORDS = (
    "small", "big", "old", "new", "light", "heavy", "plain", "fine", "simple", "classic", "favorite", "everyday",
)  # fmt: skip
"""They say nothing of an item."""
MAX_CATEGORIES = len(TOPICS) ** 2
PICTURE_SIZE = 64
SAMPLE_RATE, SECONDS, LOWEST_HERTZ, OCTAVES = 8_000, 0.3, 220.0, 3.0


def attributes(category: Int[np.ndarray, " item"], num_categories: int) -> Int[np.ndarray, "item attribute"]:
    """The topic, color and pitch of each item, a Latin square: two of them tell the category, and one alone does not.

    With k values an attribute there are k² categories, of which any two share at most one value.
    """
    side = int(np.ceil(np.sqrt(num_categories)))
    topic, color = np.divmod(category, side)
    return np.stack([topic, color, (topic + color) % side], axis=1)


def titles_and_texts(topic: Int[np.ndarray, " item"], random: np.random.Generator) -> tuple[list[str], list[str]]:
    """A title of two words and a text of four: half of them words of the topic, half any other words."""
    titles, texts = [], []
    for one in topic:
        words = random.choice(TOPICS[one], 3, replace=False)
        others = random.choice(OTHER_WORDS, 3, replace=False)
        titles.append(f"{others[0]} {words[0]}")
        texts.append(" ".join(random.permutation([*words[1:], *others[1:]])))
    return titles, texts


def draw_picture(path: Path, color: float, random: np.random.Generator) -> None:
    """Draw a shape of some size at some place, which say nothing, in a hue: `color` from 0 to below 1.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingDependencyError("Pillow", "content") from error
    hue = (color + 1 / 16 + random.uniform(-0.02, 0.02)) % 1
    fill = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, *random.uniform(0.75, 0.95, 2)))
    image = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), (int(random.integers(240, 256)),) * 3)
    radius = int(random.integers(16, 23))
    x, y = (int(center) for center in PICTURE_SIZE // 2 + random.integers(-5, 6, 2))
    draw, box = ImageDraw.Draw(image), (x - radius, y - radius, x + radius, y + radius)
    shape = random.integers(3)
    if shape == 0:
        draw.ellipse(box, fill=fill)
    elif shape == 1:
        draw.rectangle(box, fill=fill)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    image.save(path)


def write_tone(path: Path, pitch: float, random: np.random.Generator) -> None:
    """Write a tone that fades: `pitch` from 0 to below 1 goes up three octaves; loudness and overtones say nothing."""
    time = np.arange(round(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE
    phase = 2 * np.pi * LOWEST_HERTZ * 2 ** (OCTAVES * pitch + random.normal(0, 0.02)) * time
    wanted = np.sin(phase) + random.uniform(0, 0.5) * np.sin(2 * phase)
    samples = random.uniform(0.3, 0.5) * wanted * np.exp(-random.uniform(2, 6) * time)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes((samples * 32_767).round().astype("<i2").tobytes())
