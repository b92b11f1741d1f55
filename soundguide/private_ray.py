"""The environment of a Ray that a program starts for itself; set before Ray is imported, which reads it then."""

import os
import secrets

LOG_LEVEL_NOTE = "Set ray log level from environment"  # with which Ray answers to RAY_BACKEND_LOG_LEVEL


def prepare_environment(*, local: bool) -> None:
    """Set the variables that are not set yet; with ``local`` also those of a Ray that nobody else is to join."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's C++ side reports as an error what every pool of actors does; what stops a program arrives as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not local:
        return
    if "RAY_AUTH_MODE" not in os.environ:  # a token of our own, or Ray writes one into the home folder
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    # Ray's workers stand back behind everything else by default, and starve on a busy machine
    os.environ.setdefault("RAY_worker_niceness", "0")
