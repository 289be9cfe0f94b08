"""The config tree: strict, documented, and clear about what is wrong."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from avere_ray.config import PlacementConfig, RunConfig, help_text, load_config
from avere_ray.errors import ConfigError


def write(path: Path, text: str) -> Path:
    file = path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield f"{prefix}{name}", field
            yield from settings(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def test_the_command_line_wins_and_leaves_the_rest_of_a_section(tmp_path: Path) -> None:
    file = write(tmp_path, "seed: 3\ntrain: {epochs: 4, weight_decay: 0.5}\n")
    config = load_config(file, ["--train.epochs=2", "--train.use_gpu=false", "--data.clips=some/clips"])
    assert (config.seed, config.train.epochs, config.train.weight_decay) == (3, 2, 0.5)
    assert config.data.clips == Path("some/clips")
    assert config.loss == RunConfig().loss


def test_a_choice_between_numbers_can_be_given_on_the_command_line() -> None:
    config = load_config(None, ["--train.zero_stage=3", "--train.lora_rank=16", "--loss.text_prior_sign=1"])
    assert (config.train.zero_stage, config.train.lora_rank, config.loss.text_prior_sign) == (3, 16, 1)
    assert load_config(None, ["--loss.text_prior_sign=-1"]).loss.text_prior_sign == -1
    with pytest.raises(ConfigError, match=r"lora_rank = 7.*8, 16, 32"):
        load_config(None, ["--train.lora_rank=7"])


def test_nothing_is_left_of_an_earlier_command_line() -> None:
    assert load_config(None, ["--seed=4", "--evaluation.annotations.cmm=c.json"]).seed == 4
    with pytest.raises(ConfigError):
        load_config(None, ["--train.epochs=2", "--trian=1"])
    later = load_config(None, ["--rounds=3"])
    assert later == RunConfig(rounds=3)
    assert load_config(None) == RunConfig()


def test_entries_of_a_table_can_be_given_with_dots(tmp_path: Path) -> None:
    file = write(tmp_path, "evaluation: {annotations: {dfew: set_1.csv}}\n")
    given = ["--evaluation.annotations.emer=a,b=c.csv", "--evaluation.annotations.cmm=c.json"]
    assert load_config(file, given).evaluation.annotations == {
        "dfew": Path("set_1.csv"), "emer": Path("a,b=c.csv"), "cmm": Path("c.json")}  # fmt: skip
    given = ["--data.clips=x", "--data.source.kind=manifest", "--data.source.columns.uri=path"]
    assert load_config(None, given).data.source.columns == {"uri": "path"}
    with pytest.raises(ConfigError, match=r"evaluation.annotations.dfw.*'dfew'"):
        load_config(None, ["--evaluation.annotations.dfw=x.csv"])


def test_the_shell_s_variables_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NAME": "other", "SEED": "7", "DATA": "no json", "TRAIN__EPOCHS": "9"}.items():
        monkeypatch.setenv(name, value)
    assert load_config(None) == RunConfig()
    assert load_config(None).seed == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trian: {}", ["unknown setting trian", "allowed here", "train"]),
        ("train: {lrate: 1}", ["unknown setting train.lrate = 1", "learning_rate"]),
        ("data: {decode: {heigth: 84}}", ["unknown setting data.decode.heigth = 84", "height"]),
        ("train: {epochs: two}", ["train.epochs = 'two'", "integer"]),
        ("train: 3", ["train = 3"]),
        ("rounds: 0", ["rounds = 0", "greater than or equal to 1"]),
        ("data: {drop_budget: 1.5}", ["data.drop_budget = 1.5", "less than or equal to 1"]),
        ("data: {decode: {height: 85}}", ["data.decode.height = 85", "multiple of 28"]),
        ("train: {lora_rank: 7}", ["train.lora_rank = 7", "8, 16, 32"]),
        ("name: a b", ["'a b'", "letters, digits"]),
        ("- a", ["holds a list"]),
        ("[]", ["holds a list"]),
        ("train: [", ["not valid YAML"]),
        ("name: 2026-13-45", ["not valid YAML", "month"]),
        ("name: !!timestamp soon", ["not valid YAML"]),
        ("1: 2", ["the key '1' in line 1 is read as int", "quotes"]),
        ("seed: 1\non: 2", ["the key 'on' in line 2 is read as bool"]),
        ("data: {source: {emotions: {no: neutral}}}", ["the key 'no' in line 1 is read as bool"]),
        ("? [a, b]\n: 2", ["the key in line 1 is read as seq"]),
        ("seed: 1\nrounds: 2\nseed: 3", ["seed is set twice", "in line 1 and in line 3", "Remove one"]),
        ("train: {epochs: 1}\ndata: {}\n'train': {lora_rank: 16}", ["train is set twice", "in line 1 and in line 3"]),
        ("train:\n  epochs: 1\n  epochs: 2", ["epochs is set twice", "in line 2 and in line 3"]),
        ("_env_file: x", ["unknown setting _env_file = 'x'", "allowed here", "train"]),
        ("seed: true", ["seed = True", "a number, not true or false"]),
        ("train: {learning_rate: yes}", ["train.learning_rate = True", "a number, not true or false"]),
        ("train: {zero_stage: true}", ["train.zero_stage = True", "a number, not true or false"]),
        ("ray: {num_cpus: false}", ["ray.num_cpus = False", "a number, not true or false"]),
        ("study: {seeds: [0, true]}", ["study.seeds = [0, True]", "a number, not true or false"]),
    ],
)
def test_a_bad_file_names_the_key_the_value_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert all(word in message for word in [*words, str(file)] if word), message


def test_a_file_that_is_not_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes("name: f\xfcnf\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"run\.yaml is not UTF-8: .* at byte 7\. Save it as UTF-8"):
        load_config(file)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml cannot be read: File name too long"):
        load_config(tmp_path / f"{'x' * 300}.yaml")

    def refuse(self: Path, **_: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    file = write(tmp_path, "seed: 1")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match=r"run\.yaml cannot be read: Permission denied\. Check its name and permis"):
        load_config(file)


def test_what_the_command_line_gives_as_text_is_a_number_or_a_switch(tmp_path: Path) -> None:
    file = write(tmp_path, 'rounds: 2.0\ntrain: {epochs: "3", projectors: false}\n')
    cfg = load_config(
        file, ["--seed=1", "--train.learning_rate=1", "--evaluation.likelihoods=1", "--study.seeds=[0,1]"]
    )
    assert (cfg.seed, cfg.rounds, cfg.train.epochs, cfg.train.learning_rate) == (1, 2, 3, 1.0)
    assert (cfg.evaluation.likelihoods, cfg.train.projectors, cfg.study.seeds) == (True, False, (0, 1))


def test_a_section_may_be_merged_into_another_and_changed_there(tmp_path: Path) -> None:
    """YAML's own way to share settings is no repetition, wherever the shared section stands."""
    file = write(
        tmp_path,
        "evaluation: {judge: &shared {backend: rules, votes: 3}}\njudge: {<<: *shared, votes: 5}\n",
    )
    cfg = load_config(file)
    assert (cfg.judge.votes, cfg.evaluation.judge.votes) == (5, 3)


