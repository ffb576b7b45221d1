"""The manifests, as kubectl builds them: valid, closed where they should be, and consistent with each other."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings import LimitSettings
from serving.settings import TritonSettings
from tests.running import ROOT

OVERLAYS = ("dev", "prod-cpu", "prod-gpu")
VERSIONS = ("1.36", "1.37")
# kubernetes-validate has Kubernetes' own kinds. What these refer to is looked at below; their fields are not.
CUSTOM = {
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}
_ENDING_S = 5

Manifest = dict[str, Any]


@cache
def built(path: str) -> tuple[Manifest, ...]:
    """The manifests of a kustomization."""
    kubectl = shutil.which("kubectl")
    assert kubectl, "kubectl is missing: .ci/run says how to get it"
    ended = subprocess.run([kubectl, "kustomize", ROOT / "k8s" / path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return tuple(yaml.safe_load_all(ended.stdout))


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    return built(f"overlays/{request.param}")


def _of(manifests: tuple[Manifest, ...], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def _pods(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    for each in manifests:
        if each["kind"] in {"Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]


def _selected(manifests: tuple[Manifest, ...], labels: dict[str, str]) -> list[Manifest]:
    return [pod for _, pod in _pods(manifests) if labels.items() <= pod["metadata"]["labels"].items()]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema(manifests: tuple[Manifest, ...], version: str) -> None:
    validated = 0
    for each in manifests:
        if (each["apiVersion"], each["kind"]) not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)
            validated += 1
    assert validated >= 15


def test_a_wrong_manifest_is_found() -> None:
    deployment = _of(built("overlays/dev"), "Deployment")["gateway"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**deployment, "spec": {**deployment["spec"], "replica": 2}}, "1.37", strict=True)


def test_pods_keep_to_the_restricted_standard_and_write_nowhere(manifests: tuple[Manifest, ...]) -> None:
    (namespace,) = _of(manifests, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in _pods(manifests):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}, name
            assert context.get("readOnlyRootFilesystem") or name == "postgres", name
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], name
            assert ":" in container["image"], f"{name}: no version"


def test_secrets_are_references(manifests: tuple[Manifest, ...]) -> None:
    assert not _of(manifests, "Secret")
    named = {
        variable["name"]: variable
        for _, pod in _pods(manifests)
        for container in pod["spec"]["containers"]
        for variable in container.get("env", ())
    }
    for name in (
        "TIDEGATE_DATABASE__URL",
        "TIDEGATE_REDIS__URL",
        "TIDEGATE_CACHE__SECRET",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ):
        assert named[name]["valueFrom"]["secretKeyRef"]["name"] == "tidegate"


def test_services_budgets_policies_and_spreads_select_pods(manifests: tuple[Manifest, ...]) -> None:
    for service in _of(manifests, "Service").values():
        (pod,) = _selected(manifests, service["spec"]["selector"])
        opened = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port.get("targetPort", port["name"]) for port in service["spec"]["ports"]} <= opened
    for budget in _of(manifests, "PodDisruptionBudget").values():
        assert len(_selected(manifests, budget["spec"]["selector"]["matchLabels"])) == 1
    for name in ("gateway", "triton"):
        deployment = _of(manifests, "Deployment")[name]
        assert name in _of(manifests, "PodDisruptionBudget")
        assert deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert "replicas" not in deployment["spec"]
    assert _of(manifests, "Service")["triton"]["spec"]["clusterIP"] == "None"


def test_triton_is_reached_by_the_gateway_alone(manifests: tuple[Manifest, ...]) -> None:
    policies = _of(manifests, "NetworkPolicy")
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    triton = {"app.kubernetes.io/name": "triton"}
    closed, *others = [
        policy
        for policy in policies.values()
        if policy["spec"]["podSelector"].get("matchLabels") == triton and "Ingress" in policy["spec"]["policyTypes"]
    ]
    assert not others
    to_grpc = [rule for rule in closed["spec"]["ingress"] if {"port": "grpc"} in rule["ports"]]
    assert [rule["from"] for rule in to_grpc] == [
        [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}]
    ]


def test_a_pod_has_time_to_drain(manifests: tuple[Manifest, ...]) -> None:
    settings = next(each for name, each in _of(manifests, "ConfigMap").items() if name.startswith("gateway-"))["data"]
    limits = LimitSettings(drain_s=float(settings["TIDEGATE_LIMITS__DRAIN_S"]))
    for name, drain_s in (("gateway", limits.drain_s), ("triton", TritonSettings().exit_timeout_s)):
        spec = _of(manifests, "Deployment")[name]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep_s + drain_s + _ENDING_S <= spec["terminationGracePeriodSeconds"], name
        probe = container["readinessProbe"]
        assert sleep_s >= probe["periodSeconds"], name
    gateway = _of(manifests, "Deployment")["gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"


def test_the_gpu_overlay_asks_for_a_gpu_and_nvidias_image() -> None:
    spec = _of(built("overlays/prod-gpu"), "Deployment")["triton"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (
        container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == 1
    )
    assert container["image"].startswith("tidegate/triton:")
    assert spec["nodeSelector"] and spec["tolerations"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in spec["volumes"]


def test_models_may_come_from_a_volume(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "dev" / "kustomization.yaml"
    overlay.write_text(overlay.read_text() + "\ncomponents: [../../components/model-volume]\n")
    text = subprocess.check_output(["kubectl", "kustomize", overlay.parent], text=True)
    triton = _of(tuple(yaml.safe_load_all(text)), "Deployment")["triton"]
    kubernetes_validate.validate(triton, "1.37", strict=True)
    (container,) = triton["spec"]["template"]["spec"]["containers"]
    assert {"name": "TIDEGATE_MODEL_REPOSITORY", "value": "/models"} in container["env"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("overlay", ["prod-cpu", "prod-gpu"])
def test_routes_monitors_and_the_scaler_refer_to_what_is_there(overlay: str) -> None:
    manifests = built(f"overlays/{overlay}")
    services = _of(manifests, "Service")
    listeners = {listener["name"] for listener in _of(manifests, "Gateway")["tidegate"]["spec"]["listeners"]}
    for kind, port in (("HTTPRoute", "http"), ("GRPCRoute", "grpc")):
        route = _of(manifests, kind)["tidegate"]["spec"]
        assert route["parentRefs"][0]["sectionName"] in listeners
        (backend,) = route["rules"][0]["backendRefs"]
        ports = {each["name"]: each["port"] for each in services[backend["name"]]["spec"]["ports"]}
        assert backend["port"] == ports[port]
    for name, monitor in _of(manifests, "ServiceMonitor").items():
        assert monitor["spec"]["selector"]["matchLabels"].items() <= services[name]["metadata"]["labels"].items()
        assert monitor["spec"]["jobLabel"] in services[name]["metadata"]["labels"]
    scaled = _of(manifests, "ScaledObject")["triton"]["spec"]["scaleTargetRef"]["name"]
    assert scaled in _of(manifests, "Deployment")
    assert _of(manifests, "HorizontalPodAutoscaler")["gateway"]["spec"]["scaleTargetRef"]["name"] == "gateway"


def test_rules_and_queries_are_prometheus_own(tmp_path: Path) -> None:
    manifests = built("overlays/prod-cpu")
    groups = _of(manifests, "PrometheusRule")["tidegate"]["spec"]["groups"]
    trigger = _of(manifests, "ScaledObject")["triton"]["spec"]["triggers"][0]["metadata"]
    groups = [*groups, {"name": "scaler", "rules": [{"record": "scaler:value", "expr": trigger["query"]}]}]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    checked = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_rules_and_dashboards_are_those_of_monitoring() -> None:
    code = "import json, pathlib, sys; sys.path.insert(0, 'k8s'); import generate as g; print(json.dumps(g.manifests(g.ROOT)))"
    wanted = yaml.safe_load(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
    directory = ROOT / "k8s" / "components" / "monitoring" / "generated"
    written = {path.name: path.read_text() for path in directory.iterdir()}
    assert written == wanted, "run `make k8s-monitoring`"
