//! Every rule of the CRDs, with an object that breaks it and the message that its author reads.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Place, on_cluster};

/// Kind, where the least object is changed (JSON pointer), to what, and what the refusal must say.
type Row = (&'static str, &'static str, Value, &'static str);

const PROMPT: &str = "PromptRelease";
const MODEL: &str = "ModelDeployment";
const TRAINING: &str = "TrainingJob";
const EVALUATION: &str = "Evaluation";

fn rows() -> Vec<Row> {
    let container = |name: &str| json!({"name": name, "image": "x", "command": ["c"]});
    let retraining = |more: Value| {
        let mut all = json!({"from": "j", "promotion": "Manual"});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let recipe = |more: Value| {
        let mut spec = json!({"model": {"name": "m", "output": "s3://b/m"}, "template": {"spec": {"containers": [container("trainer")]}}});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"template": {"spec": spec}, "promotion": "Manual"})
    };
    let dataset = |check: Value| json!([{"name": "d", "uri": "s3://b/d", "checks": [check]}]);
    let long = |n: usize| json!("a".repeat(n));
    let gate =
        "a gate needs a bound: write min, max, minDifference, maxDifference, minRatio or maxRatio";
    let empty = "min is above max: no value could pass";
    let copies = "gates on mirrorErrorRate, mirrorLatency…, mirrorAgreement and mirrorDifference look at copies: write a step setMirror";
    let compares =
        "mirrorAgreement and mirrorDifference compare with stable already: write min or max";
    let step =
        "a step is one thing: write one of setWeight, setMirror, pause, evaluate and approval";
    let falls =
        "steps: weights must not fall from one setWeight to the next; to take traffic back, abort";
    let check = "a check is about `rows` or about a `column`: write one of them";
    let column = "a check of a column needs type, maxNullFraction, range, oneOf or unique";
    let parameter = "parameters: a name becomes part of an environment name: letters, digits and _, at most 63, not beginning with a digit";
    let trainer = "template: name the container that trains `trainer`, or have only one container";
    let command = "template: the container that trains must say its command (the image's own entry point can't be wrapped)";
    let name40 = "metadata.name must be a DNS-1035 label of at most 40 characters: lower-case letters, digits and -, beginning with a letter";
    let name52 = "metadata.name must be a DNS-1035 label of at most 52 characters: lower-case letters, digits and -, beginning with a letter";
    let sticky = "a sticky key is in one place: write header, cookie or field";
    let pending =
        "limits: pending are those that wait when there are too many; write concurrent too";
    let one_target = "target is one thing: write modelDeployment, promptRelease, trainingJob, endpoint or predictions";
    let spares = "stopWhen spares answers that cost: write target.promptRelease or an endpoint of protocol OpenAI, gates to decide, and no dataset.time, as rows of a day resemble each other";
    let copied = "mirrored: requests are copied to the candidate of a release: write target.modelDeployment or promptRelease, and not the revision Stable";
    let asked = "mirrored: callers' requests are what is measured, with stable's answers beside the candidate's, while a rollout copies them: take out dataset, reference, baseline, sampling, stopWhen and schedule";
    let keyed = "datasets: key says which row is which of those that a model learns from: write label or features, too";
    let twice = "evaluators: two of a kind would give the same metrics: keep one classification, calibration, featureImportance, retrieval, drift, jsonSchema and one text with a pattern";
    let variables = "dataset has the prompt's variables as columns of their names: write its uri, and reference for the column that answers are compared with; label and features are for models";
    let contained = |more: Value, container: Value| {
        let mut one = json!({"name": "e", "image": "x", "command": ["c"]});
        one.as_object_mut()
            .unwrap()
            .extend(container.as_object().unwrap().clone());
        let mut all = json!({"template": {"spec": {"containers": [one]}}, "results": {"path": "r.json", "format": "Json"}});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"container": all})
    };
    let of_prompt = |more: Value, evaluators: Value| {
        let mut dataset = json!({"uri": "s3://b/d"});
        dataset
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"target": {"promptRelease": {"name": "p"}}, "dataset": dataset, "evaluators": evaluators})
    };
    let judged = |more: Value| {
        let mut judge =
            json!({"name": "tone", "backend": {"url": "http://judge/v1", "model": "j"}});
        judge
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        of_prompt(json!({}), json!([{"judge": judge}]))
    };
    let two_places = || json!({"sticky": [{"header": "a", "cookie": "b"}]});
    let only_pending = || json!({"limits": {"pending": 1}});
    let proxies = |text: &str| json!({"trustedProxies": ["10.0.0.0/8", text]});
    let networks = "trustedProxies: write networks such as 10.0.0.0/8, or addresses";
    vec![
        // Traffic
        (MODEL, "/spec/traffic", two_places(), sticky),
        (PROMPT, "/spec/traffic", two_places(), sticky),
        (MODEL, "/spec/traffic", only_pending(), pending),
        (PROMPT, "/spec/traffic", only_pending(), pending),
        (MODEL, "/spec/traffic", proxies("10.0.0.0/33"), networks),
        (MODEL, "/spec/traffic", proxies("proxy.example"), networks),
        // Names, from which names of children are made.
        (TRAINING, "/metadata/name", long(53), name52),
        (TRAINING, "/metadata/name", json!("1st"), name52),
        (MODEL, "/metadata/name", long(41), name40),
        (MODEL, "/metadata/name", json!("a.b"), name40),
        (EVALUATION, "/metadata/name", long(41), name40),
        (PROMPT, "/metadata/name", long(41), name40),
        // TrainingJob
        (
            TRAINING,
            "/spec/template/spec/containers",
            json!([container("a"), container("b")]),
            trainer,
        ),
        (
            TRAINING,
            "/spec/datasets",
            json!([{"name": "d", "uri": "s3://b/d", "key": ["id"]}]),
            keyed,
        ),
        (
            TRAINING,
            "/spec/template/spec/containers",
            json!([{"name": "trainer", "image": "x"}]),
            command,
        ),
        (
            TRAINING,
            "/spec/template/spec/containers",
            json!([{"name": "trainer", "image": "x", "command": []}]),
            command,
        ),
        (
            TRAINING,
            "/spec/template/spec/containers",
            json!([{"name": "trainer", "image": "x"}, container("b")]),
            command,
        ),
        (
            TRAINING,
            "/spec/template/spec/containers",
            json!([]),
            "spec.template.spec.containers in body should have at least 1 items",
        ),
        (
            TRAINING,
            "/spec/template/spec/containers",
            json!([container("a"), container("a")]),
            "spec.template.spec.containers[1]: Duplicate value",
        ),
        (TRAINING, "/spec/parameters", json!({"1a": "x"}), parameter),
        (
            TRAINING,
            "/spec/parameters",
            json!({"learning-rate": "x"}),
            parameter,
        ),
        (TRAINING, "/spec/datasets", dataset(json!({})), check),
        (
            TRAINING,
            "/spec/datasets",
            dataset(json!({"rows": {"min": 1}, "column": "a", "unique": true})),
            check,
        ),
        (
            TRAINING,
            "/spec/datasets",
            dataset(json!({"column": "a"})),
            column,
        ),
        (
            TRAINING,
            "/spec/datasets",
            json!([{"name": "d", "uri": "s3://b/d"}, {"name": "d", "uri": "s3://b/e"}]),
            "spec.datasets[1]: Duplicate value",
        ),
        (
            TRAINING,
            "/spec/datasets",
            json!([{"name": "d", "uri": "/data/d"}]),
            "spec.datasets[0].uri in body should match '^(s3|gs|az|https?|pvc)://[^/]+(/.*)?$'",
        ),
        (
            TRAINING,
            "/spec/datasets",
            json!([{"name": "d", "uri": "s3://b/d", "digest": "md5:1"}]),
            "spec.datasets[0].digest in body should match '^sha256:[0-9a-f]{64}$'",
        ),
        (
            TRAINING,
            "/spec/model/output",
            json!("https://b/d"),
            "spec.model.output in body should match '^(s3|gs|az|pvc)://[^/]+(/.*)?$'",
        ),
        (
            TRAINING,
            "/spec/model/name",
            json!("Big"),
            "spec.model.name in body should match",
        ),
        (
            TRAINING,
            "/spec/failurePolicy",
            json!({"maxRestarts": -1}),
            "spec.failurePolicy.maxRestarts in body should be greater than or equal to 0",
        ),
        (
            TRAINING,
            "/spec/progress",
            json!({"stallTimeout": "5 minutes"}),
            "spec.progress.stallTimeout in body should match '^([0-9]+(ms|s|m|h|d))+$'",
        ),
        (
            TRAINING,
            "/spec/publish",
            json!("Maybe"),
            "spec.publish: Unsupported value: \"Maybe\": supported values: \"Candidate\", \"None\"",
        ),
        (
            TRAINING,
            "/spec/nodes",
            json!(2),
            "unknown field \"spec.nodes\"",
        ),
        // ModelDeployment
        (
            MODEL,
            "/spec/server/template/spec/containers",
            json!([container("a"), container("b")]),
            "server.template: name the container that serves `server`, or have only one container",
        ),
        (
            MODEL,
            "/spec/model",
            json!({}),
            "model: write name (to follow a model, with version to pin one) or uri (an artifact from elsewhere), not both",
        ),
        (
            MODEL,
            "/spec/model",
            json!({"name": "m", "uri": "s3://b/m"}),
            "model: write name (to follow a model, with version to pin one) or uri (an artifact from elsewhere), not both",
        ),
        (
            MODEL,
            "/spec/model",
            json!({"uri": "s3://b/m", "version": "v"}),
            "model: version and selector go with name; a uri is pinned with digest",
        ),
        (
            MODEL,
            "/spec/model",
            json!({"name": "m", "digest": format!("sha256:{}", "0".repeat(64))}),
            "model: digest goes with uri; a version has its own digest",
        ),
        (
            MODEL,
            "/spec/replicas",
            json!(-1),
            "spec.replicas in body should be greater than or equal to 0",
        ),
        (
            MODEL,
            "/spec",
            json!({"server": {"template": {"spec": {"containers": [container("server")]}}}, "replicas": 2, "autoscaling": {"maxReplicas": 3}}),
            "replicas and autoscaling exclude each other: leave out replicas, an autoscaler decides",
        ),
        (
            MODEL,
            "/spec/autoscaling",
            json!({"minReplicas": 4, "maxReplicas": 3}),
            "autoscaling: minReplicas is above maxReplicas",
        ),
        (
            MODEL,
            "/spec/autoscaling",
            json!({"minReplicas": 0, "maxReplicas": 3}),
            "spec.autoscaling.minReplicas in body should be greater than or equal to 1",
        ),
        (
            MODEL,
            "/spec/server",
            json!({"template": {"spec": {"containers": [container("server")]}}, "tls": {"caSecretName": "ca"}, "warmUp": {"requests": [{"path": "/"}]}}),
            "server.warmUp: requests are sent in plain HTTP; leave out server.tls, or warm up in the server itself",
        ),
        (
            MODEL,
            "/spec/server/warmUp",
            json!({"requests": [{"path": "v2"}]}),
            "spec.server.warmUp.requests[0].path in body should match",
        ),
        (
            MODEL,
            "/spec/route",
            json!({"parentRefs": []}),
            "spec.route.parentRefs in body should have at least 1 items",
        ),
        (
            MODEL,
            "/spec/route",
            json!({"parentRefs": [{"name": "g"}], "hostnames": ["A.example"]}),
            "spec.route.hostnames[0] in body should match",
        ),
        (
            MODEL,
            "/spec/server/port",
            json!(70000),
            "spec.server.port in body should be less than or equal to 65535",
        ),
        (
            MODEL,
            "/spec/retraining",
            json!({"from": "j"}),
            "retraining.promotion Automatic (the default) needs rollout.evaluations, so that nothing unmeasured is promoted: name an Evaluation there, or write promotion: Manual",
        ),
        (
            MODEL,
            "/spec/retraining",
            json!({"promotion": "Manual"}),
            "retraining: the recipe is either from (the name of a TrainingJob) or template (a TrainingJob's spec)",
        ),
        (
            MODEL,
            "/spec",
            json!({"server": {"template": {"spec": {"containers": [container("server")]}}}, "model": {"uri": "s3://b/m"}, "retraining": retraining(json!({}))}),
            "retraining makes new versions, but model pins one: leave out model.version and model.uri",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t"}]})),
            "a trigger is one thing: write metric, drift, concept, newData, maxAge or schedule",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "maxAge": "1d", "schedule": "0 0 * * *"}]}),
            ),
            "a trigger is one thing: write metric, drift, concept, newData, maxAge or schedule",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "concept": {"metric": "live"}, "max": 1}]}),
            ),
            "concept needs no min, max, windows or for: the detector decides",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "concept": {"metric": "live", "detector": "DDM"}}]}),
            ),
            "Unsupported value: \"DDM\": supported values: \"ADWIN\", \"PageHinkley\"",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "newData": {}, "schedule": "0 0 * * *"}]}),
            ),
            "a trigger is one thing: write metric, drift, concept, newData, maxAge or schedule",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t", "newData": {}, "windows": 2}]})),
            "newData needs no min, max, windows or for: one change is enough",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t", "newData": {"datasets": []}}]})),
            "should have at least 1 items",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t", "metric": "rocAuc"}]})),
            "a trigger on a metric needs min or max",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t", "maxAge": "1d", "clear": 0.1}]})),
            "minSamples, staleAfter and clear go with metric or drift: concept, newData, an age and a schedule have no value",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "metric": "m", "min": 0.1, "max": 0.5, "clear": 0.2}]}),
            ),
            "clear goes with one bound: min or max of a metric, or drift.share",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "metric": "m", "max": 0.5, "clear": 0.6}]}),
            ),
            "clear must be on the good side of the bound: at most max, at least min",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "drift": {"share": {"max": 0.5}, "column": "c"}}]}),
            ),
            "drift is of a share of the columns, of one column or of the predictions: write share, column, or prediction: true",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t", "drift": {"prediction": false}}]})),
            "drift.prediction: write true, or leave it out",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(json!({"triggers": [{"name": "t", "maxAge": "1d", "timeZone": "UTC"}]})),
            "timeZone goes with schedule",
        ),
        (
            MODEL,
            "/spec/retraining",
            retraining(
                json!({"triggers": [{"name": "t", "maxAge": "1d"}, {"name": "t", "maxAge": "2d"}]}),
            ),
            "spec.retraining.triggers[1]: Duplicate value",
        ),
        (
            MODEL,
            "/spec/retraining",
            recipe(json!({"template": {"spec": {"containers": [container("a"), container("b")]}}})),
            trainer,
        ),
        (
            MODEL,
            "/spec/retraining",
            recipe(json!({"template": {"spec": {"containers": [{"name": "trainer"}]}}})),
            command,
        ),
        (
            MODEL,
            "/spec/retraining",
            recipe(json!({"datasets": [{"name": "d", "uri": "s3://b/d", "key": ["id"]}]})),
            keyed,
        ),
        (
            MODEL,
            "/spec/retraining",
            recipe(json!({"datasets": dataset(json!({}))})),
            check,
        ),
        (
            MODEL,
            "/spec/retraining",
            recipe(json!({"datasets": dataset(json!({"column": "a"}))})),
            column,
        ),
        (
            MODEL,
            "/spec/retraining",
            recipe(json!({"parameters": {"1a": "x"}})),
            parameter,
        ),
        (
            MODEL,
            "/spec/rollout",
            json!({"steps": [{"setWeight": 50}, {"pause": {}}, {"setWeight": 10}]}),
            falls,
        ),
        (
            MODEL,
            "/spec/rollout",
            json!({"steps": [{"setWeight": 50, "pause": {}}]}),
            step,
        ),
        (MODEL, "/spec/rollout", json!({"steps": [{}]}), step),
        (
            MODEL,
            "/spec/rollout",
            json!({"steps": [{"setWeight": 101}]}),
            "spec.rollout.steps[0].setWeight in body should be less than or equal to 100",
        ),
        (
            MODEL,
            "/spec/rollout",
            json!({"analysis": {"gates": [{"metric": "errorRate"}]}}),
            gate,
        ),
        (
            MODEL,
            "/spec/rollout",
            json!({"analysis": {"gates": [{"metric": "errorRate", "min": 2, "max": 1}]}}),
            empty,
        ),
        (
            MODEL,
            "/spec/rollout",
            json!({"steps": [{"setMirror": {"percent": 0}}], "analysis": {"gates": [{"metric": "mirrorErrorRate", "max": 0.1}]}}),
            copies,
        ),
        (
            MODEL,
            "/spec/rollout",
            json!({"steps": [{"setMirror": {"percent": 9}}], "analysis": {"gates": [{"metric": "mirrorAgreement", "minDifference": 0.1}]}}),
            compares,
        ),
        (
            MODEL,
            "/spec/metrics",
            json!([{"name": "a", "evaluation": {"name": "e", "metric": "m"}}, {"name": "a", "evaluation": {"name": "e", "metric": "n"}}]),
            "spec.metrics[1]: Duplicate value",
        ),
        (
            MODEL,
            "/spec/metrics",
            json!([{"name": "a"}]),
            "a metric comes from one place: write one of evaluation, prometheus and labels",
        ),
        (
            MODEL,
            "/spec/metrics",
            json!([{"name": "a", "evaluation": {"name": "e", "metric": "m"}, "prometheus": {"source": "s", "query": "up"}}]),
            "a metric comes from one place",
        ),
        (
            PROMPT,
            "/spec/metrics",
            json!([{"name": "a"}]),
            "a metric comes from one place: write one of evaluation, prometheus and labels",
        ),
        (
            MODEL,
            "/spec/metrics",
            json!([{"name": "a", "prometheus": {"source": "s", "query": "up"}, "labels": {"metric": "logLoss", "horizon": "6h"}}]),
            "a metric comes from one place",
        ),
        (
            MODEL,
            "/spec/metrics",
            json!([{"name": "a", "labels": {"metric": "prAuc", "horizon": "6h"}}]),
            "spec.metrics[0].labels.metric: Unsupported value",
        ),
        (
            MODEL,
            "/spec/metrics",
            json!([{"name": "a", "labels": {"metric": "logLoss", "horizon": "6h", "minCoverage": 1.5}}]),
            "spec.metrics[0].labels.minCoverage in body should be less than or equal to 1",
        ),
        (
            MODEL,
            "/spec",
            json!({"server": {"protocol": "HTTP", "template": {"spec": {"containers": [container("server")]}}}, "metrics": [{"name": "a", "labels": {"metric": "accuracy", "horizon": "6h"}}]}),
            "metrics by labels need server.protocol OpenInference: predictions of others can't be read",
        ),
        (
            MODEL,
            "/spec",
            json!({"server": {"protocol": "HTTP", "template": {"spec": {"containers": [container("server")]}}}, "monitoring": {"payloadLog": {"uri": "s3://b/log"}}}),
            "monitoring.payloadLog needs server.protocol OpenInference: requests of others can't be read",
        ),
        (
            MODEL,
            "/spec/monitoring",
            json!({"payloadLog": {"uri": "pvc://claim/log"}}),
            "spec.monitoring.payloadLog.uri in body should match",
        ),
        (
            PROMPT,
            "/spec/metrics",
            json!([{"name": "a", "labels": {"metric": "accuracy", "horizon": "6h"}}]),
            "labels are of predictions of models, and a prompt has none: take feedbackScore, or an Evaluation",
        ),
        (
            PROMPT,
            "/spec/metrics",
            json!([{"name": "a", "prometheus": {"source": "s", "query": ""}}]),
            "spec.metrics[0].prometheus.query in body should be at least 1 chars long",
        ),
        (
            PROMPT,
            "/spec/rollout",
            json!({"analysis": {"gates": [{"metric": "costPerRequest", "maxRatio": 1.3}]}}),
            "a gate on costPerRequest needs backend.prices: write inputPerMillion and outputPerMillion",
        ),
        (
            PROMPT,
            "/spec/backend/prices",
            json!({"inputPerMillion": -1, "outputPerMillion": 1}),
            "spec.backend.prices.inputPerMillion in body should be greater than or equal to 0",
        ),
        (
            PROMPT,
            "/spec/backend/prices",
            json!({"inputPerMillion": 1, "outputPerMillion": 1, "currency": "dollars"}),
            "spec.backend.prices.currency in body should match '^[A-Z]{3}$'",
        ),
        // Evaluation
        (
            EVALUATION,
            "/spec/dataset",
            Value::Null,
            "dataset is what the model is asked: write its uri and label (only a target of predictions, and containers alone, need none)",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"drift": {}}]),
            "the drift evaluator compares with reference: write reference.uri",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{}]),
            "an evaluator is one thing: write one of classification, regression, calibration, fairness, featureImportance, retrieval, drift, dataQuality, text, jsonSchema, pii, toxicity, injection, groundedness, judge and container",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"classification": {}, "regression": {}}]),
            "an evaluator is one thing: write one of classification, regression, calibration, fairness, featureImportance, retrieval, drift, dataQuality, text, jsonSchema, pii, toxicity, injection, groundedness, judge and container",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"pii": {}}]),
            "text, jsonSchema, pii, toxicity, injection, groundedness and judge look at texts: write target.promptRelease, an endpoint of protocol OpenAI, or target.predictions for a file of them",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"text": {"metrics": ["regex"]}}]),
            "the metric regex and pattern belong together: write both",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([contained(json!({}), json!({"command": []}))]),
            "container: the evaluator must say its command (the image's own entry point can't be wrapped)",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([contained(
                json!({"results": {"path": "../r.json", "format": "Json"}}),
                json!({})
            )]),
            "container.results.path",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([contained(
                json!({"results": {"path": "/r.json", "format": "Json"}}),
                json!({})
            )]),
            "container.results.path",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([contained(
                json!({"results": {"path": "r.json", "format": "Xml"}}),
                json!({})
            )]),
            "container.results.format",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([contained(json!({"name": "two words"}), json!({}))]),
            "container.name",
        ),
        (
            EVALUATION,
            "/spec/dataset",
            json!({"uri": "s3://b/d"}),
            "dataset is what the model is asked",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "evaluators": [contained(json!({}), json!({})), {"dataQuality": {}}]}),
            "dataset is what the model is asked",
        ),
        (
            EVALUATION,
            "/spec/target",
            json!({"trainingJob": {"name": "j"}}),
            "of a trainingJob the metrics of its own version are judged, and nobody is asked: write gates, and nothing about how it is measured",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"trainingJob": {"name": "j"}}, "gates": [{"metric": "rocAuc", "maxRatio": 1.1}]}),
            "a trainingJob has no stable beside it: write min or max",
        ),
        (
            EVALUATION,
            "/spec/sampling",
            json!({"rows": 100, "rate": 0.5}),
            "sampling is one thing: write rows (at most so many) or rate (a share)",
        ),
        (
            EVALUATION,
            "/spec/timeZone",
            json!("Europe/Berlin"),
            "timeZone and suspend are about the schedule: write schedule, such as \"0 2 * * *\"",
        ),
        (
            EVALUATION,
            "/spec/schedule",
            json!("0 0 2 * * *"),
            "spec.schedule",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"predictions": {"uri": "pvc://a/p.csv"}}, "evaluators": [{"featureImportance": {}}]}),
            "featureImportance asks the model again with a column shuffled: its target is a modelDeployment, not a file",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"classification": {"threshold": 0.5}}, {"classification": {"threshold": 0.7}}]),
            twice,
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"calibration": {}}, {"calibration": {"bins": 20}}]),
            twice,
        ),
        (
            EVALUATION,
            "/spec",
            of_prompt(
                json!({}),
                json!([{"text": {"metrics": ["regex"], "pattern": "a"}}, {"text": {"metrics": ["regex"], "pattern": "b"}}]),
            ),
            twice,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"predictions": {"uri": "pvc://a/p.csv", "label": "y"}}, "dataset": {"uri": "pvc://a/d.csv", "key": ["id"], "disjointFrom": "Training"}}),
            "dataset.disjointFrom: what a model was trained on is known of the versions that a ModelDeployment serves: write target.modelDeployment, or take it out",
        ),
        (
            EVALUATION,
            "/spec/stopWhen",
            json!({"precision": 0.02}),
            spares,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"promptRelease": {"name": "p"}}, "dataset": {"uri": "s3://b/d", "time": {"column": "t"}},
                   "gates": [{"metric": "exact", "min": 0.5}], "stopWhen": {"precision": 0.02}}),
            spares,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"endpoint": {"url": "http://e/v1", "protocol": "OpenAI", "model": "m"}}, "mirrored": {}, "dataset": {"uri": "s3://b/d"}}),
            copied,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"predictions": {"uri": "s3://b/d"}}, "mirrored": {}}),
            copied,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"promptRelease": {"name": "p", "revision": "Stable"}}, "mirrored": {}}),
            copied,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "mirrored": {}, "schedule": "0 2 * * *"}),
            asked,
        ),
        (EVALUATION, "/spec/mirrored", json!({}), asked),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "mirrored": {}, "evaluators": [{"pii": {}}, {"classification": {}}]}),
            "mirrored: of callers' requests nobody knows the truth: errors, latency, agreement and difference are always measured; as evaluators write text, jsonSchema, pii, toxicity, injection, groundedness or judge",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "mirrored": {"requests": 1001}}),
            "spec.mirrored.requests",
        ),
        (
            EVALUATION,
            "/spec/dataset/disjointFrom",
            json!("Evaluation"),
            "spec.dataset.disjointFrom",
        ),
        (
            EVALUATION,
            "/spec/baseline",
            json!({"predictions": {"uri": "s3://b/before.csv"}}),
            "baseline: its predictions are joined with the rows by key: write dataset.key, the columns that say which row is which",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "dataset": {"uri": "s3://b/d", "key": ["id"]},
                   "baseline": {"predictions": {"uri": "s3://b/before.csv"}}, "evaluators": [contained(json!({}), json!({}))]}),
            "baseline: evaluators that are containers compare by themselves: take it out",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "dataset": {"uri": "s3://b/d", "label": "y", "key": ["id"]},
                   "baseline": {"predictions": {"uri": "s3://b/before.csv"}, "run": "quality-3"}, "output": "s3://b/o"}),
            "baseline is one thing: write predictions (a file) or run (the name of a run that had outputPredictions)",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"modelDeployment": {"name": "m"}}, "dataset": {"uri": "s3://b/d", "label": "y", "key": ["id"]}, "baseline": {"run": "quality-3"}}),
            "baseline.run: what a run predicted lies where it wrote its report: write output, the same as that run had",
        ),
        (
            EVALUATION,
            "/spec/outputPredictions",
            json!(true),
            "outputPredictions: what the target says of each row is written beside the row's key: write output and dataset.key, and a target that is asked",
        ),
        (
            "ModelDeployment",
            "/spec/monitoring",
            json!({"drift": {"season": "Month"}}),
            "spec.monitoring.drift.season",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"fairness": {"sensitive": []}}]),
            "sensitive",
        ),
        (
            EVALUATION,
            "/spec/gates",
            json!([{"metric": "mirrorAgreement", "minDifference": 0.1}]),
            compares,
        ),
        (
            EVALUATION,
            "/spec/gates",
            json!([{"metric": "rocAuc"}]),
            gate,
        ),
        (
            EVALUATION,
            "/spec/gates",
            json!([{"metric": "rocAuc", "min": 0.9, "max": 0.1}]),
            empty,
        ),
        (EVALUATION, "/spec/target", json!({}), one_target),
        (
            EVALUATION,
            "/spec/target",
            json!({"modelDeployment": {"name": "m"}, "predictions": {"uri": "s3://b/p"}}),
            one_target,
        ),
        (
            EVALUATION,
            "/spec/target",
            json!({"modelDeployment": {"name": "m"}, "promptRelease": {"name": "p"}}),
            one_target,
        ),
        (
            EVALUATION,
            "/spec",
            of_prompt(json!({"label": "y"}), json!([])),
            variables,
        ),
        (
            EVALUATION,
            "/spec",
            of_prompt(json!({"features": ["x"]}), json!([])),
            variables,
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"promptRelease": {"name": "p"}}}),
            variables,
        ),
        (
            EVALUATION,
            "/spec",
            of_prompt(json!({}), json!([{"retrieval": {"question": "q"}}])),
            "its answers are texts",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"toxicity": {}}]),
            "text, jsonSchema, pii, toxicity, injection",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"injection": {}}]),
            "text, jsonSchema, pii, toxicity, injection",
        ),
        (
            EVALUATION,
            "/spec/evaluators",
            json!([{"retrieval": {"question": "q", "k": 0}}]),
            "retrieval.k",
        ),
        (
            EVALUATION,
            "/spec",
            of_prompt(json!({}), json!([{"classification": {}}])),
            "its answers are texts: write text, jsonSchema, pii, toxicity, injection, groundedness or judge; classification, regression, calibration, fairness, featureImportance and retrieval are for models",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"predictions": {"uri": "s3://b/p.csv", "label": "y"}}, "requests": {"concurrency": 2}}),
            "requests is how a target or judge is asked, and a file isn't: take it out",
        ),
        (
            EVALUATION,
            "/spec/target",
            json!({"endpoint": {"url": "http://m/v1", "protocol": "OpenAI"}}),
            "endpoint: protocol OpenAI needs model, its name there",
        ),
        (
            EVALUATION,
            "/spec/target",
            json!({"endpoint": {"url": "http://m", "protocol": "OpenInference", "prices": {"inputPerMillion": 1, "outputPerMillion": 1}}}),
            "endpoint: prices are of tokens, which only protocol OpenAI counts",
        ),
        (
            EVALUATION,
            "/spec/target",
            json!({"endpoint": {"url": "http://m/v1", "protocol": "OpenAI", "model": "m"}}),
            "dataset has what the endpoint is asked in the column input: write its uri, and reference for the column that answers are compared with; label and features are for OpenInference",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"endpoint": {"url": "http://m", "protocol": "OpenInference"}}, "dataset": {"uri": "s3://b/d"}}),
            "dataset is what the model is asked: write its uri and label (only a target of predictions, and containers alone, need none)",
        ),
        (
            EVALUATION,
            "/spec",
            json!({"target": {"endpoint": {"url": "http://m", "protocol": "OpenInference"}}, "dataset": {"uri": "s3://b/d", "label": "y"}, "evaluators": [{"pii": {}}]}),
            "text, jsonSchema, pii, toxicity, injection, groundedness and judge look at texts",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({"preset": "Groundedness", "rubric": "x"})),
            "a judge has one question: write rubric, or preset (Groundedness, AnswerRelevance, ContextRelevance)",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({})),
            "a judge has one question",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({"preset": "Groundedness"})),
            "a preset looks at more than the answer: write input, such as [context] for Groundedness, [question] for AnswerRelevance, [question, context] for ContextRelevance",
        ),
        (
            EVALUATION,
            "/spec",
            judged(
                json!({"preset": "Groundedness", "input": ["context"], "scale": {"min": 1, "max": 5}}),
            ),
            "a preset is a question of yes or no: scale and pairwise belong to a rubric of yours",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({"rubric": "x", "pairwise": true, "scale": {"min": 1, "max": 5}})),
            "pairwise says which of two answers is better: it has no scale, and no calibration by labels of single answers",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({"rubric": "x", "scale": {"min": 5, "max": 1}})),
            "scale: min must be below max, by at most 10",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({"rubric": "x", "name": "is it good"})),
            "judge.name",
        ),
        (
            EVALUATION,
            "/spec",
            judged(
                json!({"rubric": "x", "heartbeat": [{"input": {"context": long(4097)}, "answer": "a", "verdict": 1}]}),
            ),
            "judge.heartbeat[0].input.context",
        ),
        (
            EVALUATION,
            "/spec",
            judged(json!({"rubric": "x", "samples": 10})),
            "judge.samples",
        ),
        (
            EVALUATION,
            "/spec/requests",
            json!({"concurrency": 65}),
            "spec.requests.concurrency",
        ),
        (
            EVALUATION,
            "/spec/requests",
            json!({"retries": 11}),
            "spec.requests.retries",
        ),
        (
            EVALUATION,
            "/spec/maxItemErrors",
            json!(1.5),
            "spec.maxItemErrors",
        ),
        (
            EVALUATION,
            "/spec/target",
            json!({"modelDeployment": {"name": "m", "revision": "Newest"}}),
            "Unsupported value: \"Newest\": supported values: \"Stable\", \"Candidate\"",
        ),
        // PromptRelease
        (
            PROMPT,
            "/spec/prompt/messages",
            json!([]),
            "spec.prompt.messages in body should have at least 1 items",
        ),
        (
            PROMPT,
            "/spec/prompt/messages",
            json!([{"role": "robot", "content": "x"}]),
            "Unsupported value: \"robot\": supported values: \"system\", \"developer\", \"user\", \"assistant\"",
        ),
        (
            PROMPT,
            "/spec/backend/url",
            json!("llm:8000"),
            "spec.backend.url in body should match '^https?://[^/]+(/.*)?$'",
        ),
        (
            PROMPT,
            "/spec/rollout",
            json!({"steps": [{"setWeight": 50}, {"setWeight": 10}]}),
            falls,
        ),
        (PROMPT, "/spec/rollout", json!({"steps": [{}]}), step),
        (
            PROMPT,
            "/spec/rollout",
            json!({"analysis": {"gates": [{"metric": "errorRate"}]}}),
            gate,
        ),
        (
            PROMPT,
            "/spec/rollout",
            json!({"analysis": {"gates": [{"metric": "errorRate", "min": 2, "max": 1}]}}),
            empty,
        ),
        (
            PROMPT,
            "/spec/rollout",
            json!({"steps": [{"setMirror": {"percent": 0}}], "analysis": {"gates": [{"metric": "mirrorErrorRate", "max": 0.1}]}}),
            copies,
        ),
        (
            PROMPT,
            "/spec/rollout",
            json!({"steps": [{"setMirror": {"percent": 9}}], "analysis": {"gates": [{"metric": "mirrorAgreement", "minDifference": 0.1}]}}),
            compares,
        ),
        (
            PROMPT,
            "/spec/guardrails",
            json!({}),
            "unknown field \"spec.guardrails\"",
        ),
    ]
}

