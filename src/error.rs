//! One error type: what went wrong, where, what was found and what was expected.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something the user gave us is wrong (exit code 2).
    #[error("{0}")]
    Input(Box<InputError>),
    /// Several things the user gave us are wrong, all reported at once (exit code 2).
    #[error("{}", list(.0))]
    Inputs(Vec<InputError>),
    /// The operating system refused (exit code 1).
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Loss or gradient stayed non-finite (exit code 3).
    #[error("diverged at step {step}: {what}")]
    Diverged { step: usize, what: String },
    /// Stopped by a signal after saving (exit code 128 + signal).
    #[error("interrupted by signal {signal}")]
    Interrupted { signal: i32 },
    /// Anything else that failed while running (exit code 1).
    #[error("{0}")]
    Failed(String),
}

/// Bad input. Only `what` is mandatory; the rest says where and how to mend it.
#[derive(Debug, Clone, Default)]
pub struct InputError {
    pub what: String,
    pub file: Option<PathBuf>,
    /// `tensor`, `row`, `line`, `key`, ... and its name or number.
    pub place: Option<(&'static str, String)>,
    pub found: Option<String>,
    pub expected: Option<String>,
    pub hint: Option<String>,
    /// Byte range in `text`, for errors that can be shown in their source.
    pub span: Option<Range<usize>>,
    pub text: Option<String>,
}

impl InputError {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = Some(path.as_ref().to_path_buf());
        self
    }
    pub fn tensor(self, name: impl Into<String>) -> Self {
        self.place("tensor", name)
    }
    pub fn row(self, row: usize) -> Self {
        self.place("row", row.to_string())
    }
    pub fn line(self, line: usize) -> Self {
        self.place("line", line.to_string())
    }
    pub fn key(self, key: impl Into<String>) -> Self {
        self.place("key", key)
    }
    pub fn place(mut self, kind: &'static str, name: impl Into<String>) -> Self {
        self.place = Some((kind, name.into()));
        self
    }
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.found = Some(found.to_string());
        self
    }
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub fn span(mut self, text: impl Into<String>, span: Range<usize>) -> Self {
        (self.text, self.span) = (Some(text.into()), Some(span));
        self
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some((kind, name)) = &self.place {
            write!(f, "{kind} {name}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(found) = &self.found {
            write!(f, "; found {found}")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<InputError> for Error {
    fn from(error: InputError) -> Self {
        Error::Input(Box::new(error))
    }
}

impl Error {
    pub fn input(what: impl Into<String>) -> InputError {
        InputError::new(what)
    }
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }
    /// For a file that the user named: what the system says against it is bad input.
    pub fn unreadable(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::input("cannot be read").file(path).found(source).into()
    }
    /// The process exit code that the interface promises for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Input(_) | Error::Inputs(_) => 2,
            Error::Io { .. } | Error::Failed(_) => 1,
            Error::Diverged { .. } => 3,
            Error::Interrupted { signal } => 128 + *signal as u8,
        }
    }
}

fn list(errors: &[InputError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
