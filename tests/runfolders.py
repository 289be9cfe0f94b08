"""Small finished run folders with real stage files: questions, clips, answers, training metrics."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from avere_ray.config import RunConfig
from avere_ray.evaluation.emorealm import EMOREALM_SCORER, score
from avere_ray.metrics import FOLDER, MetricSpool
from avere_ray.records import Clip, EvalResult, Query, Rollout
from avere_ray.stages import StageFolder, file_digest, write_text

TASKS = ("modality_agreement", "reasoning_stress_audio", "reasoning_stress_video")
YES_NO = ["(A) Yes", "(B) No"]

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Says = Callable[[int, str, str], str]
"""Clip number, task and right letter to a response."""


def write_run(
    folder: Path,
    says: Mapping[str, Says],
    *,
    clips: int = 30,
    name: str = "run",
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    write_clip: Callable[[Path, int], None] | None = None,
) -> Path:
    """A run whose evaluations ("before", "round=0", ...) answer as `says` tells; returns its folder.

    Without `write_clip`, the media are files of a few bytes, which differ by seed.
    """
    config = {**RunConfig(name=name, seed=seed, run_dir=folder).resolved(), **(settings or {})}
    questions = [_question(i, task) for i in range(clips) for task in TASKS]
    write_text(folder / "clips" / "emorealm.json", json.dumps(questions))
    for i in range(clips):
        media = folder / "clips" / "media" / f"{i:03d}.mp4"
        media.parent.mkdir(parents=True, exist_ok=True)
        if write_clip is not None:
            write_clip(media, i)
        else:
            media.write_text(f"{seed}/{i}")
    for stage, answer in says.items():
        _write_evaluation(folder, stage, answer, questions, yaml.dump(config, Dumper=DUMPER))
    spool = MetricSpool(folder / FOLDER, "train-round0")
    for step in range(6):
        spool.log({"loss": 2.0 - 0.2 * step + 0.01 * seed, "learning_rate": 1e-5, "epoch": 0.0}, step=step)
    return folder


def _question(i: int, task: str) -> dict[str, object]:
    answer = "AB"[(i + len(task)) % 2]
    return {"id": f"{i:03d}/{task}", "video": f"media/{i:03d}.mp4", "task": task, "question": f"Is <b>{i}</b> so?",
            "choices": YES_NO, "answer": answer,
            "subtype": "" if task == "modality_agreement" else "spurious"}  # fmt: skip


def _write_evaluation(folder: Path, stage: str, says: Says, questions: list[dict[str, object]], config: str) -> None:
    place = StageFolder(folder / "evals" / stage, stage="evals", key="k", config=config)
    place.begin()
    round_ = -1 if stage == "before" else int(stage.partition("=")[2])
    rollouts = [
        Rollout(rollout_id=f"{q['id']}#0", query_id=str(q["id"]), clip_id=str(q["video"]), index=0,
                text=says(int(str(q["id"])[:3]), str(q["task"]), str(q["answer"])), token_ids=(1,),
                finish_reason="stop", adapter_version=round_ + 1, seed=0)
        for q in questions
    ]  # fmt: skip
    queries = [
        Query(query_id=str(q["id"]), clip_id=str(q["video"]), modality="audio_video", task=str(q["task"]),
              prompt=str(q["question"]), choices=tuple(YES_NO), answer=str(q["answer"]), subtype=str(q["subtype"]))
        for q in questions
    ]  # fmt: skip
    media = {uri: folder / "clips" / uri for uri in (str(q["video"]) for q in questions)}
    clips = [Clip(clip_id=uri, uri=uri, sha256=file_digest(m) if m.is_file() else "") for uri, m in media.items()]
    place.write("clips", Clip, clips)
    place.write("questions", Query, [replace(q, prompt=f"{q.prompt} {' '.join(q.choices)}") for q in queries])
    metrics = score(queries, {r.query_id: r.text for r in rollouts})
    place.write("predictions", Rollout, rollouts)
    place.write(
        "results",
        EvalResult,
        [
            EvalResult(
                benchmark=EMOREALM_SCORER.name,
                adapter_version=round_ + 1,
                round=round_,
                n=len(queries),
                metrics=metrics,
            )
        ],
    )
    place.finish(inputs=len(queries), used=len(queries), summary={"metrics": metrics})
