//! Reading JSON values, with messages that name the field.

use serde_json::{Map, Value};

/// The type of a JSON value, with its article.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Serde's message, with the column alone: its line number would always be 1.
pub fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&position).unwrap_or(&message);
    format!("bad JSON at column {}: {message}", error.column())
}

/// The value of a field; a field that is null counts as absent.
pub fn get<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

/// The value of a field that must be there; `owner` names the object, e.g. "`prompt[0]`: ".
pub fn require<'a>(
    object: &'a Map<String, Value>,
    owner: &str,
    field: &str,
) -> Result<&'a Value, String> {
    get(object, field).ok_or_else(|| format!("{owner}missing field `{field}`"))
}

/// A required field that must be a string.
pub fn string<'a>(
    object: &'a Map<String, Value>,
    owner: &str,
    field: &str,
) -> Result<&'a str, String> {
    let value = require(object, owner, field)?;
    value
        .as_str()
        .ok_or_else(|| format!("{owner}`{field}` must be a string, found {}", kind(value)))
}

/// A required field that must be a byte offset.
pub fn offset(object: &Map<String, Value>, owner: &str, field: &str) -> Result<usize, String> {
    let value = require(object, owner, field)?;
    value.as_u64().and_then(|number| usize::try_from(number).ok()).ok_or_else(|| {
        format!("{owner}`{field}` must be a whole number from 0, found {}", shown(value))
    })
}

/// A required field that must be true or false.
pub fn boolean(object: &Map<String, Value>, owner: &str, field: &str) -> Result<bool, String> {
    let value = require(object, owner, field)?;
    value
        .as_bool()
        .ok_or_else(|| format!("{owner}`{field}` must be true or false, found {}", shown(value)))
}

/// Numbers as written, everything else by type.
fn shown(value: &Value) -> String {
    if value.is_number() { value.to_string() } else { kind(value).to_string() }
}
