"""1,000 rollouts at once, by Perennial and by Argo Rollouts, on one cluster, one after the other.

Pods of what is rolled out are kwok's: they become ready, and nothing runs. The API server, etcd, scheduler and controller manager
are real, and so is Perennial's gateway, as its steps wait for what gateways report. Both controllers are processes beside
the cluster, so that /proc says what each of them costs; the API server's audit log counts their requests.

Run by benches/rollouts/run, inside the cluster's network namespace.
"""

import argparse
import base64
import collections
import concurrent.futures
import http.client
import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import time

NAMESPACE = "bench"
PAUSE = 30
TICKS = os.sysconf("SC_CLK_TCK")


class Api:
    """The API server, by one connection per thread."""

    def __init__(self):
        text = subprocess.run(["kubectl", "config", "view", "--raw", "--output=json"], check=True, capture_output=True).stdout
        config = json.loads(text)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        decode = lambda data: base64.b64decode(data).decode()
        self.host, port = cluster["server"].removeprefix("https://").split(":")
        self.port = int(port)
        self.tls = ssl.create_default_context(cadata=decode(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(decode(user["client-certificate-data"]) + decode(user["client-key-data"]))
            file.flush()
            self.tls.load_cert_chain(file.name)
        self.local = threading.local()

    def connect(self, timeout=60):
        return http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=timeout)

    def call(self, method, path, body=None, kind="application/json"):
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None) or self.connect()
            self.local.connection = connection
            try:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {"Content-Type": kind, "User-Agent": "bench"})
                answer = connection.getresponse()
                text = answer.read()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                if attempt == 2:
                    raise
        if answer.status >= 400 and not (answer.status == 409 and method == "POST"):
            sys.exit(f"{method} {path}: {answer.status} {text[:500].decode()}")
        return json.loads(text)

    def apply(self, path, body):
        return self.call("PATCH", f"{path}?fieldManager=bench&force=true", body, "application/apply-patch+yaml")

    def each(self, jobs):
        """Calls, as many at a time as the two cores can use."""
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for done in concurrent.futures.as_completed([pool.submit(self.call, *job) for job in jobs]):
                done.result()


class Watch(threading.Thread):
    """Follows all objects of a kind; `seen(name, object, time)` for each change."""

    def __init__(self, api, path, seen):
        super().__init__(daemon=True)
        self.api, self.path, self.seen = api, path, seen
        self.objects = {}

    def run(self):
        connection = self.api.connect(timeout=None)
        version = self.api.call("GET", f"{self.path}?limit=1")["metadata"]["resourceVersion"]
        connection.request("GET", f"{self.path}?watch=1&allowWatchBookmarks=false&timeoutSeconds=3600&resourceVersion={version}",
                           headers={"User-Agent": "bench"})
        for line in connection.getresponse():
            now = time.monotonic()
            event = json.loads(line)
            name = event["object"]["metadata"]["name"]
            self.objects[name] = event["object"]
            self.seen(name, event["object"], now)


