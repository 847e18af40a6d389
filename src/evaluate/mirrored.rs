//! Copied requests (`spec.mirrored`): listened to at every gateway pod while a rollout's `setMirror` makes them, then measured like rows: how the candidate fared
//! beside stable, how much their answers agree, and what evaluators of texts say of both.
//!
//! They are in memory only, and no text of a caller is in the report.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    net::lookup_host,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    input_failure,
    paired::{self, Draws, Statistic, Values},
    protocol::unreachable,
    text::Column,
    texts::{Texts, inputs},
};
use crate::{
    api::{
        gate::MetricValue,
        mirrored::{Pair, Side},
        run::{EvaluationRunSpec, MirroredRun},
    },
    data::store::{chain, patient_client},
    supervise::failure::Failure,
};

/// How often it is looked for gateway pods.
const LOOK: Duration = Duration::from_secs(1);
/// Silence after which a gateway pod is asked anew.
const SILENCE: Duration = Duration::from_secs(60);
/// What is left of the deadline for measuring, at least of a long one.
const LEFT: Duration = Duration::from_secs(30);
/// The longest line that is read: three texts, each byte of which may be escaped.
const LONGEST: usize = 2 << 20;
/// The column with what the caller said.
const INPUT: &str = "input";
const WHO: &str = "the gateway";
const NONE: &str = "no copied request was answered by both sides";
const INCOMPARABLE: &str = "no two answers could be compared: they were streams, compressed or longer than 256 KiB, or not both 2xx";
const NUMBERLESS: &str = "no two answers have numbers in the same places";

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// Copies, in the order in which they ended.
    pub pairs: Vec<Pair>,
    /// Copies that the gateways had no room for.
    pub missed: u64,
}

/// From one gateway pod.
enum Heard {
    Listening,
    Pair(Box<Pair>),
    Trouble(String),
}

