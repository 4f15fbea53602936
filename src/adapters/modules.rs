//! The modules of a model that an adapter can attach to or train whole, under their Hugging Face paths.

use crate::models::ModelConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    Linear,
    Embedding,
    /// The output embedding: a linear layer that `all-linear` leaves out.
    Head,
    /// A vector of scales, and perhaps one of shifts. It carries no adapter; it trains whole or not at all.
    Norm,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// `model.layers.0.self_attn.q_proj`
    pub path: String,
    pub kind: ModuleKind,
    /// Rows of the stored weight: outputs of a linear layer, tokens of an embedding.
    pub rows: usize,
    /// Columns of the stored weight: inputs of a linear layer, width of an embedding; 1 for a norm.
    pub cols: usize,
    /// Whether the model has a bias beside the weight.
    pub biased: bool,
    /// Whether files hold the weight as `[cols, rows]`, as the `Conv1D` of transformers has it.
    pub transposed: bool,
}

impl Module {
    fn new(path: &str, kind: ModuleKind, rows: usize, cols: usize) -> Self {
        Self { path: path.into(), kind, rows, cols, biased: false, transposed: false }
    }

    pub fn linear(path: &str, out: usize, inputs: usize) -> Self {
        Self::new(path, ModuleKind::Linear, out, inputs)
    }

    /// A `Conv1D`: a linear layer with a bias whose weight is stored `[in, out]`.
    pub fn conv1d(path: &str, out: usize, inputs: usize) -> Self {
        Self { biased: true, transposed: true, ..Self::linear(path, out, inputs) }
    }

    pub fn embedding(path: &str, tokens: usize, width: usize) -> Self {
        Self::new(path, ModuleKind::Embedding, tokens, width)
    }

    pub fn head(path: &str, tokens: usize, inputs: usize) -> Self {
        Self::new(path, ModuleKind::Head, tokens, inputs)
    }

    pub fn norm(path: &str, width: usize) -> Self {
        Self::new(path, ModuleKind::Norm, width, 1)
    }

    pub fn layer_norm(path: &str, width: usize) -> Self {
        Self::norm(path, width).biased(true)
    }

    /// The modules of each of `n` blocks, under `parent` and the number of the block.
    pub fn repeated(parent: &str, n: usize, block: impl Fn(usize) -> Vec<Module>) -> Vec<Module> {
        let under = |i: usize| {
            let parent = format!("{parent}.{i}");
            block(i).into_iter().map(move |module| module.under(&parent))
        };
        (0..n).flat_map(under).collect()
    }

    pub fn biased(self, biased: bool) -> Self {
        Self { biased, ..self }
    }

    /// The same under `parent`.
    pub fn under(&self, parent: &str) -> Self {
        Self { path: format!("{parent}.{}", self.path), ..self.clone() }
    }

    /// Every module of a model, in forward order; the head of tied embeddings too.
    pub fn list(config: &ModelConfig) -> Vec<Module> {
        let head = config.head();
        let backbone = config.architecture.family().modules(config).into_iter();
        let mut modules: Vec<Module> = match head.root {
            "" => backbone.collect(),
            root => backbone.map(|module| module.under(root)).collect(),
        };
        modules.extend(head.layers.into_iter().map(|layer| layer.module));
        modules
    }

    /// The table of token embeddings, which is the first embedding, and the head over the vocabulary, if there is one: what a tied
    /// model shares.
    pub fn vocabulary(modules: &[Module]) -> [Option<&Module>; 2] {
        let table = modules.iter().find(|module| module.kind == ModuleKind::Embedding);
        let spans = |module: &&Module| {
            module.kind == ModuleKind::Head
                && table.is_some_and(|table| [table.rows, table.cols] == [module.rows, module.cols])
        };
        [table, modules.iter().find(spans)]
    }

    /// Last segment of the path: `q_proj`.
    pub fn leaf(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Whether an adapter can attach to it.
    pub fn is_adaptable(&self) -> bool {
        self.kind != ModuleKind::Norm
    }

    /// Shape of the stored weight.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self.kind {
            ModuleKind::Norm => vec![self.rows],
            _ => vec![self.rows, self.cols],
        }
    }

    /// Name and shape of its tensors: the weight, and the bias where there is one.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> + use<> {
        let bias = self.biased.then(|| (format!("{}.bias", self.path), vec![self.rows]));
        [(format!("{}.weight", self.path), self.weight_shape())].into_iter().chain(bias)
    }

    /// Whether `name` is this module's path or ends it at a dot.
    pub fn is_named(&self, name: &str) -> bool {
        self.path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// The two tiny models under `tests/golden/e2e`.
#[cfg(test)]
pub(crate) mod tiny {
    use crate::models::families::LlamaConfig;
    use crate::models::{ModelConfig, Rope, RopeScaling, Sliding};
    use crate::recipe::Task;

    pub(crate) fn llama() -> ModelConfig {
        let family = LlamaConfig {
            intermediate_size: 256,
            rms_norm_eps: 1e-5,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            sliding: Sliding::default(),
        };
        ModelConfig {
            model_type: "llama".into(),
            vocab_size: 512,
            hidden_size: 96,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 24,
            max_position_embeddings: 128,
            tie_word_embeddings: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            pad_token_id: Some(0),
            task: Task::CausalLm,
            labels: Vec::new(),
            architecture: family.into(),
        }
    }

    pub(crate) fn qwen2() -> ModelConfig {
        let family = LlamaConfig {
            intermediate_size: 160,
            rms_norm_eps: 1e-6,
            rope: Rope { theta: 1e6, scaling: RopeScaling::Default },
            qkv_bias: true,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            sliding: Sliding::default(),
        };
        ModelConfig {
            model_type: "qwen2".into(),
            hidden_size: 64,
            head_dim: 16,
            tie_word_embeddings: true,
            pad_token_id: None,
            architecture: family.into(),
            ..llama()
        }
    }
}
