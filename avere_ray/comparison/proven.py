"""What the keys in a run's folder prove about it, where neither its config nor MLflow says it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avere_ray.errors import StageError
from avere_ray.preferences import study_pairs_key
from avere_ray.stages import read_manifest

ONE_REJECT = "data.pairs.one_reject"


def proven_params(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Whether a study's method saw one reject of each pair, by the key of its pairs; empty where the config says it or
    nothing does."""
    data = config.get("data") or {}
    if "one_reject" in (data.get("pairs") or {}) or not data.get("clips"):
        return {}
    try:
        pairs = read_manifest(folder / "pairs" / "round=0")
        source = read_manifest(Path(data["clips"]).parent / "pairs" / "round=0")
    except StageError:
        return {}
    if pairs is None or source is None:
        return {}
    said = [one for one in (True, False) if pairs.key == study_pairs_key(source.output_digest, one_reject=one)]
    return {ONE_REJECT: json.dumps(said[0])} if said else {}
