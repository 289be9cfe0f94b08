"""The prosody of each voice, measured on its waveform: pitch level and contour, energy, rate, tremor, breath."""

import numpy as np
import pytest

from avere_ray.synthetic.voice import _VOICES, RATE
from avere_ray.synthetic.world import EMOTIONS

PITCH = 150.0
"""Pitch of the person, Hz."""


def voice(emotion: str, intensity: float = 1.0) -> np.ndarray:
    return _VOICES[emotion](PITCH, np.random.default_rng(0), intensity)


def pitch_at(wave: np.ndarray, share: float) -> float:
    """Pitch in Hz of the 60 ms that begin at a share of the wave: the highest peak of the autocorrelation."""
    start = round(share * len(wave))
    part = wave[start : start + round(0.06 * RATE)]
    likeness = np.correlate(part, part, "full")[len(part) - 1 :]
    shortest, longest = RATE // 600, RATE // 70
    return RATE / (shortest + int(np.argmax(likeness[shortest:longest])))


def pitches(emotion: str) -> list[float]:
    wave = voice(emotion)
    return [pitch_at(wave, share) for share in np.linspace(0.05, 0.9, 30)]


def level(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave**2)))


def loudness_spectrum(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (Hz) and strengths of how loudness changes, from 1.2 to 20 Hz."""
    envelope = np.abs(wave)
    strength = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(wave))))
    freq = np.fft.rfftfreq(len(wave), 1 / RATE)
    slow = (freq > 1.2) & (freq < 20)
    return freq[slow], strength[slow]


def test_pitch_is_high_in_fear_and_low_in_sadness() -> None:
    middle = {emotion: float(np.median(pitches(emotion))) for emotion in EMOTIONS}
    assert middle["fear"] == pytest.approx(1.7 * PITCH, rel=0.1)
    assert middle["neutral"] == pytest.approx(PITCH, rel=0.03)
    assert middle["sadness"] == min(middle.values()) < 0.9 * PITCH
    assert middle["happiness"] > 1.2 * PITCH


def test_pitch_rises_in_surprise_falls_in_sadness_and_disgust_and_stays_in_a_neutral_voice() -> None:
    ends = {emotion: (pitch_at(voice(emotion), 0.08), pitch_at(voice(emotion), 0.9)) for emotion in EMOTIONS}
    assert ends["surprise"][1] > 1.7 * ends["surprise"][0]
    assert ends["sadness"][1] < 0.9 * ends["sadness"][0]
    assert ends["disgust"][1] < 0.8 * ends["disgust"][0]
    assert ends["neutral"][1] == pytest.approx(ends["neutral"][0], rel=0.03)


def test_a_lively_voice_goes_up_and_down() -> None:
    assert np.ptp(pitches("happiness")) > 0.4 * PITCH > np.ptp(pitches("neutral"))


def test_energy_is_highest_in_anger_and_lowest_in_sadness() -> None:
    levels = {emotion: level(voice(emotion)) for emotion in EMOTIONS}
    assert max(levels, key=levels.__getitem__) == "anger" and min(levels, key=levels.__getitem__) == "sadness"


def test_a_sad_voice_is_slower_than_a_happy_one_and_fear_trembles() -> None:
    rates = {}
    for emotion in ("sadness", "neutral", "happiness", "fear"):
        freq, strength = loudness_spectrum(voice(emotion))
        rates[emotion] = float(freq[np.argmax(strength)])
    assert rates["sadness"] < 2.5 < rates["neutral"] < 4 < rates["happiness"] < 6 < 10 < rates["fear"] < 13.5


def test_fear_has_breath_and_sadness_is_dark() -> None:
    def share_above(wave: np.ndarray, hertz: float) -> float:
        power = np.abs(np.fft.rfft(wave)) ** 2
        return float(power[np.fft.rfftfreq(len(wave), 1 / RATE) > hertz].sum() / power.sum())

    dark = {emotion: share_above(voice(emotion), 500) for emotion in EMOTIONS}
    assert min(dark, key=dark.__getitem__) == "sadness"
    breath = {emotion: share_above(voice(emotion), 4000) for emotion in EMOTIONS}
    assert max(breath, key=breath.__getitem__) == "fear" and breath["fear"] > 0.01


@pytest.mark.parametrize("emotion", [e for e in EMOTIONS if e != "neutral"])
def test_intensity_changes_a_voice(emotion: str) -> None:
    assert np.abs(voice(emotion, 0.6) - voice(emotion, 1.0)).max() > 0.05
