"""Asks one question about one clip, and says what the answer rests on: its cues, and what it owes to sound and picture.

`avere-ray ask CLIP QUESTION [--run RUN]` starts an engine on this machine: on RUN's newest adapter, or without --run on
the base (model.path). Grounding is the fall of the answer's log-likelihood (nats) when a medium is silenced or blanked
("removed"), comes from drawn clips of another emotion ("swapped"), or when no clip is shown.

  --run RUN         folder of a run; its config.yaml is used
  --compare-base    asks the base as well
  --endpoint URL    asks a server of `avere-ray serve` instead; its token in AVERE_RAY_API_TOKEN
  --model NAME      with --endpoint: one of its models; else its newest
  --no-grounding    leaves the grounding out, the larger part of the cost
  --json            prints JSON, one entry per model
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError, InputError
from jobs.command import Terminated, printable
from jobs.operands import Arguments, run_with_arguments

OWN = Arguments(
    positions=("CLIP", "QUESTION"),
    options=("run", "endpoint", "model"),
    flags=("compare-base", "json", "no-grounding"),
)
_BAR = 24
_PAINT = {"video": "\x1b[34m", "audio": "\x1b[35m"}
_USES = {"relied_on": "", "mentioned": "in passing", "set_aside": "set aside", "denied": "said to be absent",
         "supposed": "supposed"}  # fmt: skip


def run(cfg: RunConfig, given: list[str], values: dict[str, str]) -> int:
    """Asks, prints, and returns 0.

    Raises:
        ConfigError: options contradict each other.
        InputError: the clip or the run is not there or cannot be used.
        EndpointError: the server does not answer or refuses.
    """
    path, question = Path(given[0]), given[1].strip()
    _check(path, question, values)
    try:
        found = _asked(cfg, path, question, values)
    except KeyboardInterrupt as error:  # nothing is kept, so the usual words would not be true
        print("avere-ray ask: interrupted", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130
    if "json" in values:
        answers = [{"model": name, **insight} for name, insight in found.items()]
        print(_as_json({"clip": str(path), "question": question, "answers": answers}))
    else:
        print("\n\n".join(told(name, insight, color=sys.stdout.isatty()) for name, insight in found.items()))
    return 0


def _asked(cfg: RunConfig, path: Path, question: str, values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Answers by model id, as plain values."""
    if values.get("endpoint"):
        return _at_endpoint(values, path, question)
    from avere_ray.insight import to_json
    from jobs.ask_here import ask_here

    insights = ask_here(cfg, path, question, base_too="compare-base" in values, grounding="no-grounding" not in values)
    return {name: to_json(insight) for name, insight in insights.items()}


def _check(path: Path, question: str, values: Mapping[str, str]) -> None:
    if not path.is_file():
        raise InputError(f"there is no clip {path}; name a media file with picture and sound, for instance clip.mp4")
    if not question:
        raise InputError('the question is empty; ask something, for instance "How does the person feel, and why?"')
    if "endpoint" in values and "run" in values:
        raise ConfigError("--run and --endpoint are both given; ask one of them")
    if "model" in values and "endpoint" not in values:
        raise ConfigError("--model is for --endpoint; on this machine --run and --compare-base choose the models")
    if "run" in values and not (Path(values["run"]) / "config.yaml").is_file():
        raise InputError(f"{values['run']} is no run folder: it has no config.yaml. `avere-ray pipeline` makes one.")


def _at_endpoint(values: Mapping[str, str], path: Path, question: str) -> dict[str, dict[str, Any]]:
    """The server's answers by model: the one asked for (else the newest), before it the base if wanted.

    Raises:
        ConfigError: it does not serve that model.
    """
    from avere_ray.endpoint.clips import TOKEN_VARIABLE, ClipServer

    server = ClipServer(values["endpoint"], os.environ.get(TOKEN_VARIABLE, "").strip())
    served = server.models()
    wanted = values.get("model", served[-1])
    if wanted not in served:
        raise ConfigError(f"{server.url} does not serve {wanted!r}; it serves {', '.join(served)}")
    media = path.read_bytes()
    asked = dict.fromkeys([served[0], wanted] if "compare-base" in values else [wanted])
    grounding = "false" if "no-grounding" in values else "true"
    return {
        model: server.emotion(media, {"model": model, "question": question, "grounding": grounding}) for model in asked
    }


