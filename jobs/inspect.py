"""Shows one pair of a preference data set as the model meets it: prompt, responses, and its media as a picture.

`avere-ray inspect FILE [--row N]`. FILE is anything `avere-ray convert` reads; N is a row of it (JSONL: a line), from
1 as in error messages; a pair of several rows is named by its first. The picture (PNG) has the clip's frames as
data.decode samples them and its waveform, then those of the mismatched input.

  --out FILE.png          where the picture goes; else inspect-row-N.png in the working folder
  --from, --media, --modality, --unclear, --reject-kinds, --ignore-system    as in `avere-ray convert`
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.config import DataConfig, RunConfig
from avere_ray.errors import ClipDecodeError, ConfigError, InputError
from avere_ray.progress import say
from jobs.operands import Arguments, run_with_arguments

if TYPE_CHECKING:
    from avere_ray.formats import PreferenceData
    from avere_ray.ledger import Ledger
    from avere_ray.records import DecodedClip, PreferencePair

OWN = Arguments(
    positions=("FILE",),
    options=("row", "out", "from", "media", "modality", "unclear", "reject-kinds"),
    flags=("ignore-system",),
)


def run(cfg: RunConfig, given: list[str], values: dict[str, str]) -> int:
    """Prints one pair and writes its picture; returns 0.

    Raises:
        ConfigError: an option is wrong, or there is no such row.
        InputError: the data cannot be read, the row was dropped, or its media cannot be decoded.
    """
    from avere_ray.ledger import Ledger
    from avere_ray.strip import strip_image, write_png
    from jobs.preference_data import STAGE, open_data

    row = _row(values.get("row", "1"))
    ledger = Ledger(STAGE)
    data, _ = open_data(Path(given[0]), values, ledger)
    pair = _pair_at(row, data, ledger)
    for line in describe(pair, data, rendered_prompt(pair.prompt, cfg)):
        say(line)
    shown = decode_pair(pair, data, cfg.data)
    path = Path(values.get("out", f"inspect-row-{row}.png"))
    write_png(path, strip_image(shown))
    say(f"media: {', '.join(_facts(clip) for clip in shown)}")
    say(f"picture: {path}")
    return 0


def describe(pair: "PreferencePair", data: "PreferenceData", prompt: str) -> list[str]:
    """What a person reads of a pair, line by line."""
    query = data.queries.get(pair.query_id)
    sure = f" (confidence {query.modality_confidence:g})" if query and query.modality_confidence < 1 else ""
    media = data.media(pair.clip_id)
    lines = [
        f"pair {pair.pair_id}, from {data.places.get(pair.pair_id, '?')}",
        f"clip {pair.clip_id}: {media.video}" + (f" with the sound of {media.audio}" if media.audio else ""),
        f"asks about: {pair.modality}{sure}",
        "prompt as the model reads it:",
        *(f"  | {line}" for line in prompt.splitlines()),
        f"chosen ({pair.chosen_source}): {pair.chosen}",
        *(f"rejected, {r.kind.value} ({r.source}): {r.text}" for r in pair.rejects),
    ]
    if pair.swap is None:
        return [*lines, "mismatched input: none"]
    seen, heard = pair.swap.video_clip_id, pair.swap.audio_clip_id
    return [*lines, f"mismatched input ({pair.swap.strategy}, {pair.swap.modality}): sees {seen}, hears {heard}"]


def rendered_prompt(prompt: str, cfg: RunConfig) -> str:
    """The prompt in the chat template of model.path; the words alone where no such folder is.

    Raises:
        ModelError: the folder is there but is no model.
    """
    if not cfg.model.path.is_dir():
        return f"{prompt}\n(without a chat template: model.path {cfg.model.path} is not there)"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # the tiny base has a smaller vocabulary than its family
    from avere_ray.backbones import load_processor

    return load_processor(cfg.model).render(prompt)


def decode_pair(pair: "PreferencePair", data: "PreferenceData", cfg: DataConfig) -> "list[DecodedClip]":
    """The pair's clip and, if it has a swap, its mismatched input.

    Raises:
        InputError: a file cannot be decoded, or the swap cannot be made.
    """
    from avere_ray.modality import apply_swap, partner_ids

    own = _decode(pair.clip_id, data, cfg)
    if pair.swap is None:
        return [own]
    audio, video = (_decode(c, data, cfg) if c else None for c in partner_ids(pair.swap, pair.clip_id))
    return [own, apply_swap(own, pair.swap, audio, video)]


def _decode(clip_id: str, data: "PreferenceData", cfg: DataConfig) -> "DecodedClip":
    from avere_ray.decoder_child import decode_one

    try:
        return decode_one(data.clips[clip_id], data.root, cfg.decode, cfg.remote)
    except ClipDecodeError as error:
        raise InputError(f"clip {clip_id}: {error.message}") from error


def _facts(clip: "DecodedClip") -> str:
    frames = len(clip.frames)
    return f"{clip.clip_id}: {clip.duration_s:.2f} s, {frames} frames, {len(clip.waveform)} samples"


def _pair_at(row: int, data: "PreferenceData", ledger: "Ledger") -> "PreferencePair":
    """The pair that begins at a row of the file.

    Raises:
        InputError: the row was dropped; the message says why.
        ConfigError: no pair begins there.
    """
    rows = {_number(data.places[pair.pair_id]): pair for pair in data.pairs}
    if row in rows:
        return rows[row]
    dropped = next((drop for drop in ledger.drops if _number(drop.sample_id) == row), None)
    if dropped is not None:
        raise InputError(f"row {row} cannot be used: {dropped.message}")
    begin = ", ".join(str(number) for number in list(rows)[:8]) + (", ..." if len(rows) > 8 else "")
    raise ConfigError(f"--row {row}: no pair begins there; pairs begin at rows {begin or '(none)'}.")


def _number(place: str) -> int:
    """The line or row number that a place ends with."""
    return int(place.rsplit(" ", 1)[-1])


def _row(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--row {text} is no row number; rows count from 1.")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray inspect`."""
    return run_with_arguments("avere-ray inspect", __doc__, OWN, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
