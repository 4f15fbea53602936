//! Builds a model on a device from named host tensors, one at a time.

use burn::module::Param;
use burn::tensor::Tensor;
use lowrank_kernels::LowRankBackend;

use super::llama::{Block, Decoder, Llama, Mlp};
use super::{ModelConfig, WeightSource};
use crate::nn::{Attention, Embedding, Linear, RmsNorm, Storage, Weight};
use crate::recipe::BaseStorage;
use crate::{Error, Result};

/// The frozen base: every tensor the architecture names, in the asked storage.
pub fn load<B: LowRankBackend>(
    config: &ModelConfig,
    source: &dyn WeightSource,
    storage: BaseStorage,
    device: &B::Device,
) -> Result<Llama<B>> {
    let reader = Reader { config, source, storage: Storage::new(storage, device) };
    let layers = (0..config.num_hidden_layers).map(|i| reader.block(i)).collect::<Result<_>>()?;
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let model = Decoder {
        embed_tokens: Embedding { weight: reader.weight("model.embed_tokens", [vocab, hidden])?, adapter: None },
        layers,
        norm: reader.norm("model.norm")?,
    };
    let tied = config.tie_word_embeddings;
    let lm_head = if tied { None } else { Some(Linear::new(reader.weight("lm_head", [vocab, hidden])?, None)) };
    Ok(Llama { model, lm_head })
}

struct Reader<'a, B: LowRankBackend> {
    config: &'a ModelConfig,
    source: &'a dyn WeightSource,
    storage: Storage<B>,
}

#[derive(Clone, Copy, PartialEq)]
enum Bias {
    Yes,
    No,
}

fn bias_if(present: bool) -> Bias {
    if present { Bias::Yes } else { Bias::No }
}

impl<B: LowRankBackend> Reader<'_, B> {
    fn block(&self, i: usize) -> Result<Block<B>> {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        Ok(Block {
            input_layernorm: self.norm(&at("input_layernorm"))?,
            self_attn: self.attention(&at("self_attn"))?,
            post_attention_layernorm: self.norm(&at("post_attention_layernorm"))?,
            mlp: self.mlp(&at("mlp"))?,
        })
    }

    fn attention(&self, path: &str) -> Result<Attention<B>> {
        let c = self.config;
        let (heads, kv_heads, head_dim) = (c.num_attention_heads, c.num_key_value_heads, c.head_dim);
        let (wide, narrow, hidden) = (heads * head_dim, kv_heads * head_dim, c.hidden_size);
        let (qkv, o) = (bias_if(c.qkv_bias), bias_if(c.o_bias));
        Ok(Attention {
            q_proj: self.linear(&format!("{path}.q_proj"), [wide, hidden], qkv)?,
            k_proj: self.linear(&format!("{path}.k_proj"), [narrow, hidden], qkv)?,
            v_proj: self.linear(&format!("{path}.v_proj"), [narrow, hidden], qkv)?,
            o_proj: self.linear(&format!("{path}.o_proj"), [hidden, wide], o)?,
            heads,
            kv_heads,
            head_dim,
        })
    }

    fn mlp(&self, path: &str) -> Result<Mlp<B>> {
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let bias = bias_if(self.config.mlp_bias);
        Ok(Mlp {
            gate_proj: self.linear(&format!("{path}.gate_proj"), [wide, hidden], bias)?,
            up_proj: self.linear(&format!("{path}.up_proj"), [wide, hidden], bias)?,
            down_proj: self.linear(&format!("{path}.down_proj"), [hidden, wide], bias)?,
        })
    }

    /// A linear layer of a block.
    fn linear(&self, path: &str, shape: [usize; 2], bias: Bias) -> Result<Linear<B>> {
        let bias = match bias {
            Bias::Yes => Some(self.vector(&format!("{path}.bias"), shape[0])?),
            Bias::No => None,
        };
        let values = self.read(&format!("{path}.weight"), &shape)?;
        Ok(Linear::new(self.storage.linear(values, shape), bias))
    }

    fn weight(&self, path: &str, shape: [usize; 2]) -> Result<Weight<B>> {
        Ok(self.storage.weight(self.read(&format!("{path}.weight"), &shape)?, shape))
    }

    fn norm(&self, path: &str) -> Result<RmsNorm<B>> {
        let weight = self.vector(&format!("{path}.weight"), self.config.hidden_size)?;
        Ok(RmsNorm { weight, eps: self.config.rms_norm_eps })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Param<Tensor<B, 1>>> {
        Ok(self.storage.vector(self.read(name, &[len])?))
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let error = |what| Error::input(what).file(self.source.path()).tensor(name).expected(format!("{expected:?}"));
        match self.source.shape(name) {
            None => Err(error("missing tensor").into()),
            Some(shape) if shape != expected => Err(error("wrong shape").found(format!("{shape:?}")).into()),
            Some(_) => self.source.read(name),
        }
    }
}
