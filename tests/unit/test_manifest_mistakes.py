# ruff: noqa: E501  (a mistake stands on one line)
"""Each rule finds its mistake in the manifests of cluster/, where there is none before, and says where it is."""

import base64
from typing import Any

import pytest

from avere_ray.manifests.documents import Document
from avere_ray.manifests.rules import RULES
from avere_ray.manifests.validate import RULE_MODULES
from jobs.validate_manifests import serve_problems
from tests.unit.manifest_edits import DELETE, Edit, changed, edited, find, findings, shipped

assert RULE_MODULES

BUDGET, TRAIN = "PodDisruptionBudget/serve", "python -m jobs.train --config jobs/configs/demo.yaml"
JOB, CLUSTER, SERVICE = "RayJob/pipeline", "RayCluster/interactive", "RayService/serve"
RC = "spec.rayClusterSpec"
HEAD = f"{RC}.headGroupSpec"
HEADC = f"{HEAD}.template.spec.containers[0]"
GROUP = f"{RC}.workerGroupSpecs[1]"
POD = f"{GROUP}.template.spec"
CONT = f"{POD}.containers[0]"
SRC = "spec.rayClusterConfig"
SHEADC = f"{SRC}.headGroupSpec.template.spec.containers[0]"
REDIS = {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}
V2 = {"name": "RAY_enable_autoscaler_v2", "value": "1"}
LONG = "a" * 48
RULE_S = {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 60}}
NO_SHUTDOWN = [("spec.shutdownAfterJobFinishes", DELETE), ("spec.ttlSecondsAfterFinished", DELETE)]
INCREMENTAL: dict[str, Any] = {
    "type": "NewClusterWithIncrementalUpgrade",
    "clusterUpgradeOptions": {"stepSizePercent": 10, "intervalSeconds": 30, "gatewayClassName": "istio"},
}

Mistake = tuple[str, str, str, list[Edit]]
"""Rule, document, start of the path in the message, and the edits that make the mistake."""

