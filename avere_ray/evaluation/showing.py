"""How a held-out question is put: with its clip as it is, with a medium replaced, or with words alone.

Robustness modes take away what a question asks about, or what it does not: what accuracy and likelihood lose tells
what the model really uses (`grounding`). Swapped media come from another clip of the same split, of another person,
annotated with another emotion in that medium where emotions are known; the choice follows from the question alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from avere_ray.errors import ConfigError
from avere_ray.modality import PartnerIndex, made_swap
from avere_ray.prompts import shown_emotion
from avere_ray.records import Clip, CueModality, ModalitySwap, Query

Mode = Literal["swapped_audio", "swapped_video", "muted", "blank_video", "text_only"]
MODES: tuple[Mode, ...] = ("swapped_audio", "swapped_video", "muted", "blank_video", "text_only")
REMOVED: dict[str, tuple[CueModality, ...]] = {
    "swapped_audio": ("audio",),
    "swapped_video": ("video",),
    "muted": ("audio",),
    "blank_video": ("video",),
    "text_only": ("audio", "video"),
}
"""What each mode takes away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A clip with a question and its answer, shown before the question that counts."""

    query: Query
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Showing:
    """What a model is shown with one question."""

    swap: ModalitySwap | None = None
    """Which medium is replaced; None shows the clip as it is."""
    words_only: bool = False
    """Whether the clip is left out altogether."""
    examples: tuple[Example, ...] = ()
    """Answered examples, in order."""

    @property
    def plain(self) -> bool:
        """Whether it is the clip alone, as it is."""
        return self.swap is None and not self.words_only and not self.examples


PLAIN = Showing()


class Showings:
    """Replaces media of questions about the clips of one benchmark."""

    def __init__(self, clips: Sequence[Clip], durations_s: Mapping[str, float] | None = None) -> None:
        """`clips`: those that the questions are about, among which partners are looked for."""
        self._partners = PartnerIndex(clips, durations_s)
        self._strategy = {part: _strategy(clips, part) for part in ("audio", "video")}

    def of(self, query: Query, mode: str) -> Showing | None:
        """A question in a mode; None when there is no clip to swap with.

        Raises:
            ConfigError: there is no such mode.
        """
        if mode not in MODES:
            raise ConfigError(f"unknown robustness mode {mode!r}; known are {', '.join(MODES)}")
        if mode == "text_only":
            return Showing(words_only=True)
        part = REMOVED[mode][0]
        if mode in ("muted", "blank_video"):
            return Showing(swap=made_swap(part, "blank", query.clip_id, seed=0, level=0.0))
        swap = self._partners.choose(replace(query, modality=part), strategy=self._strategy[part], seed=0)
        return Showing(swap=swap) if swap is not None else None


def _strategy(clips: Sequence[Clip], part: CueModality) -> str:
    """To another emotion where at least two are known."""
    known = {shown_emotion(clip, part) for clip in clips} - {""}
    return "other_emotion" if len(known) > 1 else "random_clip"
