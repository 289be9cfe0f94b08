"""Schemas: KubeRay's samples pass, defaults and nulls are treated as an API server does, CRDs can be read again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from avere_ray.errors import InputError
from avere_ray.manifests import schemas
from avere_ray.manifests.documents import Document, as_documents, load_yaml
from avere_ray.manifests.extract import FOLDER, SPECS, extract, main, read_crds, reduced
from avere_ray.manifests.rules import Site, run_rules
from avere_ray.manifests.schemas import DEFINITIONS, admitted, kuberay_schema, problems_of
from avere_ray.manifests.validate import RULE_MODULES

assert RULE_MODULES
CHECKOUT = os.environ.get("AVERE_RAY_KUBERAY", "")
SAMPLES = os.environ.get("AVERE_RAY_KUBERAY_SAMPLES", "")


@pytest.mark.skipif(not SAMPLES, reason="AVERE_RAY_KUBERAY_SAMPLES names no checkout's ray-operator/config/samples")
def test_kuberays_published_samples_are_accepted() -> None:
    """All but those for features that the operator has off by default, which the rule feature-gates names."""
    files = sorted(Path(SAMPLES).glob("*.yaml"))
    assert files
    refused = {}
    for path in files:
        documents = list(as_documents(path.name, [d for d in load_yaml(path) if d]))
        known = [d for d in documents if d.body.get("apiVersion") == "ray.io/v1"]
        found = [f for f in run_rules(known, Site(documents=documents), ("cluster",)) if f.rule != "feature-gates"]
        if found:
            refused[path.name] = [str(f) for f in found]
    assert not refused


@pytest.mark.skipif(not CHECKOUT, reason="AVERE_RAY_KUBERAY names no checkout of ray-project/kuberay at the tag")
def test_the_shipped_schemas_are_those_of_the_released_crds() -> None:
    """AVERE_RAY_KUBERAY=CHECKOUT, at the tag that the shipped file names."""
    extracted = extract(read_crds(Path(CHECKOUT)), schemas.KUBERAY_TAG)
    assert extracted["$defs"] == kuberay_schema()["$defs"]


def worker(**fields: Any) -> dict[str, Any]:
    group = {"groupName": "g", "template": {"spec": {"containers": []}}, **fields}
    head = {"template": {"spec": {"containers": []}}}
    spec = {"headGroupSpec": head, "workerGroupSpecs": [group]}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "c"}, "spec": spec}


def test_defaults_are_filled_in_and_nulls_left_out() -> None:
    stored = admitted(worker(minReplicas=None, replicas=None, priority=7, idleTimeoutSeconds=None))
    group = stored["spec"]["workerGroupSpecs"][0]
    assert group["minReplicas"] == 0
    assert group["maxReplicas"] == 2**31 - 1
    assert group["replicas"] == 0
    assert group["priority"] == 7
    assert "idleTimeoutSeconds" not in group


def test_defaults_do_not_hide_a_wrong_type() -> None:
    found = run_rules([Document(file="f", body=worker(maxReplicas="5"))], Site(), ("cluster",))
    assert [(f.path, f.message) for f in found] == [
        ("spec.workerGroupSpecs[0].maxReplicas", "string '5' must be an integer")
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deploymnt"}, "did you mean Deployment"),
        ({"apiVersion": "extensions/v1beta1", "kind": "NetworkPolicy"}, "allowed: networking.k8s.io/v1"),
        ({"apiVersion": "ray.io/v1", "kind": "RayThing"}, "allowed: RayCluster, RayJob, RayService, RayCronJob"),
        ({"apiVersion": "v1"}, "is missing"),
    ],
)
def test_kinds_that_do_not_exist(body: dict[str, Any], message: str) -> None:
    found = run_rules([Document(file="f", body={**body, "metadata": {"name": "x"}})], Site(), ("cluster",))
    assert message in found[0].message


def test_kinds_of_other_operators_are_left_to_them() -> None:
    body = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": "q"}, "spec": {"x": 1}}
    assert run_rules([Document(file="f", body=body)], Site(), ("cluster",)) == []
    body["metadata"] = {"nme": "q"}
    assert [f.path for f in run_rules([Document(file="f", body=body)], Site(), ("cluster",))] == ["metadata"]


def test_the_shipped_schemas_say_where_they_come_from() -> None:
    content = kuberay_schema()
    assert content["tag"] == schemas.KUBERAY_TAG
    assert content["licence"] == "Apache-2.0"
    assert set(content["kinds"]) == {kind for kind, _ in SPECS.values()}
    assert schemas.kuberay_schema_path().stat().st_size < 64 * 1024


def test_without_kubernetes_validate_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas.kubernetes_definitions.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        with pytest.raises(InputError, match=r"pip install -c constraints\.txt kubernetes-validate"):
            schemas.kubernetes_definitions()
    finally:
        schemas.kubernetes_definitions.cache_clear()


def crd(spec: dict[str, Any]) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"properties": {"spec": spec}}}
    versions = [{"name": "v1alpha1", "schema": {}}, {"name": "v1", "schema": schema}]
    return {"kind": "CustomResourceDefinition", "spec": {"versions": versions}}


POD = {"type": "object", "description": "a pod", "properties": {"spec": {"type": "object", "properties": {}}}}
CLUSTER = {
    "type": "object",
    "description": "long",
    "required": ["template"],
    "properties": {
        "template": POD,
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "resources": {"type": "object", "additionalProperties": {"type": "string"}},
        "env": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "minReplicas": {"type": "integer", "format": "int32", "default": 0},
        "size": {"x-kubernetes-int-or-string": True, "pattern": "x"},
        "free": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
        "none": {"type": "string", "nullable": True},
    },
}


def crds() -> dict[str, Any]:
    job = {"type": "object", "properties": {"rayClusterSpec": CLUSTER, "entrypoint": {"type": "string"}}}
    cron = {"type": "object", "properties": {"jobTemplate": job, "schedule": {"type": "string", "minLength": 1}}}
    service = {"type": "object", "properties": {"rayClusterConfig": CLUSTER}}
    return {"rayclusters": crd(CLUSTER), "rayjobs": crd(job), "rayservices": crd(service), "raycronjobs": crd(cron)}


def test_crds_become_small_strict_schemas() -> None:
    content = extract(crds(), "v9.9.9")
    cluster = content["$defs"]["RayClusterSpec"]
    assert cluster["additionalProperties"] is False
    assert "description" not in json.dumps(content)
    fields = cluster["properties"]
    assert fields["template"] == {"$ref": f"{DEFINITIONS}#/$defs/io.k8s.api.core.v1.PodTemplateSpec"}
    assert fields["env"]["items"] == {"$ref": f"{DEFINITIONS}#/$defs/io.k8s.api.core.v1.EnvVar"}
    assert fields["resources"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert fields["minReplicas"] == {"minimum": -(2**31), "maximum": 2**31 - 1, "type": "integer", "default": 0}
    assert fields["size"] == {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "x"}]}
    assert "additionalProperties" not in fields["free"]
    assert fields["none"]["type"] == ["string", "null"]
    assert content["$defs"]["RayJobSpec"]["properties"]["rayClusterSpec"] == {"$ref": "#/$defs/RayClusterSpec"}
    assert content["$defs"]["RayCronJobSpec"]["properties"]["jobTemplate"] == {"$ref": "#/$defs/RayJobSpec"}


def test_extracted_schemas_find_mistakes() -> None:
    strict = reduced(crds()["rayjobs"]["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    assert [p.message for p in problems_of({"entrypint": "x"}, strict)] == [
        "unknown field 'entrypint'; did you mean entrypoint?"
    ]


def test_a_checkout_is_extracted_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for plural, body in crds().items():
        (folder / f"ray.io_{plural}.yaml").write_text(yaml.safe_dump(body))
    assert main([str(tmp_path), "v9.9.9", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["tag"] == "v9.9.9"
    assert read_crds(tmp_path).keys() == SPECS.keys()
    (folder / "ray.io_rayjobs.yaml").unlink()
    assert main([str(tmp_path), "v9.9.9", str(tmp_path / "out.json")]) == 2
    assert "ray.io_rayjobs.yaml cannot be read" in capsys.readouterr().err
    assert main([]) == 2
