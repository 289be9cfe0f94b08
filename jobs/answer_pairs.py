"""The pairs stage of a fine-tuned run: right answers to the benchmarks' own questions about training clips."""

from collections.abc import Sequence

from avere_ray.arrow import to_row
from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.evaluation import BENCHMARKS
from avere_ray.evaluation.few_shot import example_clips
from avere_ray.evaluation.fine_tune import answer_pairs
from avere_ray.ledger import Ledger
from avere_ray.preferences import seen_pairs, summarise
from avere_ray.progress import reused, say
from avere_ray.records import Clip, PreferencePair, Query
from avere_ray.stages import StageFolder, StageManifest, digest
from jobs.exams import held_out_questions
from jobs.layout import stage_path

STAGE = "pairs"
INSTEAD = "set data.pairs.source to rollouts"


def make_pairs(cfg: RunConfig, decoded: StageManifest, clips: Sequence[Clip]) -> StageManifest:
    """Writes RUN/pairs/round=0; every question ends as a pair or as a drop with its reason.

    The key holds the pairs themselves, and with them whatever decides which there are: clips, held-out questions, seed.

    Raises:
        InputError: there are no held-out questions, nobody knows who is in a held-out clip, or no other person is left.
        StageError: no question makes a pair.
    """
    ledger = Ledger(STAGE)
    training = [clip for clip in clips if clip.split == "train"]
    usable = _usable(cfg, clips, training)
    pairs, queries, inputs = _pairs(cfg, usable, ledger)
    pairs = seen_pairs(pairs, one_reject=cfg.data.pairs.one_reject)
    folder = StageFolder(
        stage_path(cfg, STAGE, 0),
        stage=STAGE,
        config=cfg.to_yaml(),
        key=digest(STAGE, "answers", decoded.output_digest, [to_row(record) for record in (*pairs, *ledger.drops)]),
    )
    if (manifest := folder.finished()) is not None:
        reused("pairs of round 0", manifest.used, "questions")
        return manifest
    if not pairs:
        raise StageError(
            f"none of the {inputs} questions about {len(usable)} training clips makes a pair: {ledger.counts()}. "
            f"Annotate the clips with cues and emotions, or {INSTEAD}."
        )
    folder.begin()
    folder.write("pairs", PreferencePair, pairs)
    folder.write("queries", Query, queries)
    unasked = len({clip.clip_id for clip in usable} - {pair.clip_id for pair in pairs})
    summary = {**summarise(pairs, ledger.drops), "training_clips": len(training), "clips_without_a_pair": unasked,
               "clips_of_held_out_or_unknown_persons": len(training) - len(usable)}  # fmt: skip
    say(f"pairs: {len(pairs)} questions with their answers, about {len(usable)} of {len(training)} training clips; "
        "the others show held-out or unknown persons")  # fmt: skip
    return folder.finish(inputs=inputs, used=len(pairs), drops=ledger.drops, summary=summary)


def _usable(cfg: RunConfig, clips: Sequence[Clip], training: Sequence[Clip]) -> list[Clip]:
    """Training clips that show nobody of a held-out clip, whichever benchmark that belongs to."""
    asked = held_out_questions(cfg, clips, Ledger(STAGE))
    about = {query.clip_id for queries in asked.values() for query in queries}
    held_out = [clip for clip in clips if clip.clip_id in about]
    return example_clips(training, held_out, wanted="training answers", instead=INSTEAD)


def _pairs(cfg: RunConfig, clips: Sequence[Clip], ledger: Ledger) -> tuple[list[PreferencePair], list[Query], int]:
    """The pairs of all benchmarks, their questions, and how many were asked; one that two of them ask is used once."""
    pairs: dict[tuple[str, str], PreferencePair] = {}
    queries: list[Query] = []
    inputs = 0
    for name in dict.fromkeys(cfg.evaluation.benchmarks):
        examples = BENCHMARKS[name].examples(clips, cfg.seed)
        inputs += sum(map(len, examples.values()))
        found, drops = answer_pairs(BENCHMARKS[name], examples)
        ledger.extend(drops)
        asked = {example.query.query_id: example.query for group in examples.values() for example in group}
        for pair in found:
            same = pairs.setdefault((pair.clip_id, pair.prompt), pair)
            if same is pair:
                queries.append(asked[pair.query_id])
            else:
                ledger.drop(pair.pair_id, "asked_twice", f"{name} asks what pair {same.pair_id} asks already")
    return list(pairs.values()), queries, inputs
