"""The cluster files against Ray's, KubeRay's and Serve's own schemas, and against what these let pass; all offline."""

from __future__ import annotations

import copy
import functools
import re
from importlib import import_module
from typing import Any

import pytest
import yaml
from cluster_checks import (
    CLUSTER,
    IMAGE,
    PINS,
    ROOT,
    Tree,
    closed_schema,
    cluster_in,
    launcher_problems,
    manifest_problems,
    schema_problems,
    serve_problems,
)

CRDS = ROOT.parent / "shared" / "kuberay"
LAUNCHERS = ("aws", "gcp")
MANIFESTS = ("raycluster", "rayjob-bulk", "rayjob-training", "rayservice")
GONE = object()

with_crds = pytest.mark.skipif(
    not CRDS.is_dir(), reason=f"KubeRay's CRDs are not at {CRDS}: the manifests' fields were NOT checked"
)


def launcher(name: str) -> Tree:
    return dict(yaml.safe_load((CLUSTER / f"{name}.yaml").read_text()))


def manifest(name: str) -> Tree:
    return dict(yaml.safe_load((CLUSTER / "kuberay" / f"{name}.yaml").read_text()))


def served(name: str) -> Tree:
    if name == "rayservice":
        return dict(yaml.safe_load(manifest(name)["spec"]["serveConfigV2"]))
    return dict(yaml.safe_load((ROOT / name).read_text()))


def changed(tree: Tree, path: str, value: Any) -> Tree:
    """Return a copy with another value, or none, at a path with slashes; @ is where a manifest has its cluster."""
    tree = copy.deepcopy(tree)
    places = [name for name in ("rayClusterSpec", "rayClusterConfig") if name in tree.get("spec", ())]
    *parents, last = path.replace("@", "/".join(["spec", *places])).split("/")
    part: Any = tree
    for key in parents:
        part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
    if value is GONE:
        del part[last]
    else:
        part[int(last) if isinstance(part, list) else last] = copy.deepcopy(value)
    return tree


@functools.cache
def schema(kind: str) -> Tree:
    return closed_schema(CRDS, kind)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_up_takes_the_file_and_so_do_we(name: str) -> None:
    assert launcher_problems(launcher(name)) == []


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("provider/regon", "x", "provider: unknown regon"),
        ("provider/cache_stopped_nodes", GONE, "cache_stopped_nodes must be false"),
        ("provider/aws_credentials", {"aws_secret_access_key": "x"}, "aws_secret_access_key: a secret is written down"),
        ("provider/security_group", {"IpPermissions": [{"CidrIp": "0.0.0.0/0"}]}, "'0.0.0.0/0' is open"),
        ("max_worker", 1, "'max_worker' was unexpected"),
        ("max_workers", 0, "min_workers add up to 1"),
        ("available_node_types/gpu_spot/min_worker", 1, "'min_worker' was unexpected"),
        ("available_node_types/gpu_spot/min_workers", -1, "gpu_spot: min_workers -1 and max_workers 8 must not be neg"),
        ("available_node_types/gpu_spot/min_workers", 9, "gpu_spot: min_workers 9, max_workers 8"),
        ("available_node_types/gpu_spot/max_workers", 99, "max_workers 99 and max_workers 11 of all do not agree"),
        ("available_node_types/gpu_spot/resources/GPU", "1", "'1' is not of type 'integer'"),
        ("available_node_types/gpu_spot/labels/market", "on-demand", "but the machine is bought spot"),
        ("available_node_types/gpu_on_demand/labels", GONE, "the label market says None"),
        ("available_node_types/cpu/node_config/Imageid", "x", "Imageid"),
        ("available_node_types/head/resources/CPU", 4, "the head must have resources {CPU: 0}"),
        ("head_node_type", "haed", "head_node_type"),
        ("setup_commands", GONE, "setup_commands are missing"),
        ("setup_commands", ["pip install ray-3.0.0.dev0-cp311.whl"], "installs a nightly"),
        ("setup_commands", ["pip install ray"], "not pinned by constraints.txt: pip install ray"),
        ("head_setup_commands", GONE, "head_setup_commands: not pinned"),
        ("docker/image", "rayproject/ray:2.59.0-py311-gpu", "docker.image: must be of this Ray"),
        ("docker/run_options/1", "--env=RAY_AUTH_MODE=disabled", "Ray is open without --env=RAY_AUTH_MODE=token"),
        ("docker/run_options/2", "--env=RAY_AUTH_TOKEN=hunter2", "a secret is written down"),
        ("file_mounts", {}, "file_mounts: without"),
        ("head_start_ray_commands/2", "ray start --head", "the dashboard is open"),
        ("head_start_ray_commands/2", "ray start --head --dashboard-host=0.0.0.0", "is open to every address"),
        ("head_start_ray_commands", GONE, "the autoscaler needs RAY_enable_autoscaler_v2=1"),
        ("worker_start_ray_commands", GONE, "worker_start_ray_commands: the service is open"),
    ],
)
def test_a_launcher_file_with_a_mistake_is_refused(name: str, path: str, value: Any, told: str) -> None:
    assert told in "\n".join(launcher_problems(changed(launcher(name), path, value)))


