//! OpenAI's chat completions: one request, one text.

use std::time::Duration;

use serde_json::Value;

use crate::evaluate::client::{Client, Heard, Trouble};

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The first choice's text.
    pub text: String,
    /// Whether the backend itself calls it a refusal.
    pub refusal: bool,
    /// From the request to the last byte of the answer, of the try that was answered.
    pub time: Duration,
    /// Tokens of prompt and answer as the backend counts them, where it does.
    pub usage: Option<(u64, u64)>,
}

/// Asks `<base>/chat/completions`; the base ends with `/v1`.
///
/// # Errors
/// If no answer came, it was a refusal, or one that is no completion: an error is never a text.
pub async fn chat(client: &Client, base: &str, body: &Value) -> Result<Reply, Trouble> {
    let url = format!("{}/chat/completions", base.trim_end_matches('/'));
    let heard = client.insist(&url, body, client.tries()).await?;
    reply(&heard).map_err(Trouble::Unavailable)
}

fn reply(heard: &Heard) -> Result<Reply, String> {
    let choice = heard.body.get("choices").and_then(|c| c.get(0));
    let Some(choice) = choice else {
        return Err("its answer has no `choices`".to_owned());
    };
    let message = choice.get("message");
    let said = |name: &str| message?.get(name)?.as_str();
    let Some(text) = said("content").or_else(|| said("refusal")) else {
        let why = choice.get("finish_reason").and_then(Value::as_str);
        return Err(format!(
            "its answer has no text (finish_reason: {})",
            why.unwrap_or("none")
        ));
    };
    let tokens = |name: &str| heard.body.get("usage")?.get(name)?.as_u64();
    Ok(Reply {
        text: text.to_owned(),
        refusal: said("content").is_none(),
        time: heard.time,
        usage: tokens("prompt_tokens").zip(tokens("completion_tokens")),
    })
}
