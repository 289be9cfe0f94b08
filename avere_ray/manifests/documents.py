"""YAML documents of a cluster, and problems with the place where they are."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from avere_ray.errors import InputError

Body = dict[str, Any]


class Problem(NamedTuple):
    """Something wrong at a path of a document, for instance "spec.rayVersion"."""

    path: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A problem with everything needed to find it."""

    file: str
    """The file or kustomization it comes from."""
    source: str = ""
    """In a kustomization, the file that holds the document."""
    document: str
    """Kind and name, for instance "RayJob/pipeline"."""
    path: str
    """Where in the document."""
    rule: str
    """The rule that is broken; `avere-ray validate-manifests --list` says what each means."""
    message: str
    """What is wrong, the value, and what is allowed."""

    def __str__(self) -> str:
        where = f"{self.document} ({self.source})" if self.source else self.document
        return f"{self.file}: {where}: {self.path or '(document)'}: {self.message} [{self.rule}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One YAML document."""

    file: str
    """Where it comes from, for messages: a file, or a kustomization."""
    source: str = ""
    """In a kustomization, the file that holds it."""
    body: Body
    """Its content: as read, or as an API server would store it."""
    written: Body = field(default_factory=dict)
    """Its content as read, when `body` is not."""

    @property
    def kind(self) -> str:
        """Its kind, for instance "RayJob"; empty when it has none."""
        return str(self.body.get("kind") or "")

    @property
    def name(self) -> str:
        """metadata.name; empty when it has none."""
        return str(mapping(self.body.get("metadata")).get("name") or "")

    @property
    def namespace(self) -> str:
        """metadata.namespace; empty when it has none."""
        return str(mapping(self.body.get("metadata")).get("namespace") or "")

    @property
    def label(self) -> str:
        """Kind and name, for messages."""
        return f"{self.kind or 'document'}/{self.name or 'unnamed'}"


def mapping(value: Any) -> Body:
    """The value when it is a mapping, else an empty one; what is not as it should be is the schema's business."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """The value when it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def entries(value: Any) -> list[tuple[int, Body]]:
    """Index and value of the mappings in a list."""
    return [(i, item) for i, item in enumerate(sequence(value)) if isinstance(item, dict)]


def dig(value: Any, *keys: str) -> Any:
    """What lies at a path of keys; None when a step is missing."""
    for key in keys:
        value = mapping(value).get(key)
    return value


def at(*parts: str | int) -> str:
    """A path in words: at("spec", "containers", 0) is "spec.containers[0]"."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def load_yaml(path: Path) -> list[Any]:
    """The YAML documents of a file, empty ones left out.

    Raises:
        InputError: the file cannot be read, is not YAML, or has a key twice in one mapping.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def parse_yaml(text: str) -> list[Any]:
    """The YAML documents of a text, empty ones left out.

    Raises:
        yaml.YAMLError: it is not YAML, or has a key twice in one mapping.
    """
    return [value for value in yaml.load_all(text, Loader=_StrictLoader) if value is not None]


def as_documents(file: str, values: Iterable[Any]) -> Iterator[Document]:
    """Documents of what a YAML file holds; the items of a List are documents of their own.

    Raises:
        InputError: a value is not a mapping.
    """
    for value in values:
        if not isinstance(value, dict):
            raise InputError(f"{file}: a manifest is a mapping, this is a {type(value).__name__}: {str(value)[:60]!r}")
        if value.get("kind") == "List" and value.get("apiVersion") == "v1":
            yield from as_documents(file, sequence(value.get("items")))
        else:
            yield Document(file=file, body=value)


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice, which Kubernetes refuses too."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