/// Listens until there are enough.
///
/// # Errors
/// `NotEnoughData` if there aren't as many in time; `TargetUnreachable` if no gateway pod lets anybody listen.
pub async fn gather(
    run: &MirroredRun,
    deadline: Option<Timestamp>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Gathered, Failure> {
    let began = Instant::now();
    let given = time_for(deadline, Timestamp::now());
    let client =
        patient_client(SILENCE).map_err(|e| unreachable(WHO, &run.address, &e.to_string()))?;
    let (sender, mut news) = mpsc::channel(64);
    let mut readers = Readers::default();
    let (mut found, mut listening) = (Gathered::default(), false);
    let mut trouble = "no gateway pod was found".to_owned();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress(0, run.requests);
    while found.pairs.len() < run.requests {
        tokio::select! {
            _ = ticks.tick() => match lookup_host(run.address.as_str()).await {
                Ok(addresses) => addresses.for_each(|address| {
                    let url = format!("http://{address}{}", run.path);
                    readers.read(address, &client, url, &sender);
                }),
                Err(error) => trouble = error.to_string(),
            },
            Some(heard) = news.recv() => match heard {
                Heard::Listening => listening = true,
                Heard::Trouble(text) => trouble = text,
                Heard::Pair(pair) => {
                    found.missed += pair.missed;
                    found.pairs.push(*pair);
                    progress(found.pairs.len(), run.requests);
                }
            },
            () = sleep_until(began + given) => break,
        }
    }
    match found.pairs.len() {
        enough if enough >= run.requests => Ok(found),
        0 if !listening => Err(unreachable(WHO, &run.address, &trouble)),
        few => Err(not_enough(few, run.requests, given)),
    }
}

/// How long may be listened.
fn time_for(deadline: Option<Timestamp>, now: Timestamp) -> Duration {
    let until = |deadline: Timestamp| Duration::try_from(deadline.duration_since(now));
    let all = deadline.map_or(Duration::from_secs(3600), |d| until(d).unwrap_or_default());
    all - LEFT.min(all / 4)
}

fn not_enough(few: usize, wanted: usize, given: Duration) -> Failure {
    let message = format!(
        "{few} of {wanted} requests were copied in {} s: raise the percent of setMirror, give it longer (activeDeadlineSeconds), or ask for fewer (mirrored.requests)",
        given.as_secs()
    );
    Failure::new("NotEnoughData", message, 1)
        .inconclusive()
        .permanent()
}

/// One for each gateway pod; they end with this.
#[derive(Default)]
struct Readers(HashMap<SocketAddr, JoinHandle<()>>);

impl Readers {
    fn read(
        &mut self,
        address: SocketAddr,
        client: &reqwest::Client,
        url: String,
        sender: &mpsc::Sender<Heard>,
    ) {
        if self.0.get(&address).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (client, sender) = (client.clone(), sender.clone());
        let task = tokio::spawn(async move {
            if let Err(text) = listen(&client, &url, &sender).await {
                // Who would hear it has gone otherwise.
                let _ = sender.send(Heard::Trouble(text)).await;
            }
        });
        self.0.insert(address, task);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.values().for_each(JoinHandle::abort);
    }
}

async fn listen(
    client: &reqwest::Client,
    url: &str,
    sender: &mpsc::Sender<Heard>,
) -> Result<(), String> {
    let answer = client.get(url).send().await.map_err(|e| chain(&e))?;
    let status = answer.status();
    if !status.is_success() {
        let text = answer.text().await.unwrap_or_default();
        return Err(format!("{url} answers {status}: {}", text.trim()));
    }
    let told = |heard| async move { sender.send(heard).await.map_err(|e| e.to_string()) };
    told(Heard::Listening).await?;
    let (mut parts, mut rest) = (answer.bytes_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        rest.extend_from_slice(&part.map_err(|e| chain(&e))?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let pair = serde_json::from_slice(&line).map_err(|e| format!("{url}: {e}"))?;
            told(Heard::Pair(Box::new(pair))).await?;
        }
        if rest.len() > LONGEST {
            return Err(format!("{url}: a line is longer than {LONGEST} bytes"));
        }
    }
    Ok(())
}

impl Gathered {
    /// What is to be known of the numbers.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "Measured on {} of callers' requests, as they were copied to the candidate. Examples aren't shown, as they are theirs.",
            self.pairs.len()
        )];
        if self.missed > 0 {
            notes.push(format!(
                "{} copies more were not measured: they came faster than they were read.",
                self.missed
            ));
        }
        let without = self.pairs.iter().filter(|p| !p.failed() && !p.has_texts());
        match without.count() {
            0 => {}
            n => notes.push(format!(
                "Of {n} requests the answers are no texts of up to 64 KiB, which evaluators of texts leave out."
            )),
        }
        notes
    }

    /// How the candidate fared beside stable, and how much their answers agree.
    #[must_use]
    pub fn measure(&self, draws: Draws) -> Vec<MetricValue> {
        let both = |of: fn(&Side) -> f64, which: fn(&Pair) -> bool| {
            let pairs = self.pairs.iter().enumerate().filter(|(_, p)| which(p));
            let mut values = Values {
                stable: Some(Vec::new()),
                ..Values::default()
            };
            for (row, pair) in pairs {
                values.rows.push(row);
                values.own.push(of(&pair.candidate));
                values.stable.get_or_insert_default().push(of(&pair.stable));
            }
            values
        };
        let alone = |of: fn(&Pair) -> Option<f64>| {
            let pairs = self.pairs.iter().enumerate();
            let (rows, own) = pairs.filter_map(|(row, p)| Some((row, of(p)?))).unzip();
            Values {
                rows,
                own,
                stable: None,
            }
        };
        let failed = both(|side| f64::from(u8::from(side.failed)), |_| true);
        let mean = Statistic::Mean;
        let mut metrics = paired::measure("errorRate", &failed, None, mean, (draws, NONE));
        let taken = both(|side| side.latency as f64 / 1e6, |pair| !pair.failed());
        for (name, share) in [
            ("latencyP50", 0.5),
            ("latencyP95", 0.95),
            ("latencyP99", 0.99),
        ] {
            let how = Statistic::Quantile(share);
            metrics.extend(paired::measure(name, &taken, None, how, (draws, NONE)));
        }
        let agreement = alone(|pair| pair.agreement);
        let excuse = (draws, INCOMPARABLE);
        metrics.extend(paired::measure("agreement", &agreement, None, mean, excuse));
        let difference = alone(|pair| pair.difference);
        let excuse = (draws, NUMBERLESS);
        metrics.extend(paired::measure(
            "difference",
            &difference,
            None,
            mean,
            excuse,
        ));
        metrics
    }

    /// The answers, as evaluators of texts take them; what they compare with a reference is compared with stable's.
    ///
    /// # Errors
    /// `InputUnreadable` if an evaluator looks at something that no request has.
    pub fn texts(&self, spec: &EvaluationRunSpec) -> Result<Texts, Failure> {
        let text = |side: &Side| side.answer.as_deref().map(said);
        let column = |of: &dyn Fn(&Pair) -> Option<String>| -> Column {
            let whole = |pair: &Pair| pair.has_texts().then(|| of(pair)).flatten();
            self.pairs.iter().map(whole).collect()
        };
        let stable = column(&|pair| text(&pair.stable));
        let mut beside = Vec::new();
        for name in inputs(&spec.evaluators) {
            let cells = column(&|pair| asked(pair.request.as_deref()?, name));
            if cells.iter().all(Option::is_none) {
                return Err(input_failure(
                    "InputUnreadable",
                    format!(
                        "no copied request has `{name}`: evaluators can look at `{INPUT}`, which is the last message of the user or else the whole request, and at a prompt's variables by their names"
                    ),
                ));
            }
            beside.push((name.to_owned(), cells));
        }
        Ok(Texts {
            own: column(&|pair| text(&pair.candidate)),
            references: Some(stable.clone()),
            stable: Some(stable),
            inputs: beside,
            days: None,
        })
    }
}

impl Pair {
    fn failed(&self) -> bool {
        self.stable.failed || self.candidate.failed
    }

    fn has_texts(&self) -> bool {
        self.request.is_some() && self.stable.answer.is_some() && self.candidate.answer.is_some()
    }
}

