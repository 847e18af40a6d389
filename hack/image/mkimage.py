#!/usr/bin/env python3
"""Writes images in the OCI format, without a container engine.

    mkimage.py layer OUT.tar FOLDER [--at /PATH]      the folder's content as one layer, owned by root
    mkimage.py image OUT.tar --name NAME:TAG --layer LAYER.tar … [--env K=V] [--workdir D] [--user U] [-- ENTRYPOINT…]

The result is what `ctr images import`, `kind load image-archive`, `k3d image import` and `podman load` read. Layers are not
compressed: the image goes no further than this machine, and unpacking is what costs.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write_layer(out: str, folder: str, at: str) -> None:
    """Owner and times are the same on every machine; so is the order. That makes the digest one of the content."""

    def clean(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    with tarfile.open(out + ".part", mode="w", format=tarfile.PAX_FORMAT) as tar:
        parents = at.strip("/").split("/") if at.strip("/") else []
        for depth in range(len(parents)):
            entry = tarfile.TarInfo("/".join(parents[: depth + 1]))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in sorted(os.listdir(folder)):
            tar.add(os.path.join(folder, name), arcname="/".join([*parents, name]), filter=clean)
    os.replace(out + ".part", out)


def digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_image(options: argparse.Namespace) -> None:
    files = {}  # digest → path of a layer
    texts = {}  # digest → bytes of a document

    def layer(path: str) -> dict:
        digest = digest_of(path)
        files[digest] = path
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + digest, "size": os.path.getsize(path)}

    def document(value: dict, kind: str) -> dict:
        data = json.dumps(value, sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest()
        texts[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": "sha256:" + digest, "size": len(data)}

    layers = [layer(path) for path in options.layer]
    config = document(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": [PATH, *options.env],
                "WorkingDir": options.workdir,
                **({"User": options.user} if options.user else {}),
                **({"Entrypoint": options.entrypoint} if options.entrypoint else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [entry["digest"] for entry in layers]},
        },
        "config",
    )
    manifest = document(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers},
        "manifest",
    )
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **manifest,
                "platform": {"architecture": ARCHITECTURE, "os": "linux"},
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1]},
            }
            for name in options.name
        ],
    }
    with tarfile.open(options.out + ".part", "w") as tar:

        def put(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))

        put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        put("index.json", json.dumps(index, sort_keys=True).encode())
        for digest, data in texts.items():
            put("blobs/sha256/" + digest, data)
        for digest, path in files.items():
            entry = tarfile.TarInfo("blobs/sha256/" + digest)
            entry.size, entry.mode = os.path.getsize(path), 0o644
            with open(path, "rb") as file:
                tar.addfile(entry, file)
    os.replace(options.out + ".part", options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    layer = commands.add_parser("layer")
    layer.add_argument("out")
    layer.add_argument("folder")
    layer.add_argument("--at", default="/", help="where in the image the folder's content goes")
    image = commands.add_parser("image")
    image.add_argument("out")
    image.add_argument("--name", action="append", required=True, help="full name with tag; several give one image several names")
    image.add_argument("--layer", action="append", required=True, metavar="LAYER.tar", help="lowest first")
    image.add_argument("--env", action="append", default=[], metavar="K=V")
    image.add_argument("--workdir", default="/")
    image.add_argument("--user", help="UID of the process (default: root)")
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    options.entrypoint = arguments[split + 1 :]
    if options.command == "layer":
        write_layer(options.out, options.folder, options.at)
    else:
        write_image(options)


if __name__ == "__main__":
    main()
