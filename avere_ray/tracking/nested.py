"""Child runs, data sets, tables and logged models of an MLflow run; each is found again by what it is called.

A child belongs to the run by MLflow's parent tag and is known by `avere_ray.child` = SPOOL/NAME, so that sending it a
second time, after an answer that was lost, finds it. What a child has is never sent twice: its stage's key is a tag,
set last.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avere_ray.tracking.params import cut, fitting_tags

ANSWERS = "evaluation"
"""Artifact folder of an evaluation's child run, from which runs are compared on any machine; below it a folder for each
key that the stage has had."""
ANSWERS_TAG = "answers"
"""Tag of such a child: the artifact folder of its newest answers; without it they are in `ANSWERS` itself."""
CHILD_TAG = "avere_ray.child"
ROOT_TAG = "avere_ray.root"
MODEL_TAG = "avere_ray.model"
_KEY_TAG = "avere_ray.key"
_PARENT_TAG = "mlflow.parentRunId"
_TABLES_TAG = "mlflow.loggedArtifacts"


class Nested:
    """What hangs on one MLflow run; every method asks the server and may fail while it is away."""

    def __init__(self, client: Any, *, experiment_id: str, run_id: str, spool_id: str) -> None:
        self._client, self._experiment_id, self._run_id, self._spool_id = client, experiment_id, run_id, spool_id
        self._children: dict[str, str] = {"": run_id}
        self._models: dict[str, str] = {}

    def run_id(self, child: str, *, name: str = "", start_ms: int | None = None) -> str:
        """The run of a child, made when there is none; "" is the run itself, "round=0/evals" a child of "round=0"."""
        if child not in self._children:
            self._children[child] = self._find(child) or self._create(child, name, start_ms)
        return self._children[child]

    def send_child(self, body: Mapping[str, Any]) -> None:
        """A stage that ended: its params, tags and figures; nothing when it was sent under the same key before."""
        child, key = str(body["child"]), str(body["key"])
        run_id = self.run_id(child, name=str(body["run_name"]), start_ms=int(body["start_ms"]))
        data = self._client.get_run(run_id).data
        if data.tags.get(_KEY_TAG) == key:
            return
        self._log(run_id, body, have=data)
        self._client.set_terminated(run_id, body["status"], int(body["end_ms"]))
        self._client.set_tag(run_id, _KEY_TAG, key)

    def send_dataset(self, body: Mapping[str, Any]) -> None:
        """A data set with its digest, as an input of the run or a child; the server keeps one of the same digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=cut(str(body["name"]), "key"),
            digest=str(body["digest"])[:36],
            source_type="local",
            source=json.dumps({"uri": body["source"]}),
            profile=json.dumps(body["profile"]),
        )
        given = DatasetInput(dataset, [InputTag("mlflow.data.context", str(body["context"]))])
        self._client.log_inputs(self.run_id(str(body.get("child", ""))), datasets=[given])

    def send_model(self, body: Mapping[str, Any], folder: Path | None) -> None:
        """A logged model with its files and figures, made from the run; once per key of the stage it comes from."""
        from mlflow.entities import LoggedModelOutput

        model_id = self._model(str(body["name"]), str(body.get("key", "")))
        found = self._client.get_logged_model(model_id)
        if found.status == "READY":
            return
        self._log_figures(model_id, body, have={metric.key for metric in found.metrics or ()})
        if folder is not None:
            self._client.log_model_artifacts(model_id, str(folder))
        self._client.log_outputs(
            self.run_id(str(body.get("child", ""))), [LoggedModelOutput(model_id, int(body["step"]))]
        )
        self._client.set_logged_model_tags(model_id, fitting_tags(body["tags"]))
        self._client.finalize_logged_model(model_id, "READY")

    def mark_table(self, run_id: str, name: str) -> None:
        """Tells MLflow's pages that an artifact is a table, as `mlflow.log_table` does."""
        known = json.loads(self._client.get_run(run_id).data.tags.get(_TABLES_TAG, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in known:
            self._client.set_tag(run_id, _TABLES_TAG, json.dumps([*known, entry]))

    def _log_figures(self, model_id: str, body: Mapping[str, Any], *, have: set[str]) -> None:
        """A model's own figures, in the child run it came from, where an earlier attempt has not sent them."""
        from mlflow.entities import Metric

        metrics = [
            Metric(cut(name, "key"), float(value), int(body["timestamp_ms"]), int(body["step"]), model_id=model_id)
            for name, value in body.get("metrics", {}).items()
            if cut(name, "key") not in have
        ]
        if metrics:
            self._client.log_batch(self.run_id(str(body.get("child", ""))), metrics=metrics[:900])

    def _log(self, run_id: str, body: Mapping[str, Any], *, have: Any) -> None:
        from mlflow.entities import Metric, Param, RunTag

        model_id = self._model(str(body["model"]), str(body.get("model_key", ""))) if body.get("model") else None
        metrics = [
            Metric(cut(name, "key"), float(value), int(body["end_ms"]), int(body["step"]), model_id=model_id)
            for name, value in body["metrics"].items()
            if have.metrics.get(cut(name, "key")) != float(value)
        ]
        params = [Param(cut(n, "key"), cut(str(v), "param")) for n, v in body["params"].items() if n not in have.params]
        tags = [RunTag(name, text) for name, text in fitting_tags(body["tags"]).items()]
        for start in range(0, max(len(metrics), 1), 900):
            rest = {"params": params[:100], "tags": tags[:99]} if start == 0 else {}
            self._client.log_batch(run_id, metrics=metrics[start : start + 900], **rest)

    def _find(self, child: str) -> str | None:
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{CHILD_TAG}` = '{self._spool_id}/{child}'", max_results=10
        )
        return next((run.info.run_id for run in found if _PARENT_TAG in run.data.tags and self._ours(run)), None)

    def _ours(self, run: Any) -> bool:
        """Whether it hangs on this very run, and not on one that was deleted or is on another server."""
        return run.data.tags.get(ROOT_TAG) == self._run_id

    def _create(self, child: str, name: str, start_ms: int | None) -> str:
        above = child.rpartition("/")[0]
        tags = {
            _PARENT_TAG: self.run_id(above, start_ms=start_ms),
            CHILD_TAG: f"{self._spool_id}/{child}",
            ROOT_TAG: self._run_id,
        }
        made = self._client.create_run(
            self._experiment_id, start_time=start_ms, run_name=name or child.replace("=", " "), tags=tags
        )
        return made.info.run_id

    def _model(self, name: str, key: str) -> str:
        mark = f"{self._run_id}/{name}" + f"/{key}" * bool(key)
        if mark not in self._models:
            found = self._client.search_logged_models([self._experiment_id], f"tags.`{MODEL_TAG}` = '{mark}'")
            model = (
                found[0]
                if found
                else self._client.create_logged_model(
                    self._experiment_id,
                    name=name,
                    source_run_id=self._run_id,
                    tags={MODEL_TAG: mark},
                    model_type="adapter",
                )
            )
            self._models[mark] = model.model_id
        return self._models[mark]