def test_an_override_may_have_a_space_for_its_equals_sign() -> None:
    cfg = load_config(None, ["--seed", "3", "--train.learning_rate", "1e-3", "--rounds=2"])
    assert (cfg.seed, cfg.train.learning_rate, cfg.rounds) == (3, 1e-3, 2)
    with pytest.raises(ConfigError, match=r"'5'.*overrides look like"):
        load_config(None, ["--seed", "3", "5"])
    with pytest.raises(ConfigError, match=r"--prot=8000.*--help"):
        load_config(None, ["--prot", "8000"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--train.lrate=1", ["--train.lrate=1", "--help"]),
        ("--trian=1", ["--trian=1"]),
        ("--see=1", ["--see=1"]),
        ("--train.epochs=two", ["train.epochs = 'two'"]),
        ("--train.epochs=", ["train.epochs = ''"]),
        ("train.epochs=2", ["'train.epochs=2'", "overrides look like --"]),
    ],
)
def test_a_bad_override_is_named(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--train.workers=3"], "train.pairs_per_step (16) must be a multiple of train.workers (3)"),
        (["--train.micro_pairs=3"], "must be a multiple of train.micro_pairs (3)"),
        (["--rollout.max_tokens=1024"], "rollout.max_tokens (1024) must be below rollout.max_model_len (1024)"),
        (["--data.benchmark=b.json"], "data.benchmark is set but data.clips is not"),
        (["--train.use_gpu=true"], "set parity.max_abs_diff to 1.0e-3 or more"),
        (
            ["--rollout.engines=4", "--rollout.max_engines=3"],
            "rollout.max_engines (3) must not be below rollout.engines (4)",
        ),
        (["--rollout.num_gpus=1.5"], "rollout.num_gpus (1.5) is a tensor parallel size when above 1"),
        (["--model.dtype=bfloat16"], "parity.max_abs_diff (0.0001) where nothing is wrong; set it to 0.5"),
        (["--rollout.num_gpus=1"], "with rollout.num_gpus above 0 set model.dtype to bfloat16"),
        (["--train.use_gpu=true", "--train.gpus_per_worker=0.5"], "may be below 1 with one worker only"),
        (["--rollout.overlap=true", "--rounds=1"], "Set rounds to 2 or more, or rollout.overlap to false"),
        (
            ["--rollout.overlap=true", "--train.tuning=full", "--rounds=1"],
            "rollout.overlap needs train.tuning lora",
        ),
        (
            ["--rollout.overlap=true", "--data.pairs.path=pairs", "--rounds=1"],
            "nothing is sampled with data.pairs.path",
        ),
        (
            [
                "--rollout.overlap=true",
                "--rollout.num_gpus=0.4",
                "--train.use_gpu=true",
                "--train.gpus_per_worker=0.4",
                "--model.dtype=bfloat16",
                "--parity.max_abs_diff=0.5",
                "--train.workers=1",
            ],
            "share a GPU, where each would wait for the other",
        ),
        (
            ["--train.reference=previous_round", "--train.reference_source=cached"],
            "previous_round needs train.reference_source precomputed",
        ),
        (["--train.zero_stage=3", "--train.reference_source=cached"], "cached does not work with train.zero_stage 3"),
        (
            ["--train.tuning=full", "--rounds=1", "--train.reference_source=adapter_off"],
            "with train.tuning full set it to precomputed",
        ),
        (
            ["--loss.kind=vista_dpo", "--train.reference=previous_round"],
            "needs train.tuning lora and train.reference base, not lora and previous_round",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_a_sentence(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config(tmp_path / "nowhere.yaml")


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == RunConfig()


def test_the_resolved_config_gives_the_same_config_again(tmp_path: Path) -> None:
    config = load_config(None, ["--train.learning_rate=1.0e-5", "--tracking.uri=http://127.0.0.1:5000", "--seed=4"])
    assert load_config(write(tmp_path, config.to_yaml())) == config
    assert yaml.safe_load(config.to_yaml()) == config.resolved()


def test_every_setting_is_documented_and_shown() -> None:
    shown = help_text("avere-ray")
    for name, field in settings(RunConfig):
        assert field.description, f"{name} has no docstring"
        assert f"--{name}" in shown


def test_a_config_cannot_be_changed() -> None:
    config = RunConfig()
    with pytest.raises(ValidationError):
        config.seed = 1
    with pytest.raises(ValidationError):
        config.train.epochs = 2


def test_placement_says_where_and_how_much_in_one_section() -> None:
    cfg = load_config(
        None,
        [
            "--placement.rollout=gpu",
            "--placement.engines=4",
            "--placement.tensor_parallel=2",
            "--placement.train_workers=8",
            "--model.dtype=bfloat16",
            "--parity.max_abs_diff=0.5",
            "--train.pairs_per_step=16",
            "--train.micro_pairs=1",
        ],
    )
    assert (cfg.rollout.engines, cfg.rollout.num_gpus, cfg.train.workers) == (4, 2, 8)
    assert cfg.rollout.samples == RunConfig().rollout.samples
    again = RunConfig.model_validate(cfg.resolved())
    assert again == cfg
    assert RunConfig(placement=PlacementConfig(engines=3)).rollout.engines == 3


def test_placement_and_a_stage_that_disagree_are_refused() -> None:
    assert load_config(None, ["--placement.engines=2", "--rollout.engines=2"]).rollout.engines == 2
    with pytest.raises(ConfigError, match=r"placement\.engines is 2 but rollout\.engines is 3; give one of them"):
        load_config(None, ["--placement.engines=2", "--rollout.engines=3"])
    with pytest.raises(ConfigError, match="train_workers"):
        load_config(None, ["--placement.train_workers=none of them"])
