//! The report's files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Comparison, csv, figure, html, markdown};
use crate::{Error, Result};

/// Which plots are written as files of their own, beside the page that has them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pictures {
    pub svg: bool,
    pub png: bool,
}

/// Where a report of `dirs` goes: into the directory it is about, or into `report` where there are several.
pub fn default_out(dirs: &[PathBuf]) -> PathBuf {
    match dirs {
        [dir] => dir.clone(),
        _ => "report".into(),
    }
}

impl Comparison {
    /// Writes `compare.json`, `compare.md` and `report.html`, and the pictures asked for, into `out`. Returns what was
    /// written.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be written; an input error for PNG without a font or without the feature `png`.
    pub fn write(&self, out: &Path, pictures: Pictures) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(out).map_err(Error::io(out))?;
        let figures = self.figures();
        let json =
            serde_json::to_string_pretty(&self.summary).map_err(|error| Error::Failed(error.to_string()))? + "\n";
        let mut written = vec![
            put(out.join("compare.json"), json.as_bytes())?,
            put(out.join("compare.md"), markdown::table(&self.summary).as_bytes())?,
            put(out.join("report.html"), html::page(self, &figures).as_bytes())?,
        ];
        let rasterise = if pictures.png { Some(rasteriser()?) } else { None };
        for figure in &figures {
            // Letters, digits and dashes alone: a variant's name cannot lead out of the directory.
            let path = out.join(&figure.id);
            let svg = alone(&figure.svg);
            if let Some(rasterise) = &rasterise {
                written.push(put(path.with_extension("png"), &rasterise(&svg)?)?);
            }
            if pictures.svg {
                written.push(put(path.with_extension("svg"), svg.as_bytes())?);
            }
        }
        Ok(written)
    }

    /// The content of `compare.md`.
    pub fn to_markdown(&self) -> String {
        markdown::table(&self.summary)
    }

    /// Writes one row for each run, with all its final numbers.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be written.
    pub fn write_csv(&self, file: &Path) -> Result<()> {
        put(file.into(), &csv::rows(&self.summary)?).map(|_| ())
    }
}

/// The picture with its style sheet in it.
fn alone(svg: &str) -> String {
    let (head, body) = svg.split_once("<title>").unwrap_or((svg, ""));
    format!("{head}<style>\n{}</style>\n<title>{body}\n", figure::standalone())
}

type Rasterise = Box<dyn Fn(&str) -> Result<Vec<u8>>>;

#[cfg(feature = "png")]
fn rasteriser() -> Result<Rasterise> {
    let fonts = super::png::Fonts::of_the_system()?;
    Ok(Box::new(move |svg| super::png::rasterise(svg, &fonts)))
}

#[cfg(not(feature = "png"))]
fn rasteriser() -> Result<Rasterise> {
    let error = Error::input("PNG is not compiled in").key("--png");
    Err(error.hint("build with `--features png`, or write `--svg`").into())
}

fn put(path: PathBuf, bytes: &[u8]) -> Result<PathBuf> {
    fs::write(&path, bytes).map_err(Error::io(&path))?;
    Ok(path)
}
