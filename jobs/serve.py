"""Answers questions about clips over HTTP, in OpenAI's shape, with the newest adapter of a run and its base.

`avere-ray serve RUN_DIR [--host H] [--port P]` listens on 127.0.0.1:8000 until Ctrl-C. Another host than this machine
needs a bearer token in AVERE_RAY_API_TOKEN. Models: GET /v1/models; questions: POST /v1/chat/completions.
"""

import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from avere_ray.backbones import check_model_folder, model_digest
from avere_ray.config import RunConfig, ServeConfig, load_config
from avere_ray.errors import ClusterError, ConfigError, InputError
from avere_ray.progress import say
from jobs.command import run_command
from jobs.layout import newest_adapter, stage_path
from jobs.session import ray_session

if TYPE_CHECKING:
    from ray.serve import Application

    from actors.serving.adapters import ServeSpec

HOST, PORT = "127.0.0.1", 8000
APP = "avere_ray"

_POLL_S = 5.0
_LOOK_S = 0.2
_GRACE_S = 10.0
_PROXY_WORDS = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
_PROXY_PATH = "actors.serving.proxy:middlewares"


class ServeArgs(BaseModel):
    """Arguments of `build_app`, as `serve run jobs.serve:build_app run_dir=runs/demo` gives them."""

    run_dir: Path
    """Run folder with config.yaml."""


def build_app(args: ServeArgs) -> "Application":
    """The application of a run, for `serve run`, a Serve config file or a RayService.

    Without AVERE_RAY_API_TOKEN it answers this machine alone, whatever Ray Serve listens on.

    Raises:
        InputError: see `serve_spec`.
    """
    cfg = load_config(args.run_dir / "config.yaml", [f"--run_dir={args.run_dir}"], prog="build_app")
    return _application(cfg, serve_spec(cfg))


def run(cfg: RunConfig, host: str = HOST, port: str | int = PORT) -> int:
    """Serves the run in `cfg.run_dir` until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: host or port cannot be used.
        InputError: see `serve_spec`.
        ClusterError: Ray Serve does not start, or runs already.
    """
    spec = serve_spec(cfg)
    number = check_address(host, port, token=bool(spec.tokens))
    _tell_proxy(cfg.serve)
    with ray_session(cfg.ray):
        from ray import serve

        _refuse_other_applications()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            say(f"serve: starting the engine on {cfg.model.path}")
            _start(_application(cfg, spec), http_options(cfg.serve, host, number))
            say(_greeting(spec, host, number))
            _wait_until_asked_to_end()
            say("serve: ending; requests in work are answered first")
            _drain(cfg.serve.drain_s)
        finally:
            serve.shutdown()
    say("serve: ended")
    return 0


def serve_spec(cfg: RunConfig) -> "ServeSpec":
    """What a run has to serve: its base and the adapter of every round.

    Raises:
        InputError: the folder is no run, or an adapter is damaged.
        ModelError: the model folder cannot be used, or is not the one an adapter was trained on.
        ConfigError: the tokens cannot be read.
    """
    if not (cfg.run_dir / "config.yaml").is_file():
        raise InputError(
            f"{cfg.run_dir} is no run folder: it has no config.yaml. Name one, for instance "
            "`avere-ray serve runs/demo`, or make one with `avere-ray pipeline`."
        )
    check_model_folder(cfg.model.path)
    from actors.serving.adapters import ServeSpec  # Ray is imported later: the session decides where it listens
    from actors.serving.tokens import known_tokens
    from avere_ray.tracking import tracking_uri

    model = cfg.model.model_copy(update={"path": cfg.model.path.absolute()})
    base, adapters = model.path.name, _adapters(cfg)
    if (tuned := _tuned_model(cfg)) is not None:  # after full fine-tuning there is no adapter
        model, base, adapters = model.model_copy(update={"path": tuned}), f"{base}:tuned", {}
    return ServeSpec(
        base=base,
        model=model,
        rollout=cfg.rollout,
        decode=cfg.data.decode,
        lora_rank=cfg.train.lora_rank,
        base_digest=model_digest(model.path),
        adapters=adapters,
        serve=cfg.serve,
        folder=cfg.run_dir.absolute() / "serve",
        tracking_uri=tracking_uri(cfg.tracking, cfg.run_dir),
        role=cfg.placement.rollout,
        tokens=known_tokens(cfg.serve.tokens_file),
    )


def _tuned_model(cfg: RunConfig) -> Path | None:
    """The whole model that the last round left, where it left one."""
    from avere_ray.learner import MODEL_FOLDER

    round_ = newest_adapter(cfg)
    folder = stage_path(cfg, "adapters", round_).absolute() / MODEL_FOLDER
    return folder if round_ >= 0 and folder.is_dir() else None


def _adapters(cfg: RunConfig) -> dict[str, Path]:
    """Model id to folder of each round's adapter, each held to the base and the sampling spec.

    Raises:
        InputError: see `checked_adapter`.
    """
    from actors.serving.adapters import checked_adapter
    from avere_ray.learner import MODEL_FOLDER

    folders = [stage_path(cfg, "adapters", round_).absolute() for round_ in range(newest_adapter(cfg) + 1)]
    folders = [folder for folder in folders if not (folder / MODEL_FOLDER).is_dir()]
    base = model_digest(cfg.model.path) if folders else ""
    versions = [checked_adapter(folder, base, cfg.data.decode).version for folder in folders]
    name = cfg.model.path.absolute().name
    return {f"{name}:adapter-{version}": folder for version, folder in zip(versions, folders, strict=True)}


