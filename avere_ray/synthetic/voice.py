"""Synthesises the waveform of a scene: a voice with emotional prosody, a vocal event, a background sound."""

import numpy as np

from avere_ray.synthetic.draw import SECONDS
from avere_ray.synthetic.scene import Scene
from avere_ray.synthetic.speech import speak

RATE = 16_000
"""Samples per second."""
_TOTAL = round(SECONDS * RATE)


def make_waveform(scene: Scene, *, speech: bool = False) -> np.ndarray:
    """Waveform of a scene, float32 [SECONDS * RATE], mono, in [-1, 1].

    Each part has random numbers of its own, so that changing one cue leaves the others as they were.

    Args:
        scene: what is heard.
        speech: the voice says a sentence (espeak-ng) instead of humming.

    Raises:
        InputError: see `speak`.
    """
    pitch = float(np.random.default_rng([scene.identity, 11]).uniform(110.0, 210.0))
    rng = _random(scene, "voice")
    start = rng.uniform(0.02, 0.12)
    voice = _spoken(scene) if speech else _VOICES[scene.voice](pitch, rng, scene.intensity)
    wave = 0.5 * _place(voice, start=start)
    for name in scene.events:
        rng = _random(scene, "event")
        start = rng.uniform(1.38, 1.44)
        wave += 0.5 * _place(_EVENTS[name](pitch, rng), start=start)
    rng = _random(scene, "sound")
    loudness = rng.uniform(0.15, 0.25)
    wave += loudness * _SOUNDS[scene.sound](rng)
    wave += 0.003 * _random(scene, "hiss").standard_normal(_TOTAL)
    return np.clip(wave, -1.0, 1.0).astype(np.float32)


def _spoken(scene: Scene) -> np.ndarray:
    """A sentence that is over before vocal events begin."""
    rng = _random(scene, "speech")
    sentence = int(rng.integers(1 << 16))
    wave = speak(scene.voice, woman=scene.identity % 2 == 1, sentence=sentence, intensity=scene.intensity, rate=RATE)
    return 0.8 * wave[: round(1.3 * RATE)]


def _random(scene: Scene, part: str) -> np.random.Generator:
    return np.random.default_rng([scene.seed, *part.encode()])


def _place(sound: np.ndarray, *, start: float) -> np.ndarray:
    out = np.zeros(_TOTAL)
    begin = round(start * RATE)
    part = sound[: _TOTAL - begin]
    out[begin : begin + len(part)] = part
    return out


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def _harmonics(pitch: np.ndarray, tilt: float, count: int = 14) -> np.ndarray:
    """Sum of harmonics of a pitch contour in Hz; `tilt` above 1 is dark, below 1 bright."""
    turn = np.exp(2j * np.pi * np.cumsum(pitch) / RATE)
    power, wave = np.ones_like(turn), np.zeros_like(pitch)
    for k in range(1, count + 1):
        power *= turn  # e^(ikx): its imaginary part is the k-th harmonic
        wave += np.where(k * pitch < 7500, power.imag, 0.0) / k**tilt
    return wave / np.max(np.abs(wave) + 1e-9)


def _syllables(t: np.ndarray, rate: float, sharp: float) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * rate * t)) ** sharp


