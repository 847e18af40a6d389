//! Asking a model: the Open Inference Protocol (KServe V2) over HTTP, in batches, with columns by name.

use futures::StreamExt;
use serde_json::{Value, json};

use super::{refused, unreachable};
use crate::{
    api::evaluation::Requests,
    data::table::{Cell, Values},
    evaluate::{
        answer::{Answer, Answers},
        client::{Client, Trouble, waits, words},
        column, enough,
        rows::Rows,
        truth::{Truth, canonical_text},
    },
    supervise::failure::Failure,
};

/// Rows of a request.
const BATCH: usize = 250;
/// What to look at when rows are refused.
const HINT: &str = "are `features` the columns that it was trained on?";

/// How a model is asked.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// The spec's `requests`.
    pub requests: &'a Requests,
    /// Share of rows that may stay without an answer.
    pub share: f64,
    /// The model's name on its server; absent: the only one.
    pub model: Option<&'a str>,
    /// Token that is sent along.
    pub bearer: Option<&'a str>,
}

struct Model<'a> {
    client: Client,
    url: String,
    who: &'a str,
    infer: String,
    outputs: &'static [&'static str],
}

/// Asks for all rows. `who` is for messages; `progress` hears how many rows are done.
///
/// # Errors
/// `TargetUnreachable` if the model doesn't answer at all, `TooManyUnanswered` if it leaves more than this share of the rows without an answer,
/// `TargetRefused` if it refuses the rows or its answers make no sense.
pub async fn ask(
    url: &str,
    who: &str,
    rows: &Rows,
    truth: &Truth,
    manner: Manner<'_>,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Answers, Failure> {
    let client = Client::new(manner.requests, manner.bearer.map(str::to_owned))
        .map_err(|e| unreachable(who, url, &e))?;
    let url = url.trim_end_matches('/').to_owned();
    let mut model = Model {
        client,
        infer: String::new(),
        url,
        who,
        outputs: &[],
    };
    let name = match manner.model {
        Some(name) => name.to_owned(),
        None => model.name().await?,
    };
    model.infer = format!("{}/v2/models/{name}/infer", model.url);
    let (first, rest) = (0..rows.count.min(BATCH), BATCH.min(rows.count)..rows.count);
    let mut answers = Answers {
        rows: vec![None; rows.count],
        classes: Vec::new(),
    };
    // The first batch finds out what the model can be asked for.
    let wishes: &[&[&str]] = match truth {
        Truth::Binary { .. } | Truth::Multi { .. } => {
            &[&["predict_proba", "predict"], &["predict_proba"], &[]]
        }
        Truth::Number(_) => &[&[]],
    };
    let got = model.first(rows, first.clone(), wishes).await?;
    place(&mut answers, first.start, got);
    let batches: Vec<_> = rest
        .clone()
        .step_by(BATCH)
        .map(|start| start..(start + BATCH).min(rows.count))
        .collect();
    let model = &model;
    let ask = |range: std::ops::Range<usize>| async move {
        let tries = model.client.tries();
        (range.clone(), model.batch(rows, range, tries).await)
    };
    let mut asked = std::pin::pin!(model.client.each(batches, ask));
    let (mut done, mut missing) = (first.len(), 0);
    while let Some((range, result)) = asked.next().await {
        done += range.len();
        match result {
            Ok(got) => place(&mut answers, range.start, got),
            Err(Trouble::Refused(text)) => return Err(refused(who, &text, HINT)),
            Err(Trouble::Unavailable(text)) => {
                tracing::warn!("{who} gave no answer for {} rows: {text}", range.len());
                missing += range.len();
                enough(missing, rows.count, manner.share, who, &text)?;
            }
        }
        progress(done);
    }
    let mut given = answers.rows.iter().flatten();
    let by_class = given.any(|answer| !answer.probabilities.is_empty());
    match truth {
        Truth::Binary { classes, .. } => settle(&mut answers, classes),
        // What is predicted besides is a wrong answer, no wrong server.
        Truth::Multi { classes, .. } if by_class => settle(&mut answers, classes),
        Truth::Multi { .. } | Truth::Number(_) => Ok(()),
    }
    .map_err(|text| refused(who, &text, HINT))?;
    Ok(answers)
}

fn place(answers: &mut Answers, start: usize, got: Vec<Answer>) {
    for (slot, answer) in answers.rows.iter_mut().skip(start).zip(got) {
        *slot = Some(answer);
    }
}

