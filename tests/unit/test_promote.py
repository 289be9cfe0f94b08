"""The gate before a champion: what is significantly worse, or was not tested, keeps an adapter from becoming it."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from runfolders import write_run

from avere_ray.comparison.differences import Pair, compare, correct
from avere_ray.comparison.results import BEFORE, Evaluation, RunResult, read_run_folder
from avere_ray.errors import InputError
from avere_ray.stages import file_digest, write_json
from avere_ray.tracking import registry
from avere_ray.tracking.registry import NEWEST, Registered, evaluated_tag, fetch_adapter, register
from jobs.promote import answers_of, gate


def right(i: int, task: str, gold: str) -> str:
    return f"({gold})"


def worse(i: int, task: str, gold: str) -> str:
    return "maybe" if task == "modality_agreement" else f"({gold})"


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluation(tmp_path_factory.mktemp("champion"), right)


def evaluation(folder: Path, says: object, seed: int = 0) -> Evaluation:
    return read_run_folder(write_run(folder, {"round=0": says}, clips=8, seed=seed)).last()  # type: ignore[dict-item]


def pair_of(first: Evaluation, second: Evaluation) -> Pair:
    return correct([compare(first, second, ("the champion", "the candidate"))])[0]


def test_the_same_answers_pass(champion: Evaluation) -> None:
    assert gate(pair_of(champion, champion)) == []


def test_a_task_that_is_all_wrong_on_other_clips_is_an_objection(champion: Evaluation, tmp_path: Path) -> None:
    """From 100 % to 0 % on clips of another seed, where no bootstrap sample varies."""
    found = gate(pair_of(champion, evaluation(tmp_path, worse, seed=1)))
    assert any("modality_agreement is significantly worse: 100.0 to 0.0" in line for line in found)
    assert any("24 questions are not the same in both" in line for line in found)


def test_a_task_that_the_candidate_was_not_asked_is_an_objection(champion: Evaluation) -> None:
    kept = {name: q for name, q in champion.questions.items() if q.item.task != "modality_agreement"}
    found = gate(pair_of(champion, dataclasses.replace(champion, questions=kept)))
    assert any(line.startswith("modality_agreement is not tested") and "was not asked" in line for line in found)
    assert any("8 questions are not the same in both" in line for line in found)


def test_answers_that_are_not_here_are_an_objection(champion: Evaluation) -> None:
    [line] = gate(pair_of(champion, Evaluation(stage="round=0", metrics=champion.metrics)))
    assert "the answers of one of them are not here" in line


# continued runs -------------------------------------------------------------------------------------------------------


def continued(run_id: str, **tags: str) -> RunResult:
    stages = (BEFORE, "round=0", "round=1")
    evaluations = {stage: Evaluation(stage=stage, metrics={}) for stage in stages}
    return RunResult(name="r", run_id=run_id, params={}, evaluations=evaluations, curves={}, folder=None, tags=tags)


def test_the_champions_answers_are_those_of_its_very_adapter() -> None:
    run = continued("a", **{evaluated_tag(0): "old", evaluated_tag(1): "new"})
    champion = Registered(version="1", run_id="a", digest="old")
    assert answers_of(champion, run, run).stage == "round=0"
    assert answers_of(champion, run, continued("b")).stage == "round=0"


def test_a_champion_whose_run_was_trained_again_cannot_be_tested_against() -> None:
    run = continued("a", **{evaluated_tag(1): "new"})
    for digest in ("old", ""):
        with pytest.raises(InputError, match=r"earlier adapter of r, which was continued"):
            answers_of(Registered(version="1", run_id="a", digest=digest), run, run)


def test_a_run_that_was_tracked_without_digests_is_taken_by_its_last_evaluation() -> None:
    assert answers_of(Registered(version="1", run_id="a"), continued("a"), continued("b")).stage == "round=1"


class Client:
    """As much of MLflow's client as the registry asks for; artifacts are files."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts, self.tags, self.versions, self.aliases = artifacts, {}, [], {}

    def get_run(self, run_id: str) -> SimpleNamespace:
        info = SimpleNamespace(artifact_uri=str(self.artifacts / run_id))
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags), info=info)

    def list_artifacts(self, run_id: str, place: str) -> list[Path]:
        return list((self.artifacts / run_id / place).glob("*"))

    def download_artifacts(self, run_id: str, place: str, scratch: str) -> str:
        source, target = self.artifacts / run_id / place, Path(scratch) / Path(place).name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        return str(target)

    def search_model_versions(self, text: str) -> list[SimpleNamespace]:
        return self.versions

    def create_model_version(self, name: str, source: str, run_id: str, tags: dict[str, str]) -> SimpleNamespace:
        made = SimpleNamespace(name=name, version=str(len(self.versions) + 1), source=source, run_id=run_id, tags=tags)
        self.versions.append(made)
        return made

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(aliases=self.aliases)

    def trained(self, weights: str, run_id: str = "a") -> str:
        """Another adapter of the run, as it is sent."""
        scratch = self.artifacts / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "adapter_model.safetensors").write_text(weights)
        digest = file_digest(scratch / "adapter_model.safetensors")
        write_json(scratch / "adapter_manifest.json", {"weights_sha256": digest})
        assert registry.adapter_digest(scratch) == digest
        shutil.copytree(scratch, self.artifacts / run_id / "adapter" / digest)
        self.tags[NEWEST] = digest
        return digest


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(tmp_path / "artifacts")

    @contextmanager
    def mlflow(uri: str) -> Iterator[Client]:
        yield made

    monkeypatch.setattr(registry, "mlflow_client", mlflow)
    return made


def test_a_continued_run_gets_a_version_of_its_own_and_the_old_one_keeps_its_weights(
    client: Client, tmp_path: Path
) -> None:
    first = client.trained("one")
    old = register("u", "m", "a", first)
    assert register("u", "m", "a") == old
    client.aliases["champion"] = old.version
    second = client.trained("two")
    new = register("u", "m", "a", second)
    assert (old.version, old.digest, new.version, new.digest) == ("1", first, "2", second)
    assert client.versions[0].source.endswith(f"adapter/{first}")
    served = fetch_adapter("u", "a", tmp_path / "served")
    assert (served / "adapter_model.safetensors").read_text() == "one"
    client.aliases["champion"] = new.version
    served = fetch_adapter("u", "a", tmp_path / "served")
    assert (served / "adapter_model.safetensors").read_text() == "two"


def test_an_adapter_without_digest_is_still_registered_and_fetched(client: Client, tmp_path: Path) -> None:
    flat = client.artifacts / "a" / "adapter"
    flat.mkdir(parents=True)
    (flat / "adapter_model.safetensors").write_text("flat")
    found = register("u", "m", "a")
    assert (found.digest, client.versions[0].source.endswith("/adapter")) == ("", True)
    assert (fetch_adapter("u", "a", tmp_path / "s") / "adapter_model.safetensors").read_text() == "flat"
    assert fetch_adapter("u", "a", tmp_path / "s").name == "a"


def test_a_folder_with_the_files_of_another_adapter_is_refused(client: Client) -> None:
    digest = client.trained("one")
    place = client.artifacts / "a" / "adapter" / digest / "adapter_manifest.json"
    place.write_text(json.dumps({"weights_sha256": "other"}))
    with pytest.raises(InputError, match="holds another adapter"):
        register("u", "m", "a")


def test_a_run_without_adapter_is_told_what_to_do(client: Client) -> None:
    with pytest.raises(InputError, match="evaluate the base and the adapter, or run the pipeline"):
        register("u", "m", "a")
