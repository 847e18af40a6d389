//! A prompt's revision asked with rows of data, and stable with the same rows beside it.
//!
//! The columns are the variables, by name; what the prompt doesn't take is left out. Both sides are asked row by row, now the one first and now
//! the other, so that a slow minute of the backend is neither's. An error is never an answer: rows without one are counted.

use futures::StreamExt;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, Trouble},
    column, enough, input_failure,
    paired::{self, Draws, Statistic, Values as Paired},
    protocol::{
        open_inference::Manner,
        openai::{self, Reply},
        refused, unreachable,
    },
    rows::Rows,
};
use crate::{
    api::{
        gate::MetricValue,
        run::{PromptSide, PromptVariables, VariableKind},
    },
    data::table::{Cell, Source, Table},
    supervise::failure::Failure,
};

/// The column with the caller's message, for templates that place one.
const MESSAGE: &str = "input";
/// Failures from which it is over as soon as there are too many: up to here all rows are asked, so that the outcome isn't a matter of who
/// answered first.
const EARLY: usize = 20;

/// How a request says who is meant.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// A release behind the gateway, which renders its prompt.
    Release(&'a str),
    /// A model of an endpoint, which is given the message as it is.
    Model(&'a str),
}

/// The sides of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// Whose answers they are.
    pub named: Named<'a>,
    /// The revision that is measured.
    pub own: &'a PromptSide,
    /// Stable.
    pub stable: Option<&'a PromptSide>,
}

impl<'a> Sides<'a> {
    fn all(self) -> impl Iterator<Item = (&'static str, &'a PromptSide)> {
        let stable = self.stable.map(|side| ("stable", side));
        let own = match self.named {
            Named::Release(_) => "the prompt",
            Named::Model(_) => "the endpoint",
        };
        std::iter::once((own, self.own)).chain(stable)
    }
}

/// What both sides answered, by row; `None` where nothing came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replies {
    /// The target's.
    pub own: Vec<Option<Reply>>,
    /// Stable's.
    pub stable: Option<Vec<Option<Reply>>>,
}

