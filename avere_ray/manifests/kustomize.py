"""Renders a folder with kustomization.yaml, as `kubectl kustomize` does, for the fields that cluster/ uses.

Supported: resources, components, namespace, labels (without selectors), patches (strategic merge and JSON patch, inline
or in a file, with a target), images, configMapGenerator (files, literals, without name suffix). Anything else is an
error rather than silently left out. A test compares the result with kubectl's, where kubectl is installed.
"""

import copy
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from avere_ray.errors import InputError
from avere_ray.manifests.documents import Body, Document, as_documents, dig, entries, load_yaml, mapping, parse_yaml
from avere_ray.manifests.documents import sequence as listed

FILE = "kustomization.yaml"

_CLUSTER_WIDE = ("Namespace", "PriorityClass", "StorageClass", "ClusterRole", "ClusterRoleBinding")
_VERSIONS = {"Kustomization": "kustomize.config.k8s.io/v1beta1", "Component": "kustomize.config.k8s.io/v1alpha1"}
_HEADER = ("apiVersion", "kind", "metadata")


def render(folder: Path) -> list[Document]:
    """The documents of a kustomization, in the order of its resources.

    Raises:
        InputError: the kustomization cannot be read, asks for something unsupported, or a patch fits nothing.
    """
    return [Document(file=str(folder), source=_short(d.file), body=d.body) for d in _render(folder, [])]


def kustomizations(folder: Path) -> list[Path]:
    """Folders at or below `folder` with a kustomization that can be rendered on its own (no components)."""
    found = sorted(path.parent for path in folder.rglob(FILE))
    return [path for path in found if _read(path).get("kind", "Kustomization") == "Kustomization"]


