"""What the config of a run names, looked at before anything starts: by the pipeline, and by the doctor as findings.

So the two agree, and no run decodes and samples for hours before it asks for a file that was never there. Nothing is
started or stored. What a corpus lists but cannot be used is counted by the stage that reads it, which keeps it with its
reasons; the doctor says what will come of it. Rows of preference data are held against the budget here.
"""

from collections.abc import Callable, Iterator, Sequence

from avere_ray.config import JudgeConfig, RunConfig
from avere_ray.environment import Finding
from avere_ray.errors import AvereError, DropBudgetExceeded
from avere_ray.ledger import Ledger
from avere_ray.records import Clip
from avere_ray.sources import STAGE
from jobs import given_queries, synth
from jobs.corpus import check_annotations, check_some, find_clips, usable_data
from jobs.exams import annotation_path, check_metrics, check_own_model, describes, held_out_questions
from jobs.session import is_local

_DRAWN = ("emorealm", "world")
"""Benchmarks whose questions are drawn with the synthetic world."""
Look = Callable[[], Iterator[Finding]]


def check_inputs(cfg: RunConfig) -> None:
    """Refuses a run of the pipeline whose inputs are not there.

    Raises:
        AvereError: clips, preference data, queries, held-out questions, a judge's model or its key are missing or
            cannot be read; or a remote model is named where one's own is trained.
    """
    for look, _ in Inputs(cfg).looks():
        list(look())


class Inputs:
    """The inputs of a run; each look at one of them raises what the pipeline ends with."""

    def __init__(self, cfg: RunConfig) -> None:
        self.cfg = cfg
        self.clips: Sequence[Clip] | None = None
        """The clips of data.clips, when they were read."""
        self.count = 0
        """Clips of the run, as far as they were looked at."""
        self._queries_known = cfg.data.queries is None

    def findings(self) -> Iterator[Finding]:
        """What the looks find, failures too."""
        for look, remedy in self.looks():
            try:
                yield from look()
            except AvereError as error:
                yield Finding("fail", str(error), remedy)

    def looks(self) -> list[tuple[Look, str]]:
        """Every look that the config has need of, with what to do where it fails."""
        data, found = self.cfg.data, list[tuple[Look, str]]()
        if data.pairs.path is not None:
            remedy = "set data.pairs.path (and data.pairs.media) to preference data and their media"
            found.append((self._pairs, f"{remedy}, repair their rows, or raise data.drop_budget"))
        elif data.clips is not None:
            found.append((self._clips, "set data.clips to a folder with clips.parquet or clips.jsonl"))
        else:
            found.append((self._world, "install espeak-ng, or set world.speech to tones"))
        if data.queries is not None:
            found.append((self._queries, "set data.queries to a table of queries about the clips, or leave it out"))
        found.append((self._own_model, "use `avere-ray evaluate`, or leave evaluation.endpoint out"))
        if data.pairs.path is None:
            found.append((self._questions, "set data.benchmark or evaluation.annotations to questions about the clips"))
            if data.pairs.source == "rollouts":
                found.append(
                    (self._judge, "complete judge.endpoint or judge.model_path, or set judge.backend to rules")
                )
                found.append(
                    (self._annotations, "annotate the clips, or choose another judge.backend or preference.swap")
                )
            if describes(self.cfg):
                found.append((self._rater, "complete evaluation.judge, or set its backend to rules"))
        return found

    def _pairs(self) -> Iterator[Finding]:
        cfg, ledger = self.cfg, Ledger(STAGE)
        data = usable_data(cfg, ledger)
        self.count = len(data.clips)
        yield from _left_out(ledger, data.inputs, cfg.data.drop_budget)
        yield Finding("ok", f"{len(data.pairs)} pairs about {self.count} clips in {cfg.data.pairs.path}")

    def _clips(self) -> Iterator[Finding]:
        cfg = self.cfg
        assert cfg.data.clips is not None
        found = find_clips(cfg, cfg.data.clips)
        self.clips, self.count = found.clips, len(found.clips)
        left_out = list(_left_out(found.ledger, found.listed, cfg.data.drop_budget))
        yield from left_out
        if all(finding.level != "fail" for finding in left_out):  # else the stage that reads them keeps the reasons
            check_some(found.clips, f"{cfg.data.clips}, which lists {found.listed} clips,", found.ledger)
        yield Finding("ok", f"{self.count} clips listed in {cfg.data.clips}")

    def _world(self) -> Iterator[Finding]:
        world = self.cfg.world
        self.count = world.train_clips + world.test_clips
        synth.check_world(self.cfg)
        yield Finding("ok", f"{self.count} clips and questions about them are drawn from the synthetic world")

    def _queries(self) -> Iterator[Finding]:
        cfg = self.cfg
        assert cfg.data.queries is not None
        queries = given_queries.read(cfg.data.queries)
        if self.clips is not None:
            given_queries.check_known(cfg, queries, [clip.clip_id for clip in self.clips])
        self._queries_known = True
        yield Finding("ok", f"{len(queries)} training queries in {cfg.data.queries}")

    def _own_model(self) -> Iterator[Finding]:
        check_own_model(self.cfg)
        yield from ()

    def _questions(self) -> Iterator[Finding]:
        names, budget = self._annotated(), self.cfg.evaluation.drop_budget
        for name in names:
            annotation_path(self.cfg, name)
        if self.clips is not None:
            ledger = Ledger("evals")
            questions = held_out_questions(self.cfg, self.clips, ledger)
            check_metrics(questions)
            asked = sum(map(len, questions.values()))
            ledger.check_budget(asked + len(ledger.drops), budget, "evaluation.drop_budget")
            yield Finding("ok", f"{asked} held-out questions ({', '.join(names)})")
        elif names:
            yield Finding("ok", f"there are held-out questions of {', '.join(names)}")

    def _annotated(self) -> list[str]:
        """Benchmarks whose annotations are there already; those of the others lie beside clips that are not."""
        data, evaluation = self.cfg.data, self.cfg.evaluation
        names: list[str] = list(dict.fromkeys(evaluation.benchmarks))
        if self.clips is not None or data.benchmark is not None:
            return names
        beside = _DRAWN if data.clips is None else names
        return [name for name in names if name in evaluation.annotations or name not in beside]

    def _judge(self) -> Iterator[Finding]:
        judge = self.cfg.judge
        elsewhere = bool(judge.endpoint.url) and not is_local(self.cfg.ray)
        yield from _judge(judge, "judge", elsewhere=elsewhere)

    def _annotations(self) -> Iterator[Finding]:
        if self.clips is not None and self._queries_known:
            check_annotations(self.cfg, self.clips)
        yield from ()

    def _rater(self) -> Iterator[Finding]:
        yield from _judge(self.cfg.evaluation.judge, "evaluation.judge", elsewhere=False)


