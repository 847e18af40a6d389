//! What templates make of what callers send.

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
    let body =
        json!({"prompt": {"variables": {"question": "{{ context }}", "context": "{% raw %}<&"}}});
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
        wrong("{{ a }}", json!({"$ref": "http://elsewhere/schema"})).contains("prompt.variables"),
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