def _short(file: str) -> str:
    """A file relative to the working directory, where it lies below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _render(folder: Path, start: list[Document]) -> list[Document]:
    values = _read(folder)
    unknown = sorted(set(values) - set(_HEADER) - set(_STEPS))
    if unknown:
        raise InputError(f"{folder / FILE}: {', '.join(unknown)} is not supported; allowed: {', '.join(_STEPS)}")
    documents = list(start)
    for field, step in _STEPS.items():
        if field in values:
            documents = step(folder, values[field], documents)
    return documents


def _read(folder: Path) -> Body:
    values = load_yaml(folder / FILE)
    if len(values) != 1 or not isinstance(values[0], dict):
        raise InputError(f"{folder / FILE} must hold one mapping")
    kind = values[0].get("kind", "Kustomization")
    version = _VERSIONS.get(kind)
    if values[0].get("apiVersion", version) != version or version is None:
        allowed = " or ".join(f"{v} {k}" for k, v in _VERSIONS.items())
        raise InputError(f"{folder / FILE} is {values[0].get('apiVersion')} {kind}; allowed: {allowed}")
    return values[0]


def _resources(folder: Path, names: Any, documents: list[Document]) -> list[Document]:
    for name in listed(names):
        path = (folder / str(name)).resolve()
        if path.is_dir():
            documents = documents + _render(path, [])
        else:
            documents = documents + list(as_documents(str(path), load_yaml(path)))
    return [Document(file=d.file, body=copy.deepcopy(d.body)) for d in documents]


def _components(folder: Path, names: Any, documents: list[Document]) -> list[Document]:
    for name in listed(names):
        documents = _render((folder / str(name)).resolve(), documents)
    return documents


def _config_maps(folder: Path, generators: Any, documents: list[Document]) -> list[Document]:
    made = []
    for _, generator in entries(generators):
        unknown = set(generator) - {"name", "files", "literals", "options"}
        if unknown or not dig(generator, "options", "disableNameSuffixHash"):
            raise InputError(
                f"{folder / FILE}: configMapGenerator takes name, files, literals and "
                "options.disableNameSuffixHash: true (names with a digest are not supported)"
            )
        data = dict(_generated(folder, generator))
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        made.append(Document(file=str(folder / FILE), body=body))
    return documents + made


def _generated(folder: Path, generator: Body) -> Iterator[tuple[str, str]]:
    for literal in listed(generator.get("literals")):
        yield literal.split("=", 1)[0], literal.split("=", 1)[1]
    for name in listed(generator.get("files")):
        key, _, file = name.rpartition("=")
        path = folder / file
        if not path.is_file():
            raise InputError(f"{folder / FILE}: configMapGenerator file {path} does not exist")
        yield key or path.name, path.read_text(encoding="utf-8")


def _namespace(folder: Path, name: Any, documents: list[Document]) -> list[Document]:
    for document in documents:
        if document.kind not in _CLUSTER_WIDE:
            document.body.setdefault("metadata", {})["namespace"] = name
        for _, subject in entries(document.body.get("subjects")):
            if subject.get("kind") == "ServiceAccount" and (document.kind or "").endswith("Binding"):
                subject["namespace"] = name
    return documents


def _labels(folder: Path, groups: Any, documents: list[Document]) -> list[Document]:
    for _, group in entries(groups):
        if set(group) - {"pairs"}:
            raise InputError(f"{folder / FILE}: labels takes pairs only, which label the objects and not their pods")
        for document in documents:
            metadata = document.body.setdefault("metadata", {})
            metadata["labels"] = {**mapping(metadata.get("labels")), **group["pairs"]}
    return documents


def _images(folder: Path, images: Any, documents: list[Document]) -> list[Document]:
    for _, image in entries(images):
        for document in documents:
            _each_container(document.body, functools.partial(_set_image, image))
    return documents


def _each_container(value: Any, change: Callable[[Body], None]) -> None:
    if isinstance(value, dict):
        for field, inner in value.items():
            if field in ("containers", "initContainers"):
                for _, container in entries(inner):
                    change(container)
            else:
                _each_container(inner, change)
    elif isinstance(value, list):
        for inner in value:
            _each_container(inner, change)


def _set_image(image: Body, container: Body) -> None:
    found = re.fullmatch(r"(.+?)(?::([^:/]+))?(?:@(.+))?", str(container.get("image", "")))
    if found is None or found[1] != image.get("name"):
        return
    name = image.get("newName", found[1])
    if "digest" in image:
        container["image"] = f"{name}@{image['digest']}"
    else:
        tag = image.get("newTag", found[2])
        container["image"] = f"{name}:{tag}" if tag else name


def _patches(folder: Path, patches: Any, documents: list[Document]) -> list[Document]:
    for i, patch in entries(patches):
        where = f"{folder / FILE}: patches[{i}]"
        text = patch["patch"] if "patch" in patch else _text(folder / str(patch.get("path")))
        try:
            changes = parse_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
        for change in changes:
            documents = _apply(where, change, mapping(patch.get("target")), documents)
    return documents


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _apply(where: str, change: Any, target: Body, documents: list[Document]) -> list[Document]:
    by_operations = isinstance(change, list)
    if not target and not by_operations:
        target = {"kind": change.get("kind"), "name": mapping(change.get("metadata")).get("name")}
    hit = [d for d in documents if _targets(target, d)]
    if not hit:
        raise InputError(f"{where} fits no document: {target or 'it has no target'}")
    for document in hit:
        if by_operations:
            for operation in change:
                _operate(where, document.body, operation)
        elif change.get("$patch") == "delete":
            documents = [d for d in documents if d is not document]
        else:
            inner = {k: v for k, v in change.items() if k not in ("apiVersion", "kind")}
            mapping(inner.get("metadata")).pop("name", None)
            _merge(where, document.body, inner, in_lists=not str(document.body.get("apiVersion")).startswith("ray.io/"))
    return documents


def _targets(target: Body, document: Document) -> bool:
    api = str(document.body.get("apiVersion", ""))
    found = {
        "kind": document.kind,
        "name": document.name,
        "namespace": document.namespace,
        "group": api.rpartition("/")[0],
        "version": api.rpartition("/")[2],
    }
    unknown = set(target) - set(found) - {"labelSelector"}
    if unknown:
        raise InputError(
            f"a patch's target has {', '.join(sorted(unknown))}; allowed: {', '.join(found)}, labelSelector"
        )
    labels = mapping(dig(document.body, "metadata", "labels"))
    pairs = [pair.split("=", 1) for pair in str(target.get("labelSelector", "")).split(",") if pair]
    named = all(re.fullmatch(str(v), found[k]) for k, v in target.items() if k != "labelSelector" and v)
    return named and all(labels.get(key) == value for key, value in pairs)


def _merge(where: str, body: Body, change: Body, *, in_lists: bool) -> None:
    """Strategic merge: mappings merge, null removes. Lists replace, as for kinds without a merge key (KubeRay's)."""
    for key, value in change.items():
        if value is None:
            body.pop(key, None)
        elif isinstance(value, dict) and isinstance(body.get(key), dict):
            _merge(where, body[key], value, in_lists=in_lists)
        elif isinstance(value, list) and in_lists and body.get(key):
            raise InputError(f"{where} changes the list {key} of a built-in kind; use a JSON patch, which is explicit")
        else:
            body[key] = copy.deepcopy(value)


def _operate(where: str, body: Body, operation: Any) -> None:
    """One operation of a JSON patch (RFC 6902): add, replace, remove or test."""
    kind, pointer = mapping(operation).get("op"), str(mapping(operation).get("path", ""))
    *parents, last = [p.replace("~1", "/").replace("~0", "~") for p in pointer.removeprefix("/").split("/")]
    try:
        place: Any = body
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        _change(place, last, kind, operation.get("value"))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{where}: {kind} {pointer} is not possible: {type(error).__name__} {error}") from error


def _change(place: Any, last: str, kind: Any, value: Any) -> None:
    if isinstance(place, list):
        index = len(place) if last == "-" else int(last)
        if kind == "add":
            place.insert(index, copy.deepcopy(value))
            return
        key: Any = index
    else:
        key = last
        if kind == "add":
            place[key] = copy.deepcopy(value)
            return
    found = place[key]
    if kind == "replace":
        place[key] = copy.deepcopy(value)
    elif kind == "remove":
        del place[key]
    elif kind != "test":
        raise ValueError("op must be add, replace, remove or test")
    elif found != value:
        raise ValueError(f"test expected {value!r}, found {found!r}")


_STEPS: dict[str, Callable[[Path, Any, list[Document]], list[Document]]] = {
    "resources": _resources,
    "configMapGenerator": _config_maps,
    "components": _components,
    "patches": _patches,
    "namespace": _namespace,
    "labels": _labels,
    "images": _images,
}
