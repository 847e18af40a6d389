"""The gateway and other proxies in front of one server, called at fixed rates, one after the other.

Each run through a proxy stands between two runs without one, and only the difference is told: what this machine does besides is in both. Server, proxy
and caller are processes of their own, so that /proc says what the proxy costs. Ours places callers, counts and sketches inputs; the others
only pass on. Run by benches/gateway/run.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
ROUNDS = 3


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def family(pid):
    """A process and all that it started."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, open_ = [], [pid]
    while open_:
        found.append(open_.pop())
        open_ += children.get(found[-1], [])
    return found


def cpu(pids):
    """Seconds of user and system time."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory(pids):
    """Resident MiB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGESIZE") / 2**20


class Proxies:
    """What is started, and ended with the run."""

    def __init__(self, program, peers, server, folder):
        self.program, self.peers, self.server, self.folder = program, peers, server, folder
        self.started = []

    def start(self, name, command, port, **more):
        log = open(self.folder / f"{name}.log", "w")
        child = subprocess.Popen(command, stdout=more.pop("stdout", log), stderr=log, stdin=subprocess.PIPE, cwd=self.folder, **more)
        self.started.append(child)
        return child, port

    def ours(self):
        child, _ = self.start("perennial", [self.program, "gateway", self.server], 0, stdout=subprocess.PIPE, text=True)
        return child, int(child.stdout.readline().rsplit(":", 1)[1])

    def caddy(self):
        port, file = free_port(), self.folder / "Caddyfile"
        file.write_text(f"{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n reverse_proxy {self.server}\n}}\n")
        environment = {**os.environ, "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        return self.start("caddy", [self.peers / "caddy/bin/caddy", "run", "--config", file, "--adapter", "caddyfile"], port, env=environment)

    def envoy(self):
        port, file = free_port(), self.folder / "envoy.json"
        host, upstream = self.server.split(":")
        address = lambda host, port: {"socket_address": {"address": host, "port_value": int(port)}}
        manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                   "stat_prefix": "in", "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "server"}}]}]},
                   "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
        endpoint = {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host, upstream)}}]}], "cluster_name": "server"}
        file.write_text(json.dumps({"static_resources": {
            "listeners": [{"address": address("127.0.0.1", port), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
            "clusters": [{"name": "server", "type": "STATIC", "load_assignment": endpoint}]}}))
        program = next((self.peers / "envoy").glob("lib/**/_bin/envoy"))
        return self.start("envoy", [program, "-c", file, "--use-dynamic-base-id", "--log-level", "warn"], port)

    def sozu(self):
        port, file = free_port(), self.folder / "sozu.toml"
        file.write_text(f"""
command_socket = "{self.folder}/sozu.sock"
log_level = "error"
worker_count = 2
worker_automatic_restart = false
[[listeners]]
protocol = "http"
address = "127.0.0.1:{port}"
[clusters.server]
protocol = "http"
frontends = [{{ address = "127.0.0.1:{port}", hostname = "127.0.0.1" }}]
backends = [{{ address = "{self.server}" }}]
""")
        return self.start("sozu", [self.peers / "sozu/bin/sozu", "start", "-c", file], port)

    def mitmproxy(self):
        port = free_port()
        command = [self.peers / "mitmproxy/bin/mitmdump", "--quiet", "--mode", f"reverse:http://{self.server}", "--listen-host", "127.0.0.1", "--listen-port", str(port),
                   "--set", f"confdir={self.folder}", "--set", "flow_detail=0"]
        return self.start("mitmproxy", command, port)

    def end(self):
        for child in self.started:
            child.stdin.close()
            if child.args[1:2] != ["gateway"]:
                child.terminate()
        for child in self.started:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def until_served(name, child, port):
    """Whether it passes a call on within ten seconds."""
    for _ in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("POST", "/v2/models/m/infer", "{}", {"content-type": "application/json"})
            if connection.getresponse().status == 200:
                return True
        except OSError:
            pass
        except http.client.HTTPException:
            pass
        if child.poll() is not None:
            break
        time.sleep(0.1)
    return False


def load(program, address, rate, seconds, patience=60):
    done = subprocess.run([program, "load", address, str(rate), str(seconds)], check=True, capture_output=True, text=True, timeout=patience + 10 * seconds)
    return json.loads(done.stdout)


def carries(program, port):
    """Whether it answers a second of calls on the connections of the comparison, kept open."""
    try:
        return load(program, f"127.0.0.1:{port}", 200, 1, patience=5)["failed"] == 0
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return False


def measure(program, server, proxies, rate, seconds):
    """Each proxy between two runs without one; by name, what it added."""
    found = {name: [] for name in proxies}
    before = load(program, server, rate, seconds)
    for name, (child, port) in proxies.items():
        pids = family(child.pid)
        spent = cpu(pids)
        through = load(program, f"127.0.0.1:{port}", rate, seconds)
        spent = cpu(pids) - spent
        after = load(program, server, rate, seconds)
        direct = lambda key: (before[key] + after[key]) / 2
        found[name].append({
            "p50": through["p50"] - direct("p50"), "p99": through["p99"] - direct("p99"), "direct": direct("p50"), "direct99": direct("p99"),
            "cpu": 1e6 * spent / through["calls"], "failed": through["failed"], "rate": through["calls"] / through["seconds"], "memory": memory(pids)})
        before = after
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("rates", type=int, nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen([options.program, "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        address = server.stdout.readline().strip()
        all_ = Proxies(options.program, options.peers, address, pathlib.Path(folder))
        started = {}
        try:
            peers = [("perennial", all_.ours, options.program), ("sozu (Rust)", all_.sozu, options.peers / "sozu/bin/sozu"), ("Envoy (C++)", all_.envoy, options.peers / "envoy/of"),
                     ("Caddy (Go)", all_.caddy, options.peers / "caddy/of"), ("mitmproxy (Python)", all_.mitmproxy, options.peers / "mitmproxy/of")]
            for name, start, needed in peers:
                if not pathlib.Path(needed).exists():
                    print(f"{name} isn't here: not compared")
                    continue
                child, port = start()
                if not until_served(name, child, port):
                    log = next((pathlib.Path(folder).glob(f"{name.split()[0].lower()}.log")), None)
                    print(f"{name} doesn't pass calls on: not compared. {log.read_text()[-500:] if log else ''}")
                elif not carries(options.program, port):
                    print(f"{name} fails or hangs at 200 calls a second over 32 connections that stay open: not compared")
                else:
                    started[name] = (child, port)
            if "perennial" not in started:
                sys.exit("our own gateway doesn't serve")
            print(f"{options.seconds} s at each rate, {ROUNDS} times, 32 connections, each run between two without a proxy; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
            print(f"{'rate':>6} {'':<18} {'added p50 ms':>13} {'added p99 ms':>13} {'CPU µs/call':>12} {'MiB':>5} {'done/s':>7} {'failed':>7}   {'without: p50, p99 ms':>20}")
            for rate in options.rates:
                found = {name: [] for name in started}
                for _ in range(ROUNDS):
                    for name, runs in measure(options.program, address, started, rate, options.seconds).items():
                        found[name] += runs
                for name, runs in found.items():
                    middle = lambda key: statistics.median(run[key] for run in runs)
                    failed = sum(run["failed"] for run in runs)
                    print(f"{rate:>6} {name:<18} {middle('p50'):>13.3f} {middle('p99'):>13.3f} {middle('cpu'):>12.0f} {middle('memory'):>5.0f} {middle('rate'):>7.0f} {failed:>7}   {middle('direct'):>12.3f} {middle('direct99'):>7.3f}", flush=True)
        finally:
            all_.end()
            server.stdin.close()
            server.wait(10)


main()
