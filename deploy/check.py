# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "helm-python-sdk>=0.2.2; sys_platform != 'linux' or platform_machine == 'x86_64'",
#     "kubernetes-validate>=1.37",
#     "pyyaml>=6",
# ]
# ///
"""The chart, by Helm's own lint and templates (its Go SDK, which the package carries), and by Kubernetes' schemas.

What comes out must be what a cluster of the oldest and of the newest version takes, and hold what we promise of it.
No cluster is asked.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

CHART = Path(__file__).parent / "chart"
VERSIONS = ("1.27", "1.37")
"""The oldest that the chart is for, and the newest that there are schemas of."""

NAMES = (Path(__file__).parent.parent / "fastn_mcp" / "extensions" / "telemetry" / "attributes.py").read_text(
    encoding="utf-8"
)
"""Where each metric is named: Prometheus has underscores for its points."""

LEAST: dict[str, Any] = yaml.safe_load((CHART / "ci" / "least.yaml").read_text(encoding="utf-8"))

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a key that is not known": ({"replica": 3}, "replica"),
    "a secret itself": ({"secrets": {"shared": "valkeys://fastn:PASSWORD@ledger:6379"}}, "shared"),
    "a key beside its reference": ({"env": [{"name": "FASTN_API_KEY", "value": "fsk_1"}]}, "env"),
    "a host with a wildcard": ({"ingress": {"enabled": True, "hosts": ["*.example.com"]}}, "hosts"),
    "an ingress for any host": ({"ingress": {"enabled": True}}, "ingress.hosts"),
    "a network for anybody": ({"networkPolicy": {"from": []}}, "networkPolicy.from"),
    "a peer that is anybody": ({"networkPolicy": {"from": [{}]}}, "from"),
    "no team": ({"team": {"configMap": ""}}, "team.configMap or team.secret"),
    "two teams": ({"team": {"secret": "another"}}, "leave one out"),
    "no ledger": ({"secrets": {"shared": ""}}, "secrets.shared"),
    "a metric that nobody is told": ({"autoscaling": {"enabled": True}}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "fewer at most than at least": ({"autoscaling": {"enabled": True, "max": 2}}, "autoscaling.max"),
}


def main() -> int:
    """Say what is wrong, if anything."""
    try:
        import helm_python as helm
    except ImportError:
        sys.stderr.write("The chart is not checked: there is no Helm for this platform.\n")
        return 0
    problems = [problem for values in sorted((CHART / "ci").glob("*.yaml")) for problem in _checked(helm, values)]
    for what, (more, said) in WRONG.items():
        try:
            _rendered(helm, _merged(LEAST, more))
        except helm.HelmError as error:
            if said not in str(error):
                problems.append(f"{what}: refused without {said!r}: {error}")
        else:
            problems.append(f"{what}: not refused")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def _checked(helm: Any, file: Path) -> Iterator[str]:
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    linted = helm.lint(str(CHART), values, strict=True)
    yield from (f"{file.name}: {said}" for said in [*linted["messages"], *linted["errors"]])
    objects = _rendered(helm, values)
    for each in objects:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{file.name}: {each['kind']} on Kubernetes {version}: {error}"
    yield from (f"{file.name}: {problem}" for problem in _promised(objects))


def _rendered(helm: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="team", namespace="mcp")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def _promised(objects: list[dict[str, Any]]) -> Iterator[str]:
    """What is not as docs/replicas.md says."""
    if any(each["kind"] in ("Secret", "ConfigMap") for each in objects):
        yield "it makes a Secret or a ConfigMap, where it should name one"
    (replicas,) = (each for each in objects if each["kind"] == "StatefulSet")
    pod = replicas["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    safe = container["securityContext"]
    promises = {
        "it runs as root": pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0,
        "its root can be written": safe["readOnlyRootFilesystem"] is True,
        "it can gain privileges": safe["allowPrivilegeEscalation"] is False and safe["capabilities"]["drop"] == ["ALL"],
        "it has a token of the cluster": pod["automountServiceAccountToken"] is False,
        "it is alive by another path": container["livenessProbe"]["httpGet"]["path"] == "/healthz",
        "it is ready by another path": container["readinessProbe"]["httpGet"]["path"] == "/readyz",
        "it has no bound of memory": "memory" in container["resources"]["limits"],
    }
    yield from (problem for problem, kept in promises.items() if not kept)
    yield from _told(objects, container)
    for variable in container["env"]:
        if variable["name"] in ("FASTN_LEDGER", "FASTN_STATE_SECRET") and "secretKeyRef" not in variable["valueFrom"]:
            yield f"{variable['name']} is no reference"
    selector = replicas["spec"]["selector"]["matchLabels"]
    for each in objects:
        match each["kind"]:
            case "Service":
                chosen = each["spec"]["selector"]
            case "PodDisruptionBudget":
                chosen = each["spec"]["selector"]["matchLabels"]
            case "NetworkPolicy":
                chosen = each["spec"]["podSelector"]["matchLabels"]
            case _:
                continue
        if chosen != selector:
            yield f"{each['kind']} {each['metadata']['name']} is not about the replicas"


def _told(objects: list[dict[str, Any]], container: dict[str, Any]) -> Iterator[str]:
    """What is wrong with what telemetry says of a replica, and with the metric by which replicas are scaled."""
    given = [variable["name"] for variable in container["env"]]
    yield from (f"{name} is given twice" for name in set(given) if given.count(name) > 1)
    values = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    if "k8s.pod.name=$(POD_NAME)" not in values["OTEL_RESOURCE_ATTRIBUTES"]:
        yield "telemetry does not tell the replicas apart"
    for scaler in (each for each in objects if each["kind"] == "HorizontalPodAutoscaler"):
        (metric,) = scaler["spec"]["metrics"]
        name = metric["pods"]["metric"]["name"]
        if f'"{name.replace("_", ".").replace("fastn.mcp", "fastn_mcp")}"' not in NAMES:
            yield f"nothing exports {name}"


def _merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return values | {
        key: _merged(values[key], value) if isinstance(value, dict) and key in values else value
        for key, value in more.items()
    }


if __name__ == "__main__":
    sys.exit(main())