impl Model<'_> {
    /// The model's name on its server.
    async fn name(&self) -> Result<String, Failure> {
        let mut last = String::new();
        for wait in waits(self.client.tries()) {
            tokio::time::sleep(wait).await;
            match self.names().await {
                Ok(names) => {
                    return match names.as_slice() {
                        [only] => Ok(only.clone()),
                        [] => Err(unreachable(
                            self.who,
                            &self.url,
                            "its server has no model that is ready",
                        )),
                        several => Err(crate::evaluate::input_failure(
                            "TargetRefused",
                            format!(
                                "{} serves several models ({}): an Evaluation asks a server that has one",
                                self.who,
                                several.join(", ")
                            ),
                        )),
                    };
                }
                Err(text) => last = text,
            }
        }
        Err(unreachable(self.who, &self.url, &last))
    }

    /// Names from the repository index; from servers without one, their list of models.
    async fn names(&self) -> Result<Vec<String>, String> {
        let index = format!("{}/v2/repository/index", self.url);
        let heard = self.client.post(&index, &json!({"ready": true})).await?;
        let (status, answer) = (heard.status, heard.body);
        if status == 200 {
            let models = answer.as_array().cloned().unwrap_or_default();
            let ready = |m: &&Value| {
                m.get("state")
                    .and_then(Value::as_str)
                    .is_none_or(|s| s == "READY")
            };
            let names = models
                .iter()
                .filter(ready)
                .filter_map(|m| m.get("name")?.as_str());
            return Ok(names.map(str::to_owned).collect());
        }
        let heard = self.client.get(&format!("{}/v2/models", self.url)).await?;
        let list = heard.body;
        if heard.status == 200
            && let Some(models) = list.get("models").and_then(Value::as_array)
        {
            let name = |m: &Value| {
                m.as_str()
                    .or(m.get("name").and_then(Value::as_str))
                    .map(str::to_owned)
            };
            return Ok(models.iter().filter_map(name).collect());
        }
        Err(format!(
            "POST /v2/repository/index answers {status}: {}",
            words(&answer)
        ))
    }

    /// The first batch, with the first wish that the model fulfils.
    async fn first(
        &mut self,
        rows: &Rows,
        range: std::ops::Range<usize>,
        wishes: &[&'static [&'static str]],
    ) -> Result<Vec<Answer>, Failure> {
        let mut last = Trouble::Unavailable(String::new());
        for (index, wish) in wishes.iter().enumerate() {
            self.outputs = wish;
            // What it can't give may also show as a server error; don't wait long for that before the last wish.
            let all = self.client.tries();
            let tries = if index + 1 == wishes.len() {
                all
            } else {
                all.min(3)
            };
            match self.batch(rows, range.clone(), tries).await {
                Ok(answers) => return Ok(answers),
                Err(trouble) => last = trouble,
            }
        }
        Err(match last {
            Trouble::Refused(text) => refused(self.who, &text, HINT),
            Trouble::Unavailable(text) => unreachable(self.who, &self.url, &text),
        })
    }

    async fn batch(
        &self,
        rows: &Rows,
        range: std::ops::Range<usize>,
        tries: u32,
    ) -> Result<Vec<Answer>, Trouble> {
        let body =
            request(rows, range.clone(), self.outputs).map_err(|e| Trouble::Refused(e.message))?;
        let heard = self.client.insist(&self.infer, &body, tries).await?;
        decode(&heard.body, range.len()).map_err(Trouble::Refused)
    }
}

/// The rows as a request: one tensor for each column, which servers with the pandas content type read as a data frame.
fn request(rows: &Rows, range: std::ops::Range<usize>, outputs: &[&str]) -> Result<Value, Failure> {
    let count = range.len();
    let mut inputs = Vec::with_capacity(rows.features.len());
    for name in &rows.features {
        let values = &column(&rows.table, name)?.values;
        let cells: Vec<Cell<'_>> = range.clone().map(|row| values.cell(row)).collect();
        let whole = cells.iter().all(|cell| matches!(cell, Cell::Integer(_)));
        let (datatype, content) = match values {
            Values::Integer(_) if whole => ("INT64", None),
            Values::Integer(_) | Values::Number(_) => ("FP64", None),
            Values::Boolean(_) => ("BOOL", None),
            Values::Text(_) | Values::Time(_) => ("BYTES", Some("str")),
        };
        let data: Vec<Value> = cells
            .iter()
            .map(|cell| match cell {
                Cell::Null => Value::Null,
                Cell::Integer(x) => json!(x),
                // NaN and infinities are null in JSON.
                Cell::Number(x) => json!(x),
                Cell::Boolean(x) => json!(x),
                Cell::Text(x) => json!(x),
                Cell::Time(_) => json!(cell.to_string()),
            })
            .collect();
        let mut input =
            json!({"name": name, "shape": [count, 1], "datatype": datatype, "data": data});
        if let Some(content) = content {
            input["parameters"] = json!({"content_type": content});
        }
        inputs.push(input);
    }
    let mut body = json!({"parameters": {"content_type": "pd"}, "inputs": inputs});
    if !outputs.is_empty() {
        body["outputs"] = outputs.iter().map(|name| json!({"name": name})).collect();
    }
    Ok(body)
}

fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        other => into.push(other),
    }
}

/// The rows' answers in a response.
fn decode(answer: &Value, count: usize) -> Result<Vec<Answer>, String> {
    let outputs = answer
        .get("outputs")
        .and_then(Value::as_array)
        .filter(|outputs| !outputs.is_empty())
        .ok_or_else(|| "its answer has no `outputs`".to_owned())?;
    let mut answers = vec![Answer::default(); count];
    let mut said = false;
    for output in outputs {
        let name = output
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let floats = output
            .get("datatype")
            .and_then(Value::as_str)
            .is_some_and(|d| d.starts_with("FP"));
        let mut data = Vec::new();
        flatten(output.get("data").unwrap_or(&Value::Null), &mut data);
        if data.is_empty() || !data.len().is_multiple_of(count) {
            return Err(format!(
                "output `{name}` has {} values for {count} rows",
                data.len()
            ));
        }
        let width = data.len() / count;
        let probabilities = name == "predict_proba" || (width > 1 && floats);
        if !probabilities && (width != 1 || said) {
            continue;
        }
        for (answer, values) in answers.iter_mut().zip(data.chunks(width)) {
            if probabilities {
                let all: Vec<f64> = values.iter().filter_map(|v| v.as_f64()).collect();
                let sum: f64 = all.iter().sum();
                let sound = all.len() == width
                    && all.iter().all(|p| (0.0..=1.0).contains(p))
                    && (width == 1 || (sum - 1.0).abs() < 1e-3);
                if !sound {
                    return Err(format!(
                        "output `{name}` holds {}, which aren't probabilities that sum to 1",
                        json!(values)
                    ));
                }
                answer.probabilities = all;
            } else if let Some((class, number)) = single(values[0]) {
                answer.class = Some(class);
                answer.number = number;
            } else {
                return Err(format!(
                    "output `{name}` holds {}, which is no prediction",
                    values[0]
                ));
            }
        }
        said |= !probabilities;
    }
    if answers
        .iter()
        .any(|a| a.class.is_none() && a.probabilities.is_empty())
    {
        return Err("its answer has neither classes, numbers nor probabilities, one row of them for each row asked".to_owned());
    }
    Ok(answers)
}

fn single(value: &Value) -> Option<(String, Option<f64>)> {
    match value {
        Value::Bool(b) => Some((u8::from(*b).to_string(), Some(f64::from(u8::from(*b))))),
        Value::Number(n) => n
            .as_f64()
            .map(|x| (canonical_text(&x.to_string()), Some(x))),
        Value::String(text) => Some((canonical_text(text), text.parse().ok())),
        _ => None,
    }
}

