"""Which adapter the name `champion` stands for: pointer before config, checked before it moves, kept after failures."""

import dataclasses
from pathlib import Path

import pytest

from actors.serving.adapters import Champion, ServeSpec, checked_adapter
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig, ServeConfig
from avere_ray.errors import InputError, ModelError, StageError
from avere_ray.media import spec_digest
from avere_ray.records import AdapterManifest
from avere_ray.stages import file_digest, write_json

DECODE = DecodeConfig()


class Engine:
    """Remembers what was loaded; refuses on demand."""

    def __init__(self) -> None:
        self.loaded: dict[str, Path] = {}
        self.refuses = False

    def load_adapter(self, name: str, folder: Path) -> None:
        if self.refuses:
            raise ModelError(f"adapter {folder} changes nothing in the engine")
        self.loaded[name] = folder


def adapter(folder: Path, weights: str = "w", **changed: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(weights)
    manifest = AdapterManifest(
        version=1,
        path=".",
        base_digest="base",
        backbone="qwen2_5_omni",
        round=0,
        step=1,
        rank=8,
        alpha=32.0,
        data_digest="",
        decode_spec=spec_digest(DECODE),
        weights_sha256=file_digest(folder / "adapter_model.safetensors"),
    )
    write_json(folder / "adapter_manifest.json", dataclasses.asdict(dataclasses.replace(manifest, **changed)))
    return folder


def spec(folder: Path, champion: str | None = None) -> ServeSpec:
    return ServeSpec(
        base="base",
        model=ModelConfig(),
        rollout=RolloutConfig(),
        decode=DECODE,
        lora_rank=8,
        base_digest="base",
        adapters={},
        serve=ServeConfig(champion=champion),
        folder=folder / "serve",
        tracking_uri="",
    )


def test_a_folder_is_looked_at_again(tmp_path: Path) -> None:
    engine, place = Engine(), tmp_path / "best"
    champion = Champion(spec(tmp_path, str(place)), engine)
    assert champion.wanted
    assert champion.look() is None
    assert "cannot be read" in (champion.problem or "")
    adapter(place, "one")
    first = champion.look()
    assert first == champion.look()
    assert len(engine.loaded) == 1
    adapter(place, "two")
    assert champion.look() not in (None, first)
    assert champion.problem is None
    adapter(place, "one")
    assert champion.look() == first


def test_a_link_is_followed_to_where_the_weights_stay(tmp_path: Path) -> None:
    engine, link = Engine(), tmp_path / "best"
    link.symlink_to(adapter(tmp_path / "round=0"))
    Champion(spec(tmp_path, str(link)), engine).look()
    assert list(engine.loaded.values()) == [tmp_path / "round=0"]


def test_the_pointer_of_an_administrator_comes_before_the_config(tmp_path: Path) -> None:
    one, two = adapter(tmp_path / "one", "1"), adapter(tmp_path / "two", "2")
    champion, other = (Champion(spec(tmp_path, str(one)), Engine()) for _ in range(2))
    first = champion.look()
    moved = champion.point_to(two)
    assert moved != first
    assert other.look() == moved  # another replica follows
    assert champion.point_to(None) == first
    assert other.look() == first


def test_where_the_config_names_none_the_champion_can_be_taken_back(tmp_path: Path) -> None:
    champion, other = (Champion(spec(tmp_path), Engine()) for _ in range(2))
    folder = adapter(tmp_path / "one")
    moved = champion.point_to(folder)
    assert other.look() == moved is not None
    assert champion.point_to(None) is None
    assert not other.wanted and other.look() is None  # another replica follows
    assert (champion.name, champion.problem, other.name) == (None, None, None)
    assert champion.point_to(folder) == moved


def test_what_cannot_be_served_leaves_the_champion_and_the_pointer(tmp_path: Path) -> None:
    engine = Engine()
    champion = Champion(spec(tmp_path), engine)
    assert not champion.wanted
    first = champion.point_to(adapter(tmp_path / "one", "1"))
    engine.refuses = True
    for folder in (adapter(tmp_path / "two", "2"), tmp_path / "none"):
        with pytest.raises(InputError):
            champion.point_to(folder)
    engine.refuses = False
    assert champion.look() == first


def test_a_folder_that_is_no_path_leaves_the_champion(tmp_path: Path) -> None:
    champion = Champion(spec(tmp_path), Engine())
    first = champion.point_to(adapter(tmp_path / "one", "1"))
    (loop := tmp_path / "loop").symlink_to(loop)
    for folder in (Path("\0"), tmp_path / "a\0b", loop):
        with pytest.raises(InputError, match="is no path"):
            champion.point_to(folder)
    assert champion.look() == first
    write_json(tmp_path / "serve" / "champion.json", {"folder": "\0"})
    assert champion.look() == first
    assert "is no path" in (champion.problem or "")


def test_the_registry_is_asked_and_may_be_away(tmp_path: Path) -> None:
    answers: list[Path | Exception] = [adapter(tmp_path / "one"), StageError("MLflow does not answer")]

    def fetch() -> Path:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    champion = Champion(spec(tmp_path, "registry"), Engine(), fetch)
    first = champion.look()
    assert first is not None
    assert champion.look() == first
    assert champion.problem == "MLflow does not answer"


@pytest.mark.parametrize(
    ("changed", "error"), [({"base_digest": "x"}, ModelError), ({"decode_spec": "x"}, InputError), ({}, InputError)]
)
def test_adapters_that_do_not_belong(tmp_path: Path, changed: dict[str, str], error: type[Exception]) -> None:
    folder = adapter(tmp_path / "a", **changed)
    if not changed:
        (folder / "adapter_model.safetensors").write_text("other")
    with pytest.raises(error):
        checked_adapter(folder, "base", DECODE)