/// The message of the rule that is broken by an update, tested apart.
const IMMUTABLE: &str = "a TrainingJob is one run and can't be changed, but for ttlSecondsAfterFinished and activeDeadlineSeconds; make a new one with another name";

fn least(place: &Place, kind: &str) -> Value {
    match kind {
        TRAINING => place.training_job("least"),
        PROMPT => place.prompt_release("least"),
        MODEL => json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": MODEL,
            "metadata": {"name": "least", "namespace": place.namespace},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server", "image": "x"}]}}}},
        }),
        EVALUATION => json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": EVALUATION,
            "metadata": {"name": "least", "namespace": place.namespace},
            "spec": {"target": {"modelDeployment": {"name": "m"}}, "dataset": {"uri": "s3://b/d", "label": "y"}},
        }),
        other => panic!("{other}"),
    }
}

#[test]
fn each_wrong_object_is_refused_with_a_sentence_that_says_what_to_write() {
    on_cluster(|place| async move {
        let mut wrong = Vec::new();
        for (kind, pointer, value, message) in rows() {
            let mut object = least(&place, kind);
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = object.pointer_mut(parent).unwrap();
            if value.is_null() {
                parent.as_object_mut().unwrap().shift_remove(key);
            } else {
                parent[key] = value.clone();
            }
            let row = format!("{kind} {pointer} = {value}");
            match place.create(&object).await {
                Ok(_) => wrong.push(format!("{row}\n  was accepted")),
                Err(kube::Error::Api(status)) if status.message.contains(message) => {
                    assert!(matches!(status.code, 400 | 422), "{row}: {status:?}");
                }
                Err(error) => {
                    wrong.push(format!("{row}\n  should say: {message}\n  says: {error}"))
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn a_training_job_can_not_be_changed_but_for_its_times() {
    on_cluster(|place| async move {
        place.create(&place.training_job("j")).await.unwrap();
        let change = |patch: Value| {
            let place = place.clone();
            async move {
                place
                    .patch("perennial.dev/v1alpha1", TRAINING, "j", patch)
                    .await
            }
        };
        for wrong in [
            json!({"spec": {"model": {"name": "other"}}}),
            json!({"spec": {"parameters": {"a": "b"}}}),
            json!({"spec": {"datasets": [{"name": "d", "uri": "s3://b/d"}]}}),
            json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}),
        ] {
            let refused = change(wrong.clone()).await.unwrap_err().to_string();
            assert!(refused.contains(IMMUTABLE), "{wrong}: {refused}");
        }
        change(json!({"spec": {"ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 600}}))
            .await
            .unwrap();
    });
}

#[test]
fn every_rule_of_every_crd_is_in_the_table() {
    let mut rules = BTreeSet::new();
    for crd in perennial::api::crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut spec = schema.clone();
        // Rules in status are the same types as in spec; nobody writes them by hand.
        spec["properties"]
            .as_object_mut()
            .unwrap()
            .shift_remove("status");
        messages(&spec, &mut |message| {
            rules.insert((kind.clone(), message.to_owned()));
        });
    }
    assert!(rules.len() > 30, "{}", rules.len());
    let table = rows();
    for (kind, message) in &rules {
        let there = table.iter().any(|row| row.0 == kind && row.3 == message);
        assert!(
            there || message == IMMUTABLE,
            "{kind}: no row breaks the rule: {message}"
        );
    }
}

fn messages(schema: &Value, found: &mut impl FnMut(&str)) {
    match schema {
        Value::Object(map) => {
            if let Some(rules) = map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
            {
                for rule in rules {
                    found(rule["message"].as_str().expect("each rule has a message"));
                }
            }
            map.values().for_each(|value| messages(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}
