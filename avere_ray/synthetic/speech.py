"""Spoken sentences through espeak-ng, where it is installed, with the prosody of an emotion.

What is said is neutral, so that only how it is said tells the emotion. The tiny base was not taught on speech.
"""

import shutil
import subprocess
from dataclasses import dataclass

import numpy as np

from avere_ray.errors import InputError

PROGRAM = "espeak-ng"
_SOURCE_RATE = 22_050
_LIMIT_S = 20.0
_HEADER = 44
"""Bytes of the WAV header that espeak-ng writes; its lengths are unknown when it writes to a pipe."""
_SENTENCES = ("the door is open", "it is five o'clock", "they come on Monday", "the book is on the table")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prosody:
    pitch: int
    """0 to 99."""
    words_per_minute: int
    drive: float = 1.0
    """Above 1 the voice is pressed: loud, with distortion."""
    tremor_hz: float = 0.0
    breath: float = 0.0
    """Share of breath noise."""
    mark: str = "."


_PROSODY = {
    "happiness": _Prosody(pitch=75, words_per_minute=230, mark="!"),
    "sadness": _Prosody(pitch=20, words_per_minute=130),
    "anger": _Prosody(pitch=45, words_per_minute=240, drive=5.0, mark="!"),
    "fear": _Prosody(pitch=80, words_per_minute=250, tremor_hz=11.0, breath=0.15),
    "surprise": _Prosody(pitch=95, words_per_minute=200, mark="?"),
    "disgust": _Prosody(pitch=10, words_per_minute=150, drive=2.0),
    "neutral": _Prosody(pitch=45, words_per_minute=190),
}


def check_speech() -> None:
    """Refuses speech where it cannot be made.

    Raises:
        InputError: espeak-ng is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise InputError(
            f"world.speech is {PROGRAM!r}, which is not installed on this machine. Install it (Debian: apt install "
            f"{PROGRAM}), or leave world.speech at 'tones'."
        )


def speak(emotion: str, *, woman: bool, sentence: int, intensity: float, rate: int) -> np.ndarray:
    """One sentence in the prosody of an emotion, float64 [samples], peak 1 at most.

    Args:
        emotion: one of the world's emotions.
        woman: which of two voices.
        sentence: any number; chooses what is said.
        intensity: 0 to 1; how far pitch and speed are from those of the neutral voice.
        rate: samples per second of what is returned.

    Raises:
        InputError: espeak-ng is missing or gives no sound.
    """
    how, plain = _PROSODY[emotion], _PROSODY["neutral"]
    pitch = round(plain.pitch + intensity * (how.pitch - plain.pitch))
    speed = round(plain.words_per_minute + intensity * (how.words_per_minute - plain.words_per_minute))
    wave = _run(_SENTENCES[sentence % len(_SENTENCES)] + how.mark, pitch, speed, "en+f3" if woman else "en+m3")
    t = np.arange(round(len(wave) * rate / _SOURCE_RATE)) / rate
    wave = np.interp(t, np.arange(len(wave)) / _SOURCE_RATE, wave)
    wave = np.tanh(how.drive * wave / (np.max(np.abs(wave)) + 1e-9))
    if how.tremor_hz:
        wave *= 1 - 0.4 * intensity * (1 + np.sin(2 * np.pi * how.tremor_hz * t)) / 2
    if how.breath:
        wave += how.breath * np.random.default_rng(sentence).standard_normal(len(wave)) * np.abs(wave)
    return wave / (np.max(np.abs(wave)) + 1e-9)


def _run(text: str, pitch: int, speed: int, voice: str) -> np.ndarray:
    check_speech()
    command = [PROGRAM, "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{PROGRAM} did not speak {text!r} within {_LIMIT_S:g} s; see whether it works alone"
        ) from error
    samples = np.frombuffer(done.stdout[_HEADER:][: (len(done.stdout) - _HEADER) // 2 * 2], "<i2")
    if done.returncode or not len(samples):
        raise InputError(f"{PROGRAM} gave no sound for {text!r}: {done.stderr.decode(errors='replace').strip()[:200]}")
    return samples / 32768.0
