"""The dashboard for Grafana: its shape, and that each of its metrics and labels is one that really exists."""

from __future__ import annotations

import copy
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from itertools import combinations
from typing import Any

import httpx
import pytest
from bulk_runs import ROOT
from ports import free_port
from promql import metrics_and_labels
from service import PNG, SOUND
from watched_runs import EXPORT_SECONDS, Series, WatchedRun, scrape

from soundguide.config import ManipulatorConfig

Tree = dict[str, Any]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"short", "s", "ms", "bytes", "mbytes", "Bps", "cpm", "reqps", "percent", "percentunit"}
RAYS_DASHBOARDS = ("data", "default", "serve", "serve_deployment", "train")
# Prometheus adds the first; the second is of histograms.
ALWAYS = {"instance", "le"}


def dashboard() -> Tree:
    return dict(json.loads((ROOT / "cluster" / "grafana.json").read_text()))


def panels(tree: Tree) -> list[Tree]:
    """Return all panels but the headings."""
    return [panel for panel in tree["panels"] if panel["type"] != "row"]


def expressions(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield (title, expression) of all that is asked of Prometheus."""
    for panel in panels(tree):
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for variable in tree["templating"]["list"]:
        if variable["type"] == "query":
            inside = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
            assert variable["definition"] == variable["query"]["query"] != inside
            metric, _, label = inside.partition(", ")
            yield variable["name"], f"max by ({label}) ({metric})"


def unknown(tree: Tree, known: dict[str, set[str]], seen: set[str]) -> list[str]:
    """Name the metrics that do not exist, and the labels that those which were seen do not have."""
    found = []
    for title, expr in expressions(tree):
        metrics, labels = metrics_and_labels(expr.replace("$__rate_interval", "1m"))
        found += [f"{title}: there is no metric {name}" for name in sorted(metrics - known.keys())]
        had = set().union(*(known[name] for name in metrics & seen)) | ALWAYS
        if metrics <= seen:
            found += [f"{title}: no metric has the label {label}" for label in sorted(labels - had)]
    return found


@pytest.fixture(scope="module")
def series(watched: WatchedRun, tiny_models: ManipulatorConfig) -> dict[Series, float]:
    """What a run of the bulk job told, and a service that made one edit."""
    from ray import serve

    from serve.app import build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    models = {**tiny_models.model_dump(), "num_slots": 2, "device": "cpu"}
    serve.run(build({"manipulator": models, "edit": {"num_steps": 3, "num_views": 1}, "replicas": {"cpus": 0.25}}))
    address = f"http://127.0.0.1:{port}/v1/edits"
    reply = httpx.post(address, headers=PNG, files={"audio": SOUND}, data={"seed": "3"}, timeout=60)
    assert reply.status_code == 200
    asked = set().union(*(metrics_and_labels(expr)[0] for _, expr in expressions(dashboard())))
    found, wanted = dict(watched.series), {name for name in asked if name.startswith("ray_soundguide_")}
    deadline = time.monotonic() + EXPORT_SECONDS
    while not wanted <= {name for name, _ in found} and time.monotonic() < deadline:
        time.sleep(0.5)
        found |= scrape()
    serve.shutdown()
    return found


@pytest.fixture(scope="module")
def seen(series: dict[Series, float]) -> dict[str, set[str]]:
    """The metrics that were told, with their labels."""
    labels: dict[str, set[str]] = defaultdict(set)
    for name, pairs in series:
        labels[name] |= {key for key, _ in pairs}
    return labels


@pytest.fixture(scope="module")
def known(seen: dict[str, set[str]]) -> dict[str, set[str]]:
    """Those, and what Ray itself says that it tells: in its own dashboards, and of machines."""
    return dict.fromkeys(names_in_ray(), set()) | seen


def names_in_ray() -> Iterator[str]:
    machines = import_module("ray.dashboard.modules.reporter.reporter_agent").METRICS_GAUGES
    yield from (f"ray_{gauge.name}" for gauge in machines.values())
    for name in RAYS_DASHBOARDS:
        module = import_module(f"ray.dashboard.modules.metrics.dashboards.{name}_dashboard_panels")
        [config] = [each for each in vars(module).values() if type(each).__name__ == "DashboardConfig"]
        for panel in [*config.panels, *(panel for row in config.rows or () for panel in row.panels)]:
            for target in panel.targets:
                yield from metrics_and_labels(target.expr)[0]


def test_every_metric_and_label_exists(known: dict[str, set[str]], seen: dict[str, set[str]]) -> None:
    asked = set().union(*(metrics_and_labels(expr)[0] for _, expr in expressions(dashboard())))
    assert len(asked) > 25
    assert unknown(dashboard(), known, set(seen)) == []


def test_every_metric_of_ours_was_told_by_a_run_and_has_a_panel(seen: dict[str, set[str]]) -> None:
    asked = set().union(*(metrics_and_labels(expr)[0] for _, expr in expressions(dashboard())))
    ours = {name for name in seen if name.startswith("ray_soundguide_")}
    assert {name for name in asked if name.startswith("ray_soundguide_")} <= ours
    told = {name.removesuffix("_sum").removesuffix("_count") for name in ours if not name.endswith("_bucket")}
    assert {name for name in told if not any(name in other for other in asked)} == set()


@pytest.mark.parametrize(
    ("name", "other", "told"),
    [
        ("ray_soundguide_rows_total", "ray_soundguide_rows", "there is no metric ray_soundguide_rows"),
        ("ray_soundguide_slots{", "ray_soundguide_slot{", "there is no metric ray_soundguide_slot"),
        ("edit_seconds_bucket", "edit_seconds", "there is no metric ray_soundguide_edit_seconds"),
        ("ray_serve_num_http_requests_total", "ray_serve_http_requests_total", "ray_serve_http_requests_total"),
        ("ray_node_gpus_utilization", "ray_node_gpu_utilization", "there is no metric ray_node_gpu_utilization"),
        ("by (program, outcome)", "by (program, status)", "no metric has the label status"),
        ("ray_cluster_active_nodes, ", "ray_clusters, ", "session: there is no metric ray_clusters"),
    ],
)
def test_a_metric_or_label_that_does_not_exist_is_told(
    known: dict[str, set[str]], seen: dict[str, set[str]], name: str, other: str, told: str
) -> None:
    text = (ROOT / "cluster" / "grafana.json").read_text()
    assert name in text
    assert told in "\n".join(unknown(json.loads(text.replace(name, other)), known, set(seen)))


def shape_problems(tree: Tree) -> list[str]:
    """Check what Grafana would show wrongly, or not at all."""
    found = []
    ids, titles = ([panel[key] for panel in tree["panels"]] for key in ("id", "title"))
    for name, values in (("id", ids), ("title", titles)):
        found += [f"the {name} {value} is there twice" for value in sorted({v for v in values if values.count(v) > 1})]
    for one, other in combinations(tree["panels"], 2):
        if overlap(one["gridPos"], other["gridPos"]):
            found.append(f"{one['title']} and {other['title']} lie on each other")
    for panel in tree["panels"]:
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24:
            found.append(f"{panel['title']} is wider than the page")
    for panel in panels(tree):
        if (unit := panel["fieldConfig"]["defaults"].get("unit")) not in UNITS:
            found.append(f"{panel['title']}: the unit is {unit}")
        if any(part.get("datasource") != SOURCE for part in [panel, *panel["targets"]]):
            found.append(f"{panel['title']}: the data source is not the variable")
        if any('SessionName=~"$session"' not in target["expr"] for target in panel["targets"]):
            found.append(f"{panel['title']}: shows all clusters at once")
        if not panel.get("description") or not all(target["legendFormat"] for target in panel["targets"]):
            found.append(f"{panel['title']}: says too little")
        refs = [target["refId"] for target in panel["targets"]]
        if not refs or len(refs) > len(set(refs)):
            found.append(f"{panel['title']}: its queries are {refs}")
    if [each["name"] for each in tree["templating"]["list"] if each["type"] == "datasource"] != ["datasource"]:
        found.append("there is no variable for the data source")
    return found


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_the_dashboard_has_the_shape_that_grafana_shows() -> None:
    assert len(panels(dashboard())) > 20
    assert shape_problems(dashboard()) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("panels/1/id", 3, "the id 3 is there twice"),
        ("panels/1/title", "Queue", "the title Queue is there twice"),
        ("panels/1/gridPos/w", 9, "lie on each other"),
        ("panels/3/gridPos/x", 17, "is wider than the page"),
        ("panels/1/fieldConfig/defaults/unit", "rows", "the unit is rows"),
        ("panels/1/datasource/uid", "prometheus", "the data source is not the variable"),
        ("panels/1/targets/0/datasource", None, "the data source is not the variable"),
        ("panels/1/targets/0/expr", "up", "shows all clusters at once"),
        ("panels/1/description", "", "says too little"),
        ("panels/1/targets", [], "its queries are []"),
        ("templating/list", [], "there is no variable for the data source"),
    ],
)
def test_a_dashboard_out_of_shape_is_told(path: str, value: object, told: str) -> None:
    tree = copy.deepcopy(dashboard())
    *parents, last = path.split("/")
    part: Any = tree
    for key in parents:
        part = part[int(key)] if isinstance(part, list) else part[key]
    part[int(last) if isinstance(part, list) else last] = value
    assert told in "\n".join(shape_problems(tree))


@pytest.mark.parametrize(
    ("expr", "metrics", "labels"),
    [
        ('sum by (a, b) (rate(x_total{c=~"d{e}"}[5m])) * 60', {"x_total"}, {"a", "b", "c"}),
        ("histogram_quantile(0.5, sum(rate(y_bucket[1m])) by (le))", {"y_bucket"}, {"le"}),
        ("x / on (a) group_left (b) y unless z > bool 3", {"x", "y", "z"}, {"a", "b"}),
        ("max(last_over_time(x[1d] offset 5m)) == 1 or vector(0)", {"x"}, set()),
    ],
)
def test_metrics_and_labels_are_found_in_an_expression(expr: str, metrics: set[str], labels: set[str]) -> None:
    assert metrics_and_labels(expr) == (metrics, labels)
