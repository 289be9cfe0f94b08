"""The shape of every document: Kubernetes' schemas (package kubernetes-validate) and KubeRay's (schemas/ beside this).

As an API server does, nulls are left out and defaults are filled in first. Stricter than an API server, which drops
what it does not know: an unknown field is an error.
"""

import difflib
import functools
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError
from avere_ray.manifests.documents import Body, Document, Problem, at, mapping

KUBERAY_TAG = "v1.7.0"
KUBERNETES_VERSION = "1.37.0"
"""Version of the built-in kinds' schemas, as kubernetes-validate names it."""

DEFINITIONS = "https://kubernetes.io/api/_definitions.json"
KUBERAY = "https://ray.io/kuberay.json"


class _UnknownKind(Exception):
    """An API version or kind that does not exist."""


_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def kuberay_schema_path() -> Path:
    """Where the schemas of KubeRay's kinds are kept."""
    return Path(__file__).parent / "schemas" / f"kuberay-{KUBERAY_TAG}.json"


@functools.cache
def kuberay_schema() -> Body:
    """KubeRay's kinds and their definitions."""
    return json.loads(kuberay_schema_path().read_text(encoding="utf-8"))


@functools.cache
def kubernetes_definitions() -> Body:
    """Definitions of Kubernetes' built-in types, by name.

    Raises:
        InputError: kubernetes-validate is not installed.
    """
    spec = importlib.util.find_spec("kubernetes_validate")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise InputError(
            "kubernetes-validate is not installed, so built-in kinds cannot be checked. "
            "Install it with `pip install -c constraints.txt kubernetes-validate`, or run `make setup`."
        )
    folder = Path(folders[0]) / "kubernetes-json-schema" / f"v{KUBERNETES_VERSION}-local-strict"
    return json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))


@functools.cache
def built_in_kinds() -> dict[tuple[str, str], str]:
    """(apiVersion, kind) to the name of its definition."""
    kinds = {}
    for name, definition in kubernetes_definitions()["$defs"].items():
        for gvk in definition.get("x-kubernetes-group-version-kind", ()):
            api_version = f"{gvk['group']}/{gvk['version']}" if gvk["group"] else gvk["version"]
            kinds[(api_version, gvk["kind"])] = name
    return kinds


def is_ray(body: Body) -> bool:
    """Whether a document is of one of KubeRay's kinds."""
    return str(body.get("apiVersion", "")).startswith("ray.io/")


def admitted(body: Body) -> Body:
    """What an API server would store: without nulls, and with KubeRay's defaults."""
    pruned = prune_nulls(body)
    spec = _kuberay_spec(pruned) if is_ray(pruned) else None
    if spec is not None and isinstance(pruned.get("spec"), dict):
        pruned["spec"] = _with_defaults(pruned["spec"], {"$ref": f"#/$defs/{spec}"})
    return pruned


def prune_nulls(value: Any) -> Any:
    """The value without mapping entries that are null."""
    if isinstance(value, dict):
        return {k: prune_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [prune_nulls(v) for v in value]
    return value


def check_schema(document: Document) -> Iterator[Problem]:
    """Where a document differs from the schema of its kind."""
    body = admitted(document.body)
    for field in ("apiVersion", "kind"):
        if not isinstance(body.get(field), str):
            yield Problem(field, "is missing; every manifest needs apiVersion, kind and metadata.name")
            return
    try:
        schema = _schema_of(body)
    except _UnknownKind as error:
        yield Problem("kind", str(error))
        return
    if schema is None:  # another operator's kind, for instance Kueue's: only what all objects share
        schema = {"type": "object", "properties": {"metadata": {"$ref": f"{DEFINITIONS}#/$defs/{_META}"}}}
    yield from problems_of(body, schema)


def problems_of(value: Any, schema: Body) -> Iterator[Problem]:
    """Where a value differs from a JSON schema, in words."""
    validator = _validator(json.dumps(schema, sort_keys=True))
    for error in sorted(validator.iter_errors(value), key=lambda e: [str(p) for p in e.absolute_path]):
        yield from _in_words(error)


@functools.cache
def _registry() -> Any:
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    kuberay = {"$id": KUBERAY, "$defs": kuberay_schema()["$defs"]}
    return Registry().with_resources(
        [
            (DEFINITIONS, Resource(contents=kubernetes_definitions(), specification=DRAFT202012)),
            (KUBERAY, Resource(contents=kuberay, specification=DRAFT202012)),
        ]
    )


@functools.lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(schema), registry=_registry())