SCHEMA: list[Mistake] = [
    ("schema", JOB, RC, [(f"{RC}.rayVerson", "2.60.0")]),
    ("schema", JOB, GROUP, [(f"{GROUP}.replica", 2)]),
    ("schema", JOB, f"{GROUP}.minReplicas", [(f"{GROUP}.minReplicas", "1")]),
    ("schema", JOB, GROUP, [(f"{GROUP}.groupName", DELETE)]),
    ("schema", JOB, RC, [(HEAD, DELETE)]),
    ("schema", JOB, f"{HEAD}.rayStartParams.num-cpus", [(f"{HEAD}.rayStartParams.num-cpus", 0)]),
    ("schema", JOB, f"{RC}.autoscalerOptions.version", [(f"{RC}.autoscalerOptions.version", "v3")]),
    ("schema", JOB, f"{RC}.autoscalerOptions.upscalingMode", [(f"{RC}.autoscalerOptions.upscalingMode", "Fast")]),
    ("schema", JOB, "spec.preRunningDeadlineSeconds", [("spec.preRunningDeadlineSeconds", 0)]),
    ("schema", JOB, "spec.backoffLimit", [("spec.backoffLimit", "three")]),
    ("schema", JOB, CONT, [(f"{CONT}.imagePullPolcy", "Always")]),
    ("schema", JOB, f"{CONT}.ports", [(f"{CONT}.ports", {"containerPort": 80})]),
    ("schema", JOB, f"{CONT}.env[0]", [(f"{CONT}.env[0].valu", "x")]),
    ("schema", JOB, POD, [(f"{POD}.containers", DELETE)]),
    ("schema", JOB, "apiVersion", [("apiVersion", DELETE)]),
    ("schema", JOB, "kind", [("apiVersion", "ray.io/v1alpha1")]),
    ("schema", JOB, "kind", [("kind", "RayJobs")]),
    ("schema", SERVICE, "spec", [("spec.rayClusterSpec", {})]),
    ("schema", SERVICE, "spec", [(SRC, DELETE)]),
    (
        "schema",
        SERVICE,
        f"{SRC}.gcsFaultToleranceOptions.backend",
        [(f"{SRC}.gcsFaultToleranceOptions.backend", "etcd")],
    ),
    ("schema", "Deployment/mlflow", "spec", [("spec.replica", 1)]),
    ("schema", "Deployment/mlflow", "kind", [("apiVersion", "apps/v1beta9")]),
    ("schema", "NetworkPolicy/dns", "spec.egress[0]", [("spec.egress[0].port", 53)]),
    ("schema", "Role/ray-autoscaler", "rules[0].verbs", [("rules[0].verbs", "get")]),
    ("schema", "PriorityClass/avere-batch", "value", [("value", "high")]),
    ("schema", "PodDisruptionBudget/serve", "spec", [("spec.maxUnavailible", 1)]),
]
CLUSTERS: list[Mistake] = [
    ("name", JOB, "metadata.name", [("metadata.name", LONG)]),
    ("name", CLUSTER, "metadata.name", [("metadata.name", "1st")]),
    ("name", CLUSTER, "metadata.name", [("metadata.name", DELETE)]),
    ("name", JOB, "metadata.name", [("metadata.name", DELETE), ("metadata.generateName", f"{'a' * 42}-")]),
    ("group-container", JOB, f"{POD}.containers", [(f"{POD}.containers", [])]),
    ("group-resources", JOB, f"{HEAD}.resources", [(f"{HEAD}.resources", {"CPU": "0"})]),
    ("group-labels", JOB, f"{GROUP}.rayStartParams.labels", [(f"{GROUP}.rayStartParams.labels", "a=b")]),
    ("group-labels", JOB, f"{GROUP}.labels", [(f"{GROUP}.labels['zone']", "west coast")]),
    ("group-labels", JOB, f"{GROUP}.labels", [(f"{GROUP}.labels['-x']", "y")]),
    ("replicas", JOB, f"{GROUP}.minReplicas", [(f"{GROUP}.minReplicas", 2)]),
    ("replicas", JOB, f"{GROUP}.maxReplicas", [(f"{GROUP}.maxReplicas", -1)]),
    (
        "idle-timeout",
        JOB,
        f"{GROUP}.idle",
        [(f"{GROUP}.idleTimeoutSeconds", 9), (f"{RC}.autoscalerOptions.version", "v1")],
    ),
    ("idle-timeout", JOB, f"{RC}.autoscalerOptions", [(f"{RC}.autoscalerOptions.idleTimeoutSeconds", -1)]),
    ("group-priority", JOB, f"{GROUP}.priority", [(f"{GROUP}.priority", 5), (f"{RC}.rayVersion", "2.55.1")]),
    (
        "group-priority",
        JOB,
        f"{GROUP}.priority",
        [(f"{GROUP}.priority", 5), (f"{RC}.autoscalerOptions.version", DELETE)],
    ),
    ("group-suspend", JOB, f"{GROUP}.suspend", [(f"{GROUP}.suspend", True)]),
    ("gcs-ft", SERVICE, SRC, [(f"{SHEADC}.env[-]", REDIS)]),
    ("gcs-ft", SERVICE, SRC, [(f"{SRC}.headGroupSpec.rayStartParams.redis-password", "x")]),
    ("gcs-ft", SERVICE, "metadata.annotations", [("metadata.annotations", {"ray.io/ft-enabled": "true"})]),
    ("gcs-ft", SERVICE, f"{SRC}.gcs", [(f"{SRC}.gcsFaultToleranceOptions.storage", {"size": "1Gi"})]),
    ("gcs-ft", JOB, HEAD, [(f"{HEADC}.env[-]", REDIS)]),
    ("gcs-ft", JOB, HEAD, [(f"{HEADC}.env[-]", {"name": "REDIS_USERNAME", "value": "u"})]),
    ("feature-gates", JOB, f"{RC}.networkPolicy", [(f"{RC}.networkPolicy", {"mode": "DenyAll"})]),
    ("feature-gates", JOB, f"{RC}.tlsOptions", [(f"{RC}.tlsOptions", {"enabled": True})]),
    ("feature-gates", JOB, f"{RC}.gcs", [(f"{RC}.gcsFaultToleranceOptions", {"backend": "rocksdb"})]),
    (
        "group-names",
        JOB,
        f"{GROUP}.groupName",
        [(f"{RC}.networkPolicy", {"mode": "DenyAll"}), (f"{GROUP}.groupName", "Roll_out")],
    ),
    ("autoscaler", JOB, HEAD, [(f"{HEADC}.env[-]", V2), (f"{RC}.enableInTreeAutoscaling", False)]),
    ("autoscaler", JOB, HEAD, [(f"{HEADC}.env[-]", V2)]),
    ("autoscaler", JOB, f"{POD}.restartPolicy", [(f"{POD}.restartPolicy", "Always")]),
    (
        "autoscaler",
        JOB,
        f"{RC}.auto",
        [(f"{RC}.autoscalerOptions.env", [{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD"}])],
    ),
    ("auth", JOB, f"{RC}.authOptions", [(f"{RC}.rayVersion", "2.51.0")]),
    ("auth", JOB, f"{RC}.authOptions", [(f"{RC}.rayVersion", DELETE)]),
    ("auth", JOB, f"{RC}.authOptions", [(f"{RC}.authOptions.enableK8sTokenAuth", True)]),
    ("auth", CLUSTER, "spec.authOptions", [("spec.authOptions", {"enableK8sTokenAuth": True, "mode": "disabled"})]),
    (
        "auth",
        CLUSTER,
        "spec.authOptions",
        [("spec.authOptions", {"enableK8sTokenAuth": True, "mode": "token", "secretName": "redis"})],
    ),
    ("auth", CLUSTER, "spec.authOptions.enableK8sTokenAuth", [("spec.authOptions", {"enableK8sTokenAuth": True})]),
    ("managed-by", JOB, "spec.managedBy", [("spec.managedBy", "me")]),
    ("upgrade-strategy", JOB, f"{RC}.upgradeStrategy.type", [(f"{RC}.upgradeStrategy", {"type": "Recreate"})]),
]
JOBS: list[Mistake] = [
    ("job-cluster", JOB, "spec", [(RC, DELETE)]),
    ("job-cluster", JOB, "spec.clusterSelector", [("spec.clusterSelector", {"app": "x"})]),
    ("job-cluster", JOB, "spec.backoffLimit", [("spec.clusterSelector", {"ray.io/cluster": "interactive"})]),
    ("job-suspend", JOB, "spec.suspend", [*NO_SHUTDOWN, ("spec.suspend", True)]),
    ("job-ttl", JOB, "spec.ttlSecondsAfterFinished", [("spec.shutdownAfterJobFinishes", False)]),
    ("job-ttl", JOB, "spec.ttlSecondsAfterFinished", [("spec.ttlSecondsAfterFinished", -5)]),
    ("job-deadlines", JOB, "spec.activeDeadlineSeconds", [("spec.activeDeadlineSeconds", 0)]),
    ("job-deadlines", JOB, "spec.backoffLimit", [("spec.backoffLimit", -1)]),
    ("submission-mode", JOB, "spec.submissionMode", [("spec.submissionMode", "SshMode")]),
    ("submission-mode", JOB, "spec.backoffLimit", [("spec.submissionMode", "InteractiveMode")]),
    ("submission-mode", JOB, "spec.submitterPodTemplate", [("spec.submissionMode", "SidecarMode")]),
    ("submission-mode", JOB, HEAD, [("spec.submissionMode", "SidecarMode"), (f"{HEAD}.template.spec.restartPolicy", "Always")]),
    ("runtime-env", JOB, "spec.runtimeEnvYAML", [("spec.runtimeEnvYAML", "env_vars: [a")]),
    ("runtime-env", JOB, "spec.runtimeEnvYAML", [("spec.runtimeEnvYAML", "- a\n- b")]),
    ("deletion-strategy", JOB, "spec.deletionStrategy", [("spec.deletionStrategy", {"deletionRules": [RULE_S]})]),
    ("deletion-strategy", JOB, "spec.deletionStrategy", [("spec.deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}})]),
    ("deletion-strategy", JOB, "spec.deletionStrategy", [("spec.deletionStrategy", {})]),
    (
        "deletion-strategy", JOB, "spec.deletionStrategy.deletionRules[0].condition",
        [*NO_SHUTDOWN, ("spec.deletionStrategy", {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]})],
    ),
    (
        "deletion-strategy", JOB, "spec.deletionStrategy.deletionRules",
        [*NO_SHUTDOWN, ("spec.deletionStrategy", {"deletionRules": [
            RULE_S, {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 5}}]})],
    ),
    (
        "deletion-strategy", JOB, "spec.deletionStrategy.deletionRules[1]",
        [*NO_SHUTDOWN, ("spec.deletionStrategy", {"deletionRules": [RULE_S, RULE_S]})],
    ),
    (
        "deletion-strategy", JOB, "spec.deletionStrategy.deletionRules[0]",
        [*NO_SHUTDOWN, ("spec.deletionStrategy", {"deletionRules": [{**RULE_S, "policy": "DeleteWorkers"}]})],
    ),
    (
        "deletion-strategy", JOB, "spec.deletionStrategy",
        [*NO_SHUTDOWN, ("spec.deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}, "deletionRules": [RULE_S]})],
    ),
    ("service", SERVICE, f"{SRC}.headGroupSpec", [(f"{SRC}.headGroupSpec.headService", {"metadata": {"name": "x"}})]),
    ("service", SERVICE, "metadata.annotations", [("metadata.annotations", {"ray.io/initializing-timeout": "soon"})]),
    ("serve-port", SERVICE, f"{SHEADC}.ports", [(f"{SHEADC}.ports[4]", DELETE)]),
    ("serve-port", SERVICE, f"{SHEADC}.ports", [(f"{SHEADC}.ports[4].name", "http")]),
    ("service-upgrade", SERVICE, "spec.upgradeStrategy.type", [("spec.upgradeStrategy.type", "Rolling")]),
    ("service-upgrade", SERVICE, "spec.upgradeStrategy", [("spec.upgradeStrategy", {"type": INCREMENTAL["type"]})]),
    (
        "service-upgrade", SERVICE, "spec.upgradeStrategy.clusterUpgradeOptions.stepSizePercent",
        [("spec.upgradeStrategy", INCREMENTAL), ("spec.upgradeStrategy.clusterUpgradeOptions", {
            **INCREMENTAL["clusterUpgradeOptions"], "stepSizePercent": 60, "maxSurgePercent": 50})],
    ),
    (
        "service-upgrade", SERVICE, "spec.upgradeStrategy.clusterUpgradeOptions.intervalSeconds",
        [("spec.upgradeStrategy", INCREMENTAL), ("spec.upgradeStrategy.clusterUpgradeOptions", {
            **INCREMENTAL["clusterUpgradeOptions"], "intervalSeconds": 0})],
    ),
    (
        "service-upgrade", SERVICE, "spec.upgradeStrategy.type",
        [("spec.upgradeStrategy", INCREMENTAL), (f"{SRC}.enableInTreeAutoscaling", False)],
    ),
]  # fmt: skip
PODS: list[Mistake] = [
    ("quantity", JOB, f"{CONT}.resources", [(f"{CONT}.resources.requests.memory", "256GiB")]),
    ("limits", JOB, f"{CONT}.resources", [(f"{CONT}.resources.requests.cpu", "25")]),
    ("limits", JOB, f"{CONT}.resources", [(f"{CONT}.resources.limits['nvidia.com/gpu']", DELETE)]),
    ("container-names", JOB, f"{CONT}.name", [(f"{CONT}.name", "Ray_Worker")]),
    (
        "container-names",
        "Deployment/mlflow",
        "spec",
        [("spec.template.spec.initContainers", [{"name": "mlflow", "image": "a:1"}])],
    ),
    ("image", JOB, f"{CONT}.image", [(f"{CONT}.image", DELETE)]),
    ("volumes", JOB, f"{CONT}.volumeMounts", [(f"{CONT}.volumeMounts[0].name", "avre")]),
    ("volumes", JOB, f"{CONT}.volumeMounts", [(f"{CONT}.volumeMounts[0].mountPath", "/tmp")]),
    ("volumes", JOB, f"{POD}.volumes[1]", [(f"{POD}.volumes[1].configMap", {"name": "x"})]),
    ("volumes", JOB, f"{POD}.volumes", [(f"{POD}.volumes[1].name", "home")]),
    ("ports", JOB, f"{HEADC}.ports[0]", [(f"{HEADC}.ports[0].containerPort", 70000)]),
    ("ports", JOB, f"{HEADC}.ports", [(f"{HEADC}.ports[0].name", "dashboard")]),
    ("ports", JOB, f"{HEADC}.ports[0].name", [(f"{HEADC}.ports[0].name", "the-gcs-of-the-head")]),
    ("env", JOB, f"{CONT}.env[0]", [(f"{CONT}.env[0].valueFrom", {"fieldRef": {"fieldPath": "status.podIP"}})]),
    ("choices", JOB, f"{POD}.restartPolicy", [(f"{POD}.restartPolicy", "Sometimes")]),
    ("choices", JOB, f"{CONT}.imagePullPolicy", [(f"{CONT}.imagePullPolicy", "Often")]),
    ("selector", "Deployment/mlflow", "spec.selector", [("spec.selector.matchLabels", {"app": "other"})]),
]
HOUSE: list[Mistake] = [
    ("steady-resources", JOB, f"{CONT}.resources", [(f"{CONT}.resources.requests.memory", "128Gi")]),
    ("steady-resources", JOB, f"{CONT}.resources", [(f"{CONT}.resources.limits.memory", DELETE)]),
    ("pinned-image", "Deployment/mlflow", "spec", [("spec.template.spec.containers[0].image", "avere-ray:latest")]),
    ("pinned-image", JOB, CONT, [(f"{CONT}.image", "avere-ray")]),
    ("restricted-pod", JOB, f"{POD}.hostNetwork", [(f"{POD}.hostNetwork", True)]),
    ("restricted-pod", JOB, f"{POD}.volumes[1]", [(f"{POD}.volumes[1]", {"name": "tmp", "hostPath": {"path": "/tmp"}})]),
    ("restricted-pod", JOB, f"{CONT}.securityContext.runAsUser", [(f"{POD}.securityContext.runAsUser", 0)]),
    ("restricted-pod", JOB, f"{CONT}.securityContext.runAsNonRoot", [(f"{POD}.securityContext.runAsNonRoot", DELETE)]),
    ("restricted-pod", JOB, f"{CONT}.securityContext.seccomp", [(f"{POD}.securityContext.seccompProfile", DELETE)]),
    ("restricted-pod", JOB, f"{CONT}.securityContext", [(f"{CONT}.securityContext.allowPrivilegeEscalation", True)]),
    ("restricted-pod", JOB, f"{CONT}.securityContext", [(f"{CONT}.securityContext.privileged", True)]),
    ("restricted-pod", JOB, f"{CONT}.securityContext", [(f"{CONT}.securityContext.capabilities", {"drop": []})]),
    ("restricted-pod", JOB, f"{CONT}.volumeMounts", [(f"{CONT}.volumeMounts[1]", DELETE)]),
    ("restricted-pod", JOB, f"{RC}.autoscalerOptions", [(f"{RC}.autoscalerOptions.securityContext", {})]),
    ("service-account-token", JOB, POD, [(f"{POD}.automountServiceAccountToken", DELETE)]),
    ("service-account-token", JOB, HEAD, [(f"{HEAD}.template.spec.serviceAccountName", DELETE)]),
    ("no-secret-values", JOB, f"{CONT}.env", [(f"{CONT}.env[-]", {"name": "HF_TOKEN", "value": "hf_x"})]),
    ("probes", "StatefulSet/postgres", "spec", [("spec.template.spec.containers[0].livenessProbe", DELETE)]),
    ("priority", JOB, f"{POD}.priorityClassName", [(f"{POD}.priorityClassName", DELETE)]),
    ("token-auth", JOB, f"{RC}.authOptions", [(f"{RC}.authOptions", DELETE)]),
    ("token-auth", JOB, f"{RC}.authOptions", [(f"{RC}.authOptions.mode", "disabled")]),
    ("idle-head", JOB, HEAD, [(f"{HEAD}.rayStartParams.num-cpus", "4")]),
    ("autoscaler-v2", JOB, RC, [(f"{RC}.autoscalerOptions.version", DELETE)]),
    ("bounded-groups", JOB, f"{RC}.workerGroupSpecs[2].groupName", [(f"{GROUP}.groupName", "learner")]),
    ("bounded-groups", JOB, GROUP, [(f"{GROUP}.maxReplicas", DELETE)]),
    ("bounded-groups", JOB, f"{GROUP}.labels", [(f"{GROUP}.labels", {})]),
    ("job-ends", JOB, "spec.preRunningDeadlineSeconds", [("spec.preRunningDeadlineSeconds", DELETE)]),
    ("job-ends", JOB, "spec", [*NO_SHUTDOWN]),
    ("queue", JOB, f"{RC}.enable", [("metadata.labels", {"kueue.x-k8s.io/queue-name": "q"})]),
    ("exists", JOB, POD, [(f"{POD}.volumes[0].persistentVolumeClaim.claimName", "data")]),
    ("exists", JOB, POD, [(f"{POD}.priorityClassName", "urgent")]),
    ("exists", JOB, HEAD, [(f"{HEAD}.template.spec.serviceAccountName", "default-ray")]),
    ("exists", SERVICE, f"{SHEADC}.env[2]", [(f"{SHEADC}.env[2].valueFrom.secretKeyRef.key", "tokn")]),
    ("exists", SERVICE, SRC, [(f"{SRC}.gcsFaultToleranceOptions.redisPassword.valueFrom.secretKeyRef.name", "rds")]),
    ("exists", JOB, POD, [(f"{POD}.imagePullSecrets", [{"name": "registry"}])]),
    ("exists", JOB, f"{CONT}.envFrom[0]", [(f"{CONT}.envFrom", [{"configMapRef": {"name": "settings"}}])]),
    ("in-namespace", JOB, "metadata.namespace", [("metadata.namespace", DELETE)]),
    ("in-namespace", JOB, "metadata.namespace", [("metadata.namespace", "default")]),
    ("unique", JOB, "metadata.name", [("metadata.name", "train")]),
    ("role-binding", "RoleBinding/ray-autoscaler", "roleRef.name", [("roleRef.name", "autoscaler")]),
    ("role-binding", "RoleBinding/ray-autoscaler", "subjects[0]", [("subjects[0].name", "ray")]),
    ("least-rights", "Role/ray-autoscaler", "rules[0].verbs", [("rules[0].verbs", ["*"])]),
    ("least-rights", "Role/ray-autoscaler", "rules[0].resources", [("rules[0].resources", ["pods", "secrets"])]),
    ("selects", "Service/mlflow", "spec.selector", [("spec.selector", {"app": "mlflow"})]),
    ("selects", "PodDisruptionBudget/serve", "spec.selector", [("spec.selector.matchLabels", {"app": "serve"})]),
    ("disruption-budget", BUDGET, "spec", [("spec.minAvailable", DELETE), ("spec.maxUnavailable", 1)]),
    ("disruption-budget", BUDGET, "spec", [("spec.minAvailable", "50%")]),
    ("disruption-budget", BUDGET, "spec.minAvailable", [("spec.minAvailable", 2)]),
    ("service-ports", "Service/mlflow", "spec.ports[0]", [("spec.ports[0].targetPort", "https")]),
    ("probe-ports", "Deployment/mlflow", "spec", [("spec.template.spec.containers[0].readinessProbe.tcpSocket.port", 80)]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", "python -m jobs.pipelne --run_dir=/mnt/avere/r")]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", "python main.py")]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", "python -m jobs.train --run_dir=/mnt/avere/r; ls")]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", f"{TRAIN} --run_dir='/mnt/avere/$USER'")]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", f"{TRAIN} --run_dir=/mnt/avere/r twice words")]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", "avere-ray train --config jobs/configs/dmo.yaml --run_dir=/mnt/avere/r")]),
    ("entrypoint", JOB, "spec.entrypoint", [("spec.entrypoint", "avere-ray train --run_dir=/mnt/avere/r --train.workrs=2")]),
    ("external-state", JOB, "spec.entrypoint", [("spec.entrypoint", "avere-ray train --config jobs/configs/demo.yaml --run_dir=/tmp/r")]),
    ("external-state", JOB, "spec.entrypoint", [("spec.entrypoint", "avere-ray train --config jobs/configs/demo.yaml")]),
    ("external-state", JOB, "spec.entrypoint", [("spec.entrypoint", f"{TRAIN} --run_dir=/mnt/avere/r --data.clips /data/clips")]),
    ("external-state", JOB, "spec.entrypoint", [("spec.entrypoint", f"{TRAIN} --run_dir=/mnt/avere/r --data.clips=/mnt/avere/c --data.benchmark=data/emorealm.json")]),
    ("external-state", JOB, "spec.entrypoint", [("spec.entrypoint", f"{TRAIN} --run_dir=/mnt/avere/r --cache.folder=jobs")]),
    ("external-state", JOB, "spec.entrypoint", [("spec.entrypoint", "python -m jobs.train --config jobs/configs/qwen2_5_omni_7b.yaml --run_dir=/mnt/avere/r")]),
    ("placed", JOB, "spec.entrypoint", [("spec.entrypoint", "avere-ray evaluate --config jobs/configs/demo.yaml --run_dir=/mnt/avere/r")]),
    ("time-to-grow", JOB, "spec.entrypoint", [("spec.entrypoint", "avere-ray decode --config jobs/configs/demo.yaml --run_dir=/mnt/avere/r --placement.decode=decode")]),
    ("time-to-grow", JOB, "spec.entrypoint", [*((f"{RC}.workerGroupSpecs[{i}].{n}eplicas", 0) for i in (0, 1, 2) for n in ("r", "minR")), ("spec.entrypoint", f"{TRAIN} --run_dir=/mnt/avere/r")]),
    ("fits", JOB, f"{RC}.worker", [(f"{RC}.workerGroupSpecs[2].maxReplicas", 0), (f"{RC}.workerGroupSpecs[2].minReplicas", 0)]),
    ("fits", JOB, f"{RC}.worker", [(f"{CONT}.resources", {k: {"cpu": "4", "memory": "9Gi", "nvidia.com/gpu": "2"} for k in ("requests", "limits")})]),
    ("fits", JOB, f"{RC}.worker", [("spec.entrypoint", "avere-ray train --config jobs/configs/demo.yaml --placement.learner=learnr --run_dir=/mnt/avere/r")]),
    ("ray-version", JOB, f"{RC}.rayVersion", [(f"{RC}.rayVersion", "2.59.0")]),
    ("own-image", JOB, f"{CONT}.image", [(f"{CONT}.image", "avere-ray:0.1.0-cpu")]),
    ("own-image", JOB, f"{CONT}.image", [(f"{CONT}.image", "avere-ray:0.0.9-gpu")]),
    ("own-image", JOB, f"{CONT}.image", [(f"{CONT}.image", "avere-ray:0.1.0-tpu")]),
    ("own-image", JOB, f"{CONT}.image", [(f"{CONT}.image", "rayproject/ray:2.60.0")]),
    ("serve-config", SERVICE, "spec.serveConfigV2", [("spec.serveConfigV2", "applications: [")]),
    ("serve-config", SERVICE, "spec.serveConfigV2", [("spec.serveConfigV2", "")]),
]  # fmt: skip
SOURCES = {JOB: "workloads/rayjob-pipeline.yaml", BUDGET: "workloads/rayservice.yaml"}
MISTAKES = SCHEMA + CLUSTERS + JOBS + PODS + HOUSE


GATE = ("feature-gates", "kind")
"""What every RayCronJob is told, since the operator has them off by default."""


def cron_job() -> Document:
    """A RayCronJob around the pipeline's job."""
    spec = {"schedule": "0 3 * * 1-5", "timeZone": "Europe/Berlin", "jobTemplate": find(shipped(), JOB).body["spec"]}
    body = {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": {"name": "nightly", "namespace": "avere-ray"}}
    return Document(file="cron", body={**body, "spec": spec})


@pytest.mark.parametrize("overlay", ["dev-cpu", "h100", "h100-2x8", "spot", "kueue"])
def test_what_is_shipped_breaks_no_rule(overlay: str) -> None:
    assert [str(f) for f in findings(shipped(overlay))] == []


@pytest.mark.parametrize(
    ("rule", "label", "path", "edits"), MISTAKES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISTAKES)]
)
def test_a_mistake_is_found_by_its_rule_where_it_is(rule: str, label: str, path: str, edits: list[Edit]) -> None:
    found = [f for f in findings(edited(label, *edits)) if f.rule == rule]
    assert found, f"{rule} does not find {edits}"
    assert found[0].file.endswith("overlays/h100")
    assert found[0].source.endswith(SOURCES.get(label, ".yaml"))
    assert any(f.path.startswith(path) for f in found), [f.path for f in found]
    assert all(f.message for f in found)


