"""The manifests of Kubernetes are valid, fit together, and name what the server has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from variseq.serving.routes import API
from variseq.serving.server import FINISH_SECONDS
from variseq.serving.settings import ENVIRONMENT_PREFIX, ServeSettings, serve_settings
from variseq.serving.telemetry import Metrics
from variseq.terminal.serve import commands

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.33"
"""Of Kubernetes."""


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


NAMES = [Path(name).stem for name in manifest("kustomization")["resources"]]
SET = manifest("statefulset")["spec"]
POD = SET["template"]["spec"]
(SERVER,) = POD["containers"]


def settings() -> ServeSettings:
    """What the words and variables of the container set."""
    context = typer.main.get_command(commands).make_context("serve", [*SERVER["args"]])
    variables = {one["name"]: one.get("value", "redis://redis:6379/0") for one in SERVER["env"]}
    expanded = {
        name: re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], value) for name, value in variables.items()
    }
    return serve_settings(
        context.params, {name: value for name, value in expanded.items() if name.startswith(ENVIRONMENT_PREFIX)}
    )


def test_all_files_of_the_folder_are_applied() -> None:
    assert sorted([*NAMES, "kustomization"]) == sorted(path.stem for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_valid(name: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(manifest(name), VERSION, strict=True)


def test_wrong_word_in_a_manifest_is_found() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    wrong = manifest("statefulset")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(validator.ValidationError, match="readynessProbe"):
        validator.validate(wrong, VERSION, strict=True)


def test_selectors_find_the_pods_and_the_autoscaler_the_set() -> None:
    labels = SET["template"]["metadata"]["labels"]
    budget, policy = manifest("disruption-budget")["spec"], manifest("network-policy")["spec"]
    selectors = [SET["selector"], budget["selector"], policy["podSelector"]]
    assert all(one == {"matchLabels": labels} for one in selectors)
    assert manifest("service")["spec"]["selector"] == labels
    target = manifest("autoscaler")["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": manifest("statefulset")["metadata"]["name"],
    }
    assert SET["serviceName"] == manifest("service")["metadata"]["name"]


def test_ports_probes_and_metric_are_those_of_the_server() -> None:
    ports = {one["name"]: one["containerPort"] for one in SERVER["ports"]}
    assert ports["http"] == settings().port
    assert [one["targetPort"] for one in manifest("service")["spec"]["ports"]] == ["http"]
    (ingress,) = manifest("network-policy")["spec"]["ingress"]
    assert [one["port"] for one in ingress["ports"]] == ["http"]
    open_paths = {route.path for route in API if route.method == "GET" and route.role is None}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert SERVER[probe]["httpGet"]["port"] == "http"
        assert SERVER[probe]["httpGet"]["path"] in open_paths
    named = [one["pods"]["metric"]["name"] for one in manifest("autoscaler")["spec"]["metrics"] if "pods" in one]
    metrics = Metrics()
    metrics.gauges(0, 0)
    assert named == ["variseq_queue_length"]
    assert f"\n{named[0]} 0.0\n" in metrics.text().decode()


def test_words_and_variables_of_the_container_are_settings_of_the_server() -> None:
    found = settings()
    assert (found.run, found.host, found.keys) == (Path("/model"), "0.0.0.0", Path("/keys/keys.yaml"))
    assert POD["terminationGracePeriodSeconds"] > found.shutdown_grace_seconds + FINISH_SECONDS
    assert found.store == "redis://redis:6379/0?durable_log=sqlite:////data/events.db"


def test_everything_that_is_written_is_in_a_volume_and_nothing_else_can_be() -> None:
    mounts = {one["mountPath"]: one for one in SERVER["volumeMounts"]}
    volumes = {one["name"] for one in POD["volumes"]} | {one["metadata"]["name"] for one in SET["volumeClaimTemplates"]}
    assert {one["name"] for one in mounts.values()} == volumes
    assert [path for path, one in mounts.items() if not one.get("readOnly")] == ["/data", "/tmp"]
    for container in (SERVER, *POD["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_user_and_words_fit_the_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"USER {POD['securityContext']['runAsUser']}\n" in dockerfile
    assert f"EXPOSE {SERVER['ports'][0]['containerPort']}\n" in dockerfile
    assert 'ENTRYPOINT ["variseq", "serve"]' in dockerfile