def _schema_of(body: Body) -> Body | None:
    """The schema of a document; None when its kind belongs to another operator.

    Raises:
        _UnknownKind: an API version or kind that does not exist.
    """
    api_version, kind = str(body["apiVersion"]), str(body["kind"])
    if is_ray(body):
        return _kuberay_document(body)
    known = built_in_kinds()
    if (api_version, kind) in known:
        return {"$ref": f"{DEFINITIONS}#/$defs/{known[(api_version, kind)]}"}
    versions = sorted(version for version, known_kind in known if known_kind == kind)
    group = api_version.partition("/")[0]
    if versions:
        raise _UnknownKind(f"{kind} has no version {api_version!r}; allowed: {', '.join(versions)}")
    if group.endswith(".x-k8s.io") or ("." in group and not group.endswith(".k8s.io")):
        return None
    close = difflib.get_close_matches(kind, {k for _, k in known}, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise _UnknownKind(f"{api_version} has no kind {kind!r}{hint}")


def _kuberay_spec(body: Body) -> str | None:
    return kuberay_schema()["kinds"].get(body.get("kind")) if body.get("apiVersion") == "ray.io/v1" else None


def _kuberay_document(body: Body) -> Body:
    if body["apiVersion"] != "ray.io/v1":
        raise _UnknownKind(f"apiVersion {body['apiVersion']!r} is deprecated or unknown; use ray.io/v1")
    spec = _kuberay_spec(body)
    if spec is None:
        raise _UnknownKind(f"ray.io/v1 has no kind {body['kind']!r}; allowed: {', '.join(kuberay_schema()['kinds'])}")
    return {
        "type": "object",
        "required": ["metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"{DEFINITIONS}#/$defs/{_META}"},
            "spec": {"$ref": f"{KUBERAY}#/$defs/{spec}"},
            "status": {"type": "object"},
        },
    }


def _with_defaults(value: Any, schema: Body) -> Any:
    schema = _resolved(schema)
    if isinstance(value, dict) and "properties" in schema:
        filled = {k: _with_defaults(v, schema["properties"].get(k, {})) for k, v in value.items()}
        defaults = {k: s["default"] for k, s in schema["properties"].items() if "default" in s}
        return {**defaults, **filled}
    if isinstance(value, list) and "items" in schema:
        return [_with_defaults(item, schema["items"]) for item in value]
    return value


def _resolved(schema: Body) -> Body:
    reference = str(schema.get("$ref", ""))
    if not reference.startswith("#/$defs/"):
        return schema
    return kuberay_schema()["$defs"][reference.removeprefix("#/$defs/")]


def _in_words(error: Any) -> Iterator[Problem]:
    path = at(*error.absolute_path)
    if error.validator == "additionalProperties":
        yield from _unknown_fields(error, path)
    elif error.validator == "required":
        missing = [name for name in error.validator_value if name not in mapping(error.instance)]
        yield Problem(path, f"lacks {', '.join(missing)}")
    elif error.validator == "type":
        yield Problem(path, f"{_short(error.instance)} must be {_types(error.validator_value)}")
    elif error.validator in ("oneOf", "anyOf"):
        allowed = [t for choice in error.validator_value for t in _listed(choice.get("type", ()))]
        yield Problem(path, f"{_short(error.instance)} must be {_types(allowed)}")
    elif error.validator == "enum":
        yield Problem(path, f"{error.instance!r} is not allowed; allowed: {', '.join(map(str, error.validator_value))}")
    else:
        yield Problem(path, error.message)


def _unknown_fields(error: Any, path: str) -> Iterator[Problem]:
    if error.validator_value is not False:
        yield Problem(path, error.message)
        return
    known = sorted(error.schema.get("properties", ()))
    for name in sorted(set(error.instance) - set(known), key=str):
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.7)
        hint = f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(known[:12])}"
        yield Problem(path, f"unknown field {name!r}{hint}")


def _types(types: Iterable[str] | str) -> str:
    names = list(dict.fromkeys(t for t in _listed(types) if t != "null"))
    return " or ".join(f"{'an' if n[0] in 'aoi' else 'a'} {n}" for n in names)


def _listed(types: Iterable[str] | str) -> list[str]:
    return [types] if isinstance(types, str) else list(types)


def _short(value: Any) -> str:
    kind = {bool: "boolean", str: "string", int: "integer", float: "number", dict: "object", list: "array"}
    return f"{kind.get(type(value), type(value).__name__)} {str(value)[:40]!r}"
