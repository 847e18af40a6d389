"""Following a rollout from outside: weights that were seen, and how it ended."""

from . import cluster
from .cluster import Broken
from .story import Act, Watch, wait


class Rollout:
    """Watches a release from before a change is applied until the change has ended in its history."""

    def __init__(self, act: Act, kind: str, name: str):
        self.act, self.watch = act, Watch(kind, name)
        self.watch.read()
        self.known = len(self.watch.status.get("history") or [])
        self.newest = (self.watch.status.get("history") or [{}])[-1].get("endTime", "")
        self.stable_before = (self.watch.status.get("stable") or {}).get("revision")
        self.uid = self.watch.value["metadata"]["uid"] if self.watch.value else ""
        self.weights: list[int] = []
        self.candidate: dict = {}
        self.gates: list[dict] = []

    def read(self) -> dict | None:
        """Reads the release once; remembers weight, candidate and gates; says so when the weight moves."""
        value = self.watch.read()
        status = self.watch.status
        rollout = status.get("rollout") or {}
        if status.get("candidate"):
            self.candidate = status["candidate"]
            self.gates = rollout.get("gates") or self.gates
            weight = rollout.get("weight", 0)
            if not self.weights or self.weights[-1] != weight:
                self.weights.append(weight)
                self.act.say(f"   weight {weight} % to {self.candidate.get('version') or self.candidate['revision']}")
        return value

    def ended(self) -> dict | None:
        """The history entry that is new since the beginning, once there is one and nothing is going on."""
        self.read()
        history = self.watch.status.get("history") or []
        if not history or history[-1].get("endTime", "") == self.newest and len(history) == self.known:
            return None
        return history[-1]

    def wait_end(self, outcome: str, seconds: float) -> dict:
        """Waits until it has ended, with this outcome."""
        entry = wait(self.act, f"{self.watch.kind}/{self.watch.name} ends its rollout", seconds, self.ended, self.watch.message)
        self.act.say(f"   {entry['outcome']} ({entry['reason']}): {entry['message']}")
        if entry["outcome"] != outcome:
            raise Broken(f"The rollout of {entry.get('version') or entry['revision']} should have ended {outcome}, but it ended {entry['outcome']}: {entry['message']}")
        return entry

    def say_gates(self) -> None:
        for gate in self.gates:
            value = "-" if gate.get("value") is None else f"{gate['value']:.4g}"
            stable = "" if gate.get("stable") is None else f", stable {gate['stable']:.4g}"
            self.act.say(f"   gate {gate['metric']} ({gate['bound']}): {gate['verdict']}, value {value}{stable}, {gate.get('samples', 0)} samples")

    def stable_must_be(self, revision: str | None) -> None:
        now = (self.watch.status.get("stable") or {}).get("revision")
        if now != revision:
            raise Broken(f"Stable should still be revision {revision}, but it is {now}.")
        if not cluster.is_true(self.watch.value, "Available"):
            raise Broken(f"{self.watch.kind}/{self.watch.name} isn't Available: {cluster.condition(self.watch.value, 'Available').get('message')}")
