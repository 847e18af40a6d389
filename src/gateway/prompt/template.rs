//! A prompt, compiled once per revision: templates, the schema of their variables, parameters, backend.
//!
//! Where a caller's text goes is the template's to say. With `prompt.variables` the caller gives the variables themselves. With ordinary
//! `messages` two variables are made of them: `messages`, the list of `{role, content}` (for a template that places the conversation),
//! and `input`, the text of the only or last user message. A template that uses neither and requires exactly one string
//! variable gets the user's message as that variable. Values are data: they are never read as templates.

use std::{collections::BTreeSet, time::Duration};

use http::Uri;
use jsonschema::Validator;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value, json};

use crate::api::{
    prompt_release::{KeyReference, Role},
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
    /// The key of a Secret that is sent as bearer token.
    pub credentials: Option<KeyReference>,
    /// Longest wait for an answer to begin.
    pub timeout: Duration,
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
        let uri = uri
            .parse()
            .map_err(|_| format!("backend.url: `{}` is no URL", revision.backend.url))?;
        Ok(Self {
            version: revision.version.clone(),
            uri,
            credentials: revision.backend.credentials.clone(),
            timeout: revision
                .backend
                .timeout
                .as_ref()
                .map_or(DEFAULT_TIMEOUT, |t| t.to_std()),
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

    fn variables(&self, body: &Map<String, Value>) -> Result<Map<String, Value>, RenderError> {
        let given = match body
            .get("prompt")
            .and_then(|p| p.get("variables"))
            .or(body.get("prompt_variables"))
        {
            None | Some(Value::Null) => None,
            Some(Value::Object(variables)) => Some(variables),
            Some(_) => {
                return Err(caller(
                    "prompt.variables",
                    "prompt.variables must be an object of names and values".into(),
                ));
            }
        };
        let messages = match body.get("messages") {
            None | Some(Value::Null) => None,
            Some(Value::Array(messages)) => Some(messages),
            Some(_) => {
                return Err(caller(
                    "messages",
                    "messages must be a list of {role, content}".into(),
                ));
            }
        };
        let mut variables = given.cloned().unwrap_or_default();
        let mut made = Map::new();
        if let Some(messages) = messages.filter(|m| !m.is_empty()) {
            self.place(messages, &mut variables, &mut made, given.is_some())?;
        }
        if let Some(error) = self
            .validator
            .iter_errors(&Value::Object(variables.clone()))
            .next()
        {
            return Err(invalid(&error));
        }
        for (name, value) in &self.optional {
            variables
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        for (name, value) in made {
            variables.entry(name).or_insert(value);
        }
        Ok(variables)
    }

    /// Puts ordinary messages where the template says.
    fn place(
        &self,
        messages: &[Value],
        variables: &mut Map<String, Value>,
        made: &mut Map<String, Value>,
        has_variables: bool,
    ) -> Result<(), RenderError> {
        let mut plain = Vec::with_capacity(messages.len());
        let mut input = None;
        for (i, message) in messages.iter().enumerate() {
            let role = message
                .get("role")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let text = text(message.get("content")).ok_or_else(|| {
                caller(
                    &format!("messages[{i}].content"),
                    format!("messages[{i}].content must be text"),
                )
            })?;
            if role == "user" {
                input = Some(text.clone());
            }
            plain.push(json!({"role": role, "content": text}));
        }
        let places_all = self.used.contains("messages");
        if !places_all && (messages.len() > 1 || input.is_none()) {
            return Err(caller(
                "messages",
                "this prompt takes one user message: its template doesn't place a conversation (the variable `messages`)".into(),
            ));
        }
        made.insert("messages".into(), Value::Array(plain));
        let Some(input) = input else { return Ok(()) };
        if !places_all && !self.used.contains("input") && !has_variables {
            let Some(only) = &self.only_required else {
                return Err(caller(
                    "prompt.variables",
                    format!(
                        "this prompt's template has no place for a message: send prompt.variables with {}",
                        self.used
                            .iter()
                            .map(|n| format!("`{n}`"))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                ));
            };
            variables.insert(only.clone(), json!(input));
        } else {
            made.insert("input".into(), json!(input));
        }
        Ok(())
    }

    fn explain(
        &self,
        i: usize,
        error: &minijinja::Error,
        variables: &Map<String, Value>,
    ) -> RenderError {
        let missing = self.used.iter().find(|name| !variables.contains_key(*name));
        match missing {
            // Declared or not asked for: the caller could have given it.
            Some(name) if error.kind() == ErrorKind::UndefinedError && self.could_give(name) => {
                caller(
                    &format!("prompt.variables.{name}"),
                    format!("the prompt needs the variable `{name}`: send it in prompt.variables"),
                )
            }
            _ => RenderError::Prompt(format!("messages[{i}] can't be rendered: {error}")),
        }
    }

    fn could_give(&self, name: &str) -> bool {
        self.declared
            .as_ref()
            .is_none_or(|declared| declared.contains(name))
            || name == "input"
            || name == "messages"
    }
}

fn default_schema(used: &BTreeSet<String>) -> Value {
    let names: Vec<&String> = used
        .iter()
        .filter(|n| *n != "messages" && *n != "input")
        .collect();
    let properties: Map<String, Value> = names
        .iter()
        .map(|n| ((*n).clone(), json!({"type": "string"})))
        .collect();
    let mut schema = json!({"type": "object", "required": names, "properties": properties, "additionalProperties": false});
    // They are made of the messages, and may be given too.
    for (name, kind) in [("messages", "array"), ("input", "string")] {
        if used.contains(name) {
            schema["properties"][name] = json!({"type": kind});
        }
    }
    schema
}

/// Declared variables that needn't be given, with what they then are: the schema's default, else an empty text, else nothing.
fn optional(schema: &Value) -> Map<String, Value> {
    let required = required(schema);
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .filter(|(name, _)| {
            !required.contains(&name.as_str()) && *name != "messages" && *name != "input"
        })
        .map(|(name, property)| {
            let value = match property.get("default") {
                Some(value) => value.clone(),
                None if property.get("type") == Some(&json!("string")) => json!(""),
                None => Value::Null,
            };
            (name.clone(), value)
        })
        .collect()
}

fn required(schema: &Value) -> Vec<&str> {
    let names = schema.get("required").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn only_required(schema: &Value) -> Option<String> {
    match required(schema).as_slice() {
        [only] => {
            let kind = schema.get("properties")?.get(only)?.get("type")?;
            (kind == "string").then(|| (*only).to_owned())
        }
        _ => None,
    }
}

/// The text of a message: a string, or parts that are all text.
fn text(content: Option<&Value>) -> Option<String> {
    match content? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| {
                let is_text = part.get("type").and_then(Value::as_str) == Some("text");
                part.get("text").and_then(Value::as_str).filter(|_| is_text)
            })
            .collect(),
        _ => None,
    }
}

fn invalid(error: &jsonschema::ValidationError<'_>) -> RenderError {
    use jsonschema::error::ValidationErrorKind;
    let path: String = error.instance_path().as_str().replace('/', ".");
    let (name, why) = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            (format!("{path}.{property}"), "is missing".to_owned())
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let first = unexpected.first().map_or("", String::as_str);
            (
                format!("{path}.{first}"),
                "is no variable of this prompt".to_owned(),
            )
        }
        // Masked: what the caller sent is not repeated in errors, which may be logged.
        _ => (
            path,
            format!("is not as the prompt's schema says: {}", error.masked()),
        ),
    };
    caller(
        &format!("prompt.variables{name}"),
        format!("prompt.variables{name} {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(messages: &[(&str, &str)], variables: Value, parameters: Value) -> CompiledPrompt {
        try_prompt(messages, variables, parameters).unwrap()
    }

    fn try_prompt(
        messages: &[(&str, &str)],
        variables: Value,
        parameters: Value,
    ) -> Result<CompiledPrompt, String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|(role, content)| json!({"role": role, "content": content}))
            .collect();
        let revision = json!({"version": "v", "backend": {"url": "http://llm/v1/", "model": "llama"},
            "prompt": {"messages": messages, "variables": variables, "parameters": parameters}});
        CompiledPrompt::new(&serde_json::from_value(revision).unwrap())
    }

    fn render(prompt: &CompiledPrompt, body: Value) -> Result<Value, RenderError> {
        prompt.render(body.as_object().unwrap()).map(Value::Object)
    }

    fn blamed(result: Result<Value, RenderError>) -> String {
        match result {
            Err(RenderError::Caller(message, Some(param))) => {
                assert!(
                    message.ends_with(|c: char| c != '.') && !message.is_empty(),
                    "{message}"
                );
                param
            }
            other => panic!("{other:?}"),
        }
    }

    fn example() -> CompiledPrompt {
        let schema = json!({"type": "object", "required": ["question"], "properties": {
            "question": {"type": "string", "maxLength": 20}, "context": {"type": "string"}}});
        prompt(
            &[
                ("system", "Answer."),
                ("user", "Context: {{ context }}\nQuestion: {{ question }}"),
            ],
            schema,
            json!({"temperature": 0.2, "max_tokens": 400}),
        )
    }

    #[test]
    fn variables_are_put_into_the_template_and_parameters_are_the_prompts() {
        let body = json!({"model": "m", "prompt": {"id": "p", "variables": {"question": "Why?", "context": "C"}}, "temperature": 2, "stream": true, "user": "u"});
        let out = render(&example(), body).unwrap();
        assert_eq!(
            out,
            json!({"model": "llama", "messages": [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Context: C\nQuestion: Why?"}],
            "temperature": 0.2, "max_tokens": 400, "stream": true, "user": "u"})
        );
        assert_eq!(example().uri, "http://llm/v1/chat/completions");
    }

    #[test]
    fn values_are_data_and_never_templates() {
        let body = json!({"prompt": {"variables": {"question": "{{ context }}", "context": "{% raw %}<&"}}});
        let out = render(&example(), body).unwrap();
        assert_eq!(
            out["messages"][1]["content"],
            "Context: {% raw %}<&\nQuestion: {{ context }}"
        );
    }

    #[test]
    fn a_variable_that_is_wrong_is_named() {
        let prompt = example();
        assert_eq!(
            blamed(render(&prompt, json!({"prompt": {"variables": {}}}))),
            "prompt.variables.question"
        );
        assert_eq!(
            blamed(render(&prompt, json!({}))),
            "prompt.variables.question"
        );
        let long = json!({"prompt": {"variables": {"question": "x".repeat(21)}}});
        assert_eq!(blamed(render(&prompt, long)), "prompt.variables.question");
        assert_eq!(
            blamed(render(&prompt, json!({"prompt": {"variables": 7}}))),
            "prompt.variables"
        );
        assert_eq!(
            blamed(render(
                &prompt,
                json!({"prompt": {"variables": {"question": "q"}}, "tempreature": 1})
            )),
            "tempreature"
        );
        let secret = json!({"prompt": {"variables": {"question": {"text": "s3cret"}}}});
        match render(&prompt, secret) {
            Err(RenderError::Caller(message, _)) => {
                assert!(!message.contains("s3cret"), "{message}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_schema_the_templates_variables_are_required_strings() {
        let prompt = prompt(
            &[(
                "user",
                "{{ a }} {{ b | upper }} {% for i in range(2) %}{{ i }}{% endfor %}",
            )],
            Value::Null,
            Value::Null,
        );
        let out = render(
            &prompt,
            json!({"prompt": {"variables": {"a": "x", "b": "y"}}}),
        )
        .unwrap();
        assert_eq!(out["messages"][0]["content"], "x Y 01");
        for (variables, param) in [
            (json!({"a": "x"}), "b"),
            (json!({"a": "x", "b": 1}), "b"),
            (json!({"a": "", "b": "", "c": ""}), "c"),
        ] {
            assert_eq!(
                blamed(render(&prompt, json!({"prompt": {"variables": variables}}))),
                format!("prompt.variables.{param}")
            );
        }
    }

    #[test]
    fn an_ordinary_message_becomes_the_only_required_variable() {
        let out = render(
            &example(),
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]}),
        )
        .unwrap();
        assert_eq!(out["messages"][1]["content"], "Context: \nQuestion: Why?");
        let conversation = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]});
        assert_eq!(blamed(render(&example(), conversation.clone())), "messages");
        assert_eq!(
            blamed(render(
                &example(),
                json!({"messages": [{"role": "system", "content": "obey me"}]})
            )),
            "messages"
        );
        let whole = prompt(
            &[(
                "user",
                "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            )],
            Value::Null,
            Value::Null,
        );
        let out = render(&whole, conversation).unwrap();
        assert_eq!(
            out["messages"][0]["content"],
            "user: a\nassistant: b\nuser: c\n"
        );
        let placed = prompt(&[("user", "Say {{ input }}")], Value::Null, Value::Null);
        let out = render(
            &placed,
            json!({"messages": [{"role": "user", "content": "hi"}]}),
        )
        .unwrap();
        assert_eq!(out["messages"][0]["content"], "Say hi");
        let two = prompt(&[("user", "{{ a }}{{ b }}")], Value::Null, Value::Null);
        assert_eq!(
            blamed(render(
                &two,
                json!({"messages": [{"role": "user", "content": "hi"}]})
            )),
            "prompt.variables"
        );
    }

    #[test]
    fn a_prompt_that_uses_what_nobody_can_give_is_at_fault_itself() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
        let prompt = prompt(&[("user", "{{ a }}{{ b }}")], schema, Value::Null);
        let result = render(&prompt, json!({"prompt": {"variables": {"a": "x"}}}));
        assert!(matches!(result, Err(RenderError::Prompt(_))), "{result:?}");
    }

    #[test]
    fn a_prompt_that_makes_no_sense_says_where() {
        let wrong = |content: &str, schema: Value| match try_prompt(
            &[("user", content)],
            schema,
            Value::Null,
        ) {
            Err(sentence) => sentence,
            Ok(_) => panic!("{content}"),
        };
        assert!(wrong("{{ a", Value::Null).contains("messages[0]"));
        assert!(wrong("{{ a }}", json!({"type": 7})).contains("prompt.variables"));
        assert!(
            wrong("{{ a }}", json!({"$ref": "http://elsewhere/schema"}))
                .contains("prompt.variables"),
            "nothing is fetched"
        );
    }

    #[test]
    fn a_template_that_would_run_for_ever_is_ended() {
        let prompt = prompt(
            &[(
                "user",
                "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
            )],
            Value::Null,
            Value::Null,
        );
        assert!(matches!(
            render(&prompt, json!({})),
            Err(RenderError::Prompt(_))
        ));
    }
}
