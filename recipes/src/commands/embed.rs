//! `lowrank embed`: vectors of texts.

use std::path::PathBuf;

use lowrank::events::Format;
use lowrank::predict::Predictions;
use lowrank::recipe::{Pooling, Task};
use lowrank::tensors::{self, HostTensor, HostTensors};
use lowrank::train::Subject;
use lowrank::{Error, Result};
use lowrank_cli::rows::Rows;
use lowrank_cli::stdout;
use serde_json::json;

use crate::args::{self, OnDevice, Output, one_of};

const EXAMPLES: &str = "\
Examples:
  lowrank embed all-MiniLM-L6-v2 \"A man is playing a guitar.\" \"Somebody makes music.\"
  lowrank embed runs/similar --file texts.jsonl --out vectors.safetensors";

const POOLINGS: [(&str, Pooling); 3] = [("mean", Pooling::Mean), ("cls", Pooling::Cls), ("last", Pooling::Last)];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Embed {
    #[command(flatten)]
    pub subject: args::Subject,
    /// Texts
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// A data file with a column of texts
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Which token vectors make a text's own; a run knows, else the mean of all
    #[arg(long, value_name = "WHICH", value_parser = one_of(&POOLINGS))]
    pub pooling: Option<Pooling>,
    /// A .safetensors file, tensor `vectors` [texts, width]; one JSON object a line on stdout when left out
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: OnDevice,
}

impl Embed {
    pub fn run(&self, output: &Output) -> Result<()> {
        let mut subject = Subject::open_for(&self.subject.path, self.subject.base.as_deref(), Task::FeatureExtraction)?;
        subject.progress = output.progress();
        let typed = self.texts.iter().map(|text| vec![("text", text.clone())]).collect();
        let mut rows = Rows::open(subject, typed, self.file.as_deref())?;
        if let Some(pooling) = self.pooling {
            rows.head.pooling = pooling;
        }
        let Predictions::Vectors { texts, .. } = rows.predict(&self.device.device)? else {
            return Err(Error::Failed("a model for feature_extraction gave no vectors".into()));
        };
        if let Some(path) = &self.out {
            let shape = vec![texts.len(), texts.first().map_or(0, Vec::len)];
            let vectors = HostTensor { shape, values: texts.concat() };
            let bytes = tensors::encode(&HostTensors::from_iter([("vectors".to_string(), vectors)]))?;
            return std::fs::write(path, bytes).map_err(Error::io(path));
        }
        let found = texts.iter().enumerate().map(|(row, vector)| json!({ "text": rows.text(row), "vector": vector }));
        match output.format {
            Format::Json => stdout::print_json(&found.collect::<Vec<_>>()),
            Format::Text => found.map(|line| line.to_string() + "\n").try_for_each(|line| stdout::print(&line)),
        }
    }
}
