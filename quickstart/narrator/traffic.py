"""What the clients in the cluster saw, and who was exposed to a candidate."""

import hashlib

from . import cluster
from .cluster import Broken


def totals(job: str) -> dict:
    """A client's counts since its start: the newest it printed."""
    for line in reversed(cluster.logs(job)):
        if line.get("event") in ("progress", "summary"):
            return line
    return {}


def windows(job: str) -> list[dict]:
    return [line for line in cluster.logs(job, tail=5000) if line.get("event") == "window"]


def stop(job: str) -> None:
    """Tells a client to end, by the file it looks for."""
    pods = cluster.items("pods", f"batch.kubernetes.io/job-name={job}")
    for pod in pods:
        if pod["status"].get("phase") == "Running":
            cluster.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", "open('/tmp/stop', 'w')")


def since(before: dict, after: dict) -> dict:
    """Requests and failures, by caller, between two readings."""
    earlier = before.get("failedByCaller", {})
    later = after.get("failedByCaller", {})
    failed = {caller: count - earlier.get(caller, 0) for caller, count in later.items() if count > earlier.get(caller, 0)}
    return {
        "requests": after.get("requests", 0) - before.get("requests", 0),
        "failed": sum(failed.values()),
        "failedByCaller": failed,
        "seconds": after.get("seconds", 0) - before.get("seconds", 0),
    }


def bucket(release_uid: str, revision: str, key: str) -> float:
    """Where a caller stands in a rollout, 0 to 1; it is exposed while that is below the weight. Computed here from the
    published rule, not asked from the gateway, so that the gateway is checked too."""
    digest = hashlib.sha256(f"{release_uid}{revision}{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def only_exposed_failed(seen: dict, release_uid: str, revision: str, weight: int) -> str:
    """Checks that every caller that saw a failure was one whom the canary exposed; gives the sentence to say."""
    outside = [caller for caller in seen["failedByCaller"] if bucket(release_uid, revision, caller) >= weight / 100]
    if outside:
        raise Broken(
            f"{len(outside)} callers saw failures that were not exposed to revision {revision} at weight {weight}: {', '.join(sorted(outside)[:10])}."
        )
    return f"{seen['failed']} of {seen['requests']} requests failed, all of {len(seen['failedByCaller'])} callers in the canary's {weight} %"
