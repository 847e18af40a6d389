"""The seven acts. Each applies files and waits; what happens in between is the operator's doing."""

import json

from . import cluster, traffic, volumes
from .cluster import Broken
from .release import Rollout
from .story import Act, Story, Watch, wait

MODEL = "arrival-delay"
QUALITY = "arrival-delay-quality"
PROMPT = "support-reply"
FEATURES = 9
WINDOW = 5000
CANARY_WEIGHTS = [20, 50]


def metric(run: dict, name: str) -> float | None:
    return next((entry.get("value") for entry in run.get("metrics") or [] if entry["name"] == name), None)


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise Broken(sentence)


def wait_job(act: Act, name: str, seconds: float) -> None:
    """Waits for a batch/v1 Job of our own manifests."""
    def probe() -> bool:
        job = cluster.get("job", name)
        require(not cluster.is_true(job, "Failed"), f"Job {name} failed: {cluster.condition(job, 'Failed').get('message')}")
        return cluster.is_true(job, "Complete")
    wait(act, f"Job {name} completes", seconds, probe)


def wait_training(act: Act, name: str, seconds: float) -> dict:
    """Waits for a TrainingJob to succeed; gives its status."""
    watch = Watch("trainingjob", name)

    def probe() -> bool:
        watch.read()
        require(watch.status.get("phase") != "Failed", f"TrainingJob {name} failed: {watch.status.get('message')}")
        return watch.status.get("phase") == "Succeeded" and cluster.is_true(watch.value, "Complete")

    def message() -> str:
        progress = (watch.status.get("progress") or {}).get("summary", "") if watch.status.get("phase") == "Running" else ""
        return f"{watch.message()}{' ' if progress else ''}{progress}"

    wait(act, f"TrainingJob {name} succeeds", seconds, probe, message)
    return watch.status


def prologue(story: Story) -> None:
    act = Act(story, "0", "The data, and a prompt that already serves")
    with act.step("data sets written") as step:
        act.say(f"   volumes: {volumes.ensure()}")
        for file in ("volumes.yaml", "data.yaml", "llm.yaml"):
            cluster.apply(file)
        wait_job(act, "load-data", 180)
        lines = cluster.logs("load-data")
        for line in lines:
            act.say(f"   {line['file']}: {line['rows']} rows, {line['late']:.1%} late")
        step.result = f"{len(lines)} files"
    with act.step("prompt version 1 serves") as step:
        cluster.apply("prompt-1.yaml")
        watch = Watch("promptrelease", PROMPT)
        wait(act, "the PromptRelease is Ready", 180, lambda: cluster.is_true(watch.read(), "Ready") and watch.status.get("stable"), watch.message)
        step.result = f"{watch.status['stable'].get('version', '')[:12]}, in front of a stand-in that is no language model"


def act_1(story: Story) -> None:
    act = Act(story, "1", "A TrainingJob trains on January to March")
    with act.step("version 1 trained") as step:
        cluster.apply("training.yaml")
        act.look("get trainingjobs -w")
        status = wait_training(act, "arrival-delay-q1", 240)
        model = status.get("model") or {}
        require(str(model.get("digest", "")).startswith("sha256:"), f"The version has no digest: {model}")
        require(bool(model.get("profile")), "The version has no profile of its training data.")
        features = (model.get("signature") or {}).get("features") or []
        require(len(features) == FEATURES, f"The signature has {len(features)} features, not {FEATURES}.")
        require(bool(status.get("metrics")), "The metrics of metrics.json aren't in the status.")
        for dataset in status.get("datasets") or []:
            act.say(f"   read {dataset['uri']}: {dataset.get('rows')} rows, {dataset['digest'][:19]}…")
        act.say("   metrics: " + ", ".join(f"{entry['name']} {show(entry.get('value'))}" for entry in status["metrics"]))
        act.look(f"get configmap {model['profile']} -o jsonpath='{{.data.profile\\.json}}'")
        step.result = f"{model['version']}, {model['digest'][:19]}…"


def act_2(story: Story) -> None:
    act = Act(story, "2", "Its Evaluation passes, and the ModelDeployment serves it")
    with act.step("version 1 evaluated and serving") as step:
        cluster.apply("evaluation.yaml")
        cluster.apply("model")
        act.look("get modeldeployment,evaluation -w")
        watch = Watch("modeldeployment", MODEL)
        wait(act, "the ModelDeployment is Ready", 240, lambda: cluster.is_true(watch.read(), "Ready") and watch.status.get("stable"), watch.message)
        version = (cluster.get("trainingjob", "arrival-delay-q1") or {})["status"]["model"]["version"]
        require(watch.status["stable"].get("version") == version, f"Stable should be version {version}: {watch.status['stable']}")
        run = (cluster.get("evaluation", QUALITY) or {}).get("status", {}).get("lastRun") or {}
        require(run.get("verdict") == "Passed", f"The Evaluation's verdict should be Passed: {run.get('verdict')} {run.get('message')}")
        auc, loss, constant = metric(run, "rocAuc"), metric(run, "logLoss"), metric(run, "baseline.logLoss")
        require(auc is not None and auc >= 0.58, f"rocAuc should be at least 0.58: {auc}")
        require(constant is not None, "The constant predictor's log loss isn't reported.")
        step.result = f"rocAuc {show(auc)}, log loss {show(loss)} (constant predictor {show(constant)}), {run.get('rows')} rows"


