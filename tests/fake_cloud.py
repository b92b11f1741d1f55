"""A cluster whose machines come and go as Ray's autoscaler asks, all of them processes of this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from types import TracebackType

import psutil
from ports import free_port

_LISTS = (
    *("cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter"),
)


class FakeCloud:
    """A head without CPUs, and up to ``max_workers`` machines of ``worker`` resources that nobody has asked for yet.

    Uses Ray's own provider of imitated machines; everything lies in a folder of its own, and only what was started from
    there is ended.
    """

    def __init__(self, worker: dict[str, float], *, max_workers: int, idle_seconds: float) -> None:
        import ray
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        self.address = f"{ray.util.get_node_ip_address()}:{free_port()}"
        self._folder = tempfile.mkdtemp(prefix="sgcloud", dir="/tmp")
        self._head_id = FAKE_HEAD_NODE_ID
        self._config = {
            "cluster_name": "fake",
            "max_workers": max_workers,
            "idle_timeout_minutes": idle_seconds / 60,
            "upscaling_speed": 10.0,
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                **dict.fromkeys(("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check"), True),
                "launch_multiple": True,
                "gcs_address": self.address,
                "head_node_id": FAKE_HEAD_NODE_ID,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
                "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": max_workers},
            },
            "head_node_type": "ray.head.default",  # the name that the provider gives it
            **{name: [] for name in _LISTS},
            **{name: {} for name in ("file_mounts", "auth", "docker")},
            "file_mounts_sync_continuously": False,
        }

    def num_workers(self) -> int:
        """Return how many machines there are beside the head."""
        from ray._raylet import GcsClient

        nodes = GcsClient(self.address).get_all_node_info().values()
        return sum(node.state == 0 for node in nodes) - 1  # 0: alive

    def __enter__(self) -> FakeCloud:
        path = f"{self._folder}/cloud.json"
        with open(path, "w") as file:
            json.dump(self._config, file)
        environment = {
            **os.environ,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": self._head_id,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": self._head_id,
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=0", "--num-gpus=0"]
        command += [f"--port={self.address.rpartition(':')[2]}", f"--autoscaling-config={path}"]
        command += [f"--temp-dir={self._folder}", "--include-dashboard=false", f"--object-store-memory={150 * 2**20}"]
        subprocess.run([*command, "--dashboard-agent-listen-port=0"], env=environment, capture_output=True, check=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for _ in range(3):  # what is killed first may have started others meanwhile
            for process in psutil.process_iter(["cmdline"]):
                if any(self._folder in word for word in process.info["cmdline"] or []):
                    try:
                        process.kill()
                    except psutil.NoSuchProcess:
                        continue
            time.sleep(0.5)
        shutil.rmtree(self._folder, ignore_errors=True)
