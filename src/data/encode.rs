//! From an example to token ids and a loss mask.
//!
//! Prompt and completion (without a template), and the turns of a conversation (with one), are encoded
//! piece by piece and joined: the prompt's ids in training are then the ids that generation starts from,
//! however the text goes on. The price is that no token spans the seam. A piece that is not the first is
//! encoded as a continuation, so that tokenizers which mark the start of a text do not mark it twice.
//!
//! Text from data never becomes a special token: what looks like one is encoded as its characters.
//! Special tokens come from the chat template, from the tokenizer's own prefix (usually `bos`) and, where
//! there is no template or it ends in none, from the `eos` at the end of the row.

use std::ops::Range;

use super::Sequence;
use super::format::Example;
use super::messages::{Message, Role};
use super::template::{GenerationPrompt, Template};
use super::tokenizer::{Special, Tokenizer};
use crate::error::InputError;
use crate::recipe::LossOn;
use crate::{Error, Result};

/// What generation starts from, and what it should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub prompt_ids: Vec<u32>,
    /// The prompt, or the last user turn, as the data has it.
    pub prompt: String,
    /// The completion, or the last assistant turn, as the data has it.
    pub reference: String,
}

/// Something about a row that is worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    LiteralSpecial,
    Touching,
    LastTurnOnly,
    NoEos,
    SilentWord,
    AnswerSearched,
}

impl Note {
    pub fn code(self) -> &'static str {
        match self {
            Note::LiteralSpecial => "literal_special_tokens",
            Note::Touching => "prompt_touches_completion",
            Note::LastTurnOnly => "last_turn_only",
            Note::NoEos => "no_eos",
            Note::SilentWord => "words_without_token",
            Note::AnswerSearched => "answer_start_missing",
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Note::LiteralSpecial => "rows contain the name of a special token; it is read as ordinary text",
            Note::Touching => {
                "rows have no space or line break between prompt and completion; a template would part them"
            }
            Note::LastTurnOnly => {
                "conversations are rewritten by the chat template as they go on, so only their last answer is trained"
            }
            Note::NoEos => "rows end without an end-of-sequence token, because the tokenizer has none",
            Note::SilentWord => "rows have words that the tokenizer leaves nothing of; their tags do not count",
            Note::AnswerSearched => "rows do not say where the answer starts; its first occurrence is taken",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    pub sequence: Sequence,
    /// Absent where there is no prompt to generate from.
    pub prompt: Option<Prompt>,
    pub notes: Vec<Note>,
}

/// Encodes examples for one tokenizer and template.
pub struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a Template>,
    pub loss_on: LossOn,
}

#[derive(Default)]
struct Draft {
    ids: Vec<u32>,
    trained: Vec<bool>,
    notes: Vec<Note>,
}

impl Draft {
    fn push(&mut self, ids: &[u32], trained: &[bool]) {
        self.ids.extend(ids);
        self.trained.extend(trained);
    }
}

