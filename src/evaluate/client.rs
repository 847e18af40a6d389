//! Asking over HTTP: so many requests at a time, at most so many a second, and each again where another try may help.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    api::evaluation::Requests,
    data::store::{chain, patient_client},
    supervise::board::shorten,
};

/// Requests at a time, where the spec doesn't say.
const CONCURRENCY: i32 = 4;
/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Further tries of one request.
const RETRIES: i32 = 5;
/// Wait before the second try; doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const LARGEST: usize = 64 << 20;

/// Why a request was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The target says no, and will again.
    Refused(String),
    /// No answer, or one that another try may better.
    Unavailable(String),
}

impl Trouble {
    /// In words.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Refused(text) | Self::Unavailable(text) => text,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Its status.
    pub status: u16,
    /// Its body; text where it is no JSON.
    pub body: Value,
    /// From the request to the last byte of the answer, of this try alone.
    pub time: Duration,
    retry_after: Option<Duration>,
}

/// Who asks.
pub struct Client {
    http: reqwest::Client,
    concurrency: usize,
    timeout: Duration,
    tries: u32,
    /// Between the beginnings of two requests.
    pause: Duration,
    next: Mutex<Instant>,
    bearer: Option<String>,
}

impl Client {
    /// That asks as the spec says, with this token if there is one.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub fn new(requests: &Requests, bearer: Option<String>) -> Result<Self, String> {
        let timeout = requests.timeout.as_ref().map_or(TIMEOUT, |d| d.to_std());
        let retries = requests.retries.unwrap_or(RETRIES).max(0);
        let pause = requests.per_second.filter(|rate| *rate > 0.0);
        Ok(Self {
            http: patient_client(timeout).map_err(|e| e.to_string())?,
            concurrency: usize::try_from(requests.concurrency.unwrap_or(CONCURRENCY)).unwrap_or(1),
            timeout,
            tries: u32::try_from(retries).unwrap_or(0) + 1,
            pause: pause.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate)),
            next: Mutex::new(Instant::now()),
            bearer,
        })
    }

    /// What is asked of these, as it comes, in any order; so many at a time.
    pub fn each<T, F, O>(
        &self,
        items: impl IntoIterator<Item = T>,
        ask: impl FnMut(T) -> F,
    ) -> impl Stream<Item = O>
    where
        F: Future<Output = O>,
    {
        stream::iter(items.into_iter().map(ask)).buffer_unordered(self.concurrency)
    }

    /// How often a request is tried.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// A GET, once.
    ///
    /// # Errors
    /// In words, if no answer came.
    pub async fn get(&self, url: &str) -> Result<Heard, String> {
        self.once(self.http.get(url)).await
    }

    /// A POST of JSON, once.
    ///
    /// # Errors
    /// In words, if no answer came.
    pub async fn post(&self, url: &str, body: &Value) -> Result<Heard, String> {
        self.once(self.http.post(url).json(body)).await
    }

    /// A POST of JSON, up to so many times, until it is answered with 200.
    ///
    /// # Errors
    /// What the last try came to.
    pub async fn insist(&self, url: &str, body: &Value, tries: u32) -> Result<Heard, Trouble> {
        let mut last = String::new();
        let mut asked_for = Duration::ZERO;
        for wait in waits(tries) {
            tokio::time::sleep(wait.max(asked_for).min(LONGEST_WAIT)).await;
            asked_for = Duration::ZERO;
            match self.post(url, body).await {
                Ok(heard) if heard.status == 200 => return Ok(heard),
                Ok(heard) => {
                    let text = format!("it answers {}: {}", heard.status, words(&heard.body));
                    // Not yet routed, overloaded, or broken: another try may help.
                    if !matches!(heard.status, 404 | 408 | 429 | 500..=599) {
                        return Err(Trouble::Refused(text));
                    }
                    last = text;
                    asked_for = heard.retry_after.unwrap_or_default();
                }
                Err(text) => last = text,
            }
        }
        Err(Trouble::Unavailable(last))
    }

    async fn once(&self, request: reqwest::RequestBuilder) -> Result<Heard, String> {
        let request = match &self.bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        self.turn().await;
        let begun = Instant::now();
        let whole = async {
            let answer = request.timeout(self.timeout).send().await?;
            let (status, retry_after) = (answer.status().as_u16(), retry_after(answer.headers()));
            let mut parts = answer.bytes_stream();
            let mut bytes = Vec::new();
            while let Some(part) = parts.next().await {
                bytes.extend_from_slice(&part?);
                if bytes.len() > LARGEST {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, retry_after, bytes))
        };
        let (status, retry_after, bytes) = whole.await.map_err(|e| chain(&e))?;
        if bytes.len() > LARGEST {
            return Err(format!("its answer is longer than {} MiB", LARGEST >> 20));
        }
        Ok(Heard {
            status,
            time: begun.elapsed(),
            retry_after,
            body: serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())),
        })
    }

    /// Waits until the rate allows another request.
    async fn turn(&self) {
        if self.pause.is_zero() {
            return;
        }
        let at = {
            let mut next = self.next.lock().await;
            let at = (*next).max(Instant::now());
            *next = at + self.pause;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// Waits before each try: none, then doubling.
pub fn waits(tries: u32) -> impl Iterator<Item = Duration> {
    (0..tries).map(|n| match n {
        0 => Duration::ZERO,
        n => (FIRST_WAIT * 2u32.saturating_pow(n - 1)).min(LONGEST_WAIT),
    })
}

/// In seconds; the other form, a date, is of a clock that may not be ours.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// A server's own words about an error.
#[must_use]
pub fn words(answer: &Value) -> String {
    let error = answer.get("error").or(answer.get("detail"));
    // OpenAI's errors are objects.
    let error = error.map(|e| e.get("message").unwrap_or(e));
    let text = match error.unwrap_or(answer) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    shorten(text.trim(), 400)
}
