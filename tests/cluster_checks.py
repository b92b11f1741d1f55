"""What cluster files must keep to beyond Ray's own checks, which let much pass. Each check returns what is wrong."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import jsonschema  # type: ignore[import-untyped]
import yaml
from pydantic import BaseModel, ValidationError

import soundguide

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
BUNDLE = "/home/ray/bundle"  # where the image and the mounted folder have constraints.txt, jobs/ and serve/
SECRETS = "/home/ray/secret"
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
IMAGE = f"soundguide:{soundguide.__version__}"

PROVIDER_KEYS = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "security_group", "use_internal_ips"},
    "gcp": {"type", "region", "availability_zone", "cache_stopped_nodes", "project_id", "use_internal_ips"},
}
# Of an instance of Compute Engine and of its scheduling: what these files need. No description of all is at hand.
GOOGLE_KEYS = {"machineType", "disks", "scheduling", "metadata", "networkInterfaces", "tags"}
GOOGLE_SCHEDULING = {"provisioningModel", "instanceTerminationAction", "onHostMaintenance", "automaticRestart"}
OPEN = re.compile(r"0\.0\.0\.0|::/0|LoadBalancer|NodePort")
SECRET = re.compile(r"[0-9a-fA-F]{32}|AKIA[0-9A-Z]{16}|-----BEGIN|(TOKEN|KEY|PASSWORD)=(?!\"?\$)")
SECRET_NAME = re.compile(r"token|password|access_key|credentials", re.IGNORECASE)

Tree = dict[str, Any]


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of everything in a tree that is no dict or list."""
    if not isinstance(tree, dict | list):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def dicts(tree: Any) -> Iterator[Tree]:
    """Yield every dict in a tree, the outer before the inner."""
    if isinstance(tree, dict):
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from dicts(value)


def exposures(tree: Tree) -> list[str]:
    """Find what is open to every address, and secrets that are written down."""
    found = [f"{path}: {value!r} is open to every address" for path, value in leaves(tree) if OPEN.search(str(value))]
    named = [(path, value) for path, value in leaves(tree) if SECRET_NAME.search(path.rpartition(".")[2])]
    named += [
        (f"env {each['name']}", each.get("value")) for each in dicts(tree) if SECRET_NAME.search(str(each.get("name")))
    ]
    written = [path for path, value in leaves(tree) if SECRET.search(str(value))] + [
        path for path, value in named if value
    ]
    return found + [
        f"{path}: a secret is written down; it belongs into a file or a Kubernetes secret" for path in written
    ]


def launcher_problems(config: Tree) -> list[str]:
    """Check a file for `ray up`."""
    found = size_problems(config) + ray_problems(config)
    return found or exposures(config) + provider_problems(config) + command_problems(config)


def ray_problems(config: Tree) -> list[str]:
    """Ask Ray itself: its schema, and the reader of its autoscaler v2."""
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
        AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True).get_node_type_configs()
    except jsonschema.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    except (ValueError, AssertionError) as error:
        return [f"Ray refuses it: {error!r}"]
    return []


def size_problems(config: Tree) -> list[str]:
    """Check how many machines there may be, that the head does no work, and that labels say how a machine is bought."""
    types, most, found = config["available_node_types"], config["max_workers"], []
    for name, kind in types.items():
        low, high = kind.get("min_workers", 0), kind.get("max_workers", most)
        if low < 0 or high < 0:
            found.append(f"{name}: min_workers {low} and max_workers {high} must not be negative")
        elif not low <= high <= most:
            found.append(f"{name}: min_workers {low}, max_workers {high} and max_workers {most} of all do not agree")
        if (label := kind.get("labels", {}).get("market")) != (bought := _market(kind["node_config"])):
            found.append(f"{name}: the label market says {label}, but the machine is bought {bought}")
    if (least := sum(kind.get("min_workers", 0) for kind in types.values())) > most:
        found.append(f"min_workers add up to {least}, more than max_workers {most}")
    head = types.get(config["head_node_type"], {})
    if head.get("resources") != {"CPU": 0} or head.get("max_workers"):
        found.append("the head must have resources {CPU: 0} and max_workers: 0; it plans, and does no work")
    return found


def _market(node_config: Tree) -> str:
    bought = (node_config.get("InstanceMarketOptions", {}), node_config.get("scheduling", {}))
    spot = bought[0].get("MarketType") == "spot" or bought[1].get("provisioningModel") == "SPOT"
    return "spot" if spot else "on-demand"


