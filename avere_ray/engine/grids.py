"""The media grids that an engine's processor makes of a request, for the parity gate."""

import itertools
from typing import Any

from avere_ray.parity import Grid

_numbers = itertools.count()


def seen_grid(renderer: Any, request: dict[str, Any]) -> Grid:
    """Grids of the last video and the last sound of a request, by vLLM's own processor.

    vLLM sends media that it has seen before by name alone, so they are looked at under a name of their own here.
    """
    asked = request.get("multi_modal_uuids", {})
    names = {medium: [f"grid-{next(_numbers)}" for _ in ids] for medium, ids in asked.items()}
    [rendered] = renderer.render_cmpl([{**request, "multi_modal_uuids": names}])
    found: dict[str, tuple[float, ...]] = {}
    if "video" in names:
        video = rendered["mm_kwargs"]["video"][-1].get_data()
        found["video"] = tuple(video["video_grid_thw"].flatten().tolist())
        found["seconds"] = tuple(video["second_per_grid_ts"].flatten().tolist())
    if "audio" in names:
        found["audio"] = (rendered["mm_placeholders"]["audio"][-1].length,)
    return found
