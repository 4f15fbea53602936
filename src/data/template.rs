//! Chat templates: Jinja as Hugging Face runs it.

use std::path::Path;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error as JinjaError, ErrorKind, context};
use regex::Regex;
use serde::Serialize;

use super::messages::Message;
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Whether the text ends where the answer is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    Add,
    Omit,
}

/// A compiled chat template with the special tokens it may write.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    source: String,
    special: [(&'static str, Option<String>); 3],
}

const NAME: &str = "chat";

/// The day that `strftime_now` tells. Fixed, so that a recipe gives the same tokens on every day, also when
/// it is resumed; this is the day Llama 3 templates fall back to.
const TODAY: jiff::civil::DateTime = jiff::civil::date(2024, 7, 26).at(12, 0, 0, 0);

impl Template {
    /// `none`, `chatml`, `tokenizer` (its own), or the path of a file, relative to `root`.
    ///
    /// # Errors
    /// No such file, a tokenizer without a template, or a syntax error with its line.
    pub fn resolve(name: &str, tokenizer: &Tokenizer, root: &Path) -> Result<Option<Self>> {
        match name {
            "none" => Ok(None),
            "chatml" => Self::new(&chatml(tokenizer), tokenizer, Path::new("chatml")).map(Some),
            "tokenizer" => match tokenizer.chat_template() {
                Some(source) => Self::new(source, tokenizer, Path::new("chat_template")).map(Some),
                None => Err(Error::input("the tokenizer has no chat template")
                    .key("data.template")
                    .expected("`none`, `chatml`, or the path of a jinja file")
                    .into()),
            },
            file => {
                let path = root.join(file);
                let source = std::fs::read_to_string(&path).map_err(|error| {
                    Error::input(format!("the chat template cannot be read: {error}"))
                        .file(&path)
                        .hint("data.template is `none`, `chatml`, `tokenizer`, or the path of a jinja file")
                })?;
                Self::new(&source, tokenizer, &path).map(Some)
            }
        }
    }

    /// Compiles `source`; `label` names it in messages.
    pub fn new(source: &str, tokenizer: &Tokenizer, label: &Path) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, without_generation_blocks(source)).map_err(|error| {
            let line = error.line().unwrap_or(1);
            Error::input(format!("not a usable chat template: {}", explain(&error))).file(label).line(line)
        })?;
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let special = [
            ("bos_token", text(tokenizer.bos())),
            ("eos_token", text(tokenizer.eos())),
            ("pad_token", text(tokenizer.pad())),
        ];
        Ok(Self { environment, source: source.to_owned(), special })
    }

    /// The conversation as the model sees it.
    ///
    /// # Errors
    /// What the template raises, or an error in it.
    pub fn render(&self, messages: &[Message], prompt: GenerationPrompt) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| explain(&error))?;
        let special: Value = self.special.iter().map(|(name, text)| (*name, text.clone().map(Value::from))).collect();
        let context = context! {
            messages,
            add_generation_prompt => prompt == GenerationPrompt::Add,
            tools => (),
            documents => (),
            ..special
        };
        template.render(context).map_err(|error| explain(&error))
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template asks for today's date, which is always the same day here.
    pub fn is_dated(&self) -> bool {
        self.source.contains("strftime_now")
    }
}

/// ChatML. Where the tokenizer has no `<|im_end|>` the end-of-sequence token ends a turn, so that the
/// model has one token to learn to stop with; where it begins every text with a token, so does this.
fn chatml(tokenizer: &Tokenizer) -> String {
    const END: &str = "<|im_end|>";
    let end = match tokenizer.eos() {
        Some(_) if tokenizer.token_id(END).is_none() => "{{ eos_token }}",
        _ => END,
    };
    let begin = if tokenizer.prefix().is_empty() { "" } else { "{{ bos_token }}" };
    format!(
        "{begin}{{% for message in messages %}}\
         {{{{ '<|im_start|>' + message.role + '\\n' + message.content }}}}{end}{{{{ '\\n' }}}}\
         {{% endfor %}}\
         {{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}"
    )
}

/// `{% generation %}` only marks a region for Hugging Face's loss mask; ours is found by [`super::encode`].
fn without_generation_blocks(source: &str) -> String {
    let Ok(block) = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}") else { return source.to_owned() };
    let plain = |found: &regex::Captures| {
        let word = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {word} {}%}}", &found[1], &found[3])
    };
    block.replace_all(source, plain).into_owned()
}

