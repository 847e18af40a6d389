"""Volumes for a cluster that has no storage of its own: folders of this machine."""

import json
import pathlib
import shutil

from . import cluster

CLAIMS = ["flights", "models"]
FOLDER = cluster.ROOT / "target" / "quickstart-volumes"


def has_storage() -> bool:
    """Whether claims are served by the cluster: the user's one is trusted with that, ours by its default StorageClass."""
    if cluster.brought():
        return True
    mark = "storageclass.kubernetes.io/is-default-class"
    return any((entry["metadata"].get("annotations") or {}).get(mark) == "true" for entry in cluster.items("storageclasses"))


def ensure() -> str:
    """Makes a PersistentVolume for each claim of the story where the cluster makes none; says what it did."""
    if has_storage():
        return "the cluster's own storage"
    for claim in CLAIMS:
        name = f"{cluster.NAMESPACE}-{claim}"
        volume = cluster.get("persistentvolume", name)
        if volume and volume["status"].get("phase") in ("Released", "Failed"):
            cluster.kubectl("delete", "persistentvolume", name)
            volume = None
        if not volume:
            make_folder(FOLDER / claim)
            cluster.kubectl("apply", "-f", "-", stdin=json.dumps(persistent_volume(name, claim, FOLDER / claim)))
    return f"folders under {FOLDER}"


def make_folder(path: pathlib.Path) -> None:
    """An empty folder that pods of any user may write to."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    path.chmod(0o777)


def persistent_volume(name: str, claim: str, path: pathlib.Path) -> dict:
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": cluster.NAMESPACE, "name": claim},
            "hostPath": {"path": str(path), "type": "Directory"},
        },
    }
