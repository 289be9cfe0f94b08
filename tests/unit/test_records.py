"""Every record comes back from Arrow and Parquet as it went in."""

import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avere_ray.arrow import arrow_schema, from_row, from_table, to_row, to_table
from avere_ray.records import (
    RECORDS,
    AdapterManifest,
    CitedCue,
    Clip,
    Cue,
    DecodedClip,
    Drop,
    EvalResult,
    ModalitySwap,
    PreferencePair,
    Query,
    ReferenceLogps,
    Reject,
    RejectKind,
    Rollout,
    Verdict,
    VerdictLabel,
)
from avere_ray.stages import read_records, write_records

CUE = Cue(name="clenched_fists", modality="video", text="clenched fists", present=True, emotions=("anger",))
CITED = CitedCue(name="", text="a blue shirt", modality="video", present=True, relevant=False, affirmed=True)
SWAP = ModalitySwap(modality="audio", strategy="other_emotion", audio_clip_id="c2", video_clip_id="c1")
REJECTS = (
    Reject(kind=RejectKind.SPURIOUS, text="the shirt", source="rollout"),
    Reject(kind=RejectKind.HALLUCINATED, text="a shout", source="written"),
)
PAIR = PreferencePair(
    pair_id="p",
    query_id="q",
    clip_id="c1",
    modality="audio",
    prompt="Why?",
    chosen="the voice",
    chosen_source="rollout",
    rejects=REJECTS,
    swap=SWAP,
)
DECODED = DecodedClip(
    clip_id="c1",
    spec="ab12",
    frames=np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3),
    frame_times_s=np.array([0.0, 0.5], dtype=np.float32),
    waveform=np.linspace(-1, 1, 16, dtype=np.float32),
    duration_s=1.25,
)

EXAMPLES: list[Any] = [
    Clip(clip_id="c1", uri="a/ü.mp4", sha256="00", identity="ann", emotion="anger", cues=(CUE, CUE)),
    Clip(clip_id="c2", uri="b.mp4"),
    DECODED,
    dataclasses.replace(DECODED, waveform=np.zeros(0, dtype=np.float32)),
    Query(query_id="q", clip_id="c1", modality="audio_video", task="t", prompt="Which?", choices=("(A) x", "(B) y")),
    Rollout(
        rollout_id="q#0",
        query_id="q",
        clip_id="c1",
        index=0,
        text="because\nof “this”",
        token_ids=(1, 2, 151_643),
        finish_reason="stop",
        adapter_version=1,
        seed=2**40,
    ),
    Verdict(
        rollout_id="q#0",
        query_id="q",
        label=VerdictLabel.SPURIOUS_ASSOCIATION,
        cited=(CITED,),
        emotion="",
        confidence=0.5,
        evidence="cites the shirt",
        judge="rules/1",
    ),
    PAIR,
    dataclasses.replace(PAIR, swap=None, rejects=()),
    ReferenceLogps(
        pair_id="p", key="k", responses=(-1.5, -2.0), swapped=-3.25, irrelevant=-2.5, text_prior=(-9.0, -1e-300)
    ),
    AdapterManifest(
        version=1,
        path="adapters/1",
        base_digest="b",
        backbone="qwen2_5_omni",
        round=0,
        step=3,
        rank=8,
        alpha=32.0,
        data_digest="d",
        decode_spec="s",
        weights_sha256="w",
    ),
    EvalResult(benchmark="emorealm", adapter_version=0, round=-1, n=10, metrics={"average_accuracy": 51.5, "n": 2.0}),
    EvalResult(benchmark="emorealm", adapter_version=0, round=-1, n=0),
    Drop(sample_id="c9", stage="decode", reason="no_audio_stream", message="no audio", bytes=2**33),
]


def plain(record: Any) -> dict[str, Any]:
    """A record as comparable values; arrays with shape and dtype."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {n: (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for n, v in values.items()}


def test_every_record_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(RECORDS)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_parquet_as_it_was(record: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert write_records(path, type(record), [record, record]) == 2
    back = read_records(path, type(record))
    assert [plain(row) for row in back] == [plain(record)] * 2
    values = {name: type(value) for name, value in plain(record).items()}
    assert {name: type(value) for name, value in plain(back[0]).items()} == values


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_an_empty_table_keeps_its_columns(record: type) -> None:
    table = to_table(record, [])
    assert table.schema.equals(arrow_schema(record))
    assert from_table(record, table) == []


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_is_frozen_and_picklable(record: Any) -> None:
    assert plain(pickle.loads(pickle.dumps(record))) == plain(record)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, "other")


def test_a_pair_without_a_swap_keeps_nan() -> None:
    logps = ReferenceLogps(
        pair_id="p", key="k", responses=(-1.0,), swapped=math.nan, irrelevant=math.nan, text_prior=(-1.0,)
    )
    back = from_table(ReferenceLogps, to_table(ReferenceLogps, [logps]))[0]
    assert math.isnan(back.swapped)


def test_labels_come_back_as_labels() -> None:
    verdict = next(example for example in EXAMPLES if isinstance(example, Verdict))
    back = from_row(Verdict, to_row(verdict))
    assert back.label is VerdictLabel.SPURIOUS_ASSOCIATION
    assert from_row(PreferencePair, to_row(PAIR)).rejects[0].kind is RejectKind.SPURIOUS


def test_a_missing_column_is_an_error() -> None:
    table = to_table(Drop, [EXAMPLES[-1]])
    with pytest.raises(KeyError, match="reason"):
        from_table(Drop, table.drop_columns(["reason"]))


def test_decoded_arrays_that_are_not_contiguous_keep_their_values() -> None:
    flipped = dataclasses.replace(DECODED, frames=DECODED.frames[:, ::-1])
    back = from_table(DecodedClip, to_table(DecodedClip, [flipped]))[0]
    assert np.array_equal(back.frames, flipped.frames)


@given(
    text=st.text(),
    token_ids=st.lists(st.integers(0, 2**31)).map(tuple),
    index=st.integers(0, 100),
)
def test_any_text_and_tokens_come_back(text: str, token_ids: tuple[int, ...], index: int) -> None:
    rollout = Rollout(
        rollout_id="r",
        query_id="q",
        clip_id="c",
        index=index,
        text=text,
        token_ids=token_ids,
        finish_reason="length",
        adapter_version=0,
        seed=0,
    )
    assert from_table(Rollout, to_table(Rollout, [rollout])) == [rollout]
