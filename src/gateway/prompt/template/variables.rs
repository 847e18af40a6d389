//! What a caller gives a template: variables checked against the schema, or made of ordinary messages.

use std::collections::BTreeSet;

use minijinja::ErrorKind;
use serde_json::{Map, Value, json};

use super::{CompiledPrompt, RenderError, caller};

impl CompiledPrompt {
    pub(super) fn variables(
        &self,
        body: &Map<String, Value>,
    ) -> Result<Map<String, Value>, RenderError> {
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

    pub(super) fn explain(
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

pub(super) fn default_schema(used: &BTreeSet<String>) -> Value {
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
pub(super) fn optional(schema: &Value) -> Map<String, Value> {
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

pub(super) fn only_required(schema: &Value) -> Option<String> {
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
