"""A remote model is evaluated: real clips, a real server on loopback, the folder that a run leaves."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from clipmaker import Recipe, write_clip

from avere_ray.comparison.leaderboard import LeaderboardRun, to_markdown
from avere_ray.comparison.results import read_run_folder
from avere_ray.config import DecodeConfig, EvaluationConfig, RunConfig
from avere_ray.endpoint import Endpoint
from avere_ray.errors import ConfigError, DropBudgetExceeded, EndpointError
from avere_ray.evaluation.few_shot import Example
from avere_ray.evaluation.remote import RemoteModel
from avere_ray.evaluation.showing import Showing
from avere_ray.media import decode_clip
from avere_ray.modality import made_swap
from avere_ray.records import Clip, Query
from avere_ray.stages import read_drops
from jobs.evaluate import run, run_remote
from tests.chatserver import Answer, Seen, chat_server, fails, says

COUNT = 4
TASK = "reasoning_stress_video"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(COUNT):
        write_clip(folder / f"{i}.mp4", Recipe(frame_times_s=[0.0, 0.1, 0.2, 0.3], audio_s=0.4, tones_hz=(300.0 + i,)))
    rows = [{"clip_id": f"c{i}", "uri": f"{i}.mp4", "split": "test", "identity": f"p{i}"} for i in range(COUNT)]
    (folder / "clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    questions = [{"id": f"q{i}", "video": f"{i}.mp4", "task": TASK, "question": f"Is it {i}?",
                  "choices": ["(A) Yes", "(B) No"], "answer": "AB"[i % 2]} for i in range(COUNT)]  # fmt: skip
    (folder / "emorealm.json").write_text(json.dumps(questions))
    return folder


def config(clips: Path, run_dir: Path, url: str, **evaluation: Any) -> RunConfig:
    endpoint = {"url": url, "model": "m", "attempts": 2, **evaluation.pop("endpoint", {})}
    return RunConfig.model_validate(
        {"run_dir": run_dir, "data": {"clips": clips, "drop_budget": 0.0, "decode": {"frames": 2}},
         "evaluation": {"endpoint": endpoint, **evaluation}}
    )  # fmt: skip


def right(seen: Seen) -> Answer:
    number = int(seen.words().split("Is it ")[1][0])
    return says(["(A) Yes", "No, it is not."][number % 2])


def test_every_question_is_asked_with_its_file_and_the_folder_can_be_compared(clips: Path, tmp_path: Path) -> None:
    with chat_server(right) as server:
        cfg = config(clips, tmp_path / "run", server.url, media="file", endpoint={"price_in": 1.0})
        manifest = run_remote(cfg)
        assert len(server.seen) == COUNT
        assert run_remote(cfg).output_digest == manifest.output_digest
        assert len(server.seen) == COUNT  # finished: nobody is asked again
    sent = {seen.words(): seen.body["messages"][0]["content"][0]["video_url"]["url"] for seen in server.seen}
    data = sent["Is it 2? (A) Yes (B) No"].removeprefix("data:video/mp4;base64,")
    assert base64.b64decode(data) == (clips / "2.mp4").read_bytes()
    assert manifest.summary["metrics"]["average_accuracy"] == 100.0
    assert manifest.summary["remote_requests"] == COUNT
    assert manifest.summary["remote_cost"] == pytest.approx(COUNT * 100 / 1e6)
    result = read_run_folder(tmp_path / "run")
    found = result.last()
    assert [q.text for q in found.questions.values()] == [f"Is it {i}?" for i in range(COUNT)]
    assert all(outcome.right for outcome in found.outcomes())
    assert not (tmp_path / "run" / "evals" / "unfinished").exists()
    row = next(
        line for line in to_markdown([LeaderboardRun(result=result, start_ms=0)]).splitlines() if "remote" in line
    )
    assert row.startswith(f"| run: remote model m | as it is | 1 (0) | {COUNT} | 100.0")


def test_an_interrupted_evaluation_keeps_what_was_answered(clips: Path, tmp_path: Path) -> None:
    limits = {"max_requests": 3, "concurrency": 1}
    with chat_server(right) as server:
        with pytest.raises(EndpointError, match="budget max_requests = 3 is used up"):
            run_remote(config(clips, tmp_path / "run", server.url, media="file", endpoint=limits))
        assert run_remote(config(clips, tmp_path / "run", server.url, media="file")).used == COUNT
    words = [seen.words() for seen in server.seen]
    assert len(words) == len(set(words)) == COUNT


def test_questions_refused_in_a_mode_are_held_to_the_budget(clips: Path, tmp_path: Path) -> None:
    def reply(seen: Seen) -> Answer:
        whole = any(part["type"] != "text" for part in seen.body["messages"][0]["content"])
        return right(seen) if whole else fails(400, "content_filter")

    with chat_server(reply) as server:
        cfg = config(clips, tmp_path / "run", server.url, media="file", modes=["text_only"], drop_budget=0.5)
        with pytest.raises(
            DropBudgetExceeded, match=r"emorealm, text only dropped 4 of 4.*raise evaluation\.drop_budget"
        ):
            run_remote(cfg)


def test_refused_questions_count_as_wrong_and_against_the_budget(clips: Path, tmp_path: Path) -> None:
    def reply(seen: Seen) -> Answer:
        return fails(400, "content_filter") if "Is it 1?" in seen.words() else right(seen)

    with chat_server(reply) as server:
        with pytest.raises(DropBudgetExceeded, match=r"1 of 4 inputs; drop_budget 0 .*content_filter"):
            run_remote(config(clips, tmp_path / "run", server.url, media="file"))
        manifest = run_remote(config(clips, tmp_path / "run", server.url, media="file", drop_budget=0.3))
    assert (manifest.inputs, manifest.used, manifest.dropped) == (4, 3, 1)
    assert manifest.summary["metrics"]["average_accuracy"] == 75.0
    assert manifest.summary["metrics"]["missing"] == 1.0
    [drop] = read_drops(tmp_path / "run" / "evals" / "before")
    assert (drop.sample_id, drop.reason) == ("q1", "refused")
    words = [seen.words() for seen in server.seen]
    assert len(words) == COUNT + 1  # only the refused one is asked again


def test_a_remote_model_cannot_be_trained_and_modes_need_single_media(clips: Path, tmp_path: Path) -> None:
    workers: Any = object()
    with pytest.raises(ConfigError, match="cannot be trained"):
        run(config(clips, tmp_path / "run", "http://127.0.0.1:1/v1"), -1, workers)
    with pytest.raises(ValueError, match=r"evaluation.media to frames_and_sound"):
        EvaluationConfig.model_validate({"endpoint": {"url": "http://h/v1", "model": "m"}, "modes": ["muted"]})
    with pytest.raises(ValueError, match="no likelihoods"):
        EvaluationConfig.model_validate({"endpoint": {"url": "http://h/v1", "model": "m"}, "decoding": "likelihood"})


def test_another_models_evaluation_is_not_overwritten(clips: Path, tmp_path: Path) -> None:
    with chat_server(right) as server:
        run_remote(config(clips, tmp_path / "run", server.url, media="file"))
        with pytest.raises(ConfigError, match=r"evaluation of remote model m, which would be lost; set run_dir"):
            run_remote(config(clips, tmp_path / "run", server.url, media="file", endpoint={"model": "other"}))


def remote(clips: Path, media: str) -> RemoteModel:
    cfg = config(clips, clips, "http://127.0.0.1:1/v1")
    known = {f"c{i}": Clip(clip_id=f"c{i}", uri=f"{i}.mp4") for i in range(COUNT)}
    spec = DecodeConfig(frames=2, height=28, width=28)
    return RemoteModel(Endpoint(cfg.evaluation.endpoint), known, clips, media=media,
                       decode=lambda clip, root: decode_clip(clip, root / clip.uri, spec))  # fmt: skip


def parts(content: Any) -> list[str]:
    return [part["type"] for part in content]


def query(i: int) -> Query:
    return Query(query_id=f"q{i}", clip_id=f"c{i}", modality="video", task=TASK, prompt=f"Is it {i}?")


def test_media_are_files_or_frames_changed_as_the_mode_says(clips: Path) -> None:
    assert parts(remote(clips, "file_and_sound").request(query(1), Showing(), 8).messages[0]["content"]) == [
        "video_url", "input_audio", "text",
    ]  # fmt: skip
    asked = remote(clips, "frames_and_sound")
    plain = asked.request(query(1), Showing(), 8).messages[0]["content"]
    assert parts(plain) == ["image_url", "image_url", "input_audio", "text"]
    muted = Showing(swap=made_swap("audio", "blank", "c1", seed=0, level=0.0))
    content = asked.request(query(1), muted, 8).messages[0]["content"]
    assert content[:2] == plain[:2] and content[2] != plain[2]
    sound = base64.b64decode(content[2]["input_audio"]["data"])[44:]
    assert set(sound) == {0}
    assert parts(asked.request(query(1), Showing(words_only=True), 8).messages[0]["content"]) == ["text"]


def test_examples_are_turns_before_the_question(clips: Path) -> None:
    shown = Showing(examples=(Example(query=query(3), answer="(A) Yes."),))
    messages = remote(clips, "file").request(query(1), shown, 8).messages
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "(A) Yes."
    assert messages[0]["content"][-1]["text"] == "Is it 3?"