def act_3(story: Story) -> None:
    act = Act(story, "3", "A client replays April: no alarm")
    with act.step("April") as step:
        cluster.apply("client-april.yaml")
        act.look(f"get modeldeployment {MODEL} -o jsonpath='{{.status.drift}}'")
        watch = Watch("modeldeployment", MODEL)

        def probe() -> list[dict] | None:
            watch.read()
            no_alarm(watch.status)
            drift = columns(watch.status)
            full = [column for column in drift if column.get("samples", 0) >= WINDOW and column.get("score") is not None]
            return drift if len(full) == FEATURES and len(traffic.windows("client-april")) >= 2 else None

        drift = wait(act, f"drift of {FEATURES} columns is measured over {WINDOW} rows of April", 420, probe, lambda: drift_line(watch.status))
        drifted = [column["column"] for column in drift if column.get("drifted")]
        require(not drifted, f"April shouldn't drift, but {', '.join(drifted)} did.")
        say_drift(act, drift)
        traffic.stop("client-april")
        wait_job(act, "client-april", 30)
        counts = traffic.totals("client-april")
        require(counts.get("failed") == 0, f"{counts.get('failed')} requests of April failed: {counts.get('reasons')}")
        watch.read()
        no_alarm(watch.status)
        step.result = f"0 of {FEATURES} columns drifted, {counts['rows']} rows, {counts['requests']} requests, none failed"


def no_alarm(status: dict) -> None:
    firing = (status.get("retraining") or {}).get("firing", 0)
    require(firing == 0, "April set off the trigger, and should not have.")


def columns(status: dict) -> list[dict]:
    """Drift of the inputs; what is predicted is a row of its own."""
    return [column for column in status.get("drift") or [] if not column.get("prediction")]


def drift_line(status: dict) -> str:
    drift = columns(status)
    samples = max((column.get("samples", 0) for column in drift), default=0)
    trigger = next(iter((status.get("retraining") or {}).get("triggers") or []), {})
    return f"drift {status.get('driftSummary') or '-'} over {samples} rows; trigger {trigger.get('state', '-')} {trigger.get('message', '')}" if drift else ""


def say_drift(act: Act, drift: list[dict]) -> None:
    for column in drift:
        score = "-" if column.get("score") is None else f"{column['score']:.3f}"
        act.say(f"   {column['column']:14} {score:>7} of {column['threshold']:<4} {column.get('method', ''):14} {'DRIFTED' if column.get('drifted') else ''}")


def act_4(story: Story) -> None:
    act = Act(story, "4", "June and July: three columns drift, and one TrainingJob retrains on January to June")
    watch = Watch("modeldeployment", MODEL)
    with act.step("the trigger fired") as step:
        cluster.apply("client-summer.yaml")
        act.look("get modeldeployment,trainingjob -w")
        seen: dict[str, list[dict]] = {}

        def probe() -> dict | None:
            watch.read()
            drift = columns(watch.status)
            if sum(bool(column.get("drifted")) for column in drift) == 3:
                seen["drift"] = drift
            runs = (watch.status.get("retraining") or {}).get("runs") or []
            return runs[-1] if runs and runs[-1].get("created") else None

        firing = wait(act, "the trigger makes a TrainingJob", 480, probe, lambda: drift_line(watch.status))
        drift = seen.get("drift") or []
        require(len(drift) == FEATURES, "The trigger fired, but three drifted columns of nine were never seen in the status.")
        say_drift(act, drift)
        names = sorted(column["column"] for column in drift if column["drifted"])
        require(names == ["dewp", "temp", "wind_speed"], f"dewp, temp and wind_speed should drift, but {', '.join(names)} did.")
        act.say(f"   why: {firing['message']}")
        step.result = f"3 of {FEATURES} columns: {', '.join(names)}"
    with act.step("version 2 trained") as step:
        status = wait_training(act, firing["job"], 240)
        made = [job["metadata"]["name"] for job in cluster.items("trainingjobs") if "perennial.dev/firing" in (job["metadata"].get("annotations") or {})]
        require(made == [firing["job"]], f"One firing should make one TrainingJob, not {made}.")
        inputs = status.get("datasets") or [{}]
        step.result = f"{status['model']['version']} by {firing['job']} on {inputs[0].get('uri', '')}"


