//! YAML for people and for kubectl, always by way of JSON.
//!
//! The serde_yaml family writes the strings `yes` and `on` bare, which kubectl reads as true, and enums as tags; so writing is our own:
//! block style, and every string that could be taken for something else in quotes.

use serde_json::Value;

/// The value as a YAML document, ending in a newline.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    node(value, 0, &mut out);
    out
}

fn node(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    pad(indent, out);
                }
                scalar(&Value::String(key.clone()), out);
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push('\n');
                        pad(indent + 2, out);
                        node(value, indent + 2, out);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push('\n');
                        pad(indent, out);
                        node(value, indent, out);
                    }
                    _ => {
                        out.push(' ');
                        node(value, indent, out);
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    pad(indent, out);
                }
                out.push_str("- ");
                node(item, indent + 2, out);
            }
        }
        other => {
            scalar(other, out);
            out.push('\n');
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(text) if plain(text) => out.push_str(text),
        other => out.push_str(&other.to_string()),
    }
}

/// Whether every YAML reader takes this text for the string that it is.
fn plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let value = json!({"a": {"b": [1, {"c": "yes", "d": []}, [true, null, "x: y"]], "e": {}}, "on": "1.5", "text": "two\nlines # \"quoted\"", "n": 1.5, "big": 315360000});
        let text = write(&value);
        let back: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
        assert!(
            text.contains("\"on\"") && text.contains("\"yes\"") && text.contains("\"1.5\""),
            "{text}"
        );
    }
}
