"""Figures that others published, as published: never computed, never mixed with what was measured here.

Sources: the AVERE paper (arXiv 2602.07054, ICLR 2026) and its project site; all in percent except EMER (1 to 10).
"""

from dataclasses import dataclass

NONE = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """One table of published figures."""

    title: str
    source: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in text.strip().splitlines())


EMOREALM = PublishedTable(
    title="EmoReAlM, accuracy",
    source="AVERE project site; zero-shot, 4,000 questions about 2,649 DFEW clips",
    head=("model", "basic audio", "basic video", "agreement", "stress audio", "stress video", "average"),
    rows=_rows("""
Gemini 2.5 Flash | 78.0 | 88.9 | 57.0 | 63.5 | 73.2 | 72.1
Gemini 2.5 Pro | 72.7 | 87.0 | 54.7 | 63.8 | 73.1 | 70.3
VideoLLaMA3 (video) | - | 86.2 | - | - | 64.9 | -
Qwen2.5-VL (video) | - | 88.1 | - | - | 75.2 | -
InternVL3.5 (video) | - | 92.8 | - | - | 68.3 | -
Qwen2-Audio (audio) | 56.6 | - | - | 55.1 | - | -
Kimi-Audio (audio) | 69.8 | - | - | 54.0 | - | -
AudioFlamingo3 (audio) | 76.8 | - | - | 52.6 | - | -
VideoLLaMA | 21.7 | 22.2 | 34.1 | 46.1 | 48.8 | 37.1
PandaGPT | 37.4 | 35.7 | 53.7 | 45.8 | 47.1 | 44.0
OneLLM | 42.0 | 55.6 | 54.8 | 56.8 | 62.0 | 54.2
VideoLLaMA2 | 63.1 | 66.8 | 52.6 | 53.7 | 59.4 | 59.1
OLA | 63.2 | 60.4 | 51.7 | 63.5 | 62.3 | 60.2
VITA-1.5 | 63.1 | 84.3 | 51.7 | 63.0 | 66.1 | 65.6
Qwen2.5-Omni | 76.8 | 89.2 | 52.2 | 64.0 | 67.8 | 70.0
AVERE base | 69.2 | 85.3 | 51.4 | 53.1 | 66.4 | 65.1
AVERE base + Naive-DPO | 71.3 | 85.9 | 57.3 | 55.6 | 70.6 | 68.1
AVERE base + Vista-DPO | 72.4 | 87.8 | 63.1 | 74.1 | 87.0 | 76.9
AVERE base + AVEm-DPO (AVERE-7B) | 77.9 | 92.5 | 68.9 | 82.6 | 94.6 | 83.3
EmotionLLaMA, retrained | 64.8 | 84.9 | 51.2 | 48.9 | 69.1 | 63.8
EmotionLLaMA + Naive-DPO | 67.2 | 85.7 | 56.1 | 53.5 | 71.9 | 66.9
EmotionLLaMA + Vista-DPO | 69.0 | 86.9 | 58.2 | 69.2 | 87.6 | 74.2
EmotionLLaMA + AVEm-DPO | 76.5 | 89.1 | 65.6 | 77.3 | 91.8 | 80.1
"""),
    notes=(
        "VideoLLaMA's published average, 37.1, is not the mean of its five tasks, which is 34.6.",
        "Vista-DPO is the authors' re-implementation for audio and video.",
    ),
)

EMOREALM_F1 = PublishedTable(
    title="EmoReAlM, harmonic mean of the recalls of Yes and No (the paper's F1)",
    source="AVERE project site and paper",
    head=("model", "agreement", "stress audio", "stress video"),
    rows=_rows("""
AVERE base | 34.6 | 50.3 | 59.9
AVERE base + Naive-DPO | 41.6 | 54.8 | 65.9
AVERE base + Vista-DPO | 52.1 | 73.6 | 86.7
AVERE base + AVEm-DPO (AVERE-7B) | 60.0 | 80.9 | 94.6
"""),
)

RECOGNITION = PublishedTable(
    title="Emotion recognition and description",
    source="AVERE project site; UAR/WAR, weighted F1, and the four judged scores of EMER (1 to 10, higher is better)",
    head=("model", "DFEW UAR/WAR", "RAVDESS UAR/WAR", "MER2023 F1", "EMER clue/label/spurious/hallucination"),
    rows=_rows("""
VideoLLaMA2 | 43.65/48.66 | 41.81/31.62 | 50.79 | 3.82/3.80/4.25/4.23
OLA | 38.17/41.73 | 27.45/22.11 | 55.82 | 3.80/3.33/3.93/4.22
VITA-1.5 | 39.31/42.56 | 50.67/46.88 | 66.94 | 4.77/4.72/5.16/5.70
Qwen2.5-Omni | 46.94/54.34 | 32.88/28.05 | 79.72 | 5.85/6.78/6.39/6.21
EmotionLLaMA (audio, video, text) | 45.59/59.37 | 28.20/29.24 | 90.36 | 6.03/6.99/5.89/5.26
EmotionLLaMA (audio, video) | 42.72/54.06 | 30.36/30.45 | 89.05 | 2.76/2.78/3.44/2.36
MoSEAR | 44.48/56.60 | - | 90.27 | -
AVERE base | 56.78/60.14 | 53.59/53.01 | 89.19 | 5.63/6.45/5.41/5.19
AVERE base + Naive-DPO | 55.67/59.90 | 53.63/52.94 | 88.59 | 5.81/6.30/5.96/5.48
AVERE base + Vista-DPO | 56.42/62.33 | 56.94/53.64 | 90.06 | 6.08/6.89/6.58/6.07
AVERE base + AVEm-DPO (AVERE-7B) | 58.54/64.24 | 58.66/55.48 | 92.18 | 6.37/7.08/7.09/6.75
EmotionLLaMA, retrained | 54.89/58.26 | 52.59/48.12 | 90.01 | 5.78/6.21/5.36/5.23
EmotionLLaMA + Naive-DPO | 54.97/58.12 | 52.69/49.01 | 89.35 | 5.89/6.35/5.89/5.62
EmotionLLaMA + Vista-DPO | 56.28/61.58 | 56.42/50.96 | 91.19 | 6.05/6.56/6.85/6.31
EmotionLLaMA + AVEm-DPO | 57.06/62.12 | 56.21/51.03 | 91.68 | 6.02/6.99/7.02/6.62
"""),
    notes=("The published training sets include the MER series, so that zero-shot is less sure for MER2023.",),
)

PUBLISHED = (EMOREALM, EMOREALM_F1, RECOGNITION)