def provider_problems(config: Tree) -> list[str]:
    """Check what Ray hands to the cloud unread."""
    provider = config["provider"]
    found = [f"provider: unknown {key}" for key in sorted(set(provider) - PROVIDER_KEYS[provider["type"]])]
    if provider.get("cache_stopped_nodes") is not False:
        found.append("provider: cache_stopped_nodes must be false, or `ray down` leaves machines with their disks")
    check = amazon_problems if provider["type"] == "aws" else google_problems
    for name, kind in config["available_node_types"].items():
        found += [f"{name}: {problem}" for problem in check(kind["node_config"])]
    return found


def amazon_problems(node_config: Tree) -> list[str]:
    """Check a machine against EC2's own description of a launch."""
    import botocore.validate

    report = botocore.validate.ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, _ec2_launch())
    return [str(line) for line in report.generate_report().splitlines()]


@functools.cache
def _ec2_launch() -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def google_problems(node_config: Tree) -> list[str]:
    """Check a machine against the few names that are needed."""
    unknown = (set(node_config) - GOOGLE_KEYS) | (set(node_config.get("scheduling", ())) - GOOGLE_SCHEDULING)
    return [f"unknown {key}" for key in sorted(unknown)]


def command_problems(config: Tree) -> list[str]:
    """Check what will run on the machines, Ray's merged-in defaults too."""
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(copy.deepcopy(config))
    found = [] if config.get("setup_commands") else ["setup_commands are missing, and Ray merges in those of a nightly"]
    for name in ("head_setup_commands", "worker_setup_commands"):
        for command in prepared[name]:
            if re.search(r"nightly|latest|\.dev\d", command):
                found.append(f"{name}: installs a nightly: {command}")
            if "pip install" in command and f"-c {BUNDLE}/constraints.txt" not in command:
                found.append(f"{name}: not pinned by constraints.txt: {command}")
    docker, token = config["docker"], "SOUNDGUIDE_TOKEN"
    head, worker = (" ".join(prepared[f"{name}_start_ray_commands"]) for name in ("head", "worker"))
    needed = [
        ("head_start_ray_commands: the dashboard is open without", head, "--dashboard-host=127.0.0.1"),
        ("head_start_ray_commands: the autoscaler needs", head, "RAY_enable_autoscaler_v2=1"),
        ("head_start_ray_commands: the autoscaler needs", head, "--autoscaling-config=~/ray_bootstrap_config.yaml"),
        (
            "head_start_ray_commands: the service is open without",
            head,
            f'{token}="$(cat {SECRETS}/soundguide-token)" &&',
        ),
        (
            "worker_start_ray_commands: the service is open without",
            worker,
            f'{token}="$(cat {SECRETS}/soundguide-token)" &&',
        ),
        ("docker.run_options: Ray is open without", docker["run_options"], "--env=RAY_AUTH_MODE=token"),
        (
            "docker.run_options: Ray's token is not in",
            docker["run_options"],
            f"--env=RAY_AUTH_TOKEN_PATH={SECRETS}/ray-token",
        ),
        ("file_mounts: without", config["file_mounts"], SECRETS),
        ("docker.image: must be of this Ray and Python:", docker["image"], f"rayproject/ray:{PINS['ray']}-py311"),
    ]
    return found + [f"{reason} {part}" for reason, where, part in needed if part not in where]


def closed_schema(folder: Path, kind: str) -> Tree:
    """Return KubeRay's schema of a kind with unknown keys refused; the API server would drop them in silence."""
    definition = yaml.load((folder / f"{kind.lower()}s.yaml").read_text(), Loader=yaml.CSafeLoader)
    [schema] = [each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == "v1"]
    for part in dicts(schema):
        # Not where anything is allowed, nor where a field of this name is described.
        if isinstance(part.get("properties"), dict) and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
    return dict(schema)


