//! Names of tensors in an adapter file: `base_model.model.` + module path + part.

use std::fmt;

const PREFIX: &str = "base_model.model.";
const COMMON: &str = "base_model.";

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
    /// `[out]`, of DoRA.
    Magnitude,
    /// `[rank, in]`, `[rank, 1]` and `[out, rank]` of AdaLoRA.
    AdaA,
    AdaE,
    AdaB,
    /// `[out]` and `[rank]` of VeRA.
    LambdaB,
    LambdaD,
    /// `[rank, widest in]` and `[widest out, rank]`, which VeRA's modules share.
    ProjectionA,
    ProjectionB,
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
    const ALL: [Part; 16] = [
        Part::LoraA,
        Part::LoraB,
        Part::EmbeddingA,
        Part::EmbeddingB,
        Part::Magnitude,
        Part::AdaA,
        Part::AdaE,
        Part::AdaB,
        Part::LambdaB,
        Part::LambdaD,
        Part::ProjectionA,
        Part::ProjectionB,
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
            Part::Magnitude => ".lora_magnitude_vector",
            Part::AdaA => ".lora_A",
            Part::AdaE => ".lora_E",
            Part::AdaB => ".lora_B",
            Part::LambdaB => ".vera_lambda_b",
            Part::LambdaD => ".vera_lambda_d",
            Part::ProjectionA => "vera_A",
            Part::ProjectionB => "vera_B",
            Part::Weight => ".weight",
            Part::Bias => ".bias",
            Part::BaseLayerWeight => ".base_layer.weight",
            Part::BaseLayerBias => ".base_layer.bias",
        }
    }

    /// The name of our parameter; none for a copy of the frozen weight.
    fn field(self) -> Option<&'static str> {
        match self {
            Part::LoraA | Part::EmbeddingA | Part::AdaA => Some("lora_A"),
            Part::LoraB | Part::EmbeddingB | Part::AdaB => Some("lora_B"),
            Part::AdaE => Some("lora_E"),
            Part::Magnitude => Some("lora_magnitude_vector"),
            Part::LambdaB => Some("vera_lambda_b"),
            Part::LambdaD => Some("vera_lambda_d"),
            Part::ProjectionA => Some("vera_A"),
            Part::ProjectionB => Some("vera_B"),
            Part::Weight => Some("weight"),
            Part::Bias | Part::BaseLayerBias => Some("bias"),
            Part::BaseLayerWeight => None,
        }
    }

    /// Whether all modules share the tensor, so that its name has no module in it.
    pub fn is_common(self) -> bool {
        matches!(self, Part::ProjectionA | Part::ProjectionB)
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

    /// A tensor that the modules share.
    pub fn common(part: Part) -> Self {
        Self::new("", part)
    }

    /// `None` for a name that is no tensor of an adapter.
    pub fn parse(key: &str) -> Option<Self> {
        let common = |part: &&Part| part.is_common() && key == Slot::common(**part).key();
        if let Some(part) = Part::ALL.iter().find(common) {
            return Some(Self::common(*part));
        }
        let name = key.strip_prefix(PREFIX)?;
        let own = Part::ALL.iter().filter(|part| !part.is_common());
        let (path, part) = own.into_iter().find_map(|part| Some((name.strip_suffix(part.ending())?, *part)))?;
        Some(Self::new(path, part))
    }

    /// The path of our parameter: module and field, or the field alone where the modules share it.
    pub fn parameter(&self) -> Option<String> {
        let field = self.part.field()?;
        Some(if self.part.is_common() { field.to_string() } else { format!("{}.{field}", self.path) })
    }

    /// The name in the file.
    pub fn key(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.part.is_common() { COMMON } else { PREFIX };
        write!(f, "{prefix}{}{}", self.path, self.part.ending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_reads_back_what_it_writes() {
        for part in Part::ALL {
            let path = if part.is_common() { "" } else { "model.layers.0.self_attn.q_proj" };
            let slot = Slot::new(path, part);
            assert_eq!(Slot::parse(&slot.key()), Some(slot));
        }
    }

    #[test]
    fn refuses_names_outside_the_model() {
        for key in ["model.lm_head.weight", "base_model.vera_C", "base_model.model.q_proj.lora_F"] {
            assert_eq!(Slot::parse(key), None, "{key}");
        }
    }
}
