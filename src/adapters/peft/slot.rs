//! Names of tensors in an adapter file: `base_model.model.` + module path + part.

use std::fmt;

const PREFIX: &str = "base_model.model.";

/// What a tensor of an adapter file is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `[rank, in]`
    LoraA,
    /// `[out, rank]`
    LoraB,
    /// `[rank, tokens]`
    EmbeddingA,
    /// `[width, rank]`
    EmbeddingB,
    /// The weight of a module that was trained whole, or of a resized embedding.
    Weight,
    /// The bias of a module without an adapter.
    Bias,
    /// The frozen weight under an adapter, which PEFT saves for embeddings and heads.
    BaseLayerWeight,
    /// The bias of a module under an adapter.
    BaseLayerBias,
}

impl Part {
    /// Longer endings first: the first that fits is the right one.
    const ALL: [Part; 8] = [
        Part::LoraA,
        Part::LoraB,
        Part::EmbeddingA,
        Part::EmbeddingB,
        Part::BaseLayerWeight,
        Part::BaseLayerBias,
        Part::Weight,
        Part::Bias,
    ];

    fn ending(self) -> &'static str {
        match self {
            Part::LoraA => ".lora_A.weight",
            Part::LoraB => ".lora_B.weight",
            Part::EmbeddingA => ".lora_embedding_A",
            Part::EmbeddingB => ".lora_embedding_B",
            Part::Weight => ".weight",
            Part::Bias => ".bias",
            Part::BaseLayerWeight => ".base_layer.weight",
            Part::BaseLayerBias => ".base_layer.bias",
        }
    }
}

/// One tensor of an adapter file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Module path as in the model: `model.layers.0.self_attn.q_proj`.
    pub path: String,
    pub part: Part,
}

impl Slot {
    pub fn new(path: impl Into<String>, part: Part) -> Self {
        Self { path: path.into(), part }
    }

    /// `None` for a name that is no tensor of a LoRA adapter.
    pub fn parse(key: &str) -> Option<Self> {
        let name = key.strip_prefix(PREFIX)?;
        let (path, part) = Part::ALL.iter().find_map(|part| Some((name.strip_suffix(part.ending())?, *part)))?;
        Some(Self::new(path, part))
    }

    /// The name in the file.
    pub fn key(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}{}", self.path, self.part.ending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_reads_back_what_it_writes() {
        for part in Part::ALL {
            let slot = Slot::new("model.layers.0.self_attn.q_proj", part);
            assert_eq!(Slot::parse(&slot.key()), Some(slot));
        }
    }

    #[test]
    fn refuses_names_outside_the_model() {
        for key in ["model.lm_head.weight", "base_model.vera_A", "base_model.model.q_proj.lora_E"] {
            assert_eq!(Slot::parse(key), None, "{key}");
        }
    }
}