impl Encoder<'_> {
    /// # Errors
    /// An example that the template refuses, or that does not go with `data.template`.
    pub fn encode(&self, example: &Example) -> Result<Encoded, InputError> {
        let (mut draft, prompt) = match (example, self.template) {
            (Example::Completion(text), None) => self.raw("", text)?,
            (Example::PromptCompletion { prompt, completion }, None) => self.raw(prompt, completion)?,
            (Example::PromptCompletion { prompt, completion }, Some(template)) => {
                let turns = [Message::new(Role::User, prompt), Message::new(Role::Assistant, completion)];
                self.conversation(&turns, template)?
            }
            (Example::Messages(turns), Some(template)) => self.conversation(turns, template)?,
            (Example::Messages(_), None) => {
                return Err(Error::input("conversations need a chat template")
                    .key("data.template")
                    .hint("set it to \"tokenizer\" or \"chatml\""));
            }
            (Example::Completion(_), Some(_)) => {
                return Err(Error::input("plain text has no turns for a chat template")
                    .key("data.template")
                    .hint("set it to \"none\", or give the rows a prompt and a completion"));
            }
        };
        if self.loss_on == LossOn::All {
            draft.trained.fill(true);
        }
        if let Some(first) = draft.trained.first_mut() {
            *first = false;
        }
        let document = vec![0; draft.ids.len()];
        let sequence = Sequence { ids: draft.ids, trained: draft.trained, document, ..Sequence::default() };
        Ok(Encoded { sequence, prompt, notes: draft.notes })
    }

    /// Ids that generation starts from, for a prompt that is not from the data.
    pub fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>> {
        match self.template {
            None => Ok([self.tokenizer.prefix(), &self.tokenizer.encode(prompt, Special::AsText)?].concat()),
            Some(template) => self.chat_prompt_ids(&[Message::new(Role::User, prompt)], template).map_err(Error::from),
        }
    }

    fn chat_prompt_ids(&self, turns: &[Message], template: &Template) -> Result<Vec<u32>, InputError> {
        let marked = self.mark(turns)?;
        let text = render(template, &marked.turns, GenerationPrompt::Add)?;
        self.pieces(&text, marked.mark, Position::Start)
    }

    /// Tokens after which an answer is over: `eos`, and what the template ends an assistant turn with.
    pub fn stop_ids(&self) -> Vec<u32> {
        let sample = Example::PromptCompletion { prompt: "a".into(), completion: "b".into() };
        let sequence = self.encode(&sample).map(|encoded| encoded.sequence).unwrap_or_default();
        let last = sequence.trained.iter().rposition(|&trained| trained).map(|at| sequence.ids[at]);
        let mut stop: Vec<u32> = last.filter(|&id| self.tokenizer.is_special(id)).into_iter().collect();
        stop.extend(self.tokenizer.eos().filter(|eos| !stop.contains(eos)));
        stop
    }

    fn raw(&self, prompt: &str, completion: &str) -> Result<(Draft, Option<Prompt>), InputError> {
        let mut draft = Draft::default();
        draft.push(self.tokenizer.prefix(), &vec![false; self.tokenizer.prefix().len()]);
        let answer = if prompt.is_empty() {
            checked(self.tokenizer.encode(completion, Special::AsText))?
        } else {
            let ids = checked(self.tokenizer.encode(prompt, Special::AsText))?;
            draft.push(&ids, &vec![false; ids.len()]);
            checked(self.tokenizer.encode_continuation(completion, Special::AsText))?
        };
        let prompt_ids = draft.ids.clone();
        let says_something = !completion.trim().is_empty();
        draft.push(&answer, &vec![says_something; answer.len()]);
        self.end(&mut draft, says_something);
        if [prompt, completion].iter().any(|text| !self.tokenizer.cuts(text).is_empty()) {
            draft.notes.push(Note::LiteralSpecial);
        }
        if says_something && touch(prompt, completion) {
            draft.notes.push(Note::Touching);
        }
        let prompt = Prompt { prompt_ids, prompt: prompt.to_owned(), reference: completion.to_owned() };
        Ok((draft, Some(prompt).filter(|prompt| !prompt.prompt.is_empty())))
    }

    fn end(&self, draft: &mut Draft, trained: bool) {
        match self.tokenizer.eos() {
            Some(eos) => draft.push(&[eos], &[trained]),
            None => draft.notes.push(Note::NoEos),
        }
    }

    fn conversation(&self, turns: &[Message], template: &Template) -> Result<(Draft, Option<Prompt>), InputError> {
        let marked = self.mark(turns)?;
        let mut draft = Draft::default();
        if marked.mark.is_some() {
            draft.notes.push(Note::LiteralSpecial);
        }
        let (text, answers) = answers(template, &marked.turns, &mut draft.notes)?;
        let mut done = 0;
        let mut prompt_ids = None;
        for Answer { turn, span } in answers {
            self.push_piece(&mut draft, &text[done..span.start], marked.mark)?;
            prompt_ids = Some(draft.ids.clone());
            let from = draft.ids.len();
            self.push_piece(&mut draft, &text[span.clone()], marked.mark)?;
            let ended = self.train_answer(&mut draft, from, &turns[turn].content);
            if !ended && span.end == text.len() {
                self.end(&mut draft, !turns[turn].content.trim().is_empty());
            }
            done = span.end;
        }
        self.push_piece(&mut draft, &text[done..], marked.mark)?;
        Ok((draft, prompt_ids.and_then(|prompt_ids| last_exchange(turns, prompt_ids))))
    }

    fn push_piece(&self, draft: &mut Draft, text: &str, mark: Option<char>) -> Result<(), InputError> {
        let position = if draft.ids.is_empty() { Position::Start } else { Position::Inside };
        let ids = self.pieces(text, mark, position)?;
        draft.push(&ids, &vec![false; ids.len()]);
        Ok(())
    }

    /// Trains the ids from `from` on, up to the special token that ends the turn; what the template writes
    /// after it is not the model's to say. Tells whether there is such a token.
    fn train_answer(&self, draft: &mut Draft, from: usize, content: &str) -> bool {
        let end = draft.ids[from..].iter().rposition(|&id| self.tokenizer.is_special(id));
        let until = end.map_or(draft.ids.len(), |end| from + end + 1);
        draft.trained[from..until].fill(!content.trim().is_empty());
        end.is_some()
    }

    /// Encodes template output, in which `mark` cuts names of special tokens that came from data.
    fn pieces(&self, text: &str, mark: Option<char>, position: Position) -> Result<Vec<u32>, InputError> {
        let mut ids = Vec::new();
        let parts: Vec<&str> = mark.map_or_else(|| vec![text], |mark| text.split(mark).collect());
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let first = ids.is_empty() && position == Position::Start;
            ids.extend(checked(match first {
                true => self.tokenizer.encode(part, Special::Parse),
                false => self.tokenizer.encode_continuation(part, Special::Parse),
            })?);
        }
        Ok(ids)
    }

    /// Puts a character that occurs nowhere else into every name of a special token in the turns.
    fn mark(&self, turns: &[Message]) -> Result<Marked, InputError> {
        if turns.iter().all(|turn| self.tokenizer.cuts(&turn.content).is_empty()) {
            return Ok(Marked { turns: turns.to_vec(), mark: None });
        }
        let unused = |mark: &char| !turns.iter().any(|turn| turn.content.contains(*mark));
        let Some(mark) = NONCHARACTERS.into_iter().find(unused) else {
            return Err(Error::input("the text contains every Unicode noncharacter").hint("the row is not text"));
        };
        let shield = |turn: &Message| {
            let mut content = turn.content.clone();
            for cut in self.tokenizer.cuts(&turn.content).into_iter().rev() {
                content.insert(cut, mark);
            }
            Message::new(turn.role, content)
        };
        Ok(Marked { turns: turns.iter().map(shield).collect(), mark: Some(mark) })
    }
}

