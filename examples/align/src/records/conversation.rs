//! Where the prompt ends and the answers begin.
//!
//! | `prompt` | `chosen`, `rejected` |
//! |---|---|
//! | a string | strings |
//! | messages | messages that follow it, or strings |
//! | a string | whole conversations that contain it |
//! | absent | whole conversations with the same beginning |
//! | absent | strings in the `Human:` / `Assistant:` form of Anthropic's hh-rlhf |

use serde_json::{Map, Value};

use super::json;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Turn {
    pub role: Role,
    pub content: String,
}

impl Turn {
    fn new(role: Role, content: &str) -> Self {
        Self { role, content: content.to_string() }
    }
}

/// A field as it stands in the file.
enum Field {
    Text(String),
    Messages(Vec<Turn>),
}

/// The prompt and one answer.
type Side = (Vec<Turn>, String);

/// The prompt, the chosen answer and the rejected answer of a record; none if an answer is empty.
pub fn split(object: &Map<String, Value>) -> Result<Option<(Vec<Turn>, String, String)>, String> {
    let prompt =
        json::get(object, "prompt").map(|value| parse_field("prompt", value)).transpose()?;
    let chosen = split_side(object, prompt.as_ref(), "chosen")?;
    let rejected = split_side(object, prompt.as_ref(), "rejected")?;
    let (Some((chosen_prompt, chosen)), Some((rejected_prompt, rejected))) = (chosen, rejected)
    else {
        return Ok(None);
    };
    if chosen_prompt != rejected_prompt {
        return Err("`chosen` and `rejected` have different prompts".to_string());
    }
    if chosen_prompt.iter().all(|turn| turn.content.trim().is_empty()) {
        return Err("the prompt is empty".to_string());
    }
    Ok(Some((chosen_prompt, chosen, rejected)))
}

fn split_side(
    object: &Map<String, Value>,
    prompt: Option<&Field>,
    side: &str,
) -> Result<Option<Side>, String> {
    let split = match (prompt, parse_field(side, json::require(object, "", side)?)?) {
        (None, Field::Text(text)) => split_dialogue(side, &text)?,
        (Some(prompt), Field::Text(text)) => Some((prompt_turns(prompt), text)),
        (prompt, Field::Messages(messages)) => split_messages(side, prompt, messages)?,
    };
    Ok(split.filter(|(_, answer)| !answer.trim().is_empty()))
}

fn prompt_turns(prompt: &Field) -> Vec<Turn> {
    match prompt {
        Field::Text(text) => vec![Turn::new(Role::User, text)],
        Field::Messages(turns) => turns.clone(),
    }
}

/// Takes the last message as the answer and puts the prompt before the others, unless they hold it.
fn split_messages(
    side: &str,
    prompt: Option<&Field>,
    mut messages: Vec<Turn>,
) -> Result<Option<Side>, String> {
    let answer = match messages.pop() {
        None => return Ok(None),
        Some(turn) if turn.role == Role::Assistant => turn.content,
        Some(_) => return Err(format!("`{side}` must end with a message of the assistant")),
    };
    let prompt = match prompt {
        None if messages.is_empty() => {
            return Err(format!("missing field `prompt`, and `{side}` holds only an answer"));
        }
        None => messages,
        Some(Field::Text(text)) if !messages.is_empty() => {
            if !messages.iter().any(|turn| turn.content.trim() == text.trim()) {
                return Err(format!("`{side}` is a conversation without the text of `prompt`"));
            }
            messages
        }
        Some(Field::Messages(turns)) if messages.starts_with(turns) => messages,
        Some(prompt) => [prompt_turns(prompt), messages].concat(),
    };
    Ok(Some((prompt, answer)))
}

/// Splits `\n\nHuman: ...\n\nAssistant: ...` before the last answer.
fn split_dialogue(side: &str, text: &str) -> Result<Option<Side>, String> {
    const ROLES: [(&str, Role); 2] =
        [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];
    let mut turns = Vec::new();
    let mut rest = text;
    while let Some((marker, role)) = ROLES.iter().find(|(marker, _)| rest.starts_with(marker)) {
        let body = &rest[marker.len()..];
        let next = ROLES.iter().filter_map(|(marker, _)| body.find(marker)).min();
        turns.push(Turn::new(*role, body[..next.unwrap_or(body.len())].trim()));
        rest = &body[next.unwrap_or(body.len())..];
    }
    if turns.len() < 2 {
        return Err("missing field `prompt`".to_string());
    }
    split_messages(side, None, turns)
}

fn parse_field(field: &str, value: &Value) -> Result<Field, String> {
    match value {
        Value::String(text) => Ok(Field::Text(text.clone())),
        Value::Array(list) => {
            let turns = list
                .iter()
                .enumerate()
                .map(|(index, value)| parse_turn(value, &format!("`{field}[{index}]`: ")));
            Ok(Field::Messages(turns.collect::<Result<_, _>>()?))
        }
        other => Err(format!(
            "`{field}` must be a string or a list of messages, found {}",
            json::kind(other)
        )),
    }
}

fn parse_turn(value: &Value, owner: &str) -> Result<Turn, String> {
    let Value::Object(object) = value else {
        return Err(format!("{owner}must be a message, found {}", json::kind(value)));
    };
    let role = match json::string(object, owner, "role")? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => return Err(format!("{owner}unknown role `{other}`")),
    };
    Ok(Turn::new(role, json::string(object, owner, "content")?))
}
