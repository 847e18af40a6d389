//! Whether a prompt can be rendered: its templates are parsed, their variables held against `prompt.variables`.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::Environment;
use serde_json::Value;

use super::reason;
use crate::api::{
    prompt_release::Prompt,
    run::{PromptVariable, PromptVariables, VariableKind},
};

/// Variables that the gateway makes of a caller's ordinary messages: the list of them, and the text of the last user message.
const GIVEN: [&str; 2] = ["messages", "input"];

/// What keeps a prompt from being rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of [`reason`].
    pub reason: &'static str,
    /// A sentence that names the field and says what to do.
    pub message: String,
}

fn fault(reason: &'static str, message: String) -> Fault {
    Fault { reason, message }
}

/// The names of the variables that the prompt's templates use, in order.
///
/// # Errors
/// The first message that is no template, a schema that makes no sense, or a variable that nobody declared.
pub fn variables(prompt: &Prompt) -> Result<BTreeSet<String>, Fault> {
    let mut environment = Environment::new();
    let globals: BTreeSet<String> = environment
        .globals()
        .map(|(name, _)| name.to_owned())
        .collect();
    let declared = declared(prompt)?;
    let mut used = BTreeSet::new();
    for (i, message) in prompt.messages.iter().enumerate() {
        let wrong = |e: minijinja::Error| {
            fault(
                reason::TEMPLATE_INVALID,
                format!("spec.prompt.messages[{i}].content is no Jinja template: {e}"),
            )
        };
        environment
            .add_template_owned(i.to_string(), message.content.clone())
            .map_err(wrong)?;
        let template = environment.get_template(&i.to_string()).map_err(wrong)?;
        let names: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
        for name in names {
            let known = globals.contains(&name) || GIVEN.contains(&name.as_str());
            if let Some(declared) = declared.as_ref().filter(|d| !known && !d.contains(&name)) {
                let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
                let declared = match declared.is_empty() {
                    true => "none".to_owned(),
                    false => declared.join(", "),
                };
                return Err(fault(
                    reason::VARIABLE_UNDECLARED,
                    format!(
                        "spec.prompt.messages[{i}].content uses `{name}`, which spec.prompt.variables.properties does not declare (it has: {declared}): declare it there, or correct the name"
                    ),
                ));
            }
            if !globals.contains(&name) {
                used.insert(name);
            }
        }
    }
    Ok(used)
}

/// The variables that the schema declares; `None` when whatever the templates use is a variable.
fn declared(prompt: &Prompt) -> Result<Option<BTreeSet<String>>, Fault> {
    let Some(schema) = &prompt.variables else {
        return Ok(None);
    };
    let value = Value::Object(schema.0.clone());
    if let Err(error) = jsonschema::validator_for(&value) {
        return Err(fault(
            reason::VARIABLES_INVALID,
            format!("spec.prompt.variables is no JSON Schema that can be used: {error}"),
        ));
    }
    let properties = schema.0.get("properties").and_then(Value::as_object);
    let names = properties.into_iter().flatten();
    Ok(Some(names.map(|(name, _)| name.clone()).collect()))
}

/// What the prompt's templates are given of a row of data: its variables, by the schema, and whether there is a place for the caller's message.
///
/// # Errors
/// As [`variables`].
pub fn takes(prompt: &Prompt) -> Result<PromptVariables, Fault> {
    let used = variables(prompt)?;
    let given = |name: &str| GIVEN.contains(&name);
    let Some(schema) = &prompt.variables else {
        let names = used.iter().filter(|name| !given(name));
        let required = PromptVariable {
            required: true,
            kind: VariableKind::Text,
        };
        return Ok(PromptVariables {
            variables: names.map(|name| (name.clone(), required)).collect(),
            message: used.iter().any(|name| given(name)),
        });
    };
    let required: Vec<&str> = schema
        .0
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = schema.0.get("properties").and_then(Value::as_object);
    let variables: BTreeMap<String, PromptVariable> = properties
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let variable = PromptVariable {
                required: required.contains(&name.as_str()),
                kind: kind(property),
            };
            (name.clone(), variable)
        })
        .collect();
    let message = |name: &String| given(name) && !variables.contains_key(name);
    Ok(PromptVariables {
        message: used.iter().any(message),
        variables,
    })
}

/// By the schema's `type`, of which there may be several.
fn kind(property: &Value) -> VariableKind {
    let is = |wanted: &str| match property.get("type") {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one == wanted),
        _ => false,
    };
    if is("string") {
        VariableKind::Text
    } else if is("array") || is("object") {
        VariableKind::Json
    } else {
        VariableKind::Plain
    }
}
