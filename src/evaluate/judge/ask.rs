//! Asking a judge: samples, their median, what they cost.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;

use super::question::{self, Question, Useless};
use crate::{
    api::judge::JudgeEvaluator,
    evaluate::{
        client::{Client, Trouble},
        input_failure,
        protocol::{open_inference::Manner, openai},
    },
    supervise::failure::Failure,
};

/// How often each question is asked, where the spec doesn't say.
const SAMPLES: i32 = 3;
/// Tries of a sample whose answer is of no use.
const TRIES: u64 = 3;
/// Samples without any answer from which nothing more is expected.
const EARLY: usize = 20;

/// What a judge says of a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The median of the samples, if more than half of them have a verdict.
    pub score: Option<f64>,
    /// Whether samples differ.
    pub torn: bool,
    /// Samples in which it declined.
    pub refused: usize,
    /// The evidence of a sample with the median.
    pub evidence: String,
}

/// One sample.
enum Sample {
    Said(i64, String),
    Useless(Useless),
    /// The backend says no to the request.
    Refused(String),
    /// No answer.
    Down(String),
}

/// A judge at work.
pub struct Judge<'a> {
    /// What it is.
    pub evaluator: &'a JudgeEvaluator,
    /// Seed of the run.
    pub seed: u64,
    client: Client,
    url: String,
    /// Whether the backend can be held to a schema; unknown before the first question.
    constrained: Option<bool>,
    said: HashMap<Question, Verdict>,
    usage: (u64, u64),
    last: Option<String>,
}