def _judge(cfg: JudgeConfig, setting: str, *, elsewhere: bool) -> Iterator[Finding]:
    """The model of a judge; `elsewhere`: a server is asked by another machine, whose environment has the key."""
    from avere_ray.backbones import check_model_folder
    from avere_ray.endpoint import Endpoint

    if cfg.backend == "llm" and cfg.endpoint.url:
        server, key = f"{cfg.endpoint.model} at {cfg.endpoint.url}", cfg.endpoint.key_variable
        if elsewhere:
            what = f"{setting} asks {server} from a node of the cluster, whose {key} cannot be seen from here"
            yield Finding("warn", what, f"set {key} in the environment of that node, unless the server wants none")
            return
        Endpoint(cfg.endpoint)
        yield Finding("ok", f"{setting} asks {server}")
    elif cfg.backend != "rules" and cfg.model_path is not None:
        check_model_folder(cfg.model_path, f"{setting}.model_path")
        yield Finding("ok", f"{setting} is the model {cfg.model_path}")


def _left_out(ledger: Ledger, listed: int, budget: float) -> Iterator[Finding]:
    """What is listed and cannot be used; more of it than the budget allows will end the run."""
    if not ledger.drops:
        return
    try:
        ledger.check_budget(listed, budget)
    except DropBudgetExceeded as error:
        yield Finding("fail", str(error), "repair or remove these, or raise data.drop_budget")
        return
    what = f"{len(ledger.drops)} of {listed} that are listed cannot be used"
    yield Finding("warn", what, ledger.drops[0].message)