@pytest.mark.parametrize(
    ("name", "path", "told"),
    [
        ("aws", "InstanceMarketOptions/MarketTyp", 'Unknown parameter in InstanceMarketOptions: "MarketTyp"'),
        ("aws", "InstanceType", "Invalid type for parameter InstanceType"),
        ("gcp", "scheduling/provisioningModle", "gpu_spot: unknown provisioningModle"),
    ],
)
def test_what_ray_hands_to_the_cloud_unread_is_checked(name: str, path: str, told: str) -> None:
    problems = launcher_problems(changed(launcher(name), f"available_node_types/gpu_spot/node_config/{path}", 1))
    assert told in "\n".join(problems)


def machines_for(config: Tree, num_gpus: int, *markets: str, count: int = 1, lacking: str = "") -> dict[str, int]:
    """Ask the scheduler of Ray's autoscaler v2 which machines it would start for actors."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    is_in = import_module("ray.core.generated.common_pb2").LABEL_OPERATOR_IN
    selectors = [[("market", is_in, [market])] for market in markets]
    actor = ResourceRequestUtil.make({"CPU": 1, "GPU": num_gpus}, label_selectors=selectors or None)
    read = AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True)
    request = SchedulingRequest(
        node_type_configs=read.get_node_type_configs(),
        max_num_nodes=read.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([actor] * count),
        recoverable_resource_availabilities={lacking: 0.5},
        disable_launch_config_check=True,
    )
    launched = {each.instance_type: each.count for each in ResourceDemandScheduler(None).schedule(request).to_launch}
    assert launched.pop("cpu") == 1  # there always is one
    return launched


def autoscaled(name: str) -> Tree:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    if name in LAUNCHERS:
        return launcher(name)
    resource = {"metadata": {"name": "x", "namespace": "x"}, "spec": cluster_in(manifest(name))}
    return dict(_derive_autoscaling_config_from_ray_cr(resource))


@pytest.mark.parametrize("name", [*LAUNCHERS, "raycluster", "rayjob-bulk", "rayjob-training"])
def test_jobs_get_spot_machines_first_and_then_those_on_demand(name: str) -> None:
    config = autoscaled(name)
    spot, steady = ("gpu_spot", "gpu_on_demand") if name in LAUNCHERS else ("gpu-spot", "gpu-on-demand")
    most = config["available_node_types"][spot]["max_workers"]
    assert machines_for(config, 1) == {spot: 1}
    assert machines_for(config, 1, count=most + 1) == {spot: most, steady: 1}
    assert machines_for(config, 1, lacking=spot) == {steady: 1}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_service_gets_machines_on_demand(name: str) -> None:
    assert machines_for(launcher(name), 1, "on-demand", count=2) == {"gpu_on_demand": 2}
    assert machines_for(launcher(name), 1, "on-demand", "spot", count=3) == {"gpu_on_demand": 2, "gpu_spot": 1}


def test_the_service_grows_to_no_more_processes_than_there_may_be_machines() -> None:
    groups = cluster_in(manifest("rayservice"))["workerGroupSpecs"]
    most = {"rayservice": sum(group["maxReplicas"] for group in groups if group["groupName"] == "gpu")}
    most["cluster/serve.yaml"] = min(
        launcher(name)["available_node_types"]["gpu_on_demand"]["max_workers"] for name in LAUNCHERS
    )
    for name, machines in most.items():
        assert served(name)["applications"][0]["args"]["replicas"]["max_manipulators"] == machines


def test_an_old_service_stays_until_its_last_edit_has_ended() -> None:
    settings = import_module("serve.settings").ServeSettings(**served("rayservice")["applications"][0]["args"])
    drain = re.search(r"^DRAIN_SECONDS = ([\d.]+)", (ROOT / "serve" / "app.py").read_text(), re.MULTILINE)
    assert drain is not None
    longest = settings.limits.max_deadline_seconds + float(drain[1])
    assert manifest("rayservice")["spec"]["rayClusterDeletionDelaySeconds"] >= longest


@with_crds
@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_takes_the_manifest(name: str) -> None:
    document = manifest(name)
    assert schema_problems(document, schema(document["kind"])) == []


@with_crds
@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spce", {}, "'spce' was unexpected"),
        ("@/autoscalerOptions/verson", "v2", "$.spec{}.autoscalerOptions: Additional properties are not allowed"),
        ("@/authOptions/mode", "tokn", "'tokn' is not one of"),
        ("@/workerGroupSpecs/0/minReplicas", "1", "'1' is not of type 'integer'"),
        ("@/workerGroupSpecs/0/template/metadata/lables", {}, "'lables' was unexpected"),
        ("@/workerGroupSpecs/0/template/spec/containers/0/imge", "x", "'imge' was unexpected"),
        ("@/workerGroupSpecs/0/template/spec/containers/0/resources/limits/cpu", "many", "does not match"),
        ("@/headGroupSpec/template/spec/containers", GONE, "'containers' is a required property"),
    ],
)
def test_a_manifest_with_a_typo_is_refused(name: str, path: str, value: Any, told: str) -> None:
    document = changed(manifest(name), path, value)
    inside = {"RayJob": ".rayClusterSpec", "RayService": ".rayClusterConfig"}.get(document["kind"], "")
    assert told.replace("{}", inside) in "\n".join(schema_problems(document, schema(document["kind"])))


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_keeps_to_our_rules(name: str) -> None:
    assert manifest_problems(manifest(name)) == []


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("@/rayVersion", "2.59.0", f"rayVersion: 2.59.0, but constraints.txt has {PINS['ray']}"),
        ("@/authOptions", GONE, "Ray is open without mode: token"),
        ("@/authOptions/secretName", GONE, "Ray is open without mode: token"),
        ("@/autoscalerOptions/version", "v1", "version: v2"),
        ("@/headGroupSpec/rayStartParams/num-cpus", "2", "the head must have num-cpus"),
        ("@/headGroupSpec/rayStartParams/dashboard-host", "0.0.0.0", "'0.0.0.0' is open"),
        ("@/headGroupSpec/serviceType", "LoadBalancer", "'LoadBalancer' is open"),
        ("@/headGroupSpec/enableIngress", True, "open to the world"),
        ("@/headGroupSpec/template/spec/hostNetwork", True, "open to the world"),
        ("@/workerGroupSpecs/0/minReplicas", -1, "minReplicas -1"),
        ("@/workerGroupSpecs/0/replicas", 7, "replicas 7, maxReplicas 1 do not agree"),
        ("@/workerGroupSpecs/0/labels/market", "spot", "the label market is not that of its machines"),
        ("@/workerGroupSpecs/0/template/spec/containers/0/image", "soundguide:latest", f"but this package is {IMAGE}"),
        ("@/workerGroupSpecs/0/template/spec/containers/0/env", [{"name": "A_TOKEN", "value": "x"}], "a secret is"),
        ("@/workerGroupSpecs/0/template/spec/containers/0/resources", GONE, "failed to detect `CPU`"),
    ],
)
def test_a_manifest_with_a_mistake_is_refused(name: str, path: str, value: Any, told: str) -> None:
    assert told in "\n".join(manifest_problems(changed(manifest(name), path, value)))


def test_a_dashboard_a_service_and_a_job_without_bounds_are_refused() -> None:
    for name, path, told in [
        ("raycluster", "@/headGroupSpec/rayStartParams/dashboard-host", "the dashboard is open"),
        ("rayservice", "@/headGroupSpec/template/spec/containers/0/env", "the service is open"),
        ("rayjob-bulk", "spec/shutdownAfterJobFinishes", "may cost for ever"),
        ("rayjob-training", "spec/activeDeadlineSeconds", "may cost for ever"),
    ]:
        assert told in "\n".join(manifest_problems(changed(manifest(name), path, GONE)))


@pytest.mark.parametrize("name", ["cluster/serve.yaml", "serve/config.yaml", "rayservice"])
def test_serve_takes_the_configuration_and_so_do_we(name: str) -> None:
    assert serve_problems(served(name)) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("http_option", {}, "http_option: unknown key of ServeDeploySchema"),
        ("http_options/prt", 1, "http_options.prt: unknown key of HTTPOptionsSchema"),
        ("applications/0/deployments/0/max_ongoing_request", 5, "unknown key of DeploymentSchema"),
        ("applications/0/deployments/0/ray_actor_options/num_cpu", 5, "unknown key of RayActorOptionsSchema"),
        ("applications/0/deployments/0/ray_actor_options/label_selector/market", "in(spot", "label_selector"),
        ("applications/0/deployments/0/ray_actor_options", {"num_cpus": 1}, "give num_cpus and num_gpus too"),
        ("applications/0/deployments/0/name", "Ingres", "there is no Ingres, but Board, Ingress, Manipulator"),
        ("applications/0/import_path", "serve.app:buld", "serve.app:buld does not exist"),
        ("applications/0/args/replicas/gpu", 1.0, "replicas.gpu: Extra inputs are not permitted"),
        ("applications/0/args/limits/max_edits", 0, "limits.max_edits: Input should be greater"),
        ("applications/0/args/token", "hunter2", "args.token: a secret is written down"),
    ],
)
def test_a_serve_configuration_with_a_mistake_is_refused(path: str, value: Any, told: str) -> None:
    assert told in "\n".join(serve_problems(changed(served("cluster/serve.yaml"), path, value)))
