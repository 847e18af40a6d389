"""A model server that is broken on purpose. The story uses it to show that a bad release is rolled back.

It is MLServer's scikit-learn runtime with two faults put in front; nothing in Perennial knows of it.
"""

import asyncio
import os
import random

from mlserver.errors import MLServerError
from mlserver_sklearn import SKLearnModel


class BrokenModel(SKLearnModel):
    """Answers a share of requests with 500, and each one late."""

    async def load(self) -> bool:
        self._error_share = float(os.environ.get("BREAK_ERROR_SHARE") or 0)
        self._delay_seconds = float(os.environ.get("BREAK_DELAY_MS") or 0) / 1000
        print(f"Broken on purpose: {self._error_share:.0%} of requests fail, each takes {self._delay_seconds} s longer.", flush=True)
        return await super().load()

    async def predict(self, payload):
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        if random.random() < self._error_share:
            raise MLServerError("This server is broken on purpose.", status_code=500)
        return await super().predict(payload)