fn raise_exception(message: String) -> Result<Value, JinjaError> {
    Err(JinjaError::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> Result<String, JinjaError> {
    jiff::fmt::strtime::format(format, TODAY)
        .map_err(|error| JinjaError::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// As Python's `json.dumps(value, ensure_ascii=False, indent=...)`: nothing is escaped for HTML, and
/// items are separated by `, ` and `: `.
fn to_json(value: Value, options: Kwargs) -> Result<String, JinjaError> {
    let indent: Option<usize> = options.get("indent")?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let blanks = " ".repeat(width.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)),
    };
    let bad = |error: String| JinjaError::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| bad(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| bad(error.to_string()))
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        self.begin_array_value(writer, first)
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn explain(error: &JinjaError) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::messages::Role;
    use crate::data::testing::{tokenizer, tokenizer_with};

    fn turns() -> Vec<Message> {
        vec![
            Message::new(Role::System, "Be\n  kind."),
            Message::new(Role::User, " hi "),
            Message::new(Role::Assistant, "ho"),
        ]
    }

    fn render(source: &str, prompt: GenerationPrompt) -> Result<String, String> {
        Template::new(source, &tokenizer(), Path::new("t.jinja")).unwrap().render(&turns(), prompt)
    }

    #[test]
    fn chatml_uses_its_own_tokens_or_those_of_the_tokenizer() {
        let bare = tokenizer();
        let template = Template::resolve("chatml", &bare, Path::new(".")).unwrap().unwrap();
        let text = template.render(&turns()[1..2], GenerationPrompt::Add).unwrap();
        assert_eq!(text, "<s><|im_start|>user\n hi </s>\n<|im_start|>assistant\n");
        let chat = tokenizer_with(&["<|im_start|>", "<|im_end|>"]);
        let template = Template::resolve("chatml", &chat, Path::new(".")).unwrap().unwrap();
        let text = template.render(&turns()[1..], GenerationPrompt::Omit).unwrap();
        assert_eq!(text, "<s><|im_start|>user\n hi <|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n");
    }

    #[test]
    fn python_idioms_of_real_templates_work() {
        let source = "
{%- if messages[0]['role'] == 'system' %}
    {%- set rest = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
    {% generation %}{{- '[' ~ message.content.strip() | upper ~ ']' -}}{% endgeneration %}
{%- endfor %}
{%- if tools is not none %}{{ 'TOOLS' }}{% endif %}
{%- if not add_generation_prompt is defined %}{{ 'UNDEFINED' }}{% endif %}
{{- messages[0].content.split('\n')[0].startswith('Be') }}";
        assert_eq!(render(source, GenerationPrompt::Omit).unwrap(), "<s>[HI][HO]True");
    }

    #[test]
    fn blocks_take_their_line_with_them() {
        let source = "{% if true %}\na\n  {% endif %}\n{{ 'b' }}\n";
        assert_eq!(render(source, GenerationPrompt::Omit).unwrap(), "a\nb");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let source = r#"{{ {"a": [1, "<é>"], "b": none, "c": {}} | tojson }}{{ {"a": 1} | tojson(indent=2) }}"#;
        assert_eq!(
            render(source, GenerationPrompt::Omit).unwrap(),
            "{\"a\": [1, \"<é>\"], \"b\": null, \"c\": {}}{\n  \"a\": 1\n}"
        );
    }

    #[test]
    fn the_day_is_always_the_same() {
        let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}";
        assert_eq!(render(source, GenerationPrompt::Omit).unwrap(), "26 Jul 2024");
        assert!(render("{{ strftime_now('%') }}", GenerationPrompt::Omit).is_err());
    }

    #[test]
    fn what_a_template_raises_is_the_error() {
        assert_eq!(
            render("{{ raise_exception('no system turn') }}", GenerationPrompt::Omit),
            Err("no system turn".into())
        );
    }

    #[test]
    fn unusable_templates_are_refused() {
        let error = Template::new("a\n{% if %}", &tokenizer(), Path::new("t.jinja")).unwrap_err().to_string();
        assert!(error.starts_with("t.jinja: line 2: not a usable chat template"), "{error}");
        let says = |name| Template::resolve(name, &tokenizer(), Path::new("/nowhere")).unwrap_err().to_string();
        assert!(says("tokenizer").contains("no chat template"));
        assert!(says("x.jinja").contains("/nowhere/x.jinja"));
    }
}
