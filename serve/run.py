"""Run the service on this machine until Ctrl-C; `make serve` does.

A private Ray starts with it and ends with it. On a cluster: `serve deploy serve/config.yaml`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:  # run as a file, this folder would be all that Python looks into
    sys.path.insert(0, ROOT)

from pydantic import Field  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from serve.settings import ServeSettings  # noqa: E402
from soundguide.cli.console import wide  # noqa: E402
from soundguide.command_config import CommandConfig, load_config  # noqa: E402
from soundguide.errors import InvalidConfig, SoundGuideError  # noqa: E402
from soundguide.private_ray import LOG_LEVEL_NOTE, prepare_environment  # noqa: E402
from soundguide.quiet import without_lines  # noqa: E402

_USAGE = "python serve/run.py [--port 8000] [--config F.yaml] [--any.nested.field V]"
_NAME = "soundguide"
_BESIDE_CPUS = 2
_LAST_WORDS_SECONDS = 0.5  # for the last results to reach their clients


class RunConfig(CommandConfig, ServeSettings):
    host: Annotated[str, Field(description="Address to listen on; 0.0.0.0: all, for which set a token.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="Port to listen on.")] = 8000
    metrics_port: Annotated[int, Field(ge=0, le=65535, description="Port of the metrics; 0: any that is free.")] = 0

    @property
    def num_manipulators(self) -> int:
        """How many processes may edit: each preset has its own."""
        return self.replicas.max_manipulators * max(1, len(self.presets))

    @property
    def settings(self) -> ServeSettings:
        """What the application is built from; processes that edit share this machine's cores."""
        settings = ServeSettings(**{name: getattr(self, name) for name in ServeSettings.model_fields})
        if settings.manipulator.num_threads:
            return settings
        threads = max(1, (os.cpu_count() or 1) // self.num_manipulators)
        manipulator = settings.manipulator.model_copy(update={"num_threads": threads})
        return settings.model_copy(update={"manipulator": manipulator})


def run(config: RunConfig, console: Console) -> None:
    """Serve until this process is told to end. Raises `InvalidConfig`."""
    stop = threading.Event()
    _check_port(config.host, config.port)
    prepare_environment(local=True)
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    with console.status("starting Ray"):
        import ray
        from ray import serve

        from serve.app import build

        application = build(config.settings)
        folder = tempfile.mkdtemp(prefix="sg-serve-", dir="/tmp")
        replicas = config.replicas
        cpus = _BESIDE_CPUS + replicas.num_ingress + config.num_manipulators * max(1, round(replicas.cpus))
        with without_lines(LOG_LEVEL_NOTE):
            ray.init(
                address="local",
                num_cpus=max(cpus, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="warning",
                runtime_env={"env_vars": {"PYTHONPATH": ROOT}},
                _temp_dir=folder,
                **({"_metrics_export_port": config.metrics_port} if config.metrics_port else {}),
            )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which has put a handler of its own there
        signal.signal(number, lambda *_: stop.set())
    try:
        with console.status("loading the models"):
            serve.start(http_options={"host": config.host, "port": config.port})
            try:
                serve.run(application, name=_NAME, route_prefix="/")
            except RuntimeError as error:
                raise InvalidConfig(f"the service did not start: {_reason(serve.status())}") from error
        address = f"http://{'127.0.0.1' if config.host == '0.0.0.0' else config.host}:{config.port}"
        console.print(Text.assemble("SoundGuide is at ", (address, "bold"), " (Ctrl-C ends it)"))
        metrics = ray.nodes()[0]["MetricsExportPort"]
        console.print(
            f"metrics: http://127.0.0.1:{metrics}/metrics   logs: {folder}/session_latest/logs/serve", style="dim"
        )
        stop.wait()
        console.print("finishing the edits that run")
        # while they are still watched; a deleted application would answer nobody
        serve.get_deployment_handle("Board", _NAME).drain.remote().result()
        time.sleep(_LAST_WORDS_SECONDS)
    finally:
        serve.delete(_NAME)
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _reason(status: Any) -> str:
    """Return the last error that a process of the service told, without its traceback."""
    messages = [deployment.message for deployment in status.applications[_NAME].deployments.values()]
    errors = [
        line for message in messages for line in message.splitlines() if re.match(r"[\w.]+(Error|Invalid\w+): ", line)
    ]
    return errors[-1].rpartition("soundguide.errors.")[2] if errors else " ".join(messages).strip()[-500:]


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidConfig(
                f"nothing can listen on {host}:{port} ({error.strerror}). Name another with --port "
                "(make serve PORT=8001)"
            ) from error


def main(argv: Sequence[str]) -> int:
    """Run the program; return its exit code."""
    try:
        run(load_config(RunConfig, argv, usage=_USAGE, description=str(__doc__)), wide(Console(markup=False)))
    except KeyboardInterrupt:  # while it starts
        return 130
    except SoundGuideError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