def cpu(pid):
    """CPU seconds of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid):
    """Present and highest resident memory of a process in MiB."""
    lines = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))


def find(program):
    """The process of this cluster with that program."""
    mine = os.stat("/proc/self/ns/net").st_ino
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.path.basename(os.readlink(entry / "exe")) == program and os.stat(entry / "ns/net").st_ino == mine:
                return int(entry.name)
        except OSError:
            continue
    sys.exit(f"{program} doesn't run")


class Audit:
    """Requests by user agent, from here on."""

    def __init__(self, path):
        self.file = open(path)
        self.file.seek(0, os.SEEK_END)

    def count(self, agent):
        verbs = collections.Counter()
        for line in self.file:
            event = json.loads(line)
            if event.get("userAgent", "").startswith(agent) and event["stage"] == "ResponseComplete":
                verbs[event["verb"]] += 1
        return verbs


def template(image):
    return {
        "metadata": {"labels": {"app": "bench"}},
        "spec": {
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "containers": [{"name": "server", "image": f"registry.example/server:{image}"}],
        },
    }


STEPS = [{"setWeight": 10}, {"pause": {"duration": f"{PAUSE}s"}}, {"setWeight": 50}, {"pause": {"duration": f"{PAUSE}s"}}]
PAUSES = (1, 3)


class Perennial:
    name, agent, path = "Perennial", "perennial/", f"/apis/perennial.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"

    @staticmethod
    def object(name, image):
        return {
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name},
            "spec": {
                "model": {"uri": "s3://models/bench", "digest": "sha256:" + "0" * 64},
                "server": {"template": template(image)},
                "rollout": {"steps": STEPS, "bake": "1s", "analysis": {"gates": [], "minRequests": 0}},
            },
        }

    @staticmethod
    def change(image):
        return [{"op": "replace", "path": "/spec/server/template/spec/containers/0/image", "value": f"registry.example/server:{image}"}]

    @staticmethod
    def step(status):
        rollout = status.get("rollout", {})
        return rollout.get("step", 0) if rollout.get("state") == "Stepping" else None

    @staticmethod
    def stable(thing):
        status = thing.get("status", {})
        current = status.get("observedGeneration") == thing["metadata"]["generation"]
        idle = status.get("rollout", {}).get("state") == "Idle" and status.get("gateway", {}).get("applied", 0) > 0
        return status.get("stable", {}).get("revision") if current and idle else None


class Argo:
    name, agent, path = "Argo Rollouts", "argo-rollouts", f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/rollouts"

    @staticmethod
    def object(name, image):
        body = template(image)
        body["metadata"]["labels"]["app"] = name
        return {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": body,
                "strategy": {"canary": {"steps": STEPS}},
            },
        }

    @staticmethod
    def change(image):
        return [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"registry.example/server:{image}"}]

    @staticmethod
    def step(status):
        return status.get("currentStepIndex")

    @staticmethod
    def stable(thing):
        status = thing.get("status", {})
        current = status.get("observedGeneration") == str(thing["metadata"]["generation"])
        done = status.get("phase") == "Healthy" and status.get("stableRS") == status.get("currentPodHash")
        return status.get("stableRS") if current and done else None


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def until(what, limit, check):
    end = time.monotonic() + limit
    while not check():
        if time.monotonic() > end:
            sys.exit(f"waited {limit} s in vain until {what}")
        time.sleep(0.1)


def measure(side, command, environment, api, audit_path, count, log):
    """One controller: everything is created, then changed at once. Returns the table's column."""
    audit = Audit(audit_path)
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    servers = [find("kube-apiserver"), find("etcd")]
    try:
        entered, lateness, finished = {}, [], {}
        before, steps = {}, {}

        def seen(name, thing, now):
            step = side.step(thing.get("status", {}))
            last = steps.get(name)
            if name in before and step != last:
                steps[name] = step
                if last in PAUSES and (name, last) in entered:
                    lateness.append(now - entered[name, last] - PAUSE)
                if step in PAUSES:
                    entered[name, step] = now
            stable = side.stable(thing)
            if stable and stable != before.get(name):
                finished.setdefault(name, now)

        watch = Watch(api, side.path, seen)
        watch.start()
        # One beforehand: what a namespace needs once (the gateway) isn't part of what each object costs.
        api.call("POST", side.path, side.object("first", 1))
        until(f"{side.name} rolled out one", 120, lambda: finished)
        finished.clear()
        idle_memory = memory(process.pid)[0]
        names = [f"r{i:04}" for i in range(count)]

        def phase(what, jobs, limit):
            costs = [cpu(process.pid), sum(map(cpu, servers))]
            start = time.monotonic()
            audit.count("")
            api.each(jobs)
            written = time.monotonic()
            until(f"{side.name} {what} {count}", limit, lambda: len(finished) == count)
            time.sleep(2)  # the audit log is written a little later
            verbs = audit.count(side.agent)
            return {
                "written": written - start,
                "all": max(finished.values()) - start,
                "each": [t - start for t in finished.values()],
                "cpu": cpu(process.pid) - costs[0],
                "servers": sum(map(cpu, servers)) - costs[1],
                "writes": sum(verbs[v] for v in ("create", "update", "patch", "delete")),
                "reads": sum(verbs[v] for v in ("get", "list")),
            }

        created = phase("created", [("POST", side.path, side.object(name, 1)) for name in names], 900)
        before.update({name: side.stable(watch.objects[name]) for name in names})
        finished.clear()
        time.sleep(10)
        quiet = cpu(process.pid)
        audit.count("")
        time.sleep(20)
        quiet, quiet_requests = cpu(process.pid) - quiet, sum(audit.count(side.agent).values())
        rolled = phase("rolled out", [("PATCH", f"{side.path}/{name}", side.change(2), "application/json-patch+json") for name in names], 1800)
        present, peak = memory(process.pid)
        return {
            "created: all ready after, s": created["all"],
            "created: controller CPU per object, ms": created["cpu"] / count * 1000,
            "created: API server + etcd CPU per object, ms": created["servers"] / count * 1000,
            "created: writes per object": created["writes"] / count,
            "at rest: CPU per minute, s": quiet * 3,
            "at rest: requests per minute": quiet_requests * 3,
            f"rolled out: all after, s (pauses: {2 * PAUSE})": rolled["all"],
            "rolled out: half of them after, s": quantile(rolled["each"], 0.5),
            "step lateness p50, s": quantile(lateness, 0.5),
            "step lateness p99, s": quantile(lateness, 0.99),
            "rolled out: controller CPU per object, ms": rolled["cpu"] / count * 1000,
            "rolled out: API server + etcd CPU per object, ms": rolled["servers"] / count * 1000,
            "rolled out: writes per object": rolled["writes"] / count,
            "rolled out: reads per object": rolled["reads"] / count,
            "memory idle, MiB": idle_memory,
            "memory with all, MiB": present,
            "memory at its highest, MiB": peak,
        }
    finally:
        process.terminate()
        process.wait(30)


