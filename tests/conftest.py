"""The environment of every test, set before torch or Ray can read it, and the few fixtures that many files share."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from service import Service
    from watched_runs import WatchedRun

    from serve.engine import Engine
    from soundguide.config import ManipulatorConfig
    from soundguide.manipulator import Manipulator
    from soundguide.miniature.reader import SceneReader
    from soundguide.storage import Storage

USE_GPU = os.environ.get("SOUNDGUIDE_TEST_GPU") == "1"

os.environ.update(
    # One thread: sums have one order, and small tensors are faster so.
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    # No test fetches anything.
    HF_HUB_OFFLINE="1",
    # Of nobody: for the S3 server on loopback, in workers too.
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    # Under `uv run`, Ray would copy the repository to its workers.
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    # Otherwise Ray hides the GPUs of actors that ask for none, and warns that it will stop doing so.
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    # Left unset, Ray writes a token into the home folder; given one, it writes nothing and other users cannot get in.
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=secrets.token_hex(32),
)
# A cluster that the caller works with is not for tests, nor are the caller's token, credentials and window.
for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "AWS_PROFILE", "AWS_ENDPOINT_URL", "COLUMNS", "LINES"):
    os.environ.pop(name, None)
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers would stand back behind whatever else runs here
if not USE_GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))  # jobs import their neighbours by file name
sys.path.insert(0, str(Path(__file__).parents[1]))  # and serve/ is named as Ray Serve names it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if USE_GPU:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(
                pytest.mark.skip(reason="needs an NVIDIA GPU: set SOUNDGUIDE_TEST_GPU=1 where there is one")
            )


@pytest.fixture
def generator() -> Callable[[int], torch.Generator]:
    """Return a function from a seed to a CPU random generator."""
    import torch

    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    """Write a tiny world once; no test may change its files."""
    from tiny_world import write_tiny_world

    return write_tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def single(tiny_models: ManipulatorConfig) -> Manipulator:
    """Return a manipulator of the tiny world with one slot: the same edit gives the same bits."""
    from soundguide.manipulator import Manipulator

    return Manipulator(tiny_models.model_copy(update={"num_slots": 1}))


@pytest.fixture(scope="session")
def photo(single: Manipulator) -> NDArray[np.uint8]:
    """Return a picture that the tiny world's generator drew."""
    from tiny_edits import draw_photo

    return draw_photo(single)


@pytest.fixture(scope="session")
def manipulator(tmp_path_factory: pytest.TempPathFactory) -> Manipulator:
    """Return a manipulator of a random world whose seeds are the miniature's scenes."""
    from report_world import random_manipulator

    return random_manipulator(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def reader() -> SceneReader:
    """Return a scene reader that has seen nothing."""
    from report_world import random_reader

    return random_reader()


@pytest.fixture(scope="session")
def face_manipulator(tmp_path_factory: pytest.TempPathFactory) -> Manipulator:
    """Return a manipulator of a random world whose seeds are the miniature's faces, with a face encoder."""
    from report_world import random_face_manipulator

    return random_face_manipulator(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="session")
def face_reader() -> SceneReader:
    """Return a reader of faces that has seen nothing."""
    from report_world import random_reader

    from soundguide.miniature.faces.domain import FACES

    return random_reader(FACES)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of recordings with its index."""
    from report_world import write_recordings

    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="session")
def models_file(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a YAML file for `--models` that names the tiny world."""
    import yaml

    path = tmp_path_factory.mktemp("models") / "models.yaml"
    path.write_text(yaml.safe_dump({**tiny_models.model_dump(mode="json"), "device": "cpu"}))
    return path


@pytest.fixture(scope="session")
def rain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sound of rain, 1.2 s long, as the command line makes it."""
    from cli_runs import run

    path = tmp_path_factory.mktemp("sounds") / "rain.wav"
    result = run("miniature", "synthesise", "raining", "--seconds", "1.2", "-o", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="session")
def engine(tiny_models: ManipulatorConfig) -> Engine:
    """Return the service's engine of the tiny world, in this process."""
    from service import tiny_engine

    return tiny_engine(tiny_models)


@pytest.fixture(scope="session")
def service(engine: Engine) -> Service:
    """Return the service's HTTP interface around that engine."""
    from service import start

    return start(engine)


@pytest.fixture(scope="module")
def s3() -> Iterator[Storage]:
    """Serve S3 on loopback, with an empty bucket called ``bucket``."""
    from soundguide.storage import Storage, StorageConfig

    server_module = pytest.importorskip("moto.server", reason="needs an S3 server: pip install 'moto[server]'")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        host, port = server.get_host_and_port()
        storage = Storage(StorageConfig(endpoint_url=f"http://{host}:{port}", region="eu-central-1"))
        store = storage._s3()
        if store.exists("bucket"):  # all of moto's servers in a process share what they store
            store.rm("bucket", recursive=True)
        store.mkdir("bucket")
        yield storage
    server.stop()


@pytest.fixture(scope="session")
def bulk_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the sounds and pictures that the bulk job's rows name; manifests go there too."""
    from bulk_runs import write_sources

    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Run a private Ray for the whole session; the tests that ask for it share its start-up of some seconds."""
    import ray

    # Short, because socket paths end at 107 characters; private, because the default folder points at the last cluster.
    folder = tempfile.mkdtemp(prefix="sgray", dir="/tmp")
    ray.init(
        address="local",
        # More than the machine may have: with two, a pool of two actors leaves no CPU to the reading tasks, for ever.
        num_cpus=4,
        num_gpus=None if USE_GPU else 0,
        object_store_memory=256 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        labels={"market": "spot"},
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def watched(
    local_ray: None, tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> WatchedRun:
    """Return what a small run of the bulk job with ``--log_format json`` told; no test may change its files."""
    from watched_runs import watch

    return watch(tiny_models, bulk_sources, tmp_path_factory.mktemp("watched"))
