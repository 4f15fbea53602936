//! What decides a parameter's learning rate and decay.

use crate::adapters::{ModuleKind, Selected};
use crate::recipe::Optim;

/// Learning rate of adapters on embeddings under LoRA+, whatever the recipe's is: PEFT's `loraplus_lr_embedding`.
const EMBEDDING_LR: f64 = 1e-6;

/// The group of a parameter. LoRA+ (Hayou et al. 2024, arXiv 2402.12354) gives B, which starts at zero, a larger rate than A:
/// its groups are those of PEFT's `create_loraplus_optimizer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Matrices, but for what LoRA+ takes out.
    Matrices,
    /// Under LoRA+: B of a linear layer.
    LoraB,
    /// Biases, norms and magnitudes. They do not decay, as in Hugging Face's trainer; under LoRA+ they go with B.
    Vectors,
    /// Under LoRA+: what an adapter has on an embedding.
    Embeddings,
}

impl Label {
    /// Of the parameter `path` of this shape; `adapted` are the modules that carry an adapter.
    pub fn of(path: &str, shape: &[usize], optim: &Optim, adapted: &[Selected]) -> Self {
        let (module, field) = path.rsplit_once('.').unwrap_or(("", path));
        let on_embedding = || adapted.iter().any(|site| site.kind == ModuleKind::Embedding && site.path == module);
        match optim.lora_plus_ratio {
            Some(_) if on_embedding() => Label::Embeddings,
            _ if shape.len() < 2 => Label::Vectors,
            Some(_) if field == "lora_B" => Label::LoraB,
            _ => Label::Matrices,
        }
    }

    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            Label::Matrices => "matrices",
            Label::LoraB => "lora_B",
            Label::Vectors => "vectors",
            Label::Embeddings => "embeddings",
        }
    }

    /// Learning rate as a multiple of the recipe's, so that every schedule keeps the ratios.
    pub fn rate(self, optim: &Optim) -> f64 {
        match (self, optim.lora_plus_ratio) {
            (Label::LoraB | Label::Vectors, Some(ratio)) => ratio,
            (Label::Embeddings, _) => EMBEDDING_LR / optim.adamw.lr,
            _ => 1.0,
        }
    }

    pub fn weight_decay(self, optim: &Optim) -> f64 {
        if self == Label::Vectors { 0.0 } else { optim.adamw.weight_decay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lora_plus_groups_are_those_of_peft() {
        let embedding = Selected {
            path: "model.embed_tokens".into(),
            kind: ModuleKind::Embedding,
            rows: 512,
            cols: 96,
            rank: 4,
            alpha: 8.0,
            scaling: 2.0,
        };
        let of = |path: &str, shape: &[usize], lora_plus_ratio| {
            let optim = Optim { lora_plus_ratio, ..Optim::default() };
            Label::of(path, shape, &optim, std::slice::from_ref(&embedding))
        };
        let cases: [(&str, &[usize], Label, Label); 7] = [
            ("l.q_proj.lora_A", &[4, 96], Label::Matrices, Label::Matrices),
            ("l.q_proj.lora_B", &[96, 4], Label::Matrices, Label::LoraB),
            ("l.q_proj.lora_magnitude_vector", &[96], Label::Vectors, Label::Vectors),
            ("l.q_proj.bias", &[96], Label::Vectors, Label::Vectors),
            ("model.embed_tokens.lora_A", &[4, 512], Label::Matrices, Label::Embeddings),
            ("model.embed_tokens.lora_B", &[96, 4], Label::Matrices, Label::Embeddings),
            // Trained whole, and not by an adapter.
            ("lm_head.weight", &[512, 96], Label::Matrices, Label::Matrices),
        ];
        for (path, shape, plain, plus) in cases {
            assert_eq!((of(path, shape, None), of(path, shape, Some(16.0))), (plain, plus), "{path}");
        }
    }
}