/// Code points that Unicode keeps out of text.
const NONCHARACTERS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

struct Marked {
    turns: Vec<Message>,
    mark: Option<char>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Start,
    Inside,
}

/// Where an assistant turn stands in the rendered conversation.
struct Answer {
    turn: usize,
    span: Range<usize>,
}

/// Renders the conversation and finds the assistant turns in it, by rendering what leads up to each. A
/// template that rewrites earlier turns as the conversation goes on shows only where the last one is.
fn answers(template: &Template, turns: &[Message], notes: &mut Vec<Note>) -> Result<(String, Vec<Answer>), InputError> {
    let text = render(template, turns, GenerationPrompt::Omit)?;
    let find = |turn: usize, lead: GenerationPrompt| {
        let before = render(template, &turns[..turn], lead).ok()?;
        let through = render(template, &turns[..=turn], GenerationPrompt::Omit).ok()?;
        let span = before.len()..through.len();
        (through.starts_with(&before) && text.starts_with(&through)).then_some(Answer { turn, span })
    };
    let mut assistant = (0..turns.len()).filter(|&turn| turns[turn].role == Role::Assistant);
    let found: Option<Vec<Answer>> = assistant.clone().map(|turn| find(turn, GenerationPrompt::Add)).collect();
    let in_order = |found: &Vec<Answer>| found.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start);
    if let Some(found) = found.filter(in_order) {
        return Ok((text, found));
    }
    notes.push(Note::LastTurnOnly);
    let only = assistant.next_back().and_then(|turn| {
        let by_content = || verbatim(&text, turns, turn);
        find(turn, GenerationPrompt::Add).or_else(by_content).or_else(|| find(turn, GenerationPrompt::Omit))
    });
    Ok((text, only.into_iter().collect()))
}

/// The answer that ends the conversation, found by its words. Some templates write the system turn only
/// while there is no answer yet, so that nothing they write for the question alone leads up to it.
fn verbatim(text: &str, turns: &[Message], turn: usize) -> Option<Answer> {
    let content = turns[turn].content.trim();
    let start = text.rfind(content).filter(|_| turn + 1 == turns.len() && !content.is_empty())?;
    Some(Answer { turn, span: start..text.len() })
}

fn last_exchange(turns: &[Message], prompt_ids: Vec<u32>) -> Option<Prompt> {
    let answer = turns.iter().rposition(|turn| turn.role == Role::Assistant)?;
    let question = turns[..answer].iter().rfind(|turn| turn.role == Role::User)?;
    Some(Prompt { prompt_ids, prompt: question.content.clone(), reference: turns[answer].content.clone() })
}

fn render(template: &Template, turns: &[Message], prompt: GenerationPrompt) -> Result<String, InputError> {
    template
        .render(turns, prompt)
        .map_err(|why| Error::input(format!("the chat template refuses the conversation: {why}")))
}

fn touch(prompt: &str, completion: &str) -> bool {
    let text = |end: Option<char>| end.is_some_and(|end| !end.is_whitespace());
    text(prompt.chars().next_back()) && text(completion.chars().next())
}

fn checked(ids: Result<Vec<u32>>) -> Result<Vec<u32>, InputError> {
    ids.map_err(to_input)
}

/// Errors of the tokenizer are about its file or the text; either way the caller adds the row.
pub(super) fn to_input(error: Error) -> InputError {
    match error {
        Error::Input(error) => *error,
        other => Error::input(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
