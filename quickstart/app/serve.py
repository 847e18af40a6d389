"""Serves the model folder with MLServer's scikit-learn runtime: the Open Inference Protocol on port 8080.

The server is MLServer as it comes from PyPI; this only gives it settings that suit a small pod with a read-only root: one
process, no metrics files, no access log.

    MODEL_DIR       the folder with model-settings.json (default /mnt/model)
    MODEL_NAME      serves under another name than the one in model-settings.json

Two more make it a server that is broken on purpose, for the story's sixth act (see broken.py):

    BREAK_ERROR_SHARE  this share of requests, 0 to 1, is answered with 500
    BREAK_DELAY_MS     each answer comes so many milliseconds later
"""

import asyncio
import logging
import os
import pathlib
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small requests: threads cost more than they give
os.environ.setdefault("HOME", "/tmp")
os.environ.setdefault("MLSERVER_METRICS_DIR", "/tmp")

from mlserver import MLServer  # noqa: E402 (the environment must be set first)
from mlserver.settings import ModelSettings, Settings  # noqa: E402


def load_model_settings(folder: pathlib.Path) -> ModelSettings:
    """The model's own description, with what the environment changes."""
    path = folder / "model-settings.json"
    if not path.is_file():
        sys.exit(f"{path} doesn't exist: the artifact isn't a model for MLServer.")
    settings = ModelSettings.parse_file(str(path))
    if name := os.environ.get("MODEL_NAME"):
        settings.name = name
    if os.environ.get("BREAK_ERROR_SHARE") or os.environ.get("BREAK_DELAY_MS"):
        settings.implementation_ = "broken.BrokenModel"
    return settings


async def serve() -> None:
    folder = pathlib.Path(os.environ.get("MODEL_DIR", "/mnt/model"))
    settings = Settings(
        debug=False,
        model_repository_root=str(folder),  # so that the repository index names the model
        host="0.0.0.0",
        http_port=int(os.environ.get("PORT", "8080")),
        grpc_port=int(os.environ.get("GRPC_PORT", "8081")),
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        load_models_at_startup=False,
    )
    model = load_model_settings(folder)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(serve())