def _as_json(found: Mapping[str, Any]) -> str:
    """With escapes for what would steer a terminal: JSON demands them for half of it."""
    text = json.dumps(found, ensure_ascii=False, indent=2)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def told(model: str, insight: Mapping[str, Any], *, color: bool) -> str:
    """One answer as a person reads it; what would steer the terminal is replaced."""
    insight = _printable(insight)
    lines = [f"{printable(model)}:", f"  {_marked(insight, color)}"]
    if insight.get("emotion"):
        lines.append(f"emotion named: {insight['emotion']}")
    if agreement := insight.get("agreement"):
        verb = "agree" if agreement["agree"] else "disagree"
        lines.append(f"alone, the face shows {agreement['face']} and the voice {agreement['voice']}: they {verb} "
                     f"({agreement['confidence']:.0%} sure)")  # fmt: skip
    lines += _cue_lines(insight.get("cues") or [], color)
    lines += _grounding_lines(insight.get("grounding"), color)
    cost = insight["cost"]
    return "\n".join([*lines, f"cost: {cost['passes']} passes, {cost['tokens']} tokens"])


def _printable(value: Any) -> Any:
    """The same with every text in it printable."""
    if isinstance(value, Mapping):
        return {name: _printable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_printable(part) for part in value]
    return printable(value) if isinstance(value, str) else value


def _marked(insight: Mapping[str, Any], color: bool) -> str:
    """The answer, its cues in colour or in brackets."""
    answer, parts, at = insight["answer"], [], 0
    for cue in insight.get("cues") or []:
        begin, end = cue["span"]
        parts += [answer[at:begin], _painted(answer[begin:end], cue["modality"], color, brackets=True)]
        at = end
    return " ".join("".join([*parts, answer[at:]]).split()) or "(no answer)"


def _painted(text: str, medium: str, color: bool, *, brackets: bool = False) -> str:
    if color:
        return f"{_PAINT[medium]}{text}\x1b[0m"
    return f"[{text}]" if brackets else text


def _cue_lines(cues: Sequence[Mapping[str, Any]], color: bool) -> list[str]:
    if not cues:
        return ["cues: none named"]
    width = max(len(cue["text"]) for cue in cues)
    lines = ["cues, and how sure the model is of each when asked directly:"]
    for cue in cues:
        use = _USES.get(cue.get("use", ""), "")
        medium = _painted(f"{cue['modality']:<5}", cue["modality"], color)
        lines.append(f"  {medium}  {cue['text']:<{width}}  {cue['confidence']:4.0%}  {use}".rstrip())
    return lines


def _grounding_lines(grounding: Mapping[str, Any] | None, color: bool) -> list[str]:
    if not grounding:
        return []
    most = max(1e-9, *(abs(v) for m in ("audio", "video") for k in ("removed", "swapped")
                       if (v := grounding[m].get(k)) is not None))  # fmt: skip
    lines = ["what it rests on, nats the answer loses when a medium is"]
    for medium in ("video", "audio"):
        for how in ("removed", "swapped"):
            if (lost := grounding[medium].get(how)) is not None:
                bar = "#" * round(_BAR * max(0.0, lost) / most)
                label = _painted(f"{medium} {how}", medium, color)
                lines.append(f"  {label}  {lost:7.2f}  {bar}".rstrip())
    return [*lines, f"  no clip at all {grounding['text_only']:6.2f}"]


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray ask`."""
    return run_with_arguments("avere-ray ask", __doc__, OWN, run, [*argv, *_run_settings(argv)])


def _run_settings(argv: Sequence[str]) -> list[str]:
    """The settings that follow from --run, when its config is there and no other is named."""
    try:
        values = OWN.split(argv)[1]
    except ConfigError:
        return []  # `run_with_arguments` says what is wrong
    config = Path(values.get("run", "")) / "config.yaml"
    if "run" not in values or not config.is_file():
        return []
    named = any(a == "--config" or a.startswith("--config=") for a in argv)
    return [*([] if named else [f"--config={config}"]), f"--run_dir={values['run']}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