/// Finds out what a classifier's numbers mean: which class each probability belongs to, and whether a single number is a probability.
fn settle(answers: &mut Answers, classes: &[String]) -> Result<(), String> {
    let given: Vec<&mut Answer> = answers.rows.iter_mut().flatten().collect();
    let width = given.first().map_or(0, |a| a.probabilities.len());
    if given.iter().any(|a| a.probabilities.len() != width) {
        return Err("some of its answers have probabilities and some don't".to_owned());
    }
    if width == 0 {
        let numbers: Vec<f64> = given.iter().filter_map(|a| a.number).collect();
        let known = given
            .iter()
            .all(|a| a.class.as_ref().is_some_and(|c| classes.contains(c)));
        if known {
            return Ok(());
        }
        if numbers.len() == given.len() && numbers.iter().all(|p| (0.0..=1.0).contains(p)) {
            for answer in given {
                answer.probabilities = answer.number.into_iter().collect();
                answer.class = None;
            }
            return Ok(());
        }
        let odd = given
            .iter()
            .find_map(|a| a.class.clone().filter(|c| !classes.contains(c)));
        return Err(format!(
            "it predicts `{}`, which is neither one of the label's classes ({}) nor a probability",
            odd.unwrap_or_default(),
            classes.join(", ")
        ));
    }
    if width == 1 {
        return Ok(());
    }
    // What it predicts where one probability is the largest says whose it is.
    let mut owners: Vec<Option<String>> = vec![None; width];
    for answer in &given {
        let Some(class) = &answer.class else { continue };
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| answer.probabilities[b].total_cmp(&answer.probabilities[a]));
        if answer.probabilities[order[0]] - answer.probabilities[order[1]] < 1e-9 {
            continue;
        }
        match &owners[order[0]] {
            Some(owner) if owner != class => {
                return Err(format!(
                    "its predictions contradict its probabilities: where the {}. is the largest it predicts now `{owner}`, now `{class}`",
                    order[0] + 1
                ));
            }
            _ => owners[order[0]] = Some(class.clone()),
        }
    }
    if classes.len() != width && owners.iter().any(Option::is_none) {
        return Err(format!(
            "it gives {width} probabilities a row, and the label has {} classes ({}): nobody can tell which is whose",
            classes.len(),
            classes.join(", ")
        ));
    }
    let left: Vec<&String> = classes
        .iter()
        .filter(|c| !owners.contains(&Some((*c).clone())))
        .collect();
    // Those that were never the largest: in the order in which scikit-learn has its classes, sorted.
    let mut left = left.into_iter();
    let named = owners
        .into_iter()
        .map(|owner| owner.or_else(|| left.next().cloned()).unwrap_or_default());
    answers.classes = named.collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(rows: &[(Option<&str>, &[f64])]) -> Answers {
        let answer = |(class, p): &(Option<&str>, &[f64])| {
            Some(Answer {
                class: class.map(str::to_owned),
                number: None,
                probabilities: p.to_vec(),
            })
        };
        Answers {
            rows: rows.iter().map(answer).collect(),
            classes: Vec::new(),
        }
    }

    #[test]
    fn probabilities_belong_to_the_classes_that_are_predicted_where_they_are_the_largest() {
        let classes = ["0".to_owned(), "1".to_owned()];
        for (rows, want) in [
            (
                vec![(Some("0"), &[0.9, 0.1][..]), (Some("1"), &[0.2, 0.8])],
                ["0", "1"],
            ),
            (
                vec![(Some("1"), &[0.9, 0.1][..]), (Some("1"), &[0.6, 0.4])],
                ["1", "0"],
            ),
            (
                vec![(None, &[0.9, 0.1][..]), (None, &[0.2, 0.8])],
                ["0", "1"],
            ),
        ] {
            let mut given = answers(&rows);
            settle(&mut given, &classes).unwrap();
            assert_eq!(given.classes, want, "{rows:?}");
        }
        let mut torn = answers(&[(Some("0"), &[0.9, 0.1]), (Some("1"), &[0.8, 0.2])]);
        assert!(
            settle(&mut torn, &classes)
                .unwrap_err()
                .contains("contradict")
        );
        let mut more = answers(&[(None, &[0.5, 0.2, 0.3])]);
        assert!(
            settle(&mut more, &classes)
                .unwrap_err()
                .contains("3 probabilities")
        );
    }

    #[test]
    fn an_answer_that_is_none_is_refused_with_what_it_holds() {
        let output = |name: &str, datatype: &str, data: Value| json!({"outputs": [{"name": name, "datatype": datatype, "data": data}]});
        let good = decode(
            &output("predict_proba", "FP64", json!([[0.2, 0.8], [0.5, 0.5]])),
            2,
        )
        .unwrap();
        assert_eq!(good[0].probabilities, [0.2, 0.8]);
        let bools = decode(&output("predict", "BOOL", json!([true, false])), 2).unwrap();
        assert_eq!(bools[0].class.as_deref(), Some("1"));
        for (answer, word) in [
            (json!({}), "no `outputs`"),
            (
                output("predict", "INT64", json!([1])),
                "1 values for 2 rows",
            ),
            (
                output("predict_proba", "FP64", json!([0.2, 0.9, 0.5, 0.5])),
                "aren't probabilities",
            ),
            (
                output("predict", "FP64", json!([null, 1.0])),
                "no prediction",
            ),
        ] {
            let error = decode(&answer, 2).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
