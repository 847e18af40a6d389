"""Replays a Parquet file through a model's endpoint as live traffic, and counts what came back, caller by caller.

Requests are those of the Open Inference Protocol, with columns by name; the label isn't sent. Some hundred callers take
turns, each with a key of its own, over a few connections that stay open. Rows come in a seeded shuffle, again and again. A
request that fails is counted, never retried. One JSON object per line on stdout: `window` after so many rows, `progress`
every few seconds (all counts since the start), `summary` at the end.

It ends after --rows, after --seconds, when the file --until exists, or at SIGTERM.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import random
import signal
import sys
import time

import aiohttp
import pyarrow.parquet as pq

FEATURES = ["sched_dep_min", "distance", "carrier", "origin", "dest", "dow", "temp", "dewp", "wind_speed"]
DATATYPES = {"string": "BYTES", "large_string": "BYTES", "int64": "INT64", "double": "FP64", "bool": "BOOL"}
CALLER_HEADER = "x-perennial-key"
VERSION_HEADER = "x-perennial-version"


class Traffic:
    """The rows of the file as request bodies, in a seeded order that never ends."""

    def __init__(self, path: pathlib.Path, rows_per_request: int, seed: int):
        table = pq.read_table(path, columns=FEATURES)
        self._columns = [(name, DATATYPES[str(table.schema.field(name).type)], table[name].to_pylist()) for name in FEATURES]
        self._size = table.num_rows
        self._rows_per_request = rows_per_request
        self._random = random.Random(seed)
        self._order: list[int] = []

    def next_body(self, caller: str) -> bytes:
        """The next rows; in this protocol a body doesn't name its caller."""
        del caller
        if len(self._order) < self._rows_per_request:
            self._order = self._random.sample(range(self._size), self._size)
        count = min(self._rows_per_request, len(self._order))
        rows = [self._order.pop() for _ in range(count)]
        inputs = [{"name": name, "datatype": datatype, "shape": [count, 1], "data": [values[row] for row in rows]}
                  for name, datatype, values in self._columns]
        return json.dumps({"inputs": inputs}).encode()


class Tally:
    """Counts since the start, and since the last window."""

    def __init__(self) -> None:
        self.started = time.time()
        self.requests = self.failed = self.rows = 0
        self.reasons: collections.Counter[str] = collections.Counter()
        self.failed_by_caller: collections.Counter[str] = collections.Counter()
        self.by_version: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.version_of_caller: dict[str, str] = {}
        self.millis: list[float] = []

    def add(self, caller: str, version: str, rows: int, millis: float, failure: str | None) -> None:
        self.requests += 1
        self.rows += rows
        self.millis.append(millis)
        self.by_version[version]["requests"] += 1
        if version:
            self.version_of_caller[caller] = version
        if failure:
            self.failed += 1
            self.reasons[failure] += 1
            self.failed_by_caller[caller] += 1
            self.by_version[version]["failed"] += 1

    def totals(self) -> dict:
        return {
            "seconds": round(time.time() - self.started, 1), "requests": self.requests, "rows": self.rows, "failed": self.failed,
            "reasons": dict(self.reasons), "byVersion": {version: dict(count) for version, count in self.by_version.items()},
            "callersByVersion": dict(collections.Counter(self.version_of_caller.values())),
            "failedByCaller": dict(self.failed_by_caller),
        }

    def latency(self) -> dict:
        """Median and 95th percentile since the last call, in milliseconds."""
        ordered, self.millis = sorted(self.millis), []
        if not ordered:
            return {}
        return {"p50Ms": round(ordered[len(ordered) // 2], 1), "p95Ms": round(ordered[int(len(ordered) * 0.95)], 1)}


def say(event: str, **fields) -> None:
    print(json.dumps({"event": event, "time": round(time.time(), 3), **fields}), flush=True)


async def send(session: aiohttp.ClientSession, url: str, caller: str, body: bytes) -> tuple[str, str | None]:
    """One request: the version that answered, and why it failed, if it did."""
    headers = {CALLER_HEADER: caller, "content-type": "application/json"}
    try:
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()
            version = response.headers.get(VERSION_HEADER, "")
            return version, None if response.status == 200 else str(response.status)
    except asyncio.TimeoutError:
        return "", "timeout"
    except aiohttp.ClientError as error:
        return "", type(error).__name__


async def replay(options: argparse.Namespace, url: str, traffic) -> Tally:
    """Sends what `traffic` gives until it is told to end. Anything with `next_body(caller)` is traffic."""
    callers = [f"caller-{number:04}" for number in range(options.callers)]
    random.Random(options.seed).shuffle(callers)
    tally, stop, sent = Tally(), asyncio.Event(), 0
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    gap = options.rows_per_request / options.rate
    began = loop.time()
    window, window_began, failed_before = 0, began, 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal sent, window, window_began, failed_before
        while not stop.is_set():
            if options.rows and sent * options.rows_per_request >= options.rows:
                return
            turn, sent = sent, sent + 1
            wait = began + turn * gap - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            caller = callers[turn % len(callers)]
            start = loop.time()
            version, failure = await send(session, url, caller, traffic.next_body(caller))
            tally.add(caller, version, options.rows_per_request, (loop.time() - start) * 1000, failure)
            if tally.rows >= (window + 1) * options.window:
                now = loop.time()
                say("window", source=options.source, window=window, rows=options.window, seconds=round(now - window_began, 1),
                    failed=tally.failed - failed_before, **tally.latency())
                window, window_began, failed_before = window + 1, now, tally.failed

    async def watch() -> None:
        while not stop.is_set():
            if options.seconds and loop.time() - began >= options.seconds or options.until and options.until.exists():
                stop.set()
                return
            say("progress", **tally.totals())
            try:
                await asyncio.wait_for(stop.wait(), options.report)
            except asyncio.TimeoutError:
                pass

    connector = aiohttp.TCPConnector(limit=options.concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=options.timeout)) as session:
        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(work(session) for _ in range(options.concurrency)))
        stop.set()
        await watcher
    return tally


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every kind of traffic has."""
    parser.add_argument("--url", required=True)
    parser.add_argument("--callers", type=int, default=400)
    parser.add_argument("--rows-per-request", type=int, default=10)
    parser.add_argument("--rate", type=float, default=300, help="rows per second to aim at")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--window", type=int, default=5000, help="rows between two `window` lines")
    parser.add_argument("--rows", type=int, default=0, help="end after so many rows")
    parser.add_argument("--seconds", type=float, default=0, help="end after so long")
    parser.add_argument("--until", type=pathlib.Path, help="end when this file exists")
    parser.add_argument("--timeout", type=float, default=10, help="seconds until a request counts as failed")
    parser.add_argument("--report", type=float, default=2, help="seconds between `progress` lines")
    parser.add_argument("--seed", type=int, default=2013)


def run(options: argparse.Namespace, url: str, traffic) -> None:
    tally = asyncio.run(replay(options, url, traffic))
    say("summary", source=options.source, **tally.totals())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--model", default="arrival-delay")
    add_options(parser)
    options = parser.parse_args()
    if not options.file.is_file():
        sys.exit(f"{options.file} doesn't exist.")
    options.source = options.file.name
    traffic = Traffic(options.file, options.rows_per_request, options.seed)
    run(options, f"{options.url.rstrip('/')}/v2/models/{options.model}/infer", traffic)


if __name__ == "__main__":
    main()