def test_at_least_sixty_mistakes_are_seeded_and_every_rule_has_one() -> None:
    assert len(MISTAKES) >= 60
    assert set(RULES) - {m[0] for m in MISTAKES} == {"cron"}  # has its own test below


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.schedule", "TZ=UTC 0 3 * * *"),
        ("spec.schedule", "0 3 * *"),
        ("spec.schedule", "61 3 * * *"),
        ("spec.schedule", "5-1 * * * *"),
        ("spec.schedule", "* * * * fry"),
        ("spec.timeZone", "Mars/Olympus"),
    ],
)
def test_cron_mistakes(path: str, value: str) -> None:
    assert [(f.rule, f.path) for f in findings([*shipped(), cron_job()])] == [GATE]
    found = findings([*shipped(), changed(cron_job(), (path, value))])
    assert sorted((f.rule, f.path) for f in found) == [("cron", path), GATE]


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("job-deadlines", "spec.jobTemplate.activeDeadlineSeconds", 0),
        ("managed-by", "spec.jobTemplate.managedBy", "me"),
    ],
)
def test_the_template_of_a_cron_job_is_checked_as_a_job(rule: str, path: str, value: object) -> None:
    found = findings([*shipped(), changed(cron_job(), (path, value))])
    assert (rule, path) in [(f.rule, f.path) for f in found]


