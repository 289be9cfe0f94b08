"""Edits to rendered manifests, for tests: one mistake at a time."""

import copy
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avere_ray.manifests.documents import Body, Document, Finding
from avere_ray.manifests.kustomize import render
from avere_ray.manifests.rules import Group, Site, run_rules
from avere_ray.manifests.validate import ALL_GROUPS, external

ROOT = Path(__file__).parents[2]
DELETE = object()
"""Removes what is at the path."""

Edit = tuple[str, Any]
"""A path such as "spec.workerGroupSpecs[0].replicas", or "labels['a/b']" for keys with dots, and its new value."""


def shipped(overlay: str = "h100") -> tuple[Document, ...]:
    """The documents of an overlay in cluster/; the same objects each time."""
    return _rendered(overlay)


@functools.cache
def _rendered(overlay: str) -> tuple[Document, ...]:
    return tuple(render(ROOT / "cluster" / "overlays" / overlay))


def site(documents: Sequence[Document], **kwargs: Any) -> Site:
    """A site with this repository as its root and the secrets of cluster/external.yaml."""
    return Site(documents=documents, given=external(ROOT / "cluster"), root=ROOT, **kwargs)


def find(documents: Sequence[Document], label: str) -> Document:
    """The document with a label such as "RayJob/pipeline"."""
    return next(d for d in documents if d.label == label)


def edited(label: str, *edits: Edit, overlay: str = "h100") -> list[Document]:
    """The documents of an overlay with edits to one of them."""
    return [changed(d, *edits) if d.label == label else d for d in shipped(overlay)]


def changed(document: Document, *edits: Edit) -> Document:
    """A copy of a document with edits."""
    body = copy.deepcopy(document.body)
    for path, value in edits:
        put(body, path, value)
    return Document(file=document.file, source=document.source, body=body)


def put(body: Body, path: str, value: Any) -> None:
    """Sets what is at a path, makes mappings on the way, appends at [-], or removes."""
    *parents, last = [key or int(index) if key or index != "-" else "-" for key, index in _steps(path)]
    place: Any = body
    for step in parents:
        place = place[step] if isinstance(place, list) else place.setdefault(step, {})
    if value is DELETE:
        del place[last]
    elif last == "-":
        place.append(copy.deepcopy(value))
    else:
        place[last] = copy.deepcopy(value)


def findings(documents: Sequence[Document], groups: Sequence[Group] = ALL_GROUPS, **kwargs: Any) -> list[Finding]:
    """What the rules find; among edited documents, in the edited ones alone, which is quicker."""
    untouched = {id(d.body) for d in shipped()}
    edits = any(id(d.body) not in untouched for d in documents)
    only = (lambda body: id(body) not in untouched) if edits else None
    return run_rules(documents, site(documents, **kwargs), groups, only=only)


def _steps(path: str) -> list[tuple[str, str]]:
    steps = re.findall(r"\['([^']+)'\]|\[(\d+|-)\]|([^.\[\]]+)", path)
    return [(quoted or plain, index) for quoted, index, plain in steps]