/// The columns of the dataset that are variables of either side.
///
/// # Errors
/// If a variable that is required has none.
pub fn columns(sides: Sides<'_>, source: &Source) -> Result<Vec<String>, Failure> {
    let has = |name: &str| source.fields().iter().any(|f| f.name == name);
    let mut columns: Vec<String> = Vec::new();
    for (who, side) in sides.all() {
        let lacks = |what: &str| {
            let names: Vec<&str> = source.fields().iter().map(|f| f.name.as_str()).collect();
            input_failure(
                "InputUnreadable",
                format!(
                    "{who} needs {what}, and the dataset has no column of that name: it has {}",
                    names.join(", ")
                ),
            )
        };
        for (name, variable) in &side.takes.variables {
            if has(name) {
                columns.push(name.clone());
            } else if variable.required {
                return Err(lacks(&format!("the variable `{name}`")));
            }
        }
        if side.takes.message {
            if !has(MESSAGE) {
                return Err(lacks(&format!("the caller's message, `{MESSAGE}`")));
            }
            columns.push(MESSAGE.to_owned());
        }
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(columns)
}

/// What a row makes of a request.
fn body(
    named: Named<'_>,
    takes: &PromptVariables,
    table: &Table,
    row: usize,
) -> Result<Value, Failure> {
    let mut variables = Map::new();
    for (name, variable) in &takes.variables {
        let Some(column) = table.column(name) else {
            continue;
        };
        let cell = column.values.cell(row);
        if matches!(cell, Cell::Null) {
            if variable.required {
                return Err(input_failure(
                    "InputUnreadable",
                    format!(
                        "row {} of the dataset has no `{name}`, which the prompt requires: fill it, or take the row out",
                        row + 1
                    ),
                ));
            }
            continue;
        }
        variables.insert(name.clone(), value(cell, variable.kind, name, row)?);
    }
    let mut body = match named {
        Named::Release(name) => {
            json!({"model": name, "prompt": {"id": name, "variables": variables}})
        }
        Named::Model(name) => json!({"model": name}),
    };
    if takes.message {
        let message = column(table, MESSAGE)?.values.cell(row).to_string();
        body["messages"] = json!([{"role": "user", "content": message}]);
    }
    Ok(body)
}

fn value(cell: Cell<'_>, kind: VariableKind, name: &str, row: usize) -> Result<Value, Failure> {
    let parsed = |text: &str| {
        serde_json::from_str(text).map_err(|e| {
            input_failure(
                "InputUnreadable",
                format!(
                    "row {} of the dataset: `{name}` is a list or object of the prompt, and isn't written as JSON: {e}",
                    row + 1
                ),
            )
        })
    };
    Ok(match (kind, cell) {
        (VariableKind::Json, Cell::Text(text)) => parsed(text)?,
        (VariableKind::Plain | VariableKind::Json, Cell::Integer(x)) => json!(x),
        (VariableKind::Plain | VariableKind::Json, Cell::Number(x)) => json!(x),
        (VariableKind::Plain | VariableKind::Json, Cell::Boolean(x)) => json!(x),
        (_, cell) => json!(cell.to_string()),
    })
}

/// How far one side is.
#[derive(Default)]
struct Tally {
    answered: usize,
    missing: usize,
    /// Of those missing: refused, which they would be again.
    refused: usize,
    last: String,
}

impl Tally {
    fn judge(&self, who: &str, url: &str, count: usize, share: f64) -> Result<(), Failure> {
        let permanent = self.missing > 0 && self.refused == self.missing;
        if self.answered == 0 && self.missing > 0 {
            return Err(match permanent {
                true => refused(
                    who,
                    &self.last,
                    "does the dataset have the columns that the prompt takes?",
                ),
                false => unreachable(who, url, &self.last),
            });
        }
        enough(self.missing, count, share, who, &self.last).map_err(|failure| match permanent {
            true => failure.permanent(),
            false => failure,
        })
    }
}

/// Asks both sides for all rows.
///
/// # Errors
/// `InputUnreadable` if a row can't be made a request of; `TargetUnreachable` or `TargetRefused` if a side answers no row, `TooManyUnanswered` if it leaves too
/// many without an answer.
pub async fn ask(
    sides: Sides<'_>,
    rows: &Rows,
    manner: Manner<'_>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Replies, Failure> {
    let asked: Vec<(&str, &PromptSide)> = sides.all().collect();
    // All of them first: nothing is asked for data that can't be.
    let mut calls = Vec::with_capacity(rows.count * asked.len());
    for row in 0..rows.count {
        let mut both = Vec::with_capacity(asked.len());
        for (place, (_, side)) in asked.iter().enumerate() {
            both.push((
                row,
                place,
                body(sides.named, &side.takes, &rows.table, row)?,
            ));
        }
        if row % 2 == 1 {
            both.reverse();
        }
        calls.extend(both);
    }
    let all = calls.len();
    let client = Client::new(manner.requests, manner.bearer.map(str::to_owned))
        .map_err(|e| unreachable(asked[0].0, &asked[0].1.url, &e))?;
    let mut replies: Vec<Vec<Option<Reply>>> = vec![vec![None; rows.count]; asked.len()];
    let mut tallies: Vec<Tally> = asked.iter().map(|_| Tally::default()).collect();
    let (client, asked) = (&client, &asked);
    let one = |(row, place, body): (usize, usize, Value)| async move {
        (
            row,
            place,
            openai::chat(client, &asked[place].1.url, &body).await,
        )
    };
    let mut answers = std::pin::pin!(client.each(calls, one));
    let mut done = 0;
    while let Some((row, place, answer)) = answers.next().await {
        done += 1;
        let tally = &mut tallies[place];
        let (who, side) = asked[place];
        match answer {
            Ok(reply) => {
                tally.answered += 1;
                replies[place][row] = Some(reply);
            }
            Err(trouble) => {
                tracing::warn!(
                    "{who} gave no answer to row {}: {}",
                    row + 1,
                    trouble.text()
                );
                tally.missing += 1;
                tally.refused += usize::from(matches!(trouble, Trouble::Refused(_)));
                trouble.text().clone_into(&mut tally.last);
                if tally.missing >= EARLY {
                    tally.judge(who, &side.url, rows.count, manner.share)?;
                }
            }
        }
        progress(done, all);
    }
    for ((who, side), tally) in asked.iter().zip(&tallies) {
        tally.judge(who, &side.url, rows.count, manner.share)?;
    }
    let mut replies = replies.into_iter();
    Ok(Replies {
        own: replies.next().unwrap_or_default(),
        stable: replies.next(),
    })
}

impl Replies {
    /// Texts of one side.
    fn texts(side: &[Option<Reply>]) -> Vec<Option<String>> {
        let text = |reply: &Option<Reply>| reply.as_ref().map(|r| r.text.clone());
        side.iter().map(text).collect()
    }

    /// The target's texts, and stable's.
    #[must_use]
    pub fn both(&self) -> (Vec<Option<String>>, Option<Vec<Option<String>>>) {
        (
            Self::texts(&self.own),
            self.stable.as_deref().map(Self::texts),
        )
    }

    /// Tokens of all answers, and what they cost where somebody says: each side by its own prices.
    #[must_use]
    pub fn spent(&self, sides: Sides<'_>) -> (Option<i64>, Option<f64>) {
        let stable = self.stable.as_deref().zip(sides.stable);
        let sides = std::iter::once((self.own.as_slice(), sides.own)).chain(stable);
        let (mut tokens, mut cost) = (None, None);
        for (replies, side) in sides {
            for reply in replies.iter().flatten() {
                if let Some((prompt, completion)) = reply.usage {
                    *tokens.get_or_insert(0) += prompt + completion;
                }
                if let Some(one) = cost_of(reply, side) {
                    *cost.get_or_insert(0.0) += one;
                }
            }
        }
        (tokens.and_then(|t: u64| i64::try_from(t).ok()), cost)
    }

    /// What the answers took and cost, over rows that both sides answered.
    #[must_use]
    pub fn measure(
        &self,
        sides: Sides<'_>,
        days: Option<&[usize]>,
        draws: Draws,
    ) -> Vec<MetricValue> {
        let mut metrics = Vec::new();
        let time = |reply: &Reply, _: &PromptSide| Some(reply.time.as_secs_f64());
        let taken = self.values(sides, time);
        for (name, share) in [
            ("latencyP50", 0.5),
            ("latencyP95", 0.95),
            ("latencyP99", 0.99),
        ] {
            let how = Statistic::Quantile(share);
            metrics.extend(paired::measure(name, &taken, days, how, (draws, NO_ANSWER)));
        }
        let tokens = |reply: &Reply, _: &PromptSide| {
            let (prompt, completion) = reply.usage?;
            Some((prompt + completion) as f64)
        };
        let means: [(&str, &str, OfReply); 2] = [
            ("tokensPerRequest", NO_USAGE, tokens),
            ("costPerRequest", NO_PRICES, cost_of),
        ];
        for (name, excuse, value) in means {
            let values = self.values(sides, value);
            metrics.extend(paired::measure(
                name,
                &values,
                days,
                Statistic::Mean,
                (draws, excuse),
            ));
        }
        metrics
    }

    /// A value of each row that has one on every side.
    fn values(
        &self,
        sides: Sides<'_>,
        value: impl Fn(&Reply, &PromptSide) -> Option<f64>,
    ) -> Paired {
        let mut found = Paired {
            stable: self.stable.as_ref().map(|_| Vec::new()),
            ..Paired::default()
        };
        for (row, own) in self.own.iter().enumerate() {
            let Some(own) = own.as_ref().and_then(|reply| value(reply, sides.own)) else {
                continue;
            };
            if let (Some(replies), Some(side)) = (&self.stable, sides.stable) {
                let Some(stable) = replies[row].as_ref().and_then(|reply| value(reply, side))
                else {
                    continue;
                };
                found.stable.get_or_insert_default().push(stable);
            }
            found.rows.push(row);
            found.own.push(own);
        }
        found
    }
}

/// A number of a reply, if there is one.
type OfReply = fn(&Reply, &PromptSide) -> Option<f64>;

const NO_ANSWER: &str = "no row has an answer";
const NO_USAGE: &str = "the backend doesn't say how many tokens it used";
const NO_PRICES: &str = "nobody says what tokens cost: write backend.prices {inputPerMillion, outputPerMillion} of the PromptRelease";

/// In the currency of the side's prices.
fn cost_of(reply: &Reply, side: &PromptSide) -> Option<f64> {
    let (prompt, completion) = reply.usage?;
    let prices = side.prices.as_ref()?;
    Some(prices.billionths(prompt, completion) as f64 / 1e9)
}