def act_5(story: Story) -> None:
    act = Act(story, "5", "Version 2 passes its gates, goes through the canary under live traffic, and is promoted")
    with act.step("version 2 promoted") as step:
        watch = Watch("modeldeployment", MODEL)
        watch.read()
        job = ((watch.status.get("retraining") or {}).get("runs") or [{}])[-1].get("job", "")
        version = (cluster.get("trainingjob", job) or {})["status"]["model"]["version"]
        rollout = Rollout(act, "modeldeployment", MODEL)
        rollout.known, rollout.newest = promoted_before(rollout, version)
        entry = rollout.wait_end("Promoted", 420)
        require(entry.get("version") == version, f"Version {version} should have been promoted, but {entry.get('version')} was.")
        rollout.say_gates()
        missed = [weight for weight in CANARY_WEIGHTS if weight not in rollout.weights]
        require(not missed, f"The canary should have gone through {CANARY_WEIGHTS} %, but only {rollout.weights} were seen.")
        wait(act, "the bake ends", 180, lambda: rollout.read() and (watch.read() or True) and watch.status["rollout"]["state"] == "Idle"
             and cluster.is_true(watch.value, "Ready"), watch.message)
        require(watch.status["stable"].get("version") == version, f"Stable should be {version}: {watch.status['stable']}")
        counts = traffic.totals("client-summer")
        require(counts.get("failed") == 0, f"{counts.get('failed')} requests failed during the canary: {counts.get('reasons')}")
        step.result = f"{version}, weights {rollout.weights}, {counts['requests']} requests, none failed"
    with act.step("both versions scored on 16 to 31 July") as step:
        cluster.apply("score.yaml")
        wait_job(act, "score", 180)
        result = cluster.logs("score")[-1]
        say_score(act, result)
        gap = result["difference"]
        require(gap["logLoss"]["interval"][1] < 0 and gap["rocAuc"]["interval"][0] > 0, f"Version 2 isn't clearly better: {json.dumps(gap)}")
        step.result = ", ".join(f"{name} {gap[name]['value']:+.3f}" for name in ("logLoss", "rocAuc", "accuracy"))


def promoted_before(rollout: Rollout, version: str) -> tuple[int, str]:
    """The history before this version's rollout: it may have ended while we looked elsewhere."""
    history = [entry for entry in rollout.watch.status.get("history") or [] if entry.get("version") != version]
    return len(history), (history or [{}])[-1].get("endTime", "")


def say_score(act: Act, result: dict) -> None:
    act.say(f"   {result['rows']} rows that nothing has seen, 95 % intervals from {result['draws']} draws of {result['days']} days")
    names = ["logLoss", "rocAuc", "accuracy"]
    act.say(f"   {'':24}" + "".join(f"{name:^26}" for name in names))
    for who, values in [*result["models"].items(), ("last minus first", result["difference"])]:
        cells = (f"{values[name]['value']:.3f} [{values[name]['interval'][0]:.3f}, {values[name]['interval'][1]:.3f}]" for name in names)
        act.say(f"   {who:24}" + "".join(f"{cell:^26}" for cell in cells))


def act_6(story: Story) -> None:
    act = Act(story, "6", "What must not get through: a model that knows nothing, a server that fails, a slow one")
    with act.step("shuffled labels refused") as step:
        rollout = Rollout(act, "modeldeployment", MODEL)
        cluster.apply("shuffled-labels.yaml")
        version = wait_training(act, "arrival-delay-shuffled", 240)["model"]["version"]
        entry = rollout.wait_end("RolledBack", 240)
        require(entry.get("version") == version, f"Version {version} should have been refused, but {entry.get('version')} was.")
        require(max(rollout.weights, default=0) == 0, f"It should have got no traffic, but was seen at weight {max(rollout.weights)}.")
        rollout.stable_must_be(rollout.stable_before)
        runs = (cluster.get("evaluation", QUALITY) or {})["status"].get("runs") or []
        run = next((run for run in reversed(runs) if run.get("revision") == entry["revision"]), {})
        failed = [gate["metric"] for gate in run.get("gates") or [] if gate["verdict"] == "Failed"]
        require("rocAuc" in failed, f"rocAuc should have refused it; failed gates: {failed or 'none'}.")
        step.result = (f"rocAuc {show(metric(run, 'rocAuc'))} is below 0.58, though accuracy {show(metric(run, 'accuracy'))} "
                       f"is what calling every flight punctual gets ({show(metric(run, 'baseline.accuracy'))})")
    with act.step("a failing server rolled back") as step:
        step.result, accounted = bad_server(act, "failing-server", "errorRate", may_fail=True)
    with act.step("a slow server rolled back") as step:
        step.result, _ = bad_server(act, "slow-server", "latencyP95", may_fail=False)
    with act.step("the good spec again") as step:
        cluster.apply("model")
        watch = Watch("modeldeployment", MODEL)
        wait(act, "the ModelDeployment is Ready with the good spec", 120,
             lambda: cluster.observed(watch.read()) and cluster.is_true(watch.value, "Ready"), watch.message)
        traffic.stop("client-summer")
        wait_job(act, "client-summer", 30)
        counts = traffic.totals("client-summer")
        require(counts["failed"] == accounted, f"{counts['failed']} requests failed since June began, but the failing server accounts for {accounted}.")
        step.result = f"stable never stopped: {counts['requests']} requests in {counts['seconds']:.0f} s, {accounted} failed, all of the failing server's canary"


