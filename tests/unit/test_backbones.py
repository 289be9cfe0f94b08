"""Model folders at the door: what is refused, and what the message tells to do."""

import json
from pathlib import Path

import pytest

from avere_ray.backbones import backbone, check_model_folder, model_digest
from avere_ray.backbones.qwen2_5_omni.processor import LONGEST_KEPT, PromptIds
from avere_ray.errors import ModelError

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 8


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("x")
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path


def test_a_complete_folder_passes(model: Path) -> None:
    check_model_folder(model)


def test_a_missing_folder_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere does not exist.*model\.path"):
        check_model_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "words"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer"), ("model.safetensors", "weights"),
     ("chat_template.jinja", "chat template")],
)  # fmt: skip
def test_a_missing_part_is_named(model: Path, file: str, words: str) -> None:
    (model / file).unlink()
    with pytest.raises(ModelError, match=words):
        check_model_folder(model)


@pytest.mark.parametrize(
    "content",
    [b"", WEIGHTS[:4], WEIGHTS[:-1], WEIGHTS + b"\0", b"\xff" * 64],
    ids=["empty", "header cut", "data cut", "too long", "garbage"],
)
def test_damaged_weights_are_refused(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or incomplete"):
        check_model_folder(model)


def sharded(model: Path, *, shards: int, there: int) -> None:
    """Weights in so many files with an index, of which the first `there` are in the folder."""
    (model / "model.safetensors").unlink()
    files = [f"model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]
    for name in files[:there]:
        (model / name).write_bytes(WEIGHTS)
    index = {"weight_map": {f"w{i}": name for i, name in enumerate([*files, *files])}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_folder_of_several_weights_files_must_have_those_that_its_index_names(model: Path) -> None:
    sharded(model, shards=3, there=3)
    check_model_folder(model)
    (model / "model-00001-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of the 3 weights files that model\.safetensors\.index\.json names: "
                                         r"model-00001-of-00003\.safetensors\. Copy"):  # fmt: skip
        check_model_folder(model)


def test_an_index_alone_is_no_model(model: Path) -> None:
    sharded(model, shards=12, there=0)
    with pytest.raises(ModelError, match=r"lacks 12 of the 12 .*model-00008-of-00012\.safetensors and 4 more\."):
        check_model_folder(model)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_an_index_that_names_no_files_is_refused(model: Path, text: str) -> None:
    (model / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json (cannot be read|is no index of weights)"):
        check_model_folder(model)


def test_a_template_may_stand_in_the_tokenizer_s_config(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    (model / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    check_model_folder(model)
    (model / "tokenizer_config.json").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json cannot be read as JSON"):
        check_model_folder(model)


def test_the_setting_that_names_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Set judge\.model_path to a folder"):
        check_model_folder(tmp_path / "nowhere", "judge.model_path")


def test_a_config_that_is_not_json_is_refused(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read as JSON"):
        check_model_folder(model)


def test_the_digest_follows_weights_and_config(model: Path) -> None:
    first = model_digest(model)
    assert model_digest(model) == first
    (model / "config.json").write_text('{"a": 1}')
    assert model_digest(model) != first


@pytest.mark.parametrize(
    "name",
    [
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ],
)
def test_the_digest_follows_what_a_model_makes_of_media_and_words(model: Path, name: str) -> None:
    bare = model_digest(model)
    (model / name).write_text('{"image_mean": [0.5]}')
    first = model_digest(model)
    (model / name).write_text('{"image_mean": [0.25]}')
    assert len({bare, first, model_digest(model)}) == 3


def test_tokens_of_short_prompts_alone_are_kept() -> None:
    made: list[str] = []

    def make(prompt: str, video: bool, audio: bool) -> list[int]:
        made.append(prompt)
        return [len(prompt), int(video), int(audio)]

    ids = PromptIds(make)
    for length in (LONGEST_KEPT, LONGEST_KEPT + 1):
        prompt = "x" * length
        assert [ids(prompt, True, False) for _ in range(3)] == [(length, 1, 0)] * 3
    assert ids("x" * LONGEST_KEPT, False, False) == (LONGEST_KEPT, 0, 0)
    assert [len(prompt) for prompt in made] == [LONGEST_KEPT, *[LONGEST_KEPT + 1] * 3, LONGEST_KEPT]


def test_an_unknown_family_is_refused_with_those_known() -> None:
    with pytest.raises(ModelError, match=r"unknown backbone 'llava'; known: qwen2_5_omni"):
        backbone("llava")
