//! `lowrank generate`: text from a run, an adapter or a model.

use lowrank::{Error, Result};

use crate::args::{OnDevice, Output, Subject};

const EXAMPLES: &str = "\
Examples:
  lowrank generate runs/my --prompt \"name[Alimentum], area[city centre]\"
  lowrank generate model.gguf --template tokenizer --prompt \"What is the capital of France?\"
  echo \"Once upon a time\" | lowrank generate tiny --prompt -";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    #[command(flatten)]
    pub subject: Subject,
    /// What to continue; `-` reads it from stdin
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// none, chatml, tokenizer (its own chat template) or a jinja file; a run knows its own
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// Most tokens to add
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub device: OnDevice,
}

impl Generate {
    pub fn run(&self, _output: &Output) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            let error = Error::input("`--temperature` is out of range").found(self.temperature);
            return Err(error.expected("0 or more").into());
        }
        Err(Error::Failed("generation is not wired up in this build".into()))
    }
}