def bad_server(act: Act, folder: str, gate: str, may_fail: bool) -> tuple[str, int]:
    """Applies a bad release under live traffic and waits until its gate has taken it back; gives the sentence and the failures."""
    rollout = Rollout(act, "modeldeployment", MODEL)
    before = traffic.totals("client-summer")
    cluster.apply(folder)
    act.look(f"get modeldeployment {MODEL} -o jsonpath='{{.status.rollout.gates}}'")
    entry = rollout.wait_end("RolledBack", 300)
    rollout.say_gates()
    require(gate in entry["message"], f"{gate} should have taken it back, but: {entry['message']}")
    rollout.stable_must_be(rollout.stable_before)
    require(entry["revision"] in [item["revision"] for item in rollout.watch.status.get("rejectedRevisions") or []],
            f"Revision {entry['revision']} isn't in rejectedRevisions.")
    seen = traffic.since(before, settled(act, "client-summer"))
    sentence = traffic.only_exposed_failed(seen, rollout.uid, entry["revision"], max(rollout.weights, default=0))
    require(may_fail or seen["failed"] == 0, f"A slow server shouldn't fail, but {sentence}.")
    require(not may_fail or seen["failed"] > 0, "A failing server should have been seen to fail by somebody.")
    return f"{gate} at weight {max(rollout.weights, default=0)} %; {sentence if may_fail else 'no request failed'}", seen["failed"]


def settled(act: Act, job: str) -> dict:
    """A client's counts, once it has printed some after this moment."""
    start = traffic.totals(job).get("time", 0)

    def probe() -> dict | None:
        counts = traffic.totals(job)
        return counts if counts.get("time", 0) > start else None

    return wait(act, f"Job {job} reports again", 20, probe)


def act_7(story: Story) -> None:
    act = Act(story, "7", "A prompt that breaks the model call is rolled back; its correction is promoted")
    with act.step("prompt version 2 rolled back") as step:
        cluster.apply("chat.yaml")
        rollout = Rollout(act, "promptrelease", PROMPT)
        wait(act, "the chat client asks", 60, lambda: traffic.totals("chat").get("requests", 0) > 0)
        before = traffic.totals("chat")
        require(before["failed"] == 0, f"Version 1 already fails: {before['reasons']}")
        cluster.apply("prompt-2.yaml")
        act.look("get promptrelease -w")
        entry = rollout.wait_end("RolledBack", 300)
        rollout.say_gates()
        require("errorRate" in entry["message"], f"errorRate should have taken it back, but: {entry['message']}")
        rollout.stable_must_be(rollout.stable_before)
        seen = traffic.since(before, settled(act, "chat"))
        require(seen["failed"] > 0, "Version 2 should have been seen to fail by somebody.")
        step.result = traffic.only_exposed_failed(seen, rollout.uid, entry["revision"], max(rollout.weights, default=0))
    with act.step("prompt version 3 promoted") as step:
        rollout = Rollout(act, "promptrelease", PROMPT)
        before = settled(act, "chat")
        cluster.apply("prompt-3.yaml")
        entry = rollout.wait_end("Promoted", 420)
        wait(act, "the bake ends", 180, lambda: rollout.read() and rollout.watch.status["rollout"]["state"] == "Idle"
             and cluster.is_true(rollout.watch.value, "Ready"), rollout.watch.message)
        seen = traffic.since(before, settled(act, "chat"))
        require(seen["failed"] == 0, f"{seen['failed']} requests failed while version 3 was rolled out.")
        outcomes = [item["outcome"] for item in rollout.watch.status.get("history") or []][-2:]
        require(outcomes == ["RolledBack", "Promoted"], f"The history should end RolledBack, Promoted: {outcomes}")
        traffic.stop("chat")
        wait_job(act, "chat", 30)
        step.result = f"{str(entry.get('version'))[:12]}, weights {rollout.weights}, {seen['requests']} requests, none failed"