CORRECT: list[tuple[str, list[Edit]]] = [
    (JOB, [*NO_SHUTDOWN, (RC, DELETE), ("spec.backoffLimit", 0), ("spec.clusterSelector", {"ray.io/cluster": "interactive"})]),
    (JOB, [("spec.submissionMode", "SidecarMode"), ("spec.submitterPodTemplate", DELETE)]),
    (JOB, [*NO_SHUTDOWN, ("spec.deletionStrategy", {"deletionRules": [
        RULE_S, {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 90}},
        {"policy": "DeleteSelf", "condition": {"jobDeploymentStatus": "Failed"}}]})]),
    (JOB, [("spec.deletionStrategy", {f: {"policy": "DeleteCluster"} for f in ("onSuccess", "onFailure")})]),
    (JOB, [(f"{GROUP}.priority", 10), (f"{GROUP}.idleTimeoutSeconds", 30)]),
    (JOB, [(f"{GROUP}.idleTimeoutSeconds", 30), (f"{RC}.enableInTreeAutoscaling", False)]),
    (JOB, [(f"{POD}.restartPolicy", "Always"), (f"{RC}.autoscalerOptions.version", DELETE)]),
    (JOB, [(f"{RC}.rayVersion", "v2.60.0"), (f"{RC}.upgradeStrategy", {})]),
    (SERVICE, [(f"{SHEADC}.ports[4]", DELETE), ("spec.serveService", {"spec": {"ports": [{"name": "serve", "port": 8000}]}})]),
    (JOB, [("spec.suspend", True), ("spec.managedBy", "kueue.x-k8s.io/multikueue")]),
    (JOB, [("spec.runtimeEnvYAML", "env_vars: {A: b}\n")]),
    (JOB, [("metadata.name", DELETE), ("metadata.generateName", "pipeline-")]),
    (JOB, [(f"{GROUP}.maxReplicas", None)]),
    (CLUSTER, [("spec.authOptions.enableK8sTokenAuth", True), ("spec.upgradeStrategy", {"type": "Recreate"})]),
    (CLUSTER, [("spec.workerGroupSpecs[0].resources", {"CPU": "15"})]),
    (SERVICE, [(f"{SHEADC}.ports", DELETE)]),
    (SERVICE, [("spec.upgradeStrategy", INCREMENTAL), ("metadata.annotations", {"ray.io/initializing-timeout": "30m"})]),
    (SERVICE, [("metadata.annotations", {"ray.io/initializing-timeout": "+.5h"})]),
]  # fmt: skip


