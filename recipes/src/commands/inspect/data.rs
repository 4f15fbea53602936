//! Rows of a data file as the model sees them under a recipe: tokens, loss mask, lengths, counts.

use lowrank::data::{self, Style};
use lowrank::events::Format;
use lowrank::models::open_for;
use lowrank::train::setting;
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, stdout};

use super::Inspect;
use crate::args::Output;

/// Reads the whole file as training rows: nothing is held out, whatever the recipe says of evaluation.
pub(super) fn show(inspect: &Inspect, recipe: &str, output: &Output) -> Result<()> {
    let resolved = SHIPPED.load(recipe, &inspect.set)?;
    let path = inspect.path.to_str().ok_or_else(|| Error::input("the path is not UTF-8").file(&inspect.path))?;
    let mut settings = resolved.recipe.data.clone();
    settings.eval = None;
    settings.train = match path.starts_with("synthetic:") {
        true => path.to_string(),
        false => std::path::absolute(path).map_err(Error::io(path))?.to_string_lossy().into_owned(),
    };
    let model = open_for(&resolved.recipe.model.path, &resolved.root, Some(resolved.recipe.task))?;
    let setting = setting(resolved.recipe.task, &resolved.recipe.head, &model);
    let splits = data::load(&settings, &setting, &model.tokenizer, &resolved.root)?;
    if output.format == Format::Json {
        return stdout::print_json(&splits.train.report);
    }
    let style = if output.color.enabled_on(&std::io::stdout()) { Style::Colour } else { Style::Plain };
    stdout::print(&data::render(&splits.train, &splits.labels, &model.tokenizer, inspect.rows, style))
}