def schema_problems(document: Tree, schema: Tree) -> list[str]:
    """Check a manifest against such a schema."""
    return [
        f"{each.json_path}: {each.message}" for each in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def cluster_in(document: Tree) -> Tree:
    """Return the description of the cluster inside a RayCluster, RayJob or RayService."""
    spec: Tree = document["spec"]
    return dict(spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec)


def manifest_problems(document: Tree) -> list[str]:
    """Check a manifest for KubeRay beyond its schema."""
    kind, spec, cluster = document["kind"], document["spec"], cluster_in(document)
    found = exposures(cluster) + group_problems(cluster) + access_problems(kind, cluster)
    if cluster["rayVersion"] != PINS["ray"]:
        found.append(f"rayVersion: {cluster['rayVersion']}, but constraints.txt has {PINS['ray']}")
    for container in (part for part in dicts(cluster) if "image" in part):
        if container["image"] != IMAGE:
            found.append(f"{container['name']}: image {container['image']}, but this package is {IMAGE}")
        names = {each["name"] for each in container.get("env", ()) if "valueFrom" in each}
        if kind == "RayService" and "SOUNDGUIDE_TOKEN" not in names:
            found.append(f"{container['name']}: the service is open without SOUNDGUIDE_TOKEN from a secret")
    if kind == "RayJob" and not (spec.get("shutdownAfterJobFinishes") and spec.get("activeDeadlineSeconds")):
        found.append("without shutdownAfterJobFinishes and activeDeadlineSeconds the machines may cost for ever")
    return found


def access_problems(kind: str, cluster: Tree) -> list[str]:
    """Check who may reach the dashboard, and use it."""
    head, auth, found = cluster["headGroupSpec"], cluster.get("authOptions", {}), []
    if auth.get("mode") != "token" or not auth.get("secretName"):
        found.append("authOptions: Ray is open without mode: token and a secretName")
    # KubeRay itself talks to the dashboards of jobs and services; where nothing is given it takes every address.
    if kind == "RayCluster" and head["rayStartParams"].get("dashboard-host") != "127.0.0.1":
        found.append("headGroupSpec: the dashboard is open without dashboard-host: 127.0.0.1")
    if any(part.get(key) for part in dicts(cluster) for key in ("enableIngress", "hostNetwork", "hostPort")):
        found.append("the cluster is open to the world: no enableIngress, hostNetwork or hostPort")
    return found


def group_problems(cluster: Tree) -> list[str]:
    """Check the groups of pods as numbers, and as Ray's autoscaler reads them."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    found = []
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        found.append('headGroupSpec: the head must have num-cpus: "0"')
    if not cluster.get("enableInTreeAutoscaling") or cluster.get("autoscalerOptions", {}).get("version") != "v2":
        found.append("autoscalerOptions: needs enableInTreeAutoscaling and version: v2")
    for group in cluster["workerGroupSpecs"]:
        low, now, high = (group.get(key, 0) for key in ("minReplicas", "replicas", "maxReplicas"))
        if not 0 <= low <= now <= high:
            found.append(f"{group['groupName']}: minReplicas {low}, replicas {now}, maxReplicas {high} do not agree")
        if group.get("labels") != (asked := group["template"]["spec"].get("nodeSelector")):
            found.append(f"{group['groupName']}: the label market is not that of its machines: {asked}")
    try:
        _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "x"}, "spec": cluster})
    except (ValueError, AssertionError, jsonschema.ValidationError) as error:
        found.append(f"Ray's autoscaler refuses it: {error}")
    return found


def serve_problems(config: Tree) -> list[str]:
    """Check what `serve deploy` gets; Serve's schema itself takes unknown keys in silence."""
    from ray.serve.schema import ServeDeploySchema

    settings = import_module("serve.settings").ServeSettings
    found = list(unknown_keys(ServeDeploySchema, config)) + exposures({"applications": config["applications"]})
    source = (ROOT / "serve" / "app.py").read_text()  # read, for to import it loads torch
    names = set(re.findall(r'@serve\.deployment\(name="(\w+)"', source))
    try:
        for application in ServeDeploySchema.model_validate(config).applications:
            settings.model_validate(application.args)
    except ValidationError as error:
        found += [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    for application in config["applications"]:
        module, _, builder = application["import_path"].partition(":")
        if module != "serve.app" or f"\ndef {builder}(" not in source:
            found.append(f"import_path: {application['import_path']} does not exist")
        for each in application.get("deployments", ()):
            if each["name"] not in names:
                found.append(f"deployments: there is no {each['name']}, but {', '.join(sorted(names))}")
            if not {"num_cpus", "num_gpus"} <= set(each["ray_actor_options"]):
                found.append(f"{each['name']}: these options replace the code's; give num_cpus and num_gpus too")
    return found


def unknown_keys(model: type[BaseModel], value: Any, path: str = "") -> Iterator[str]:
    """Yield the keys that no field of a model, or of the models within it, has."""
    for each in value if isinstance(value, list) else [value]:
        for key, inner in each.items() if isinstance(each, dict) else ():
            if key not in model.model_fields:
                yield f"{path}{key}: unknown key of {model.__name__}"
                continue
            for nested in _models_in(model.model_fields[key].annotation):
                yield from unknown_keys(nested, inner, f"{path}{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
