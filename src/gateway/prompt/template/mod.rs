//! A prompt, compiled once per revision: templates, the schema of their variables, parameters, backend.
//!
//! Where a caller's text goes is the template's to say. With `prompt.variables` the caller gives the variables themselves. With ordinary
//! `messages` two variables are made of them: `messages`, the list of `{role, content}` (for a template that places the conversation),
//! and `input`, the text of the only or last user message. A template that uses neither and requires exactly one string
//! variable gets the user's message as that variable. Values are data: they are never read as templates.

#[cfg(test)]
mod tests;
mod variables;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::Uri;
use jsonschema::Validator;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value, json};

use self::variables::{default_schema, only_required, optional};
use crate::api::{
    prompt_release::{KeyReference, Prices, Role},
    revision::PromptRevision,
};

/// Steps that a template may take: a loop over all of a conversation is far below.
const FUEL: u64 = 1_000_000;
/// The longest rendered message.
const MAX_RENDERED: usize = 4 << 20;
/// Wait for an answer to begin, where the backend says none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Fields that are the caller's.
const CALLERS: [&str; 14] = [
    "stream",
    "stream_options",
    "user",
    "safety_identifier",
    "metadata",
    "seed",
    "stop",
    "n",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "store",
    "logprobs",
    "top_logprobs",
];
/// Fields that the caller may set where the prompt doesn't.
const OPEN: [&str; 14] = [
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "modalities",
];
/// Fields that choose the prompt and carry its inputs.
const OURS: [&str; 6] = [
    "model",
    "prompt",
    "messages",
    "conversation",
    "prompt_id",
    "prompt_variables",
];

/// A prompt ready to render.
pub struct CompiledPrompt {
    /// Its version.
    pub version: String,
    /// Where requests go: `<backend url>/chat/completions`.
    pub uri: Uri,
    /// Its scheme, host and port: by these it is known whether it can be reached.
    pub backend: Arc<str>,
    /// The key of a Secret that is sent as bearer token.
    pub credentials: Option<KeyReference>,
    /// Longest wait for an answer to begin.
    pub timeout: Duration,
    /// What tokens cost.
    pub prices: Option<Prices>,
    model: String,
    environment: Environment<'static>,
    roles: Vec<Role>,
    used: BTreeSet<String>,
    declared: Option<BTreeSet<String>>,
    validator: Validator,
    optional: Map<String, Value>,
    only_required: Option<String>,
    parameters: Map<String, Value>,
}

/// Why a request can't be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenderError {
    /// The caller's fault: a sentence, and the field.
    Caller(String, Option<String>),
    /// The prompt's fault.
    Prompt(String),
}

fn caller(param: &str, message: String) -> RenderError {
    RenderError::Caller(message, Some(param.to_owned()))
}

/// Scheme, host and port of a URI, as it has them.
fn place(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |a| a.as_str());
    // What stands before an `@` is nobody's business.
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}", uri.scheme_str().unwrap_or("http"))
}

impl CompiledPrompt {
    /// Compiles a prompt.
    ///
    /// # Errors
    /// A sentence that says which field of the prompt makes no sense.
    pub fn new(revision: &PromptRevision) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(50);
        let globals: BTreeSet<String> = environment
            .globals()
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut used = BTreeSet::new();
        for (i, message) in revision.prompt.messages.iter().enumerate() {
            let wrong =
                |e: minijinja::Error| format!("messages[{i}].content is no Jinja template: {e}");
            environment
                .add_template_owned(i.to_string(), message.content.clone())
                .map_err(wrong)?;
            let template = environment.get_template(&i.to_string()).map_err(wrong)?;
            used.extend(template.undeclared_variables(false));
        }
        used.retain(|name| !globals.contains(name));
        let (schema, declared) = match &revision.prompt.variables {
            Some(schema) => {
                let properties = schema.0.get("properties").and_then(Value::as_object);
                let names = properties
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.clone())
                    .collect();
                (Value::Object(schema.0.clone()), Some(names))
            }
            None => (default_schema(&used), None),
        };
        let validator = jsonschema::validator_for(&schema)
            .map_err(|e| format!("prompt.variables is no JSON Schema that can be used: {e}"))?;
        let uri = format!(
            "{}/chat/completions",
            revision.backend.url.trim_end_matches('/')
        );
        let uri: Uri = uri
            .parse()
            .map_err(|_| format!("backend.url: `{}` is no URL", revision.backend.url))?;
        Ok(Self {
            version: revision.version.clone(),
            backend: place(&uri).into(),
            uri,
            credentials: revision.backend.credentials.clone(),
            timeout: revision
                .backend
                .timeout
                .as_ref()
                .map_or(DEFAULT_TIMEOUT, |t| t.to_std()),
            prices: revision.backend.prices.clone(),
            model: revision.backend.model.clone(),
            environment,
            roles: revision.prompt.messages.iter().map(|m| m.role).collect(),
            optional: optional(&schema),
            only_required: only_required(&schema),
            used,
            declared,
            validator,
            parameters: revision.prompt.parameters.clone().unwrap_or_default().0,
        })
    }

    /// The body to send to the backend for this body of a caller.
    ///
    /// # Errors
    /// What is wrong, and whose fault it is.
    pub fn render(&self, body: &Map<String, Value>) -> Result<Map<String, Value>, RenderError> {
        let variables = self.variables(body)?;
        let context = minijinja::Value::from(minijinja::value::Serde(&variables));
        let mut messages = Vec::with_capacity(self.roles.len());
        for (i, role) in self.roles.iter().enumerate() {
            let text = self
                .environment
                .get_template(&i.to_string())
                .and_then(|template| template.render(&context))
                .map_err(|e| self.explain(i, &e, &variables))?;
            if text.len() > MAX_RENDERED {
                let message = format!(
                    "messages[{i}] became longer than {} MiB",
                    MAX_RENDERED >> 20
                );
                return Err(caller("prompt.variables", message));
            }
            messages.push(json!({"role": role, "content": text}));
        }
        let mut out = Map::new();
        out.insert("model".into(), json!(self.model));
        out.insert("messages".into(), Value::Array(messages));
        out.extend(self.parameters.clone());
        for (name, value) in body {
            let theirs = CALLERS.contains(&name.as_str());
            if theirs || OPEN.contains(&name.as_str()) {
                if theirs || !self.sets(name) {
                    out.insert(name.clone(), value.clone());
                }
            } else if !OURS.contains(&name.as_str()) {
                let message =
                    format!("`{name}` is no parameter that can be given to a prompt: leave it out");
                return Err(caller(name, message));
            }
        }
        Ok(out)
    }

    /// Whether the prompt itself sets a parameter; the two names of the answer's length are one.
    fn sets(&self, name: &str) -> bool {
        let other = match name {
            "max_tokens" => "max_completion_tokens",
            "max_completion_tokens" => "max_tokens",
            same => same,
        };
        self.parameters.contains_key(name) || self.parameters.contains_key(other)
    }
}
