"""Scenes as real mp4 files (H.264 video, AAC audio), with their clip table and held-out benchmark."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

from avere_ray.prompts import TASKS, all_queries
from avere_ray.protocols import ProgressFn
from avere_ray.records import Clip, Query
from avere_ray.stages import file_digest, full_disk_named, write_json, write_records
from avere_ray.strip import write_png
from avere_ray.synthetic.annotator import captioned
from avere_ray.synthetic.draw import FPS, SIZE, draw_frames
from avere_ray.synthetic.scene import Scene, Split, clip_of, sample_scene
from avere_ray.synthetic.sheet import contact_sheet
from avere_ray.synthetic.speech import PROGRAM, check_speech
from avere_ray.synthetic.voice import RATE, make_waveform

CLIP_TABLE = "clips.parquet"
SHEET = "contact_sheet.png"
BENCHMARK = "emorealm.json"
QUERIES = "queries.parquet"
_MISMATCH = 0.5
"""Share of clips whose face and voice disagree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSpec:
    """What to draw."""

    seed: int
    train_clips: int
    test_clips: int
    bias: float
    """Share of training clips in which each irrelevant cue agrees with the emotion. In held-out clips objects and
    sounds are independent of it, and the shirt is never the one that agrees (see `scene.SHIRT_OFFSETS`)."""
    text_prior: float = 0.0
    """Share of training captions that name the emotion's stereotyped cue though it is not there."""
    dominance: float = 0.0
    """Share of training clips with disagreeing face and voice that are labelled with the emotion of the face."""
    held_out: Split = "test"
    """Split of the clips that are not for training: "test", or "validation", with persons of its own."""
    speech: str = "tones"
    """Voices: "tones", or sentences through "espeak-ng"."""
    corrupt_clips: int = 0
    """Training clips that are broken on purpose."""


def plan_scenes(spec: CorpusSpec) -> list[Scene]:
    """The scenes of a corpus: biased training scenes, held-out scenes without the bias."""
    train = [
        sample_scene(f"train{i:05d}", "train", spec.seed, bias=spec.bias, mismatch=_MISMATCH)
        for i in range(spec.train_clips)
    ]
    held_out = [
        sample_scene(f"{spec.held_out}{i:05d}", spec.held_out, spec.seed, bias=0.0, mismatch=_MISMATCH)
        for i in range(spec.test_clips)
    ]
    return train + held_out


def write_corpus(folder: Path, spec: CorpusSpec, *, workers: int, progress: ProgressFn) -> list[Clip]:
    """Draws every scene, writes the mp4 files, the clip table, the benchmark, the queries and a contact sheet.

    The queries are all that can be asked about each clip, open ones too, with reference answers; for data.queries.
    Returns the clips.

    Raises:
        InputError: speech is asked for and espeak-ng is not installed.
        StorageError: the disk is full or the folder cannot be written.
    """
    if spec.speech == PROGRAM:
        check_speech()
    scenes = plan_scenes(spec)
    with full_disk_named(folder):
        (folder / "media").mkdir(parents=True, exist_ok=True)
    write_png(folder / SHEET, contact_sheet(scenes))
    clips: list[Clip] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for clip in pool.map(_write_one, [(folder, scene, spec.speech) for scene in scenes], chunksize=8):
            clips.append(_annotated(clip, spec))
            progress(len(clips), len(scenes))
    _break_some([c for c in clips if c.split == "train"][: spec.corrupt_clips], folder)
    write_records(folder / CLIP_TABLE, Clip, clips)
    write_records(folder / QUERIES, Query, [query for clip in clips for query in all_queries(clip, spec.seed)])
    write_json(folder / BENCHMARK, list(benchmark_items([c for c in clips if c.split == spec.held_out], spec.seed)))
    return clips


def _write_one(job: tuple[Path, Scene, str]) -> Clip:
    folder, scene, speech = job
    uri = f"media/{scene.scene_id}.mp4"
    write_clip(scene, folder / uri, speech=speech == PROGRAM)
    return clip_of(scene, uri)


def _annotated(clip: Clip, spec: CorpusSpec) -> Clip:
    """Captions and label: truthful in the test split, a careless annotator's in training."""
    train = clip.split == "train"
    return captioned(
        clip,
        random.Random(f"{spec.seed}/caption/{clip.clip_id}"),
        text_prior=spec.text_prior if train else 0.0,
        dominance=spec.dominance if train else 0.0,
    )


def write_clip(scene: Scene, path: Path, *, speech: bool = False) -> None:
    """One scene as an mp4 file, moved into place when complete; `speech`: see `make_waveform`.

    Raises:
        InputError: see `make_waveform`.
        StorageError: see `atomic_path`.
    """
    import av

    from avere_ray.stages import atomic_path

    with atomic_path(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "18", "threads": "1"})
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = 64_000
        for image in draw_frames(scene):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        wave = make_waveform(scene, speech=speech)
        for start in range(0, len(wave), 1024):
            block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024].copy(), format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def _break_some(clips: list[Clip], folder: Path) -> None:
    """Cuts files in the middle: a container without an index, as an interrupted copy leaves it."""
    for clip in clips:
        path = folder / clip.uri
        path.write_bytes(path.read_bytes()[:1500])


def benchmark_queries(clips: list[Clip], seed: int) -> Iterator[Query]:
    """The five EmoReAlM tasks about each clip; Yes and No equally often among the stress questions.

    The No questions are about absent and irrelevant cues in turn.
    """
    for index, clip in enumerate(clips):
        queries = {(q.task, q.subtype): q for q in all_queries(clip, seed)}
        for task in TASKS:
            if not task.startswith("reasoning_stress"):
                if (task, "") in queries:
                    yield queries[task, ""]
                continue
            kind = ("no_hallucination", "hallucination", "no_hallucination", "spurious")[index % 4]
            if (task, kind) in queries:
                yield queries[task, kind]


def benchmark_items(clips: list[Clip], seed: int) -> Iterator[dict[str, object]]:
    """The held-out questions in EmoReAlM's JSON format, with sub-type and cue as additional fields."""
    uris = {c.clip_id: c.uri for c in clips}
    for query in benchmark_queries(clips, seed):
        question = query.prompt.removesuffix(" " + " ".join(query.choices))
        yield {
            "id": query.query_id,
            "video": uris[query.clip_id],
            "task": query.task,
            "question": question,
            "choices": list(query.choices),
            "answer": query.answer,
            "subtype": query.subtype,
            "about_cue": query.about_cue,
        }


def read_benchmark(path: Path) -> list[dict[str, object]]:
    """The items of a benchmark file."""
    return json.loads(path.read_text(encoding="utf-8"))


def corpus_digest(folder: Path) -> str:
    """Digest of a corpus's clip table."""
    return file_digest(folder / CLIP_TABLE)
