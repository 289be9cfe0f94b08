"""A cluster that runs another version refuses this client; the cluster is played, its words are Ray's own."""

from typing import Any

import pytest
import ray
from ray._private.utils import check_version_info, compute_version_info

from avere_ray.config import RayConfig
from avere_ray.errors import ClusterError
from jobs import session


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that the cluster at any address says it runs; the test may change them."""
    versions = dict(zip(("ray_version", "python_version"), compute_version_info()[:2], strict=True))
    monkeypatch.setattr(session.os, "environ", dict(session.os.environ))
    monkeypatch.setattr(session, "_ask_for_head", lambda address, timeout_s: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda **_: check_version_info(versions, "node 127.0.0.1"))
    return versions


def test_another_version_of_ray_is_refused_with_both_versions_and_what_to_do(cluster: dict[str, str]) -> None:
    cluster["ray_version"] = "2.59.0"
    with pytest.raises(ClusterError) as caught, session.ray_session(RayConfig(address="10.0.0.1:6379")):
        pass
    words = str(caught.value)
    assert words.startswith("the Ray cluster at 10.0.0.1:6379 refused this client: Version mismatch")
    assert f"Ray: 2.59.0 Python: {cluster['python_version']}" in words, "what the cluster runs"
    assert f"Check that both run Ray {ray.__version__} and the same Python" in words
    assert "\n" not in words


def test_another_python_is_refused_too(cluster: dict[str, str]) -> None:
    cluster["python_version"] = "3.9.1"
    with pytest.raises(ClusterError, match=r"Python: 3\.9\.1 .*the same Python"):
        session._join("10.0.0.1:6379", 1.0)


def test_the_same_versions_are_joined(cluster: dict[str, str]) -> None:
    with session.ray_session(RayConfig(address="10.0.0.1:6379")):
        pass


def test_of_any_other_refusal_the_first_line_is_told(monkeypatch: pytest.MonkeyPatch, cluster: Any) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("wrong token.\nTraceback (most recent call last)")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError, match=r"refused this client: wrong token\. Check .*RAY_AUTH_TOKEN"):
        session._join("10.0.0.1:6379", 1.0)