impl<'a> Judge<'a> {
    /// A judge that was asked nothing yet.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub fn new(
        evaluator: &'a JudgeEvaluator,
        manner: Manner<'_>,
        bearer: Option<String>,
        seed: u64,
    ) -> Result<Self, Failure> {
        let mut requests = manner.requests.clone();
        if let Some(timeout) = &evaluator.backend.timeout {
            requests.timeout = Some(timeout.clone());
        }
        let client = Client::new(&requests, bearer).map_err(|e| {
            let name = &evaluator.name;
            Failure::new("JudgeUnavailable", format!("judge {name}: {e}"), 1)
        })?;
        Ok(Self {
            evaluator,
            seed,
            client,
            url: evaluator.backend.url.clone(),
            constrained: None,
            said: HashMap::new(),
            usage: (0, 0),
            last: None,
        })
    }

    /// What it says of a question that it was asked.
    #[must_use]
    pub fn said(&self, question: &Question) -> Option<&Verdict> {
        self.said.get(question)
    }

    /// Forgets what it said, to ask again.
    pub fn forget(&mut self, questions: &[Question]) {
        for question in questions {
            self.said.remove(question);
        }
    }

    /// Why the last sample without a verdict has none, for the end of a sentence.
    #[must_use]
    pub fn last_trouble(&self) -> String {
        let last = self.last.as_ref();
        last.map_or_else(String::new, |last| format!("; the last one: {last}"))
    }

    /// Tokens used so far, and what they cost.
    #[must_use]
    pub fn spent(&self) -> (u64, Option<f64>) {
        let (prompt, completion) = self.usage;
        let prices = self.evaluator.backend.prices.as_ref();
        let cost = prices.map(|p| p.billionths(prompt, completion) as f64 / 1e9);
        (prompt + completion, cost)
    }

    /// Asks what wasn't asked yet.
    ///
    /// # Errors
    /// `JudgeUnavailable` if nothing is answered, `JudgeRefused` if the backend says no to all.
    pub async fn ask(&mut self, questions: &[Question]) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        let new: Vec<Question> = questions
            .iter()
            .filter(|q| !self.said.contains_key(*q) && seen.insert(*q))
            .cloned()
            .collect();
        let Some(first) = new.first() else {
            return Ok(());
        };
        if self.constrained.is_none() {
            self.constrained = Some(true);
            let (sample, tokens) = self.sample(first, 0).await;
            self.usage = (self.usage.0 + tokens.0, self.usage.1 + tokens.1);
            if matches!(sample, Sample::Refused(_)) {
                self.constrained = Some(false);
            }
        }
        let samples = usize::try_from(self.evaluator.samples.unwrap_or(SAMPLES)).unwrap_or(1);
        let calls = (0..new.len()).flat_map(|i| (0..samples).map(move |k| (i, k)));
        let (mut heard, mut usage, mut last) = (
            vec![Vec::with_capacity(samples); new.len()],
            self.usage,
            None,
        );
        let mut refused = vec![0; new.len()];
        let (mut answered, mut no, mut down) = (0, 0, 0);
        {
            let (judge, new) = (&*self, &new);
            let one = |(i, k): (usize, usize)| async move { (i, judge.sample(&new[i], k).await) };
            let mut all = std::pin::pin!(judge.client.each(calls, one));
            while let Some((i, (sample, tokens))) = all.next().await {
                usage = (usage.0 + tokens.0, usage.1 + tokens.1);
                match sample {
                    Sample::Said(verdict, evidence) => {
                        answered += 1;
                        heard[i].push((verdict, evidence));
                    }
                    Sample::Useless(why) => {
                        answered += 1;
                        refused[i] += usize::from(why == Useless::Refusal);
                        last = Some(match why {
                            Useless::Refusal => "it declines to judge".to_owned(),
                            Useless::Nonsense => {
                                "its answer is no JSON with evidence and a verdict on the scale"
                                    .to_owned()
                            }
                        });
                    }
                    Sample::Refused(text) => {
                        no += 1;
                        last = Some(text);
                    }
                    Sample::Down(text) => {
                        down += 1;
                        last = Some(text);
                    }
                }
                if answered + no == 0 && down >= EARLY {
                    break;
                }
            }
        }
        self.usage = usage;
        if last.is_some() {
            self.last = last;
        }
        if answered == 0 {
            return Err(self.silent(down > 0));
        }
        for (i, question) in new.into_iter().enumerate() {
            let verdict = settle(std::mem::take(&mut heard[i]), refused[i], samples);
            self.said.insert(question, verdict);
        }
        Ok(())
    }

    fn silent(&self, down: bool) -> Failure {
        let who = format!("judge {} at {}", self.evaluator.name, self.url);
        let why = self.last.as_deref().unwrap_or("no answer");
        match down {
            true => Failure::new(
                "JudgeUnavailable",
                format!("{who} can't be asked: {why}"),
                1,
            )
            .inconclusive(),
            false => input_failure(
                "JudgeRefused",
                format!("{who} refuses what it is asked: {why}"),
            ),
        }
    }

    async fn sample(&self, question: &Question, k: usize) -> (Sample, (u64, u64)) {
        let mut usage = (0, 0);
        let mut why = Useless::Nonsense;
        for attempt in 0..TRIES {
            let seed = self.seed.wrapping_add(k as u64 + 1000 * attempt);
            let constrained = self.constrained == Some(true);
            let body = question::request(self.evaluator, question, seed, constrained);
            let reply = match openai::chat(&self.client, &self.url, &body).await {
                Ok(reply) => reply,
                Err(Trouble::Refused(text)) => return (Sample::Refused(text), usage),
                Err(Trouble::Unavailable(text)) => return (Sample::Down(text), usage),
            };
            if let Some((prompt, completion)) = reply.usage {
                usage = (usage.0 + prompt, usage.1 + completion);
            }
            match question::verdict(self.evaluator, &reply.text) {
                Ok((verdict, evidence)) => return (Sample::Said(verdict, evidence), usage),
                Err(_) if reply.refusal => why = Useless::Refusal,
                Err(useless) => why = useless,
            }
        }
        (Sample::Useless(why), usage)
    }
}

/// The median of verdicts, with evidence for it.
fn settle(mut heard: Vec<(i64, String)>, refused: usize, samples: usize) -> Verdict {
    heard.sort_by_key(|(verdict, _)| *verdict);
    let torn = heard.first().map(|h| h.0) != heard.last().map(|h| h.0);
    let (low, high) = match heard.len() {
        0 => {
            return Verdict {
                refused,
                ..Verdict::default()
            };
        }
        n => (&heard[(n - 1) / 2], &heard[n / 2]),
    };
    let median = (low.0 + high.0) as f64 / 2.0;
    Verdict {
        score: (2 * heard.len() > samples).then_some(median),
        torn,
        refused,
        evidence: low.1.clone(),
    }
}
