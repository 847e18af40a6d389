"""Telling: what is printed, waits with deadlines, and the table at the end."""

import threading
import time
from typing import Callable, TypeVar

from . import cluster
from .cluster import Broken

T = TypeVar("T")
GOAL = 12 * 60  # seconds for the whole story on two idle processors, with everything built
_print_lock = threading.Lock()


class Story:
    """The acts so far, and the clock."""

    def __init__(self) -> None:
        self.began = cluster.now()
        self.rows: list[tuple[str, str, float, bool]] = []

    def elapsed(self) -> str:
        seconds = int(cluster.now() - self.began)
        return f"{seconds // 60:2}:{seconds % 60:02}"

    def print(self, text: str = "") -> None:
        with _print_lock:
            print(text, flush=True)

    def table(self) -> None:
        width = max((len(what) for _, what, _, _ in self.rows), default=10)
        self.print(f"\n{'':4}{'what happened':{width}}  {'took':>7}")
        for act, what, seconds, good in sorted(self.rows, key=lambda row: row[0]):
            self.print(f"{act:>2}  {what:{width}}  {seconds:6.1f}s{'' if good else '  <- broke'}")
        took = cluster.now() - self.began
        self.print(f"{'':4}{'all of it':{width}}  {took:6.1f}s")
        if took > GOAL:
            self.print(f"It should take less than {GOAL // 60} minutes; something else kept this machine busy, or it is slow.")


class Act:
    """One act: its number is before each line, its promises are rows of the table."""

    def __init__(self, story: Story, number: str, title: str):
        self.story, self.number = story, number
        story.print(f"\n[{story.elapsed()}] {number}. {title}")

    def say(self, text: str) -> None:
        self.story.print(f"[{self.story.elapsed()}] {self.number}|   {text}")

    def look(self, command: str) -> None:
        """What to type to see it oneself."""
        self.say(f"      look: {cluster.typed()} -n {cluster.NAMESPACE} {command}")

    def step(self, name: str) -> "Step":
        return Step(self, name)


class Step:
    """A promise and how long it took: a row of the table, broken or not. `result` adds what came out."""

    def __init__(self, act: Act, name: str):
        self.act, self.name, self.result = act, name, ""

    def __enter__(self) -> "Step":
        self.began = cluster.now()
        return self

    def __exit__(self, kind, error, trace) -> None:
        text = f"{self.name}: {self.result}" if self.result else self.name
        self.act.story.rows.append((self.act.number, text, cluster.now() - self.began, kind is None))
        if kind is None:
            self.act.say(f"=> {text}")


# The waits are what two idle processors need and some more; a machine that does other things may be so many times slower.
PATIENCE = 3


def wait(act: Act, what: str, seconds: float, probe: Callable[[], T | None], message: Callable[[], str] | None = None) -> T:
    """Asks once a second until the probe gives something; says what `message` says whenever that changes."""
    seconds *= PATIENCE
    deadline = cluster.now() + seconds
    last = ""
    while True:
        value = probe()
        said = message() if message else ""
        if said and said != last:
            act.say(f"   {said}")
            last = said
        if value:
            return value
        if cluster.now() > deadline:
            raise Broken(f"Waited {seconds:.0f} s for this, and it didn't happen: {what}." + (f" Last word: {last}" if last else ""))
        time.sleep(1)


class Watch:
    """An object that is read again and again; `.value` is the last reading."""

    def __init__(self, kind: str, name: str):
        self.kind, self.name, self.value = kind, name, None

    def read(self) -> dict | None:
        self.value = cluster.get(self.kind, self.name)
        return self.value

    @property
    def status(self) -> dict:
        return (self.value or {}).get("status") or {}

    def message(self) -> str:
        """Phase and sentence, as the object tells them."""
        phase, sentence = self.status.get("phase") or self.status.get("verdict") or "", self.status.get("message", "")
        return f"{self.kind}/{self.name}: {phase}{' - ' if phase and sentence else ''}{sentence}" if phase or sentence else ""
