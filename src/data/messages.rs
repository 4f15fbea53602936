//! Conversations: turns with roles.

use serde::Serialize;
use serde_json::Value;

use super::rows::kind;
use crate::Error;
use crate::error::InputError;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// Names of the two keys of a turn.
pub(super) type Keys = (&'static str, &'static str);
pub(super) const OPENAI: Keys = ("role", "content");
pub(super) const SHAREGPT: Keys = ("from", "value");

/// Reads the turns of one row. Only the first may be a system turn, and no role may follow itself.
pub(super) fn parse(turns: &[Value], keys: Keys) -> Result<Vec<Message>, InputError> {
    if turns.is_empty() {
        return Err(Error::input("the conversation is empty"));
    }
    let messages: Vec<Message> =
        turns.iter().enumerate().map(|(at, turn)| message(at + 1, turn, keys)).collect::<Result<_, _>>()?;
    for (at, pair) in messages.windows(2).enumerate() {
        let number = at + 2;
        if pair[1].role == Role::System {
            return Err(
                Error::input(format!("message {number} is a system message")).expected("it only as the first one")
            );
        }
        if pair[0].role == pair[1].role {
            let what = format!("messages {} and {number} have the same role", at + 1);
            return Err(Error::input(what).found(format!("{:?} twice in a row", pair[0].role).to_lowercase()));
        }
    }
    Ok(messages)
}

fn message(number: usize, turn: &Value, (role, content): Keys) -> Result<Message, InputError> {
    let text = |key: &str| match turn.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        other => Err(Error::input(format!("`{key}` of message {number} is not text"))
            .found(other.map_or("nothing", kind))
            .expected("a text")),
    };
    Ok(Message { role: parse_role(number, text(role)?)?, content: text(content)?.to_owned() })
}

fn parse_role(number: usize, name: &str) -> Result<Role, InputError> {
    match name {
        "system" => Ok(Role::System),
        "user" | "human" => Ok(Role::User),
        "assistant" | "gpt" => Ok(Role::Assistant),
        other => Err(Error::input(format!("message {number} has an unknown role"))
            .found(format!("`{other}`"))
            .expected("`system`, `user` (`human`) or `assistant` (`gpt`)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(turns: Value) -> String {
        parse(turns.as_array().unwrap(), OPENAI).unwrap_err().to_string()
    }

    fn turn(role: &str) -> Value {
        json!({"role": role, "content": "x"})
    }

    #[test]
    fn broken_conversations_are_refused() {
        assert!(refusal(json!([])).contains("empty"));
        assert!(
            refusal(json!([turn("user"), turn("user")]))
                .contains("messages 1 and 2 have the same role; found user twice")
        );
        assert!(refusal(json!([turn("user"), turn("bot")])).contains("message 2 has an unknown role; found `bot`"));
        assert!(refusal(json!([turn("user"), turn("system")])).contains("message 2 is a system message"));
        assert!(
            refusal(json!([{"role": "user", "content": null}]))
                .contains("`content` of message 1 is not text; found null")
        );
        assert!(refusal(json!(["hi"])).contains("`role` of message 1 is not text; found nothing"));
    }

    #[test]
    fn a_system_turn_may_come_first() {
        let turns = parse(&[turn("system"), turn("user"), turn("assistant")], OPENAI).unwrap();
        assert_eq!(turns.iter().map(|turn| turn.role).collect::<Vec<_>>(), [Role::System, Role::User, Role::Assistant]);
    }
}
