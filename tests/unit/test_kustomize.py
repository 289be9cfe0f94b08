"""The renderer gives what kubectl gives, and refuses what it does not know."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from avere_ray.errors import InputError
from avere_ray.manifests.documents import parse_yaml
from avere_ray.manifests.kustomize import FILE, kustomizations, render
from tests.unit.manifest_edits import ROOT, shipped

OVERLAYS = ROOT / "cluster" / "overlays"
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}
CLUSTER = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "metadata": {"name": "c"},
    "spec": {"rayVersion": "1", "workerGroupSpecs": [{"groupName": "a"}, {"groupName": "b"}], "suspend": True},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "labels": {"tier": "web"}},
    "spec": {"template": {"spec": {"containers": [{"name": "x", "image": "app:1"}, {"name": "y", "image": "r/app"}]}}},
}


def write(folder: Path, kustomization: dict[str, Any], **documents: dict[str, Any]) -> Path:
    """A folder with a kustomization and one file a document."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in documents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(body))
    values = {"resources": [f"{name}.yaml" for name in documents], **kustomization}
    (folder / FILE).write_text(yaml.safe_dump(values))
    return folder


def bodies(folder: Path) -> dict[str, dict[str, Any]]:
    return {d.label: d.body for d in render(folder)}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="compares with kubectl, which is not on PATH")
@pytest.mark.parametrize("overlay", sorted(p.name for p in OVERLAYS.iterdir()))
def test_overlays_are_rendered_as_kubectl_renders_them(overlay: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, timeout=50, check=True
    )
    theirs = {(b["kind"], b["metadata"]["name"]): b for b in parse_yaml(done.stdout)}
    assert {(d.kind, d.name): d.body for d in shipped(overlay)} == theirs


def test_a_document_knows_its_overlay_and_the_file_it_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "base", {}, s=SERVICE)
    over = write(tmp_path / "over", {"resources": ["../base", "c.yaml"]}, c=CLUSTER)
    monkeypatch.chdir(tmp_path)
    assert [(d.file, d.source) for d in render(over)] == [
        (str(over), "base/s.yaml"),
        (str(over), "over/c.yaml"),
    ]


def test_every_overlay_can_be_rendered_and_components_alone_are_not() -> None:
    found = {p.relative_to(ROOT / "cluster").as_posix() for p in kustomizations(ROOT / "cluster")}
    assert found == {"base", *(f"overlays/{p.name}" for p in OVERLAYS.iterdir())}


def test_maps_merge_lists_of_custom_kinds_are_replaced_and_null_removes(tmp_path: Path) -> None:
    change = {"spec": {"rayVersion": "2", "workerGroupSpecs": [{"groupName": "n"}], "suspend": None, "authOptions": {}}}
    patch = yaml.safe_dump({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "c"}, **change})
    body = bodies(write(tmp_path, {"patches": [{"patch": patch}]}, c=CLUSTER))["RayCluster/c"]
    assert body["spec"] == {"rayVersion": "2", "workerGroupSpecs": [{"groupName": "n"}], "authOptions": {}}


def test_json_patches_add_replace_remove_and_test(tmp_path: Path) -> None:
    operations = [
        {"op": "test", "path": "/spec/rayVersion", "value": "1"},
        {"op": "add", "path": "/spec/workerGroupSpecs/-", "value": {"groupName": "z"}},
        {"op": "add", "path": "/spec/workerGroupSpecs/0", "value": {"groupName": "first"}},
        {"op": "remove", "path": "/spec/workerGroupSpecs/1"},
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "1"}},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"},
    ]
    patch = {"patch": yaml.safe_dump(operations), "target": {"kind": "Ray.*"}}
    body = bodies(write(tmp_path, {"patches": [patch]}, c=CLUSTER, s=SERVICE))["RayCluster/c"]
    assert [g["groupName"] for g in body["spec"]["workerGroupSpecs"]] == ["first", "b", "z"]
    assert body["metadata"]["labels"] == {"a/b": "2"}


