"""A model server that is broken on purpose. The story uses it to show that a bad release is rolled back.

It is MLServer's scikit-learn runtime with two faults put in front; nothing in Perennial knows of it. The faults hit only
requests that name their caller (header x-perennial-key), so that its Evaluation, which names none, passes: some faults show
under live traffic alone, and only the gates of the rollout can stop those.
"""

import asyncio
import os
import random

from mlserver.errors import MLServerError
from mlserver_sklearn import SKLearnModel

CALLER_HEADER = "x-perennial-key"


class BrokenModel(SKLearnModel):
    """Answers a share of its callers' requests with 500, and each of them late."""

    async def load(self) -> bool:
        self._error_share = float(os.environ.get("BREAK_ERROR_SHARE") or 0)
        self._delay_seconds = float(os.environ.get("BREAK_DELAY_MS") or 0) / 1000
        print(f"Broken on purpose: {self._error_share:.0%} of callers' requests fail, each takes {self._delay_seconds} s longer.", flush=True)
        return await super().load()

    async def predict(self, payload):
        headers = getattr(payload.parameters, "headers", None) or {}
        if CALLER_HEADER in {name.lower() for name in headers}:
            await asyncio.sleep(self._delay_seconds)
            if random.random() < self._error_share:
                raise MLServerError("This server is broken on purpose.", status_code=500)
        return await super().predict(payload)
