//! Standard output: data only, and a reader that leaves early (`| head`) is no error.

use std::io::{ErrorKind, Write};
use std::path::Path;

use lowrank::{Error, Result};

/// Writes `text` as it is.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("standard output"))
}

/// Writes pretty JSON and a newline.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Failed(error.to_string()))?;
    print(&(text + "\n"))
}

/// Whether the error only says that nobody reads our output any more.
pub fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Io { path, source }
        if path == Path::new("standard output") && source.kind() == ErrorKind::BrokenPipe)
}