def test_images_labels_namespace_and_config_maps(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("seed: 1\n")
    generator = {"name": "m", "files": ["run.yaml=demo.yaml"], "literals": ["a=b=c"]}
    kustomization = {
        "namespace": "n",
        "labels": [{"pairs": {"team": "t"}}],
        "images": [{"name": "app", "newName": "reg/app", "newTag": "2"}, {"name": "r/app", "digest": "sha256:0"}],
        "configMapGenerator": [{**generator, "options": {"disableNameSuffixHash": True}}],
    }
    found = bodies(write(tmp_path, kustomization, d=DEPLOYMENT, s={**SERVICE, "kind": "PriorityClass"}))
    containers = found["Deployment/d"]["spec"]["template"]["spec"]["containers"]
    assert [c["image"] for c in containers] == ["reg/app:2", "r/app@sha256:0"]
    assert found["Deployment/d"]["metadata"] == {"name": "d", "namespace": "n", "labels": {"tier": "web", "team": "t"}}
    assert "namespace" not in found["PriorityClass/s"]["metadata"]
    assert found["ConfigMap/m"]["data"] == {"a": "b=c", "run.yaml": "seed: 1\n"}
    assert found["ConfigMap/m"]["metadata"]["namespace"] == "n"


def test_bases_components_and_deletion(tmp_path: Path) -> None:
    write(tmp_path / "base", {}, s=SERVICE, d=DEPLOYMENT)
    gone = yaml.safe_dump({"$patch": "delete", "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}})
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "patches": [{"patch": "- {op: add, path: /spec/replicas, value: 3}", "target": {"labelSelector": "tier=web"}}],
    }
    write(tmp_path / "part", component, c=CLUSTER)
    over = {"resources": ["../base"], "components": ["../part"], "patches": [{"patch": gone}]}
    found = bodies(write(tmp_path / "over", over))
    assert list(found) == ["Deployment/d", "RayCluster/c"]
    assert found["Deployment/d"]["spec"]["replicas"] == 3
    assert "replicas" not in bodies(tmp_path / "base")["Deployment/d"]["spec"]


@pytest.mark.parametrize(
    ("kustomization", "words"),
    [
        ({"namePrefix": "x-"}, "namePrefix is not supported"),
        ({"resources": ["missing.yaml"]}, "missing.yaml cannot be read"),
        ({"patches": [{"patch": "[", "target": {"kind": "Service"}}]}, "is not valid YAML"),
        ({"patches": [{"path": "p.yaml"}]}, "p.yaml cannot be read"),
        ({"patches": [{"patch": "- {op: remove, path: /spec/x}", "target": {"kind": "Service"}}]}, "is not possible"),
        ({"patches": [{"patch": "- {op: move, path: /spec}", "target": {"kind": "Service"}}]}, "op must be"),
        (
            {"patches": [{"patch": "- {op: test, path: /kind, value: X}", "target": {"kind": "Service"}}]},
            "expected 'X'",
        ),
        ({"patches": [{"patch": "- {op: add, path: /x, value: 1}", "target": {"kind": "Pod"}}]}, "fits no document"),
        ({"patches": [{"patch": "a: 1", "target": {"knd": "Pod"}}]}, "target has knd"),
        ({"patches": [{"patch": "spec: {ports: []}", "target": {"kind": "Service"}}]}, "use a JSON patch"),
        ({"labels": [{"pairs": {"a": "b"}, "includeSelectors": True}]}, "pairs only"),
        ({"configMapGenerator": [{"name": "m", "literals": ["a=b"]}]}, "disableNameSuffixHash"),
        ({"kind": "Component"}, "allowed: kustomize.config.k8s.io/v1beta1 Kustomization"),
    ],
)
def test_what_is_unknown_or_impossible_is_an_error(tmp_path: Path, kustomization: dict[str, Any], words: str) -> None:
    base = {"apiVersion": "kustomize.config.k8s.io/v1beta1"}
    folder = write(tmp_path, {**base, **kustomization}, **({} if "resources" in kustomization else {"s": SERVICE}))
    with pytest.raises(InputError) as caught:
        render(folder)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "target" in str(caught.value)


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("resources: []\nresources: []\n")
    with pytest.raises(InputError, match="'resources' is given twice"):
        render(tmp_path)
