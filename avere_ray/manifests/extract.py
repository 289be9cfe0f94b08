"""Makes schemas/kuberay-<tag>.json again from the CRDs of a KubeRay release.

    python -m avere_ray.manifests.extract CHECKOUT v1.7.0 [FILE]

CHECKOUT is a checkout of ray-project/kuberay at the tag. Only the fields of ray.io/v1 are kept: descriptions go, and
what KubeRay takes over from Kubernetes (pod templates, services, security contexts, ...) becomes a reference to
Kubernetes' own definitions, which are 95 % of the CRDs. The rules in x-kubernetes-validations are not kept; they are
written by hand in clusters.py and jobs.py. KubeRay is under the Apache License 2.0.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.errors import AvereError, InputError
from avere_ray.manifests.documents import Body, load_yaml, mapping
from avere_ray.manifests.schemas import DEFINITIONS, kuberay_schema_path
from avere_ray.stages import write_text

FOLDER = Path("ray-operator/config/crd/bases")
SPECS = {
    "rayclusters": ("RayCluster", "RayClusterSpec"),
    "rayjobs": ("RayJob", "RayJobSpec"),
    "rayservices": ("RayService", "RayServiceSpec"),
    "raycronjobs": ("RayCronJob", "RayCronJobSpec"),
}

_CORE, _NETWORK = "io.k8s.api.core.v1.", "io.k8s.api.networking.v1."
_KUBERNETES = {
    "template": f"{_CORE}PodTemplateSpec",
    "submitterPodTemplate": f"{_CORE}PodTemplateSpec",
    "headService": f"{_CORE}Service",
    "serveService": f"{_CORE}Service",
    "resources": f"{_CORE}ResourceRequirements",
    "securityContext": f"{_CORE}SecurityContext",
    "env": f"{_CORE}EnvVar",
    "envFrom": f"{_CORE}EnvFromSource",
    "volumeMounts": f"{_CORE}VolumeMount",
    "valueFrom": f"{_CORE}EnvVarSource",
    "tls": f"{_NETWORK}IngressTLS",
    "ingressRules": f"{_NETWORK}NetworkPolicyIngressRule",
    "egressRules": f"{_NETWORK}NetworkPolicyEgressRule",
}
_OWN = {"rayClusterSpec": "RayClusterSpec", "rayClusterConfig": "RayClusterSpec", "jobTemplate": "RayJobSpec"}
_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "default")


def extract(crds: Mapping[str, Body], tag: str) -> Body:
    """The schema file's content, from CRDs by their plural name.

    Raises:
        InputError: a CRD has no version v1.
    """
    definitions = {}
    for plural, (_, spec) in SPECS.items():
        found = [v for v in crds[plural]["spec"]["versions"] if v["name"] == "v1"]
        if not found:
            raise InputError(f"the CRD of {plural} has no version v1")
        schema = found[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        definitions[spec] = reduced(schema)
    return {
        "project": "ray-project/kuberay",
        "licence": "Apache-2.0",
        "tag": tag,
        "source": str(FOLDER),
        "group": "ray.io/v1",
        "kinds": dict(SPECS.values()),
        "$defs": definitions,
    }


def reduced(schema: Body) -> Body:
    """A CRD's structural schema as a strict JSON schema without descriptions."""
    if schema.get("x-kubernetes-int-or-string"):
        pattern = {"pattern": schema["pattern"]} if "pattern" in schema else {}
        return {"anyOf": [{"type": "integer"}, {"type": "string", **pattern}]}
    kept: Body = {key: schema[key] for key in _KEPT if key in schema}
    if schema.get("format") == "int32":
        kept = {"minimum": -(2**31), "maximum": 2**31 - 1, **kept}
    if schema.get("nullable"):
        kept["type"] = [schema["type"], "null"]
    if "properties" in schema:
        kept["properties"] = {name: _field(name, inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = reduced(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = reduced(schema["items"])
    if "required" in schema:
        kept["required"] = sorted(schema["required"])
    return kept


def read_crds(checkout: Path) -> dict[str, Body]:
    """The CRDs of a checkout, by plural name.

    Raises:
        InputError: a file is missing or is no CRD.
    """
    found = {}
    for plural in SPECS:
        values = load_yaml(checkout / FOLDER / f"ray.io_{plural}.yaml")
        if len(values) != 1 or mapping(values[0]).get("kind") != "CustomResourceDefinition":
            raise InputError(f"{checkout / FOLDER}/ray.io_{plural}.yaml is no custom resource definition")
        found[plural] = values[0]
    return found


def main(argv: Sequence[str]) -> int:
    """Reads a checkout and writes the schema file; 2 when the arguments or the checkout are wrong."""
    if len(argv) not in (2, 3):
        print("usage: python -m avere_ray.manifests.extract CHECKOUT TAG [FILE]", file=sys.stderr)
        return 2
    target = Path(argv[2]) if len(argv) == 3 else kuberay_schema_path()
    try:
        content = extract(read_crds(Path(argv[0])), argv[1])
        write_text(target, json.dumps(content, separators=(",", ":")) + "\n")
    except AvereError as error:
        print(f"extract: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {target}")
    return 0


def _field(name: str, schema: Body) -> Body:
    if name in _OWN and "properties" in schema:
        return {"$ref": f"#/$defs/{_OWN[name]}"}
    reference: Any = {"$ref": f"{DEFINITIONS}#/$defs/{_KUBERNETES.get(name)}"}
    if name in _KUBERNETES and "properties" in schema:
        return reference
    if name in _KUBERNETES and "properties" in mapping(schema.get("items")):
        return {"type": "array", "items": reference}
    return reduced(schema)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
