"""cluster/README.md goes from nothing to a submitted job: its commands fit the manifests and the images."""

import re
import shlex

import pytest
import yaml
from sqlalchemy import make_url

from jobs.submit import main
from tests.unit.manifest_edits import ROOT, find, shipped

README = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
SCHEME = re.compile(r"postgresql[+\w]*(?=://)")


def test_there_are_ten_numbered_commands() -> None:
    numbers = [int(n) for line in BLOCKS[0].strip().splitlines() for n in re.findall(r"# (\d+)$", line)]
    assert numbers == list(range(1, 11))


def test_the_tracking_servers_address_names_the_driver_in_its_image() -> None:
    installed = re.findall(r"\bpsycopg2?(?=-binary|\[|==|\s)", (ROOT / "cluster/docker/mlflow.Dockerfile").read_text())
    manifest = (ROOT / "cluster" / "base" / "mlflow.yaml").read_text(encoding="utf-8")
    schemes = SCHEME.findall(README) + SCHEME.findall(manifest)
    assert len(schemes) == 2
    for scheme in schemes:
        assert make_url(f"{scheme}://a@b/c").get_driver_name() == installed[0]


def test_the_secrets_that_are_made_are_those_that_are_referred_to() -> None:
    given = list(yaml.safe_load_all((ROOT / "cluster" / "external.yaml").read_text(encoding="utf-8")))
    wanted = {(d["metadata"]["name"], key) for d in given for key in d["stringData"]}
    made = set(re.findall(r"secret generic ([\w-]+) --from-literal=(\w+)=", BLOCKS[0]))
    looped = re.findall(r"for key in ([\w/ -]+); do", BLOCKS[0])[0].split()
    assert made | {tuple(pair.split("/")) for pair in looped} == wanted


def test_images_are_built_with_the_index_pushed_and_applied_under_the_same_name() -> None:
    build, push, *_, apply, wait, _ = BLOCKS[0].strip().splitlines()
    assert "--build-arg PIP_EXTRA_INDEX_URL " in build
    name = "$REGISTRY/avere-ray:"
    assert name in build and name in push
    pattern, new = re.findall(r"s#(image: avere-ray:)#(image: [^#]+)#", apply)[0]
    assert new == f"image: {name}"
    text = yaml.safe_dump(find(shipped("dev-cpu"), "RayJob/pipeline").body)
    assert text.count(pattern) == len(re.findall(r"image:", text)) == 3
    assert "wait rayjob/pipeline" in wait


def test_what_is_suspended_is_started_by_its_name() -> None:
    suspended = {d.label.lower() for d in shipped() if d.body.get("spec", {}).get("suspend") is True}
    started = {f"{kind}/{name}" for kind, name in re.findall(r"patch (ray\w+) ([\w-]+) ", BLOCKS[1])}
    also = re.findall(r"# or ([\w, -]+)$", BLOCKS[1], re.M)[0].split(", ")
    assert started | {f"rayjob/{name}" for name in also} == suspended


def test_clients_reach_the_service_through_the_label_that_is_told() -> None:
    policy = find(shipped(), "NetworkPolicy/serve-clients").body["spec"]
    labels = policy["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
    assert [f"{key}={value}" for key, value in labels.items()] == re.findall(r"label namespace NAME (\S+)`", README)
    (worker,) = find(shipped(), "RayService/serve").body["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert policy["podSelector"]["matchLabels"].items() <= worker["template"]["metadata"]["labels"].items()
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_the_submission_from_a_laptop_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    command = BLOCKS[2][BLOCKS[2].index("avere-ray submit") :].replace("\\\n", " ")
    assert main([*shlex.split(command)[2:], "--dry-run"]) == 0
    assert "would send" in capsys.readouterr().out
