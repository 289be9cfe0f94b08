"""Logged models and answers in MLflow belong to the stage that made them, also after it was done again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.tracking import past
from avere_ray.tracking.nested import ANSWERS_TAG, MODEL_TAG, Nested


class Client:
    """As much of MLflow's client as is asked for."""

    def __init__(self) -> None:
        self.models: list[SimpleNamespace] = []
        self.uploads: list[tuple[str, str]] = []
        self.children: list[SimpleNamespace] = []

    def search_logged_models(self, experiments: list[str], text: str) -> list[SimpleNamespace]:
        return [model for model in self.models if f"tags.`{MODEL_TAG}` = '{model.tags[MODEL_TAG]}'" == text]

    def create_logged_model(self, experiment: str, *, tags: dict[str, str], **rest: Any) -> SimpleNamespace:
        made = SimpleNamespace(model_id=f"m{len(self.models)}", tags=tags, status="PENDING", metrics=[])
        self.models.append(made)
        return made

    def get_logged_model(self, model_id: str) -> SimpleNamespace:
        return next(model for model in self.models if model.model_id == model_id)

    def log_model_artifacts(self, model_id: str, folder: str) -> None:
        self.uploads.append((model_id, folder))

    def log_outputs(self, run_id: str, outputs: list[Any]) -> None:
        pass

    def set_logged_model_tags(self, model_id: str, tags: dict[str, str]) -> None:
        pass

    def finalize_logged_model(self, model_id: str, status: str) -> None:
        self.get_logged_model(model_id).status = status

    def get_run(self, run_id: str) -> SimpleNamespace:
        return SimpleNamespace(info=SimpleNamespace(experiment_id="1"))

    def search_runs(self, experiments: list[str], text: str, max_results: int) -> list[SimpleNamespace]:
        return self.children

    def list_artifacts(self, run_id: str, place: str) -> list[str]:
        return ["file"]

    def download_artifacts(self, run_id: str, place: str, scratch: str) -> str:
        return f"{scratch}/{place}"


def test_a_stage_that_is_done_again_makes_another_logged_model(tmp_path: Path) -> None:
    client = Client()
    nested = Nested(client, experiment_id="1", run_id="r", spool_id="s")
    body = {"name": "adapter-round0", "step": 1, "tags": {}, "timestamp_ms": 0}
    for key, folder in (("k1", tmp_path / "one"), ("k1", tmp_path / "one"), ("k2", tmp_path / "two")):
        nested.send_model({**body, "key": key}, folder)
    assert client.uploads == [("m0", str(tmp_path / "one")), ("m1", str(tmp_path / "two"))]
    nested.send_model(body, tmp_path / "unnamed")  # as earlier versions noted it
    assert client.models[-1].tags == {MODEL_TAG: "r/adapter-round0"}


@pytest.mark.parametrize(("tags", "place"), [({}, "evaluation"), ({ANSWERS_TAG: "evaluation/k2"}, "evaluation/k2")])
def test_the_answers_are_those_of_the_childs_newest_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], place: str
) -> None:
    client = Client()
    child = SimpleNamespace(info=SimpleNamespace(run_id="c"), data=SimpleNamespace(tags={"stage": "evals/x", **tags}))
    client.children = [child]

    @contextmanager
    def mlflow(uri: str) -> Iterator[Client]:
        yield client

    monkeypatch.setattr(past, "mlflow_client", mlflow)
    assert past.evaluation_artifacts("u", "r", tmp_path) == {"evals/x": tmp_path / "c" / place}
