//! Values against expected values.

use serde_json::Value;

/// A number as JSON can hold it.
pub(super) fn number(x: f64) -> Value {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else {
        x.into()
    }
}

/// One line for each value that is missing or differs by more than the tolerance.
pub(super) fn differences(
    expected: &Value,
    got: &Value,
    tolerance: &Value,
    at: &str,
) -> Vec<String> {
    let differs = || vec![format!("{at}: expected {expected}, got {got}")];
    match (expected, got) {
        (Value::Object(fields), _) => fields
            .iter()
            .flat_map(|(key, value)| {
                differences(value, &got[key.as_str()], tolerance, &format!("{at}.{key}"))
            })
            .collect(),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => items
            .iter()
            .zip(others)
            .enumerate()
            .flat_map(|(i, (value, other))| {
                differences(value, other, tolerance, &format!("{at}[{i}]"))
            })
            .collect(),
        (Value::Number(want), Value::Number(have)) => {
            let (want, have) = (
                want.as_f64().unwrap_or(f64::NAN),
                have.as_f64().unwrap_or(f64::NAN),
            );
            let part = |key: &str| tolerance[key].as_f64().unwrap_or(0.0);
            if (have - want).abs() <= part("abs") + part("rel") * want.abs() {
                Vec::new()
            } else {
                differs()
            }
        }
        (want, have) if want == have => Vec::new(),
        _ => differs(),
    }
}