/// What an answer says: the first choice of an OpenAI-compatible one, else all of it.
fn said(answer: &str) -> String {
    let choice = serde_json::from_str::<Value>(answer).ok();
    let choice = choice.as_ref().and_then(|v| v.get("choices")?.get(0));
    let text = choice.and_then(|c| {
        let message = c.get("message").and_then(|m| m.get("content"));
        message.or_else(|| c.get("text"))?.as_str()
    });
    text.unwrap_or(answer).to_owned()
}

/// A part of a request by name.
fn asked(request: &str, name: &str) -> Option<String> {
    let body: Option<Value> = serde_json::from_str(request).ok();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let variables = body
        .as_ref()
        .and_then(|b| b.get("prompt")?.get("variables"));
    if let Some(value) = variables.and_then(|v| v.get(name)) {
        return Some(text(value));
    }
    if name != INPUT {
        return None;
    }
    let messages = body.as_ref().and_then(|b| b.get("messages")?.as_array());
    let mut last = messages.into_iter().flatten().rev();
    let user = last.find(|m| m.get("role").is_some_and(|r| r == "user"));
    let content = user.and_then(|m| m.get("content"));
    Some(
        content
            .or(variables)
            .map_or_else(|| request.to_owned(), text),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(text: &str) -> String {
        json!({"id": "x", "choices": [{"message": {"content": text}}]}).to_string()
    }

    fn pair(own: &str, stable: &str) -> Pair {
        let side = |text: &str, latency| Side {
            failed: false,
            latency,
            answer: Some(chat(text)),
        };
        Pair {
            request: Some(json!({"prompt": {"variables": {"question": "q?", "n": 3}}}).to_string()),
            stable: side(stable, 100_000),
            candidate: side(own, 200_000),
            agreement: Some(f64::from(u8::from(own == stable))),
            ..Pair::default()
        }
    }

    fn value(metrics: &[MetricValue], name: &str) -> (Option<f64>, Option<i64>) {
        let metric = metrics.iter().find(|m| m.name == name);
        metric.map_or((None, None), |m| (m.value, m.samples))
    }

    #[test]
    fn pairs_are_measured_side_by_side_and_failed_ones_have_no_answers() {
        let mut pairs: Vec<Pair> = (0..8).map(|_| pair("a", "a")).collect();
        pairs.push(pair("b", "a"));
        let mut failed = Pair::default();
        failed.candidate.failed = true;
        pairs.push(failed);
        let found = Gathered { pairs, missed: 2 };
        let metrics = found.measure(Draws::from(1));
        assert_eq!(value(&metrics, "errorRate"), (Some(0.1), Some(10)));
        assert_eq!(value(&metrics, "stable.errorRate").0, Some(0.0));
        assert_eq!(value(&metrics, "difference.errorRate").0, Some(0.1));
        assert_eq!(value(&metrics, "latencyP95"), (Some(0.2), Some(9)));
        assert_eq!(value(&metrics, "stable.latencyP95").0, Some(0.1));
        let (agreement, samples) = value(&metrics, "agreement");
        assert!((agreement.unwrap() - 8.0 / 9.0).abs() < 1e-9);
        assert_eq!(samples, Some(9));
        // Texts have no numbers, and that is said.
        let none = metrics.iter().find(|m| m.name == "difference").unwrap();
        assert_eq!(none.value, None);
        assert_eq!(none.message.as_deref(), Some(NUMBERLESS));
        let notes = found.notes().join(" ");
        assert!(notes.contains("on 10 of callers' requests"), "{notes}");
        assert!(notes.contains("2 copies more"), "{notes}");
    }

    #[test]
    fn of_a_request_evaluators_see_the_last_message_or_a_variable_by_name() {
        let talk = json!({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "x"},
                                       {"role": "user", "content": "two"}]});
        let prompt = json!({"prompt": {"variables": {"question": "q?", "items": [1, 2]}}});
        let model = json!({"instances": [1]});
        for (request, name, wanted) in [
            (&talk, "input", Some("two")),
            (&talk, "question", None),
            (&prompt, "question", Some("q?")),
            (&prompt, "items", Some("[1,2]")),
            (&prompt, "input", Some(r#"{"question":"q?","items":[1,2]}"#)),
            (&model, "input", Some(r#"{"instances":[1]}"#)),
        ] {
            let found = asked(&request.to_string(), name);
            assert_eq!(found.as_deref(), wanted, "{name} of {request}");
        }
        assert_eq!(asked("plain", "input").as_deref(), Some("plain"));
        assert_eq!(said("plain"), "plain");
        assert_eq!(said(&chat("hello")), "hello");
        assert_eq!(said(r#"{"choices": [{"text": "done"}]}"#), "done");
    }

    #[test]
    fn a_quarter_of_a_short_deadline_is_left_for_measuring_and_half_a_minute_of_a_long_one() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let given = |seconds: i64| {
            let deadline = now + jiff::SignedDuration::from_secs(seconds);
            time_for(Some(deadline), now).as_secs()
        };
        assert_eq!((given(40), given(3600), given(-5)), (30, 3570, 0));
        assert_eq!(time_for(None, now).as_secs(), 3570);
    }
}
