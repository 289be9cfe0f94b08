"""Rules between settings, each spelled as the sentence that a person reads when it is broken."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from avere_ray.config.run import RunConfig
    from avere_ray.config.sampling import JudgeConfig

_SET_BY_PLACEMENT = {
    "engines": ("rollout", "engines"),
    "tensor_parallel": ("rollout", "num_gpus"),
    "train_workers": ("train", "workers"),
}
"""Settings of placement, each with the section and setting that it sets."""
_NO_TRAINING_ANSWERS = ("avhbench", "cmm", "emer", "ovmerd")
"""Benchmarks whose questions cannot be made from annotated clips, or have no options."""


def check_rules(cfg: "RunConfig") -> None:
    """Refuses settings that contradict each other.

    Raises:
        ValueError: says which and what to do; the first that is found.
    """
    for rule in (
        _batch_rules,
        _tuning_rules,
        _reference_rules,
        _engine_rules,
        _overlap_rules,
        _data_rules,
        _judge_rules,
        _few_shot_rules,
        _description_rules,
    ):
        for sentence in rule(cfg):
            raise ValueError(sentence)


def set_by_placement(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with what `placement` says about engines and workers in the sections that read it.

    Raises:
        ValueError: a section says something else.
    """
    settings = dict(values)
    for name, (section, field) in _SET_BY_PLACEMENT.items():
        wanted = _plain(settings.get("placement")).get(name)
        if wanted in (None, "null", "None"):
            continue
        given = _plain(settings.get(section))
        if field in given and _number(given[field]) != _number(wanted):
            raise ValueError(
                f"placement.{name} is {wanted} but {section}.{field} is {given[field]}; give one of them, or the same"
            )
        settings[section] = {**given, field: wanted}
    return settings


def _number(value: Any) -> str:
    """2, 2.0 and "2" as the same text; values are not validated yet."""
    return str(value).removesuffix(".0")


def _plain(section: Any) -> dict[str, Any]:
    """What is set in a section, whether it is read from a file or made in code."""
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return dict(section) if isinstance(section, Mapping) else {}


