"""What an answer about a clip rests on: its cues, whether face and voice agree, and what it owes to sound and picture.

    lexicon     cues that answers name, with the medium they are perceived in
    cues        the emotion and the cues of one answer, read from its words
    probes      what the engine is asked about the answer, all in one call
    report      the engine's figures as an Insight, and as JSON
    analysis    answer, probes, report: the whole of it over one engine

Cost: one pass that generates, then one batch of passes that only score: two for each cue (24 at most), fourteen for
face and voice (seven emotions each), and, if grounding is wanted, four and two more for each reference clip. A usual
answer with four cues and two reference clips takes 1 + 8 + 14 + 8 = 31 passes in two calls to the engine; without
grounding 23.
"""

from avere_ray.insight.analysis import Answered, Face, analyse, conclude
from avere_ray.insight.cues import AnswerCue, AnswerReading, read_answer
from avere_ray.insight.probes import Probe, Reference, Scored, make_probes
from avere_ray.insight.report import Agreement, Cost, FoundCue, Grounding, Insight, MediumShift, to_json

__all__ = [
    "Agreement",
    "AnswerCue",
    "AnswerReading",
    "Answered",
    "Cost",
    "Face",
    "FoundCue",
    "Grounding",
    "Insight",
    "MediumShift",
    "Probe",
    "Reference",
    "Scored",
    "analyse",
    "conclude",
    "make_probes",
    "read_answer",
    "to_json",
]
