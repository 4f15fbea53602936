//! The table of families: what a `model_type` of `config.json` is read as.

// There is one model: nothing is gained by boxing.
#![allow(clippy::large_enum_variant)]

use burn::module::Module;
use burn::tensor::backend::Backend;
use lowrank_kernels::LowRankBackend;
use serde::Serialize;

use super::{Aliases, Backbone, Defaults, Family, Part};
use crate::Result;
use crate::models::Site;
use crate::models::json::Json;
use crate::models::load::Reader;

/// One `model_type`.
#[derive(Debug)]
pub struct ModelType {
    pub name: &'static str,
    /// The class of transformers, `architectures` in `config.json`.
    pub class: &'static str,
    /// What PEFT adapts where nothing is said; empty where it wants to be told.
    pub default_targets: &'static [&'static str],
}

macro_rules! families {
    ($($module:ident :: $variant:ident ( $config:ident ) {
        $($name:literal => $class:literal, [$($target:literal),*];)*
    })*) => {
        /// Everything of a model below its head.
        #[derive(Module, Debug)]
        pub enum Body<B: Backend> {
            $($variant(super::$module::$variant<B>),)*
        }

        impl<B: LowRankBackend> Body<B> {
            pub(super) fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
                Ok(match &reader.config.architecture {
                    $(Architecture::$variant(_) => Self::$variant(Part::read(reader, path)?),)*
                })
            }

            pub(super) fn backbone(&self) -> &dyn Backbone<B> {
                match self {
                    $(Self::$variant(model) => model,)*
                }
            }

            pub(super) fn collect_sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
                match self {
                    $(Self::$variant(model) => model.sites(path, found),)*
                }
            }
        }

        /// The family of a model and the keys of its own.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Architecture {
            $($variant(super::$module::$config),)*
        }

        $(impl From<super::$module::$config> for Architecture {
            fn from(config: super::$module::$config) -> Self {
                Self::$variant(config)
            }
        })*

        /// The keys of one family.
        pub trait Own: Sized {
            fn of(architecture: &Architecture) -> Option<&Self>;
        }

        $(impl Own for super::$module::$config {
            fn of(architecture: &Architecture) -> Option<&Self> {
                match architecture {
                    Architecture::$variant(own) => Some(own),
                    _ => None,
                }
            }
        })*

        impl Architecture {
            pub fn family(&self) -> &dyn Family {
                match self {
                    $(Self::$variant(config) => config,)*
                }
            }

            /// The keys of a family's own; none of an unknown `model_type`.
            pub(in crate::models) fn read(model_type: &str, json: &Json<'_>) -> Result<Option<Self>> {
                Ok(match model_type {
                    $($($name)|* => Some(Self::$variant(super::$module::$config::read(json, model_type)?)),)*
                    _ => None,
                })
            }

            /// What a family calls the common keys, and what absent ones stand for; none of an unknown `model_type`.
            pub(in crate::models) fn common(model_type: &str) -> Option<(Aliases, Defaults)> {
                match model_type {
                    $($($name)|* => Some((
                        super::$module::$config::aliases(), super::$module::$config::defaults(model_type),
                    )),)*
                    _ => None,
                }
            }
        }

        /// Every `model_type`, in the table's order.
        pub const MODEL_TYPES: &[ModelType] = &[$($(
            ModelType { name: $name, class: $class, default_targets: &[$($target),*] },
        )*)*];
    };
}

families! {
    llama::Llama(LlamaConfig) {
        "llama" => "LlamaForCausalLM", ["q_proj", "v_proj"];
        "mistral" => "MistralForCausalLM", ["q_proj", "v_proj"];
        "qwen2" => "Qwen2ForCausalLM", ["q_proj", "v_proj"];
        "qwen3" => "Qwen3ForCausalLM", ["q_proj", "v_proj"];
    }
    moe::Moe(MoeConfig) {
        "mixtral" => "MixtralForCausalLM", ["q_proj", "v_proj"];
        "qwen2_moe" => "Qwen2MoeForCausalLM", [];
        "qwen3_moe" => "Qwen3MoeForCausalLM", [];
        "deepseek" => "DeepseekForCausalLM", [];
    }
    gpt2::Gpt2(Gpt2Config) {
        "gpt2" => "GPT2LMHeadModel", ["c_attn"];
    }
    gemma3::Gemma3(Gemma3Config) {
        "gemma3_text" => "Gemma3ForCausalLM", ["q_proj", "v_proj"];
    }
    glm::Glm(GlmConfig) {
        "glm" => "GlmForCausalLM", [];
        "glm4" => "Glm4ForCausalLM", [];
    }
    bloom::Bloom(BloomConfig) {
        "bloom" => "BloomForCausalLM", ["query_key_value"];
    }
    t5::T5(T5Config) {
        "t5" => "T5ForConditionalGeneration", ["q", "v"];
    }
    bert::Bert(BertConfig) {
        "bert" => "BertModel", ["query", "value"];
        "roberta" => "RobertaModel", ["query", "value"];
    }
    distilbert::DistilBert(DistilBertConfig) {
        "distilbert" => "DistilBertModel", [];
    }
}

impl ModelType {
    pub fn find(name: &str) -> Option<&'static ModelType> {
        MODEL_TYPES.iter().find(|row| row.name == name)
    }

    /// The names in the table.
    pub fn names() -> String {
        MODEL_TYPES.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
    }
}