def check_address(host: str, port: str | int, *, token: bool) -> int:
    """The port as a number, when the server may and can listen there.

    Raises:
        ConfigError: the port is no free port, or the host is open to others and there is no token.
    """
    from actors.serving.guard import is_loopback
    from actors.serving.tokens import TOKEN_VARIABLE

    if not is_loopback(host) and not token:
        raise ConfigError(
            f"--host {host or '(empty)'} can be reached from other machines, so a token is needed: set "
            f"{TOKEN_VARIABLE} to a long random text, or leave --host at {HOST}"
        )
    if not str(port).isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"--port {port} is no port; allowed are 1 to 65535, for instance {PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}. Choose another with --host and --port."
        ) from error
    return int(port)


def _application(cfg: RunConfig, spec: "ServeSpec") -> "Application":
    from actors.server import chat_application
    from avere_ray.engine import engine_threads

    return chat_application(spec, threads=engine_threads(cfg.rollout, cfg.serve.num_replicas))


def _refuse_other_applications() -> None:
    from ray import serve

    status = serve.status()
    if status.applications or status.proxies:
        raise ClusterError(
            "Ray Serve already runs on this cluster, with its own host and port. Add the run there with "
            "`serve deploy` and import_path jobs.serve:build_app, or unset RAY_ADDRESS and ray.address."
        )


def http_options(cfg: ServeConfig, host: str, port: int) -> dict[str, Any]:
    """What Ray Serve's proxy is told. It gives up last, so that a request does not wait for a free replica for ever."""
    from actors.serving.guard import BODY_TIMEOUT_S

    return {"host": host, "port": port, "request_timeout_s": cfg.deadline_s + BODY_TIMEOUT_S + _GRACE_S}


def _tell_proxy(cfg: ServeConfig) -> None:
    """Sets what Ray's processes read from their environment, which they have from this one."""
    from actors.serving.proxy import MAX_BODY_VARIABLE
    from actors.serving.tokens import TOKENS_FILE_VARIABLE

    os.environ.setdefault(_PROXY_WORDS, _PROXY_PATH)
    os.environ[MAX_BODY_VARIABLE] = str(cfg.max_body_mb)
    os.environ[TOKENS_FILE_VARIABLE] = "" if cfg.tokens_file is None else str(cfg.tokens_file.absolute())


def _start(app: "Application", http: Mapping[str, Any]) -> None:
    from ray import serve

    quiet = {"log_level": "ERROR", "enable_access_log": False}
    try:
        serve.start(proxy_location="HeadOnly", http_options=dict(http), logging_config=quiet)
        serve.run(app, name=APP, route_prefix="/")
    except RuntimeError as error:
        raise ClusterError(
            f"Ray Serve could not start the server: {_cause() or _last_line(str(error))}. Its logs are in the session "
            "folder of Ray, under logs/serve."
        ) from error


def _cause() -> str:
    """Why the replica did not start, as far as Ray Serve knows."""
    from ray import serve

    app = serve.status().applications.get(APP)
    return next((_last_line(d.message) for d in app.deployments.values() if d.message.strip()), "") if app else ""


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].rstrip(".")


def _greeting(spec: "ServeSpec", host: str, port: int) -> str:
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    token = "" if not spec.tokens else '-H "Authorization: Bearer $AVERE_RAY_API_TOKEN" '
    content = [
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,%s"}},
        {"type": "text", "text": "What does the person feel, and why?"},
    ]
    body = json.dumps({"model": [spec.base, *spec.adapters][-1], "messages": [{"role": "user", "content": content}]})
    return (
        f"serve: ready on {url}, models: {', '.join([spec.base, *spec.adapters])}\nask about a clip:\n"
        f"  printf {shlex.quote(body)} \"$(base64 < CLIP.mp4 | tr -d '\\n')\" | \\\n"
        f"  curl -s {url}/v1/chat/completions {token}-H 'Content-Type: application/json' -d @-\n"
        "Ctrl-C ends the server."
    )


def _wait_until_asked_to_end() -> None:
    """Waits for Ctrl-C or SIGTERM, and says when the application is no longer, or again, running.

    Raises:
        ClusterError: Ray or Ray Serve is gone.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    state = "RUNNING"
    with _asked_to_end() as asked:
        while not asked.wait(_POLL_S):
            try:
                found = serve.status().applications
            except (RayError, RayServeException, OSError) as error:
                raise ClusterError("Ray Serve does not answer any more; start the server again") from error
            now = str(found[APP].status.value) if APP in found else "gone"
            if now != state:
                say(f"serve: the application is {now}" + (" again" if now == "RUNNING" else ""))
            state = now


def _drain(seconds: float) -> None:
    """Takes the application away and waits for its requests; the proxy, through which their answers go, stays."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    end = time.monotonic() + seconds
    with suppress(RayError, RayServeException, OSError):
        serve.delete(APP, _blocking=False)
        while APP in serve.status().applications and time.monotonic() < end:
            time.sleep(_LOOK_S)


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of what they do otherwise."""
    asked = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:
        asked.set()

    before: dict[int, Any] = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_arguments(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`--host` and `--port`, and the arguments of `run_command`; a first argument without dashes is the run folder."""
    address: dict[str, str] = {}
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        name, sign, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in ("host", "port"):
            address[name] = value if sign else next(arguments, "")
        else:
            rest.append(argument)
    if rest and not rest[0].startswith("-"):
        run_dir = rest.pop(0)
        config = Path(run_dir) / "config.yaml"
        named = any(a == "--config" or a.startswith("--config=") for a in rest)
        found = [f"--config={config}"] if config.is_file() and not named else []  # else `serve_spec` says what is wrong
        rest = [*found, f"--run_dir={run_dir}", *rest]
    return address, rest


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray serve`."""
    address, rest = serve_arguments(argv)
    return run_command("avere-ray serve", __doc__, lambda cfg: run(cfg, **address), rest, takes="[RUN]")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
