//! What people do in a life: drawn from the seed before it begins, so that it is the same in every weather.

use perennial::stats::random::Generator;
use serde_json::{Value, json};

use crate::nature::WORDS;

/// What is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A model at a URI: every candidate comes from the spec.
    Uri,
    /// A model that TrainingJobs make, followed and retrained.
    Followed,
    /// A prompt.
    Prompt,
}

/// Which revision a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Candidate,
    Stable,
    Rejected,
    /// The stable before this one.
    Before,
    /// One that was tried and never became stable.
    Tried,
    Nonsense,
}

/// Something that somebody does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The spec's image (or prompt) is another one.
    Image(String),
    /// GitOps applies the spec of the beginning again.
    SelfHeal,
    /// The spec is as it was before the last edit.
    Revert,
    /// A TrainingJob is made by hand.
    Train(&'static str),
    /// There are new data, and what is trained on them is like this.
    Data(&'static str),
    /// Every model has become worse by so much; the Evaluation is measured again.
    Decay(f64),
    /// An annotation.
    Command(&'static str, Which),
    /// A person approves what is tried.
    Approve(&'static str),
    /// The ConfigMap that the template names holds this, and is made if it isn't there.
    Settings(usize),
    /// It is deleted.
    DropSettings,
    /// Callers send other inputs than before, or the same again.
    Drift(bool),
    /// What `analysis` says beside gates.
    Analysis(usize),
    Replicas(i64),
    Rollout(usize),
    /// A TrainingJob that has ended is deleted.
    Forget,
    /// The release is deleted and made again.
    Recreate,
    /// Requests in a second.
    Rate(f64),
}

/// A life.
#[derive(Clone, Debug)]
pub struct Script {
    pub shape: Shape,
    /// Every action waits until all is quiet, and the end must be that of a calm life.
    pub paced: bool,
    pub replicas: i64,
    pub rollout: usize,
    /// Which of [`ANALYSES`].
    pub analysis: usize,
    pub evaluated: bool,
    pub manual: bool,
    /// 0: a schedule, 1: age, 2: a metric, 3: drift.
    pub trigger: usize,
    /// Whether retrainings are limited to two in twenty minutes.
    pub limited: bool,
    /// Whether the template names a ConfigMap.
    pub settings: bool,
    /// Whether looking again from time to time is left out, so that nothing may depend on it.
    pub resync: bool,
    /// Milliseconds to wait before each (where it isn't paced), and what is done.
    pub actions: Vec<(u64, Action)>,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let mut random = Generator::new(seed ^ 0x5c1f);
        let mut pick = |n: usize| random.below(n);
        let shape = [
            Shape::Uri,
            Shape::Uri,
            Shape::Followed,
            Shape::Followed,
            Shape::Prompt,
        ][pick(5)];
        let paced = pick(2) == 0;
        let mut script = Self {
            shape,
            paced,
            replicas: [1, 1, 2, 3][pick(4)],
            rollout: pick(ROLLOUTS.len()),
            analysis: pick(if paced { CALM } else { ANALYSES.len() }),
            evaluated: shape == Shape::Followed || shape == Shape::Uri && pick(3) == 0,
            manual: pick(4) == 0,
            trigger: [2, pick(4)][usize::from(!paced)],
            limited: pick(2) == 0,
            settings: shape != Shape::Prompt && pick(3) == 0,
            resync: pick(2) == 0,
            actions: Vec::new(),
        };
        let count = if paced { 2 + pick(3) } else { 3 + pick(6) };
        for n in 0..count {
            let wait = [0, 3_000, 20_000, 60_000, 150_000][pick(5)] + pick(10_000) as u64;
            let action = script.draw(n, &mut pick);
            script.actions.push((wait, action));
        }
        script
    }

    fn draw(&self, n: usize, pick: &mut impl FnMut(usize) -> usize) -> Action {
        let word = |pick: &mut dyn FnMut(usize) -> usize| {
            WORDS[[0, 0, 0, 0, 1, 2, 2, 3, 4, 5, 6][pick(11)]]
        };
        let wild = !self.paced;
        loop {
            let action = match pick(29) {
                0..=5 if self.shape != Shape::Followed => {
                    Action::Image(format!("s:{}-{n}", word(pick)))
                }
                0..=2 => Action::Train(["good", "good", "errors", "badeval", "fails"][pick(5)]),
                3 => Action::Data(["good", "good", "errors", "badeval", "fails"][pick(5)]),
                4 => Action::Decay([0.0, 0.35][pick(2)]),
                5 => Action::Image(format!("s:{}-{n}", word(pick))),
                6 => Action::SelfHeal,
                7 | 8 => Action::Revert,
                9 => Action::Command("retry", Which::Rejected),
                10 => Action::Command(
                    "rollback-to",
                    [Which::Before, Which::Before, Which::Tried][pick(3)],
                ),
                11 | 12 => Action::Command("promote", Which::Candidate),
                13 => Action::Command("abort", Which::Candidate),
                14 if wild => Action::Command("abort", Which::Stable),
                15 => Action::Command(
                    ["abort", "promote", "retry", "rollback-to"][pick(4)],
                    Which::Nonsense,
                ),
                16 if self.shape == Shape::Followed => Action::Command("retrain", Which::Stable),
                17 if self.shape != Shape::Prompt => Action::Replicas([0, 1, 2, 4][pick(4)]),
                18 => Action::Rollout(pick(ROLLOUTS.len())),
                19 if self.shape == Shape::Followed => Action::Forget,
                20 if wild => Action::Recreate,
                21 if wild => Action::Rate([0.0, 4.0][pick(2)]),
                22..=24 => Action::Approve(["jane", "joe"][pick(2)]),
                25 if self.settings => Action::Settings(pick(4)),
                26 if self.settings => Action::DropSettings,
                27 if self.trigger == 3 => Action::Drift(pick(3) > 0),
                28 => Action::Analysis(pick(if wild { ANALYSES.len() } else { CALM })),
                _ => continue,
            };
            return action;
        }
    }

    /// `spec.rollout` number `n`, with `analysis` number `m`.
    pub fn rollout(&self, n: usize, m: usize) -> Value {
        let mut rollout: Value = serde_json::from_str(ROLLOUTS[n]).expect("a constant");
        rollout["analysis"] = json!({"interval": "10s", "minRequests": 10, "gates": [{"metric": "errorRate", "max": 0.25}]});
        for (name, value) in ANALYSES[m] {
            rollout["analysis"][*name] = serde_json::from_str(value).expect("a constant");
        }
        if self.shape == Shape::Prompt
            && let Some(steps) = rollout["steps"].as_array_mut()
        {
            // Evaluations of prompts call an LLM, which isn't simulated.
            steps.retain(|step| step.get("evaluate").is_none());
        }
        if self.evaluated {
            rollout["evaluations"] = json!(["quality"]);
        }
        rollout
    }

    /// The release as it is applied first.
    pub fn release(&self) -> Value {
        let image = "s:good-first";
        let mut spec = match self.shape {
            Shape::Prompt => json!({
                "prompt": {"messages": [{"role": "system", "content": image}]},
                "backend": {"url": "http://llm.example/v1", "model": "m"},
            }),
            _ => json!({
                "server": {"template": {"spec": {"containers": [{"name": "server", "image": image}]}}},
                "replicas": self.replicas,
            }),
        };
        match self.shape {
            Shape::Uri => spec["model"] = json!({"uri": "pvc://models/good-uri"}),
            Shape::Followed => {
                spec["model"] = json!({"name": "churn"});
                let trigger = match self.trigger {
                    0 => json!({"name": "t", "schedule": "*/20 * * * *"}),
                    1 => json!({"name": "t", "maxAge": "15m"}),
                    2 => json!({"name": "t", "metric": "accuracy", "min": 0.7}),
                    _ => json!({"name": "t", "drift": {"share": {"max": 0.3}}, "windows": 2}),
                };
                if self.trigger == 3 {
                    spec["monitoring"] = json!({"drift": {"window": "3m", "minSamples": 100}});
                }
                spec["metrics"] = json!([{"name": "accuracy", "evaluation": {"name": "quality", "metric": "accuracy"}}]);
                spec["retraining"] =
                    json!({"from": "first", "triggers": [trigger], "cooldown": "1m"});
                if self.limited {
                    spec["retraining"]["limit"] = json!({"runs": 2, "per": "20m"});
                }
                if self.manual {
                    spec["retraining"]["promotion"] = json!("Manual");
                }
            }
            Shape::Prompt => {}
        }
        if self.settings {
            spec["server"]["template"]["spec"]["containers"][0]["envFrom"] =
                json!([{"configMapRef": {"name": SETTINGS}}]);
        }
        spec["rollout"] = self.rollout(self.rollout, self.analysis);
        spec
    }
}

/// The ConfigMap that templates name.
pub const SETTINGS: &str = "settings";

/// What `analysis` says beside gates.
pub const ANALYSES: [&[(&str, &str)]; 6] = [
    &[],
    &[("failureLimit", "2")],
    &[("noData", "\"Wait\"")],
    &[("noData", "\"Fail\"")],
    &[("onInconclusive", "\"Abort\"")],
    &[("noData", "\"Wait\""), ("failureLimit", "1")],
];
/// So many of them end a life the same in every weather.
const CALM: usize = 3;

const ROLLOUTS: [&str; 9] = [
    r#"{"steps": [{"setWeight": 20}, {"pause": {"duration": "30s"}}, {"setWeight": 60}, {"pause": {"duration": "30s"}}], "bake": "60s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"setWeight": 100}], "bake": "90s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"setWeight": 30}, {"pause": {}}, {"setWeight": 60}, {"pause": {"duration": "20s"}}], "bake": "60s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"pause": {"duration": "20s"}}, {"setWeight": 50}, {"pause": {"duration": "40s"}}], "bake": "60s", "progressDeadline": "5m"}"#,
    r#"{"steps": [{"setWeight": 10}, {"pause": {"duration": "60s"}}], "bake": "70s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"setMirror": {"percent": 30}}, {"pause": {"duration": "20s"}}, {"setWeight": 30}, {"pause": {"duration": "40s"}}], "bake": "60s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"setWeight": 20}, {"pause": {"duration": "30s"}}, {"approval": {}}, {"setWeight": 60}, {"setMirror": {"percent": 10}}, {"pause": {"duration": "30s"}}], "bake": "60s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"setWeight": 25}, {"evaluate": {"names": ["deep"]}}, {"setWeight": 60}, {"pause": {"duration": "30s"}}], "bake": "60s", "progressDeadline": "4m"}"#,
    r#"{"steps": [{"approval": {}}, {"setMirror": {"percent": 50}}, {"evaluate": {"names": ["deep"]}}, {"setWeight": 50}, {"pause": {"duration": "40s"}}, {"approval": {}}], "bake": "60s", "progressDeadline": "4m"}"#,
];
