"""Made-up decoded clips and pairs about them."""

import dataclasses

import numpy as np

from avere_ray.records import DecodedClip, ModalitySwap, PreferencePair, Reject, RejectKind


def make_clip(name):
    random = np.random.default_rng(ord(name))
    return DecodedClip(
        clip_id=name,
        spec="",
        frames=random.integers(0, 255, (4, 84, 84, 3), dtype=np.uint8),
        frame_times_s=np.arange(4, dtype=np.float32),
        waveform=random.standard_normal(32000).astype(np.float32) * 0.1,
        duration_s=2.0,
    )


class Clips:
    """Decoded clips that count how often each is asked for."""

    def __init__(self):
        self.loads = 0

    def __call__(self, name):
        self.loads += 1
        return make_clip(name)


def make_pair(clip="a", modality="audio", partner="b", **changes):
    swap = ModalitySwap(
        modality=modality,
        strategy="other_emotion",
        audio_clip_id=clip if modality == "video" else partner,
        video_clip_id=clip if modality == "audio" else partner,
    )
    pair = PreferencePair(
        pair_id=f"{clip}-{modality}",
        query_id="q",
        clip_id=clip,
        modality=modality,
        prompt="What does the woman feel?",
        chosen="Her voice is loud.",
        chosen_source="reference",
        rejects=(
            Reject(text="Her shirt is red.", kind=RejectKind.SPURIOUS, source="written"),
            Reject(text="She cries.", kind=RejectKind.HALLUCINATED, source="written"),
        ),
        swap=swap,
    )
    return dataclasses.replace(pair, **changes)


PAIRS = [make_pair(), make_pair(modality="video"), make_pair("b", "audio_video", "a"), make_pair("b", swap=None)]
