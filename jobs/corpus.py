"""The clips of a run and the folder of their media: the project's own table, or a corpus as its authors ship it.

A corpus (data.source.kind) is read anew each time, which looks at lists and file names only; what was listed but cannot
be used is kept in RUN/source with its reasons, and counts against data.drop_budget.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from avere_ray.arrow import to_row
from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.formats import PreferenceData
from avere_ray.ledger import Ledger
from avere_ray.modality import PartnerIndex
from avere_ray.records import Clip
from avere_ray.sources import STAGE, Found, media_root, read_source
from avere_ray.stages import StageFolder, digest
from avere_ray.verdicts import check_annotated
from jobs import given_queries
from jobs.layout import stage_path
from jobs.preference_data import given_data

_LOOK = 10_000
"""Clips whose questions are made to be looked at, which takes seconds."""


def read_corpus(cfg: RunConfig, folder: Path) -> tuple[list[Clip], Path]:
    """The clips of `folder`, or those that given pairs show, and where their media are.

    Raises:
        InputError: see `find_clips` and `usable_data`; or nothing that is listed can be used.
        DropBudgetExceeded: more was listed that cannot be used than data.drop_budget allows.
    """
    if cfg.data.pairs.path is not None:
        data = usable_data(cfg, Ledger(STAGE))
        return list(data.clips.values()), data.root
    found = find_clips(cfg, folder)
    if cfg.data.source.kind != "clips":
        _store(cfg, found)
    found.ledger.check_budget(found.listed, cfg.data.drop_budget)
    check_some(found.clips, f"{folder}, which lists {found.listed} clips,", found.ledger)
    return found.clips, media_root(folder)


def usable_data(cfg: RunConfig, ledger: Ledger) -> PreferenceData:
    """The preference data of a run, before any of their media is decoded; rows that cannot be used go to `ledger`.

    Raises:
        InputError: the data cannot be read, or no row can be used.
        DropBudgetExceeded: more rows cannot be used than data.drop_budget allows.
    """
    data = given_data(cfg.data.pairs, ledger)
    ledger.check_budget(data.inputs, cfg.data.drop_budget)
    check_some(data.pairs, f"{cfg.data.pairs.path}, which has {data.inputs} rows,", ledger)
    return data


def check_some(usable: Sequence[object], of: str, ledger: Ledger) -> None:
    """Whether something is left of an input.

    Raises:
        InputError: nothing is; names the reasons, and an example.
    """
    if usable:
        return
    why = f": {ledger.counts()}. For instance {ledger.drops[0].message}" if ledger.drops else "."
    raise InputError(f"nothing of {of} can be used{why} Repair it, or set another input.")


def check_annotations(cfg: RunConfig, clips: Sequence[Clip]) -> None:
    """Looks for what judge and swaps need of the clips that the first round asks about, before they are sampled.

    Of a large corpus a part is looked at; judge and swaps look at each clip when its turn comes.

    Raises:
        InputError: no question can be asked, a clip has no cues for the rules judge, or no clip another emotion.
    """
    from jobs.rollouts import check_queries
    from jobs.workers import sample_queries

    training = {clip.clip_id: clip for clip in clips if clip.split == "train"}
    if cfg.data.queries is not None:
        queries = [query for query in given_queries.read(cfg.data.queries) if query.clip_id in training]
    else:
        some = list(training.values())
        queries = sample_queries(some[:_LOOK], cfg, 0) or sample_queries(some[_LOOK:], cfg, 0)
    check_queries(cfg, queries, len(training))
    if cfg.judge.backend == "rules":
        for clip_id in dict.fromkeys(query.clip_id for query in queries):
            check_annotated(training[clip_id])
    index = PartnerIndex(clips)
    for modality in sorted({query.modality for query in queries}):
        index.check_emotions(modality, cfg.preference.swap)


def find_clips(cfg: RunConfig, folder: Path) -> Found:
    """Clips and drops of `folder`; stores nothing.

    Raises:
        InputError: the folder is not what data.source.kind says; see `avere_ray.sources` and `clip_table.read_clips`.
    """
    from avere_ray.clip_table import read_clips

    if cfg.data.source.kind == "clips":
        clips = read_clips(folder)
        return Found(clips=clips, listed=len(clips))
    return read_source(folder, cfg.data.source)


def _store(cfg: RunConfig, found: Found) -> None:
    rows = [to_row(record) for record in (*found.clips, *found.drops)]
    key = digest(STAGE, cfg.data.source.model_dump(), rows)
    stage = StageFolder(stage_path(cfg, STAGE), stage=STAGE, config=cfg.to_yaml(), key=key)
    if stage.finished() is not None:
        return
    stage.begin()
    stage.write("clips", Clip, found.clips)
    stage.finish(
        inputs=found.listed,
        used=len(found.clips),
        drops=found.drops,
        summary={
            "drops": found.ledger.counts(),
            "splits": dict(Counter(clip.split for clip in found.clips)),
            "emotions": dict(Counter(clip.emotion for clip in found.clips)),
        },
    )
