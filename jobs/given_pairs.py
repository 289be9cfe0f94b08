"""The pairs stage of a run on given preference data: its pairs, but for those whose media cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from avere_ray.arrow import to_row
from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.ledger import Ledger
from avere_ray.modality import fit_swap, keeps_emotion
from avere_ray.preferences import seen_pairs, summarise
from avere_ray.progress import reused, say
from avere_ray.records import Clip, PreferencePair
from avere_ray.stages import StageFolder, StageManifest, digest, read_drops
from avere_ray.store import DecodedStore
from jobs.layout import stage_path
from jobs.preference_data import given_data, shown_clips

STAGE = "pairs"


def make_pairs(cfg: RunConfig, decoded: StageManifest) -> StageManifest:
    """Writes RUN/pairs/round=0; every row of the data ends as a pair or as a drop with its reason.

    Raises:
        InputError: the data cannot be read.
        DropBudgetExceeded: more was dropped than data.drop_budget allows.
        StageError: no pair is left.
    """
    ledger = Ledger(STAGE)
    data = given_data(cfg.data.pairs, ledger)
    inputs = data.inputs
    fitted, changed = fitting(data.pairs, data.clips)
    pairs = seen_pairs(_with_media(cfg, fitted, data.places, ledger), one_reject=cfg.data.pairs.one_reject)
    folder = StageFolder(
        stage_path(cfg, STAGE, 0),
        stage=STAGE,
        config=cfg.to_yaml(),
        key=digest(STAGE, "given", decoded.output_digest, [*map(to_row, pairs), *(d.sample_id for d in ledger.drops)]),
    )
    if (manifest := folder.finished()) is not None:
        reused("pairs of round 0", manifest.used, "pairs")
    else:
        folder.begin()
        folder.write("pairs", PreferencePair, pairs)
        summary = {**summarise(pairs, ledger.drops), "modality_by": dict(data.decided), **changed}
        manifest = folder.finish(inputs=inputs, used=len(pairs), drops=ledger.drops, summary=summary)
        say(f"pairs: {len(pairs)} of {inputs} rows of {cfg.data.pairs.path}")
        if any(changed.values()):
            say(
                "mismatched inputs replace what their prompts ask about: {swaps_narrowed} kept a modality that was "
                "replaced too; left out are {swaps_left_out} that replaced only the other one, and "
                "{swaps_of_one_emotion} whose partner shows the same emotion".format(**changed)
            )
    ledger.check_budget(inputs, cfg.data.drop_budget)
    if not pairs:
        raise StageError(f"{cfg.data.pairs.path} has no pair that can be trained on: {ledger.counts()}")
    return manifest


def fitting(pairs: Sequence[PreferencePair], clips: Mapping[str, Clip]) -> tuple[list[PreferencePair], dict[str, int]]:
    """The pairs, each with the mismatched input that its prompt needs, and how many were changed for that.

    What a prompt asks about and which files of a row differ are two statements, which need not agree. A partner that
    shows the same emotion, as far as `clips` tell, is no mismatch.
    """
    found: list[PreferencePair] = []
    changed = {"swaps_narrowed": 0, "swaps_left_out": 0, "swaps_of_one_emotion": 0}
    for pair in pairs:
        swap = pair.swap and fit_swap(pair.swap, pair.modality, pair.clip_id)
        if swap is not None and keeps_emotion(swap, clips, pair.clip_id):
            swap = None
            changed["swaps_of_one_emotion"] += 1
        elif swap != pair.swap:
            changed["swaps_left_out" if swap is None else "swaps_narrowed"] += 1
        found.append(replace(pair, swap=swap))
    return found, changed


def _with_media(
    cfg: RunConfig, pairs: list[PreferencePair], places: dict[str, str], ledger: Ledger
) -> list[PreferencePair]:
    """The pairs all of whose clips were decoded; the others go to the ledger."""
    folder = stage_path(cfg, "decoded")
    have, lost = set(DecodedStore(folder)), {drop.sample_id: drop for drop in read_drops(folder)}
    kept: list[PreferencePair] = []
    for pair in pairs:
        gone = next((clip for clip in shown_clips(pair) if clip not in have), None)
        if gone is None:
            kept.append(pair)
            continue
        drop = lost.get(gone)
        reason, why = (f"clip_{drop.reason}", drop.message) if drop else ("unknown_clip", "it is not among the clips")
        ledger.drop(pair.pair_id, reason, f"{places[pair.pair_id]}: clip {gone} cannot be used: {why}")
    return kept