def nodes(api):
    """Nodes of kwok, on which nothing else lands."""
    for i in range(10):
        room = {"cpu": "1000", "memory": "4Ti", "pods": "1000"}
        api.apply(f"/api/v1/nodes/kwok-{i}", {
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": f"kwok-{i}", "labels": {"type": "kwok"}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        })
        api.call("PATCH", f"/api/v1/nodes/kwok-{i}/status", {"status": {"allocatable": room, "capacity": room}},
                 "application/merge-patch+json")


def namespace(api):
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    until("the namespace can be used", 60, lambda: api.call(
        "GET", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts")["items"])


def forget(api, side):
    """Removes all objects with their pods, so that the next controller finds a cluster of the same size."""
    api.call("DELETE", side.path)
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods?limit=1"
    until("everything of it is gone", 600, lambda: not api.call("GET", pods)["items"])


def main():
    """Both controllers, and the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1000)
    for name in ("perennial", "image", "argo", "kwok", "stages", "audit", "log"):
        options.add_argument(f"--{name}", required=True)
    options = options.parse_args()
    kubeconfig = os.environ["KUBECONFIG"]
    api = Api()
    log = open(options.log, "w")
    namespace(api)
    kwok = subprocess.Popen([options.kwok, f"--kubeconfig={kubeconfig}", f"--config={options.stages}", "--node-lease-duration-seconds=40", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"],
                            stdout=log, stderr=log)
    columns = {}
    try:
        nodes(api)
        columns["Argo Rollouts"] = measure(Argo, [
            options.argo, "--leader-elect=false", f"--namespace={NAMESPACE}", "--namespaced", "--qps=1000", "--burst=2000",
            "--rollout-threads=10"], {}, api, options.audit, options.count, log)
        forget(api, Argo)
        columns["Perennial"] = measure(Perennial, [
            options.perennial, "operator", "--no-leader-election", f"--namespaces={NAMESPACE}", "--listen=127.0.0.1:18080",
            f"--image={options.image}"], {"POD_NAMESPACE": "default", "POD_NAME": "bench"}, api, options.audit, options.count, log)
    finally:
        kwok.terminate()
        kwok.wait(30)
    print(f"{options.count} canaries at once, steps 10 % and 50 % with pauses of {PAUSE} s; Argo Rollouts with its client limits lifted\n")
    print(f"{'':50} {'Perennial':>14} {'Argo Rollouts':>14}")
    for key in columns["Perennial"]:
        print(f"{key:50} {columns['Perennial'][key]:14.3g} {columns['Argo Rollouts'][key]:14.3g}")


if __name__ == "__main__":
    main()
