"""Prints where a worker of the job that runs this finds the code; `python -m tests.e2e.imported`."""

from avere_ray.config import RayConfig
from jobs.session import ray_session

SAYS = "imported on a worker: "


def files() -> list[str]:
    """Where the packages that Ray imports by name come from."""
    import actors
    import avere_ray
    import jobs

    return [str(package.__file__) for package in (avere_ray, actors, jobs)]


if __name__ == "__main__":
    with ray_session(RayConfig()):
        import ray

        for file in ray.get(ray.remote(files).remote(), timeout=120):
            print(SAYS + file, flush=True)
