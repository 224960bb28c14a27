"""Sounds to vectors: statistics of the mel spectrogram of WAV files."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Float32

from variseq.content.files import read_file
from variseq.errors import InputError

RATE = 16_000
MAX_SECONDS = 60
WINDOW, STEP, NUM_MELS = 512, 256, 64


class MelEncoder:
    """Log mel energies of a WAV file (uncompressed): their means, spreads and mean changes from frame to frame."""

    name = "mel"
    dim = 3 * NUM_MELS

    def encode(self, values: Sequence[str | None]) -> Float32[np.ndarray, "item dim"]:
        rows = np.zeros((len(values), self.dim), np.float32)
        for row, path in zip(rows, values, strict=True):
            if path is not None:
                row[:] = self._row(samples_of(path))
        return rows

    def _row(self, samples: Float[np.ndarray, " sample"]) -> Float32[np.ndarray, " dim"]:
        samples = np.pad(samples, (0, max(0, WINDOW + STEP - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::STEP]
        power = np.square(np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)))
        log_mel = np.log(power @ _mel_filters() + 1e-6)
        change = np.abs(np.diff(log_mel, axis=0)).mean(axis=0)
        return np.concatenate([log_mel.mean(axis=0), log_mel.std(axis=0), change]).astype(np.float32)


def samples_of(path: str) -> Float[np.ndarray, " sample"]:
    """Up to `MAX_SECONDS` from the middle of a WAV file: the mean of its channels, `RATE` samples a second, −1 to 1.

    Raises InputError for a file that is no uncompressed WAV, or is cut off.
    """
    content = read_file(path)
    try:
        with wave.open(io.BytesIO(content)) as sound:
            rate, width, channels = sound.getframerate(), sound.getsampwidth(), sound.getnchannels()
            num_read = min(sound.getnframes(), MAX_SECONDS * rate)
            sound.setpos((sound.getnframes() - num_read) // 2)
            data = sound.readframes(num_read)
    except Exception as error:  # the parser raises whatever a damaged file leads to
        raise InputError(f"is no WAV file that can be read ({type(error).__name__}: {error})") from error
    if not num_read or len(data) != num_read * width * channels or not 0 < rate <= 1_000_000:
        raise InputError("has no sound, or is cut off")
    bytes_of = np.frombuffer(data, np.uint8).reshape(-1, channels, width)
    if width == 1:
        values = bytes_of[:, :, 0] / 128.0 - 1.0
    else:
        padded = np.zeros((*bytes_of.shape[:2], 4), np.uint8)
        padded[:, :, 4 - width :] = bytes_of
        values = padded.view("<i4")[:, :, 0] / 2.0**31
    mono = values.mean(axis=1)
    wanted = np.arange(max(1, round(len(mono) * RATE / rate))) * rate / RATE
    return np.interp(wanted, np.arange(len(mono)), mono)


@cache
def _mel_filters() -> Float[np.ndarray, "frequency mel"]:
    """Triangles whose corners are evenly spaced in mel, 2595 log10(1 + Hz / 700)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, NUM_MELS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None]
    rising = (frequency - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - frequency) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