def _batch_rules(cfg: "RunConfig") -> Iterator[str]:
    train = cfg.train
    if train.pairs_per_step % train.workers:
        yield (
            f"train.pairs_per_step ({train.pairs_per_step}) must be a multiple of train.workers ({train.workers}), so "
            "that every worker gets the same number of pairs"
        )
    elif (train.pairs_per_step // train.workers) % train.micro_pairs:
        yield (
            f"train.pairs_per_step / train.workers ({train.pairs_per_step // train.workers}) must be a multiple of "
            f"train.micro_pairs ({train.micro_pairs}), so that every forward pass has the same size"
        )


def _tuning_rules(cfg: "RunConfig") -> Iterator[str]:
    train = cfg.train
    if train.tuning == "full" and cfg.rounds > 1:
        yield (
            f"train.tuning 'full' writes a model folder, from which a new run starts; set rounds to 1 (it is "
            f"{cfg.rounds}), and model.path of the next run to that folder"
        )
    if train.projectors and train.tuning != "full":
        yield "train.projectors needs train.tuning 'full': the engine takes no projectors in an adapter"
    if train.offload_optimizer and train.zero_stage == 0:
        yield "train.offload_optimizer needs train.zero_stage 1, 2 or 3; it is 0"


def _reference_rules(cfg: "RunConfig") -> Iterator[str]:
    train, source = cfg.train, cfg.train.reference_source
    if train.reference == "previous_round" and source != "precomputed":
        yield (
            f"train.reference previous_round needs train.reference_source precomputed, but it is {source}: switching "
            "the adapter off gives the base, not the round before"
        )
    if train.tuning == "full" and source != "precomputed":
        yield (
            f"train.reference_source {source} needs an adapter to switch off; with train.tuning full set it to "
            "precomputed"
        )
    by_token = cfg.loss.kind == "vista_dpo" and cfg.loss.token_weight
    if by_token and (train.tuning, train.reference) != ("lora", "base"):
        yield (
            "loss.token_weight above 0 compares with the base token by token, with the adapter off: it needs "
            f"train.tuning lora and train.reference base, not {train.tuning} and {train.reference}"
        )
    if train.zero_stage == 3 and source == "cached":
        yield (
            "train.reference_source cached does not work with train.zero_stage 3: a pair that one worker knows and "
            "another does not would leave the two waiting for each other. Set precomputed or adapter_off."
        )


def _engine_rules(cfg: "RunConfig") -> Iterator[str]:
    rollout, train = cfg.rollout, cfg.train
    if rollout.max_tokens >= rollout.max_model_len:
        yield (
            f"rollout.max_tokens ({rollout.max_tokens}) must be below rollout.max_model_len "
            f"({rollout.max_model_len}), which also has to hold the prompt"
        )
    if rollout.most_engines < rollout.engines:
        yield (
            f"rollout.max_engines ({rollout.max_engines}) must not be below rollout.engines ({rollout.engines}), which "
            "are always there; leave it out to have no more than these"
        )
    if rollout.num_gpus > 1 and rollout.num_gpus % 1:
        yield (
            f"rollout.num_gpus ({rollout.num_gpus:g}) is a tensor parallel size when above 1; set a whole number, or a "
            "share below 1"
        )
    if rollout.num_gpus and cfg.model.dtype == "float32":
        yield "vLLM takes no float32 adapters on GPU; with rollout.num_gpus above 0 set model.dtype to bfloat16"
    if train.use_gpu and train.gpus_per_worker < 1 and train.workers > 1:
        yield (
            f"train.gpus_per_worker ({train.gpus_per_worker:g}) may be below 1 with one worker only, since NCCL takes "
            f"no two on one GPU; train.workers is {train.workers}"
        )
    if cfg.model.dtype == "bfloat16" and cfg.parity.max_abs_diff < 1e-2:
        yield (
            "in bfloat16 engine and learner differ by more than parity.max_abs_diff "
            f"({cfg.parity.max_abs_diff:g}) where nothing is wrong; set it to 0.5"
        )
    if train.use_gpu and cfg.model.dtype == "float32" and cfg.parity.max_abs_diff < 1e-3:
        yield (
            "on GPU float32 parity is not reached below 1e-3; set parity.max_abs_diff to 1.0e-3 or more (bfloat16: 0.5)"
        )


def _overlap_rules(cfg: "RunConfig") -> Iterator[str]:
    rollout, train = cfg.rollout, cfg.train
    if not rollout.overlap:
        return
    if train.tuning == "full":
        yield (
            "rollout.overlap needs train.tuning lora: engines start again on a model that full fine-tuning wrote, so "
            "there is nothing to sample from meanwhile. Set rollout.overlap to false"
        )
    if cfg.data.pairs.path is not None:
        yield "rollout.overlap is set, but nothing is sampled with data.pairs.path. Set rollout.overlap to false"
    if cfg.data.pairs.source == "answers":
        yield "rollout.overlap is set, but data.pairs.source answers samples nothing. Set rollout.overlap to false"
    if cfg.rounds == 1:
        yield (
            "rollout.overlap samples the next round's rollouts while one round trains; rounds is 1. Set rounds to 2 or "
            "more, or rollout.overlap to false"
        )
    if 0 < rollout.num_gpus < 1 and train.use_gpu and train.gpus_per_worker < 1:
        yield (
            f"rollout.overlap is set, but engines (rollout.num_gpus {rollout.num_gpus:g}) and learner "
            f"(train.gpus_per_worker {train.gpus_per_worker:g}) share a GPU, where each would wait for the other. Give "
            "them whole ones, or set rollout.overlap to false"
        )


def _data_rules(cfg: "RunConfig") -> Iterator[str]:
    data = cfg.data
    if data.pairs.path is not None:
        yield from _given_pairs_rules(cfg)
    if data.pairs.source == "answers":
        yield from _answer_rules(cfg)
    if data.clips is None and data.source.kind != "clips":
        yield f"data.source.kind is {data.source.kind!r} but data.clips is not set; set it to the folder of the corpus"
    if data.source.columns and data.source.kind != "manifest":
        yield f"data.source.columns is for data.source.kind manifest; it is {data.source.kind!r}. Remove it."
    if data.clips is None and data.benchmark is not None:
        yield (
            "data.benchmark is set but data.clips is not: held-out questions about your own clips need the folder of "
            "these clips"
        )


def _given_pairs_rules(cfg: "RunConfig") -> Iterator[str]:
    both = [n for n in ("clips", "benchmark", "queries") if getattr(cfg.data, n) is not None]
    if both:
        yield (
            f"data.pairs.path and data.{both[0]} are both set; given pairs are trained on as they are, with the media "
            "they name. Remove one"
        )
    if cfg.rounds > 1:
        yield (
            f"data.pairs.path is set and rounds is {cfg.rounds}; given pairs are one round. Set rounds to 1, and "
            "train.epochs for more passes"
        )


def _answer_rules(cfg: "RunConfig") -> Iterator[str]:
    setting, names = "data.pairs.source is answers", cfg.evaluation.benchmarks
    if cfg.data.pairs.path is not None:
        yield f"{setting} and data.pairs.path is {cfg.data.pairs.path}; pairs come from one of them. Remove the other"
    if cfg.data.queries is not None:
        yield f"{setting}, and data.queries is for rollouts; the questions are the benchmarks' own. Remove it"
    if cfg.rounds > 1:
        yield (
            f"{setting} and rounds is {cfg.rounds}; the answers are the same in every round. Set rounds to 1, and "
            "train.epochs for more passes"
        )
    if cfg.loss.kind != "dpo":
        yield (
            f"{setting}, whose pairs have no mismatched input, and loss.kind is {cfg.loss.kind}, which compares with "
            "one. Set loss.kind to dpo; loss.sft_weight above 0 adds plain likelihood of the right answer"
        )
    if set(names) <= set(_NO_TRAINING_ANSWERS):
        yield (
            f"{setting}, but {', '.join(names)} ask nothing about training clips that has a known answer; add one of "
            "emorealm, world, dfew, ravdess or mer2023 to evaluation.benchmarks"
        )


def _judge_rules(cfg: "RunConfig") -> Iterator[str]:
    judge = cfg.judge
    yield from _one_judge(judge, "judge")
    if judge.backend == "omni" and judge.model_path is None:
        yield "judge.backend omni needs judge.model_path, the folder of a model that watches and listens"
    if judge.write_rejects and judge.backend != "llm":
        yield f"judge.write_rejects needs judge.backend llm, which has a model to write with; it is {judge.backend}"


def _one_judge(judge: "JudgeConfig", name: str) -> Iterator[str]:
    if judge.backend == "llm" and bool(judge.endpoint.url) == (judge.model_path is not None):
        both = "both are set" if judge.endpoint.url else "neither is set"
        yield f"{name}.backend llm needs one of {name}.endpoint.url (a server) and {name}.model_path (a folder); {both}"
    if judge.max_tokens >= judge.max_model_len:
        yield f"{name}.max_tokens ({judge.max_tokens}) must be below {name}.max_model_len ({judge.max_model_len})"


def _few_shot_rules(cfg: "RunConfig") -> Iterator[str]:
    without = [name for name in cfg.evaluation.benchmarks if name in _NO_TRAINING_ANSWERS]
    if cfg.evaluation.few_shot and without:
        yield (
            f"evaluation.few_shot is {cfg.evaluation.few_shot}, but there are no answered examples for "
            f"{', '.join(without)}. Set evaluation.few_shot to 0, or leave {'it' if len(without) == 1 else 'them'} out "
            "of evaluation.benchmarks"
        )


def _description_rules(cfg: "RunConfig") -> Iterator[str]:
    evaluation, judge = cfg.evaluation, cfg.evaluation.judge
    yield from _one_judge(judge, "evaluation.judge")
    described = [name for name in evaluation.benchmarks if name in ("emer", "ovmerd")]
    if judge.backend == "omni":
        yield (
            "evaluation.judge.backend omni answers yes or no about a clip and rates no descriptions; set llm (a text "
            "model) or rules"
        )
    if described and not evaluation.endpoint.url and evaluation.description_tokens >= cfg.rollout.max_model_len:
        yield (
            f"evaluation.description_tokens ({evaluation.description_tokens}) of {described[0]} must be below "
            f"rollout.max_model_len ({cfg.rollout.max_model_len}), which also has to hold the prompt"
        )
