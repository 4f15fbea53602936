//! `lowrank generate`: text from a run, an adapter or a model.

use std::path::Path;
use std::time::Instant;

use lowrank::data::{Encoder, Template};
use lowrank::events::Format;
use lowrank::recipe::{LossOn, Task};
use lowrank::runtime::Sampling;
use lowrank::train::Subject;
use lowrank::{Error, Result};
use lowrank_cli::{pick, stdout};
use serde_json::json;

use crate::args::{self, OnDevice, Output};

const EXAMPLES: &str = "\
Examples:
  lowrank generate runs/my --prompt \"name[Alimentum], area[city centre]\"
  lowrank generate model.gguf --template tokenizer --prompt \"What is the capital of France?\"
  echo \"Once upon a time\" | lowrank generate tiny --prompt -";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    #[command(flatten)]
    pub subject: args::Subject,
    /// What to continue, or to answer where the model has an encoder; `-` reads it from stdin
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
    pub fn run(&self, output: &Output) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            let error = Error::input("`--temperature` is out of range").found(self.temperature);
            return Err(error.expected("0 or more").into());
        }
        let mut subject = Subject::open(&self.subject.path, self.subject.base.as_deref())?;
        subject.progress = output.progress();
        subject.opened.check_generates()?;
        let tokenizer = &subject.opened.tokenizer;
        let own = subject.recipe.as_ref().map_or("none", |recipe| recipe.data.template.as_str());
        let template = Template::resolve(self.template.as_deref().unwrap_or(own), tokenizer, Path::new(""))?;
        let encoder = Encoder { tokenizer, template: template.as_ref(), loss_on: LossOn::Completion };
        let mut prompt = encoder.prompt_ids(&self.prompt()?)?;
        if subject.opened.config.task == Task::Seq2seqLm {
            // What an encoder reads has an end.
            prompt.extend(tokenizer.eos().filter(|eos| prompt.last() != Some(eos)));
        }
        let mut stop = encoder.stop_ids();
        stop.extend(&subject.opened.config.eos_token_ids);
        let sampling =
            Sampling { max_new_tokens: self.max_new_tokens, temperature: self.temperature, seed: self.seed, stop };
        let positions = subject.opened.config.positions();
        if prompt.len().saturating_add(self.max_new_tokens) > positions {
            eprintln!("warn   the model has {positions} positions: the text ends there at the latest");
        }
        let (learner, warnings) = subject.load(&pick(&self.device.device)?)?;
        warnings.iter().for_each(|warning| eprintln!("warn   {warning}"));
        let (mut ids, mut shown) = (Vec::new(), 0);
        let mut failed = None;
        let start = Instant::now();
        let new = learner.generate(&prompt, &sampling, &mut |id| {
            ids.push(id);
            let text = tokenizer.decode(&ids);
            // An unfinished character decodes to the replacement character: wait for the rest of it.
            if output.format == Format::Text && !text.ends_with('\u{fffd}') && text.is_char_boundary(shown) {
                failed = stdout::print(&text[shown..]).err();
                shown = text.len();
            }
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let (text, seconds) = (tokenizer.decode(&new), start.elapsed().as_secs_f64());
        if output.format == Format::Json {
            let tokens = new.len();
            return stdout::print_json(&json!({ "text": text, "tokens": tokens, "ids": new, "seconds": seconds }));
        }
        stdout::print(&format!("{}\n", text.get(shown..).unwrap_or_default()))?;
        if output.verbose > 0 {
            eprintln!("{} tokens, {:.1} tokens/s", new.len(), new.len() as f64 / seconds);
        }
        Ok(())
    }

    fn prompt(&self) -> Result<String> {
        if self.prompt != "-" {
            return Ok(self.prompt.clone());
        }
        let text = std::io::read_to_string(std::io::stdin()).map_err(Error::io("stdin"))?;
        Ok(text.trim_end_matches('\n').into())
    }
}
