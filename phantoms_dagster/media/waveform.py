"""The level of each frequency band of a voiceover at each frame, for the moving bars. It draws nothing."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phantoms_dagster.media.ass import FPS

_WINDOW_SECONDS = 0.06
_LOWEST_HZ, _HIGHEST_HZ = 110.0, 5_500.0
_FLOOR_DB = -42.0
_FALL = 0.80  # the share of its height that a bar keeps per frame when the sound stops


def read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """Mono samples in -1..1 and their rate in Hz. Raises wave.Error or ValueError for anything but 16-bit PCM."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path.name}: the sound is not 16-bit PCM")
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
        mono = raw.reshape(-1, file.getnchannels()).mean(axis=1, dtype=np.float32)
        return mono, file.getframerate()


def band_levels(samples: NDArray[np.float32], rate: int, seconds: float, bands: int) -> NDArray[np.float32]:
    """Levels 0..1, shape (frames, bands), low bands first. Levels rise at once and fall slowly."""
    frames = max(1, round(seconds * FPS))
    window = int(rate * _WINDOW_SECONDS)
    padded = np.pad(samples, (window // 2, window + rate))
    starts = np.minimum((np.arange(frames) / FPS * rate).astype(int), len(padded) - window)
    spectra = np.abs(np.fft.rfft(padded[starts[:, None] + np.arange(window)] * np.hanning(window), n=4096, axis=1))
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, bands + 1) / rate * 4096
    power = np.stack([spectra[:, int(a) : max(int(a) + 1, int(b))].mean(axis=1) for a, b in itertools.pairwise(edges)], 1)
    loudest = np.maximum(
        power.max(axis=0), power.max() * 0.02
    )  # relative to each band's own maximum, because speech has little treble
    if not loudest.all():
        return np.zeros((frames, bands), dtype=np.float32)
    level: NDArray[np.float32] = np.clip(1 - 20 * np.log10(np.maximum(power / loudest, 1e-6)) / _FLOOR_DB, 0, 1).astype(np.float32)
    for i in range(1, frames):
        level[i] = np.maximum(level[i], level[i - 1] * _FALL)
    return level
