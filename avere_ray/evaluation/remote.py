"""A remote model as one that answers questions: clips go inside the requests, answers come back as rollouts."""

import mimetypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from avere_ray.endpoint import (
    Endpoint,
    Reply,
    Request,
    assistant,
    audio_part,
    image_part,
    text_part,
    user,
    video_part,
    wav,
)
from avere_ray.errors import ClipDecodeError, RequestRefused, StageError
from avere_ray.evaluation.benchmark import Option
from avere_ray.evaluation.kept import Kept
from avere_ray.evaluation.showing import Showing
from avere_ray.modality import apply_swap, partner_ids
from avere_ray.protocols import ProgressFn
from avere_ray.records import Clip, DecodedClip, Query, Rollout
from avere_ray.strip import png

_DECODED = 32
"""Decoded clips kept in memory, since questions about one clip follow each other."""

Part = dict[str, Any]


class RemoteModel:
    """Asks a remote model; an `exam.Answerer`."""

    scores_options = False
    adapter_version = 0

    def __init__(
        self,
        endpoint: Endpoint,
        clips: Mapping[str, Clip],
        root: Path,
        *,
        media: str,
        decode: Callable[[Clip, Path], DecodedClip],
    ) -> None:
        """
        Args:
            clips: by id.
            root: folder that the clips' paths are relative to.
            media: "file", "file_and_sound" or "frames_and_sound", see `EvaluationConfig.media`.
            decode: samples a clip, given it and the folder its uri is relative to; asked for one clip at a time.
        """
        self.endpoint, self._clips, self._root, self._media = endpoint, clips, root, media
        self._decode = decode
        self._decoded: OrderedDict[str, DecodedClip] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self,
        queries: Sequence[Query],
        showings: Sequence[Showing],
        *,
        max_tokens: int,
        kept: Kept,
        progress: ProgressFn,
    ) -> None:
        """Asks every question once; a question that the server refuses is noted in `kept.refused`.

        Raises:
            EndpointError: the server refuses the client, does not answer, or the budget is used up.
        """
        ended = 0

        def done(index: int, outcome: Reply | RequestRefused) -> None:
            nonlocal ended
            query = queries[index]
            if isinstance(outcome, RequestRefused):
                kept.refuse(query.query_id, str(outcome))
            else:
                kept.add_answers([_rollout(query, outcome)])
            ended += 1
            progress(ended, len(queries))

        pairs = zip(queries, showings, strict=True)
        self.endpoint.ask_all([partial(self.request, q, showing, max_tokens) for q, showing in pairs], done)

    def score_options(
        self,
        queries: Sequence[Query],
        showings: Sequence[Showing],
        options: Sequence[Mapping[str, Option]],
        *,
        kept: Kept,
        progress: ProgressFn,
    ) -> None:
        """Not offered.

        Raises:
            StageError: always.
        """
        raise StageError("a remote model gives no likelihoods of options; set evaluation.decoding to greedy")

    def request(self, query: Query, showing: Showing, max_tokens: int) -> Request:
        """One question with its media, after its examples.

        Raises:
            RequestRefused: a clip cannot be read or decoded.
        """
        messages: list[Part] = []
        try:
            for example in showing.examples:
                parts = self._parts(example.query.clip_id, Showing())
                messages += [user(*parts, text_part(example.query.prompt)), assistant(example.answer)]
            parts = [] if showing.words_only else self._parts(query.clip_id, showing)
        except (ClipDecodeError, OSError) as error:
            raise RequestRefused(f"question {query.query_id} cannot be put: {error}") from error
        return Request(messages=[*messages, user(*parts, text_part(query.prompt))], max_tokens=max_tokens, seed=0)

    def _parts(self, clip_id: str, showing: Showing) -> list[Part]:
        clip = self._clips[clip_id]
        if self._media != "frames_and_sound":
            return self._file_parts(clip)
        shown = self._sampled(clip_id)
        if showing.swap is not None:
            partners = (self._sampled(name) if name else None for name in partner_ids(showing.swap, clip_id))
            shown = apply_swap(shown, showing.swap, *partners)
        return [*(image_part(png(frame)) for frame in shown.frames), audio_part(wav(shown.waveform))]

    def _file_parts(self, clip: Clip) -> list[Part]:
        if clip.start_s or clip.end_s is not None or clip.audio_uri:
            raise RequestRefused(
                f"clip {clip.clip_id} is a part of a longer file, or has its sound in another one, so its file cannot "
                "be sent as it is; set evaluation.media to frames_and_sound"
            )
        path = self._root / clip.uri
        video = video_part(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "video/mp4")
        return [video] if self._media == "file" else [video, audio_part(wav(self._sampled(clip.clip_id).waveform))]

    def _sampled(self, clip_id: str) -> DecodedClip:
        with self._lock:
            if clip_id not in self._decoded:
                clip = self._clips[clip_id]
                self._decoded[clip_id] = self._decode(clip, self._root)
                while len(self._decoded) > _DECODED:
                    self._decoded.popitem(last=False)
            return self._decoded[clip_id]


def _rollout(query: Query, reply: Reply) -> Rollout:
    return Rollout(
        rollout_id=f"{query.query_id}#0",
        query_id=query.query_id,
        clip_id=query.clip_id,
        index=0,
        text=reply.text.strip(),
        token_ids=(),
        finish_reason=reply.finish_reason,
        adapter_version=0,
        seed=0,
    )