@pytest.mark.parametrize(("label", "edits"), CORRECT, ids=range(len(CORRECT)))
def test_what_a_cluster_accepts_is_no_mistake(label: str, edits: list[Edit]) -> None:
    assert [str(f) for f in findings(edited(label, *edits), groups=("cluster",))] == []


def test_a_secret_with_values_is_a_mistake() -> None:
    data = {"password": base64.b64encode(b"x").decode()}
    metadata = {"name": "redis", "namespace": "avere-ray"}
    secret = Document(file="s", body={"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    assert [f.rule for f in findings([*shipped(), secret])] == ["no-secret-values"]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("import_path: jobs.serve:build_ap\n  args: {run_dir: x}", "applications[0].import_path", "cannot be imported"),
        ("import_path: jobs.srve:build_app\n  args: {run_dir: x}", "applications[0].import_path", "cannot be imported"),
        ("import_path: jobs.serve:HOST", "applications[0].import_path", "takes no typed arguments"),
        ("import_path: jobs.serve:build_app\n  args: {run_dr: x}", "applications[0].args.run_dr", "not permitted"),
        ("import_path: jobs.serve:build_app", "applications[0].args.run_dir", "required"),
        ("import_path: jobs.serve:build_app\n  route_prefx: /", "applications[0].route_prefx", "unknown field"),
        ("import_path: serve", "applications[0].import_path", "import path"),
    ],
)
def test_a_serve_config_is_checked_with_rays_own_schema_and_the_builder(text: str, path: str, words: str) -> None:
    config = f"applications:\n- name: a\n  {text}\n"
    documents = edited(SERVICE, ("spec.serveConfigV2", config))
    found = findings(documents, serve_check=serve_problems)
    assert [f.rule for f in found] == ["serve-config"] * len(found)
    assert any(path in f.path and words in f.message for f in found), [str(f) for f in found]


def test_the_shipped_serve_config_is_understood_by_ray() -> None:
    assert findings(shipped(), serve_check=serve_problems) == []


def test_a_finding_names_file_document_path_and_rule() -> None:
    found = findings(edited(JOB, (f"{RC}.rayVerson", "2.60.0")))
    assert "overlays/h100: RayJob/pipeline (" in str(found[0])
    assert str(found[0]).endswith(
        "workloads/rayjob-pipeline.yaml): spec.rayClusterSpec: unknown field 'rayVerson'; did you mean rayVersion? [schema]"
    )
