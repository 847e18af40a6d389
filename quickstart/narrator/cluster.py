"""The cluster as the narrator sees it: kubectl and nothing else."""

import json
import os
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMESPACE = os.environ.get("PERENNIAL_QUICKSTART_NAMESPACE", "quickstart")
SYSTEM = "perennial-system"
MANIFESTS = ROOT / "manifests" / "quickstart"
IMAGE_IN_MANIFESTS = "docker.io/perennial/quickstart:dev"
KINDS = ["modeldeployments", "promptreleases", "evaluations", "trainingjobs"]


class Broken(Exception):
    """A promise of the story that didn't hold, as a sentence."""


def brought() -> bool:
    """Whether the user brought a cluster; otherwise it is ours, on this machine."""
    return bool(os.environ.get("KUBECONFIG") or os.environ.get("PERENNIAL_CONTEXT"))


def prefix() -> list[str]:
    """How programs reach the cluster: through `hack/cluster/exec`, or as they are when the user brought one."""
    return [] if brought() else [os.environ.get("PERENNIAL_CLUSTER_EXEC") or str(ROOT / "hack" / "cluster" / "exec")]


def context(flag: str) -> list[str]:
    """The flag that chooses the user's context, if there is one."""
    name = os.environ.get("PERENNIAL_CONTEXT")
    return [flag, name] if name else []


def typed() -> str:
    """What a person types for kubectl."""
    return " ".join(["kubectl", *context("--context")]) if brought() else "hack/cluster/k"


def run(program: list[str], stdin: str | None = None, timeout: float = 60, check: bool = True) -> str:
    """Runs a program against the cluster and gives what it printed."""
    command = prefix() + program
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Broken(f"`{' '.join(program)}` took longer than {timeout:.0f} s.") from None
    except FileNotFoundError as error:
        raise Broken(f"{error.filename} isn't there: run `make cluster` first.") from None
    if check and done.returncode != 0:
        raise Broken(f"`{' '.join(program)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 60, check: bool = True, namespace: str = NAMESPACE) -> str:
    program = ["kubectl", *context("--context"), "-n", namespace, *arguments]
    return run(program, stdin=stdin, timeout=timeout, check=check)


def apply(path: str) -> None:
    """Applies a file or kustomization below manifests/quickstart, with another image if PERENNIAL_QUICKSTART_IMAGE says so."""
    target = MANIFESTS / path
    text = run(["kubectl", "kustomize", str(target)]) if target.is_dir() else target.read_text()
    image = os.environ.get("PERENNIAL_QUICKSTART_IMAGE", IMAGE_IN_MANIFESTS)
    kubectl("apply", "-f", "-", stdin=text.replace(IMAGE_IN_MANIFESTS, image))


def get(kind: str, name: str) -> dict | None:
    """The object, or None when it isn't there (yet)."""
    text = kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def items(kind: str, selector: str = "") -> list[dict]:
    arguments = ["get", kind, "-o", "json"] + (["-l", selector] if selector else [])
    return json.loads(kubectl(*arguments))["items"]


def condition(resource: dict | None, kind: str) -> dict:
    """The condition of this type, or an empty one."""
    conditions = ((resource or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_true(resource: dict | None, kind: str) -> bool:
    return condition(resource, kind).get("status") == "True"


def observed(resource: dict | None) -> bool:
    """Whether the status speaks of the present spec."""
    return bool(resource) and (resource.get("status") or {}).get("observedGeneration") == resource["metadata"]["generation"]


def logs(job: str, tail: int = 400) -> list[dict]:
    """The JSON lines of a Job's pod; lines that are none are left out."""
    lines = []
    for line in kubectl("logs", f"job/{job}", f"--tail={tail}", check=False).splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines


def dump(folder: pathlib.Path) -> None:
    """Writes all that may explain a failure to a folder, and prints what usually does."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ",".join(KINDS)
    files = {
        "objects.yaml": ("get", kinds, "-o", "yaml"),
        "children.yaml": ("get", "jobs,deployments,services,controllerrevisions,configmaps,endpointslices", "-o", "yaml"),
        "pods.txt": ("describe", "pods"),
        "events.txt": ("get", "events", "--sort-by=.lastTimestamp", "-o", "wide"),
    }
    for name, arguments in files.items():
        (folder / name).write_text(attempt(*arguments))
    for space in (NAMESPACE, SYSTEM):
        for pod in attempt("get", "pods", "-o", "name", namespace=space).split():
            text = attempt("logs", pod, "--all-containers", "--prefix", "--tail=2000", namespace=space)
            (folder / f"log-{space}-{pod.removeprefix('pod/')}.txt").write_text(text)
    print("\n--- the cluster's state ---", flush=True)
    print(attempt("get", kinds, "-o", "wide"))
    print(attempt("get", kinds, "-o", CONDITIONS))
    print(attempt("get", "pods", "-o", "wide"))
    print(attempt("get", "pods", "-o", "wide", namespace=SYSTEM))
    print("\n".join(attempt("get", "events", "--sort-by=.lastTimestamp").splitlines()[-40:]))
    for log in sorted(folder.glob("log-*")):
        print(f"--- the end of {log.name}")
        print("\n".join(line[:400] for line in log.read_text().splitlines()[-15:]))
    print(f"\nEverything is in {folder}.", flush=True)


CONDITIONS = (
    "jsonpath={range .items[*]}{.kind}/{.metadata.name}{\"\\n\"}"
    "{range .status.conditions[*]}    {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}"
)


def attempt(*arguments: str, namespace: str = NAMESPACE) -> str:
    """kubectl, for the dump: a failure is text like any other."""
    try:
        return kubectl(*arguments, check=False, namespace=namespace)
    except Broken as error:
        return f"{error}\n"


def now() -> float:
    return time.monotonic()