def _noise(rng: np.random.Generator, size: int, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies in Hz, peak 1."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    freq = np.fft.rfftfreq(size, 1 / RATE)
    wave = np.fft.irfft(spectrum * ((freq >= low) & (freq <= high)), size)
    return wave / np.max(np.abs(wave) + 1e-9)


# Voices: k is the intensity, 0.6 to 1 -------------------------------------------------------------------------------


def _lively(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    t = _time(1.25)
    contour = pitch * (1.2 + 0.3 * k) * (1 + 0.25 * k * np.sin(2 * np.pi * rng.uniform(2.2, 2.8) * t))
    return 0.7 * _harmonics(contour, 0.9) * _syllables(t, rng.uniform(4.6, 5.4), 0.6)


def _slow(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    t = _time(1.25)
    contour = pitch * (0.95 - 0.1 * k) * (1 - 0.2 * k * t)
    return 0.4 * _harmonics(contour, 2.2) * _syllables(t, rng.uniform(1.5, 1.9), 0.8)


def _harsh(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    t = _time(1.25)
    wave = np.tanh(6 * k * _harmonics(pitch * 1.15 * np.ones_like(t), 0.5, 24)) + 0.25 * _noise(rng, len(t), 1500, 6000)
    gate = (np.mod(t * rng.uniform(3.6, 4.4), 1.0) < 0.7).astype(float)
    return (0.7 + 0.3 * k) * wave * gate


def _tremble(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    """A tremor in pitch and loudness, and breath."""
    t = _time(1.25)
    shake = np.sin(2 * np.pi * rng.uniform(10.5, 12.5) * t)
    wave = _harmonics(pitch * 1.7 * (1 + 0.07 * k * shake), 1.3) * (1 - 0.45 * k * (1 - shake) / 1.1)
    return 0.5 * (wave + 0.35 * _noise(rng, len(t), 2500, 7000))


def _rising(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    t = _time(1.25)
    contour = pitch * (1.2 + 1.6 * k * (t / t[-1]) ** rng.uniform(1.3, 1.7))
    return 0.7 * _harmonics(contour, 1.0) * np.minimum(1.0, 8 * t)


def _drawling(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    """One long creaking glide down, with a nasal band."""
    t = _time(1.25)
    contour = pitch * (1.25 - 0.45 * k * t)
    creak = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(26, 31) * t))
    nasal = 0.5 * np.sin(2 * np.pi * np.cumsum(6 * contour) / RATE)
    return 0.6 * (0.7 * _harmonics(contour, 1.1) + nasal) * (1 - 0.8 * k * (1 - creak))


def _even(pitch: float, rng: np.random.Generator, k: float) -> np.ndarray:
    t = _time(1.25)
    return 0.5 * _harmonics(pitch * np.ones_like(t), 1.5) * (0.4 + 0.6 * _syllables(t, rng.uniform(3.0, 3.4), 0.5))


_VOICES = {
    "happiness": _lively,
    "sadness": _slow,
    "anger": _harsh,
    "fear": _tremble,
    "surprise": _rising,
    "disgust": _drawling,
    "neutral": _even,
}

# Vocal events -------------------------------------------------------------------------------------------------------


def _laughter(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.5)
    return 0.8 * _harmonics(pitch * 2.2 * (1 - 0.3 * t), 0.8) * _syllables(t, rng.uniform(9, 10.5), 1.5)


def _sobbing(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.5)
    glide = pitch * (2.6 - 2.6 * np.mod(t * 4, 1.0) * 0.5)
    return 0.6 * _harmonics(glide, 1.8) * (1 - np.mod(t * 4, 1.0))


def _growling(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.5)
    buzz = np.sign(np.sin(2 * np.pi * 62 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 27 * t))
    return 0.8 * buzz


def _breathing(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.5)
    return 0.9 * _noise(rng, len(t), 600, 2200) * _syllables(t, rng.uniform(5.6, 6.4), 1.5)


def _gasp(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.45)
    return 1.0 * _noise(rng, len(t), 3000, 7800) * np.minimum(1.0, t / 0.25) * (t < 0.38)


def _retching(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.5)
    heave = np.mod(t * 4, 1.0)
    throat = _harmonics(pitch * (0.9 - 0.3 * heave), 0.7) + 0.8 * _noise(rng, len(t), 250, 1200)
    return 0.8 * throat * np.sin(np.pi * heave) ** 2


def _yawn(pitch: float, rng: np.random.Generator) -> np.ndarray:
    t = _time(0.56)
    arch = np.sin(np.pi * t / t[-1])
    return 0.9 * (0.7 * _harmonics(pitch * (1.1 + 0.9 * arch), 2.4, 6) + 0.3 * _noise(rng, len(t), 300, 900)) * arch


_EVENTS = {
    "laughter": _laughter,
    "sobbing": _sobbing,
    "growling": _growling,
    "rapid_breathing": _breathing,
    "gasp": _gasp,
    "retching": _retching,
    "yawn": _yawn,
}

# Background sounds --------------------------------------------------------------------------------------------------


def _piano(rng: np.random.Generator) -> np.ndarray:
    out = np.zeros(_TOTAL)
    for k in range(8):
        t = _time(0.5)
        note = rng.choice([523.3, 659.3, 784.0, 1046.5])
        tone = (np.sin(2 * np.pi * note * t) + 0.4 * np.sin(4 * np.pi * note * t)) * np.exp(-9 * t)
        begin = round(k * 0.25 * RATE)
        out[begin : begin + len(t)] += tone[: _TOTAL - begin]
    return out


def _rain(rng: np.random.Generator) -> np.ndarray:
    return 1.2 * _noise(rng, _TOTAL, 200, 7500)


def _drums(rng: np.random.Generator) -> np.ndarray:
    out = np.zeros(_TOTAL)
    for k in range(5):
        t = _time(0.18)
        begin = round((k * 0.4 + 0.02) * RATE)
        thump = 2.2 * np.sin(2 * np.pi * (95 - 150 * t) * t) * np.exp(-16 * t)
        out[begin : begin + len(t)] += thump[: _TOTAL - begin]
        snap = rng.standard_normal(len(t)) * np.exp(-70 * t)
        out[begin : begin + len(t)] += snap[: _TOTAL - begin]
    return out


def _flute(rng: np.random.Generator) -> np.ndarray:
    t = _time(SECONDS)
    pitch = rng.choice([1318.5, 1568.0]) * (1 + 0.006 * np.sin(2 * np.pi * 5.5 * t))
    return 0.9 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)


def _birds(rng: np.random.Generator) -> np.ndarray:
    out = np.zeros(_TOTAL)
    for start in np.arange(0.05, 1.9, 0.22) + rng.uniform(-0.03, 0.03, 9):
        t = _time(0.09)
        sweep = 5200 - 1800 * (t / t[-1])
        chirp = np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * np.sin(np.pi * t / t[-1])
        begin = round(float(start) * RATE)
        part = chirp[: max(0, _TOTAL - begin)]
        out[begin : begin + len(part)] += part
    return out


def _bells(rng: np.random.Generator) -> np.ndarray:
    out = np.zeros(_TOTAL)
    base = rng.choice([740.0, 880.0])
    for k in range(3):
        t = _time(0.66)
        tone = sum(np.sin(2 * np.pi * base * part * t) * np.exp(-4 * part * t) for part in (1.0, 2.76, 5.4))
        begin = round((0.02 + k * 0.65) * RATE)
        out[begin : begin + len(t)] += 0.7 * tone[: _TOTAL - begin]
    return out


def _siren(rng: np.random.Generator) -> np.ndarray:
    t = _time(SECONDS)
    pitch = 950 + 400 * np.sin(2 * np.pi * rng.uniform(0.9, 1.1) * t + rng.uniform(0, 6.28))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return 0.7 * np.sin(phase) + 0.3 * np.sin(3 * phase)


_SOUNDS = {
    "piano": _piano,
    "rain": _rain,
    "drums": _drums,
    "flute": _flute,
    "birds": _birds,
    "bells": _bells,
    "siren": _siren,
}
