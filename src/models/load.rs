//! Builds a model on a device from named host tensors, one at a time.

use burn::module::Param;
use burn::tensor::Tensor;
use lowrank_kernels::LowRankBackend;
use lowrank_kernels::four_bit::Quantised;

use super::llama::{Block, Decoder, Llama, Mlp};
use super::{ModelConfig, Stored, WeightSource};
use crate::adapters::{Factors, Loftq};
use crate::nn::{Attention, Embedding, Linear, RmsNorm, Storage, Weight};
use crate::recipe::BaseStorage;
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// The frozen base: every tensor the architecture names, in the asked storage. With it what fresh adapters start from under LoftQ, by path.
pub fn load<B: LowRankBackend>(
    config: &ModelConfig,
    source: &dyn WeightSource,
    storage: BaseStorage,
    loftq: Option<Loftq<'_>>,
    device: &B::Device,
) -> Result<(Llama<B>, HostTensors)> {
    let source = Stored::new(source, storage)?.around(loftq.map(|loftq| loftq.plan.clone()))?;
    let (storage, left) = (Storage::new(storage, device), HostTensors::new());
    let mut reader = Reader { config, source, storage, loftq, done: 0, left };
    let layers = (0..config.num_hidden_layers).map(|i| reader.block(i)).collect::<Result<_>>()?;
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let model = Decoder {
        embed_tokens: Embedding { weight: reader.weight("model.embed_tokens", [vocab, hidden])?, adapter: None },
        layers,
        norm: reader.norm("model.norm")?,
    };
    let tied = config.tie_word_embeddings;
    let lm_head = if tied { None } else { Some(Linear::new(reader.weight("lm_head", [vocab, hidden])?, None)) };
    Ok((Llama { model, lm_head }, reader.left))
}

struct Reader<'a, B: LowRankBackend> {
    config: &'a ModelConfig,
    source: Stored<'a>,
    storage: Storage<B>,
    loftq: Option<Loftq<'a>>,
    /// Layers of LoftQ's plan that have been read.
    done: usize,
    /// What they left for fresh adapters.
    left: HostTensors,
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
    fn block(&mut self, i: usize) -> Result<Block<B>> {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        Ok(Block {
            input_layernorm: self.norm(&at("input_layernorm"))?,
            self_attn: self.attention(&at("self_attn"))?,
            post_attention_layernorm: self.norm(&at("post_attention_layernorm"))?,
            mlp: self.mlp(&at("mlp"))?,
        })
    }

    fn attention(&mut self, path: &str) -> Result<Attention<B>> {
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

    fn mlp(&mut self, path: &str) -> Result<Mlp<B>> {
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let bias = bias_if(self.config.mlp_bias);
        Ok(Mlp {
            gate_proj: self.linear(&format!("{path}.gate_proj"), [wide, hidden], bias)?,
            up_proj: self.linear(&format!("{path}.up_proj"), [wide, hidden], bias)?,
            down_proj: self.linear(&format!("{path}.down_proj"), [hidden, wide], bias)?,
        })
    }

    /// A linear layer of a block.
    fn linear(&mut self, path: &str, shape: [usize; 2], bias: Bias) -> Result<Linear<B>> {
        let bias = match bias {
            Bias::Yes => Some(self.vector(&format!("{path}.bias"), shape[0])?),
            Bias::No => None,
        };
        Ok(Linear::new(self.weight(path, shape)?, bias))
    }

    fn weight(&mut self, path: &str, shape: [usize; 2]) -> Result<Weight<B>> {
        let name = format!("{path}.weight");
        self.check(&name, &shape)?;
        match self.source.four_bit(&name)? {
            Some(quantised) => {
                self.leave(path, &quantised)?;
                Ok(self.storage.four_bit(&quantised, shape))
            }
            None => Ok(self.storage.weight(self.source.read(&name)?, shape)),
        }
    }

    /// Keeps what a fresh adapter of the layer starts from, where that is LoftQ's.
    fn leave(&mut self, path: &str, quantised: &Quantised) -> Result<()> {
        let Some(Loftq { plan, factors, progress }) = self.loftq.filter(|loftq| loftq.plan.ranks.contains_key(path))
        else {
            return Ok(());
        };
        if factors == Factors::Keep {
            self.left.extend(self.source.factors(path, quantised)?);
        }
        self.done += 1;
        progress(self.done, plan.ranks.len());
        Ok(())
    }

    fn norm(&self, path: &str) -> Result<RmsNorm<B>> {
        let weight = self.vector(&format!("{path}.weight"), self.config.hidden_size)?;
        Ok(RmsNorm { weight, eps: self.config.rms_norm_eps })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Param<Tensor<B, 1>>> {
        self.check(name, &[len])?;
        Ok(self.storage.vector(self.source.read(name)?))
    }

    fn check(&self, name: &str, expected: &[usize]) -> Result<()> {
        let error = |what| Error::input(what).file(self.source.path()).tensor(name).expected(format!("{expected:?}"));
        match self.source.shape(name) {
            None => Err(error("missing tensor").into()),
            Some(shape) if shape != expected => Err(error("wrong shape").found(format!("{shape:?}")).into()),
            Some(_) => Ok(()),
        }
    }
}
