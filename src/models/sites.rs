//! The layers of a model that can be adapted or trained, by path.

use burn::tensor::backend::Backend;
use lowrank_kernels::LowRankBackend;

use super::llama::Llama;
use crate::adapters::Adapter;
use crate::nn::{Embedding, Linear, RmsNorm};

/// One layer, borrowed for change.
pub enum Site<'a, B: Backend> {
    Linear(&'a mut Linear<B>),
    Embedding(&'a mut Embedding<B>),
    Norm(&'a mut RmsNorm<B>),
}

impl<B: LowRankBackend> Site<'_, B> {
    pub fn device(&self) -> B::Device {
        match self {
            Site::Linear(linear) => linear.weight.device(),
            Site::Embedding(embedding) => embedding.weight.device(),
            Site::Norm(norm) => norm.weight.device(),
        }
    }

    /// Every parameter of the layer trains from now on.
    pub fn make_trainable(self) {
        match self {
            Site::Linear(linear) => {
                linear.weight.make_trainable();
                linear.bias = linear.bias.take().map(|bias| bias.set_require_grad(true));
            }
            Site::Embedding(embedding) => embedding.weight.make_trainable(),
            Site::Norm(norm) => norm.weight = norm.weight.clone().set_require_grad(true),
        }
    }
}

impl<B: LowRankBackend> Llama<B> {
    /// Every layer with its path, in forward order.
    pub fn sites(&mut self) -> Vec<(String, Site<'_, B>)> {
        let mut sites = vec![("model.embed_tokens".to_string(), Site::Embedding(&mut self.model.embed_tokens))];
        for (i, block) in self.model.layers.iter_mut().enumerate() {
            let (attention, mlp) = (&mut block.self_attn, &mut block.mlp);
            let layers = [
                ("input_layernorm", Site::Norm(&mut block.input_layernorm)),
                ("self_attn.q_proj", Site::Linear(&mut attention.q_proj)),
                ("self_attn.k_proj", Site::Linear(&mut attention.k_proj)),
                ("self_attn.v_proj", Site::Linear(&mut attention.v_proj)),
                ("self_attn.o_proj", Site::Linear(&mut attention.o_proj)),
                ("post_attention_layernorm", Site::Norm(&mut block.post_attention_layernorm)),
                ("mlp.gate_proj", Site::Linear(&mut mlp.gate_proj)),
                ("mlp.up_proj", Site::Linear(&mut mlp.up_proj)),
                ("mlp.down_proj", Site::Linear(&mut mlp.down_proj)),
            ];
            sites.extend(layers.map(|(name, site)| (format!("model.layers.{i}.{name}"), site)));
        }
        sites.push(("model.norm".into(), Site::Norm(&mut self.model.norm)));
        if let Some(head) = &mut self.lm_head {
            sites.push(("lm_head".into(), Site::Linear(head)));
        }
        sites
    }

    /// Every adapter, in forward order.
    pub fn adapters(&mut self) -> impl Iterator<Item = &mut Adapter<B>> {
        self.sites().into_iter().filter_map(|(_, site)| match site {
            Site::Linear(linear) => linear.adapter.as_mut(),
            Site::Embedding(embedding) => embedding.adapter.as_mut(),
            Site::Norm(_) => None,
        })
    }

    /// Gives a tied head a layer of its own that shares the embedding's storage, so that it can be adapted.
    pub fn untie_head(&mut self) {
        if self.lm_head.is_none() {
            self.lm_head = Some(Linear::new(self.model.embed_tokens.weight.shared(), None));
        }
    }
}
