"""What an overlay starts at once fits the size that it states; the rest waits until somebody wants it."""

import re
from decimal import Decimal

import pytest

from avere_ray.manifests.documents import Document, dig
from avere_ray.manifests.pods import pods_of, resources
from avere_ray.manifests.rules import clusters_of
from avere_ray.manifests.workloads import GPU
from tests.unit.manifest_edits import ROOT, shipped

OVERLAYS = ("dev-cpu", "h100", "h100-2x8", "spot", "kueue")
NAMES = ("cpu", "memory", GPU)
Need = tuple[Decimal, ...]


def stated(overlay: str) -> list[list[Decimal]]:
    """The nodes that an overlay's kustomization asks for, each with CPUs, bytes and GPUs."""
    text = (ROOT / "cluster" / "overlays" / overlay / "kustomization.yaml").read_text(encoding="utf-8")
    found = re.search(r"^# Size: (\d+) x (\d+) CPU, (\d+) GiB(?:, (\d+) GPU)?$", text, re.M)
    assert found, f"{overlay} states no size"
    nodes, cpus, gib, gpus = (int(n or 0) for n in found.groups())
    return [[Decimal(cpus), Decimal(gib) * 2**30, Decimal(gpus)] for _ in range(nodes)]


def pods_at_start(document: Document) -> list[Need]:
    """What each pod that a document starts at once requests; the autoscaler runs beside the head."""
    if dig(document.body, "spec", "suspend"):
        return []
    found = []
    for pod in pods_of(document):
        asked = [resources(container, "requests") for _, container in pod.containers()]
        beside = [c.spec.get("autoscalerOptions", {}) for c in clusters_of(document) if c.autoscaled]
        asked += [resources(options, "requests") for options in beside if pod.role == "head"]
        found += [tuple(sum((a.get(name, Decimal(0)) for a in asked), Decimal(0)) for name in NAMES)] * pod.least
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_starts_at_once_fits_the_stated_nodes(overlay: str) -> None:
    nodes = stated(overlay)
    pods = sorted((need for d in shipped(overlay) for need in pods_at_start(d)), key=lambda n: (n[2], n[0]))
    for need in reversed(pods):
        room = next((n for n in nodes if all(has >= wants for has, wants in zip(n, need, strict=True))), None)
        assert room is not None, f"{overlay}: {need} finds no room in {nodes}"
        room[:] = [has - wants for has, wants in zip(room, need, strict=True)]
    free = sum(node[0] for node in nodes) / sum(node[0] for node in stated(overlay))
    assert free < Decimal("0.25"), "the stated size is far more than is needed"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_pipeline_starts_by_itself(overlay: str) -> None:
    ray = [d for d in shipped(overlay) if d.kind in ("RayCluster", "RayJob", "RayService")]
    assert [d.label for d in ray if not d.body["spec"].get("suspend")] == ["RayJob/pipeline"]
    assert len(ray) == 7


def test_only_what_starts_is_put_into_the_queue() -> None:
    queued = [d for d in shipped("kueue") if "kueue.x-k8s.io/queue-name" in d.body["metadata"].get("labels", {})]
    assert [d.label for d in queued] == ["RayJob/pipeline"]
