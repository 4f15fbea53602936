//! The table of methods: one line each, from which everything that lists them is made.

// A layer has one adapter and a recipe one configuration: nothing is gained by boxing.
#![allow(clippy::large_enum_variant)]

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::LowRankBackend;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::{Method, Moment, Rule, Start};
use super::{Findings, FullConfig, NoneConfig, Selected, Spec, Targets};
use crate::Result;
use crate::nn::{Embedding, Linear, Pass};

/// One row of `lowrank methods`.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The recipe's table: `[adapter.NAME]`.
    pub name: &'static str,
    pub summary: &'static str,
    pub equation: &'static str,
    pub trains: &'static str,
    pub parameters: &'static str,
    pub paper: &'static str,
}

/// See [`AdapterConfig::open_keys`].
pub struct OpenKeys<'a> {
    pub targets: &'a mut Targets,
    pub modules_to_save: &'a mut Vec<String>,
}

macro_rules! adapters {
    ($($module:ident :: $variant:ident ( $config:ident ) as $name:literal {
        summary: $summary:literal, equation: $equation:literal, trains: $trains:literal,
        parameters: $parameters:literal, paper: $paper:literal $(,)?
    })*) => {
        /// What a layer carries besides its frozen base.
        #[derive(Module, Debug)]
        pub enum Adapter<B: Backend> {
            $($variant(super::$module::$variant<B>),)*
        }

        impl<B: LowRankBackend> Adapter<B> {
            /// A fresh adapter for the module `site`; none for `full` and `none`, and for a module of rank 0.
            pub fn new(site: &Selected, config: &AdapterConfig, start: &mut Start<'_, B>) -> Result<Option<Self>> {
                match config {
                    _ if site.rank == 0 => Ok(None),
                    $(AdapterConfig::$variant(config) =>
                        <super::$module::$variant<B> as Method<B>>::new(site, config, start).map(|adapter| Some(Self::$variant(adapter))),)*
                    AdapterConfig::Full(_) | AdapterConfig::None(_) => Ok(None),
                }
            }

            /// What the method does across layers around an optimizer step.
            pub fn rule(config: &AdapterConfig, selected: &[Selected], total_steps: usize) -> Option<Box<dyn Rule<B>>> {
                match config {
                    $(AdapterConfig::$variant(config) =>
                        <super::$module::$variant<B> as Method<B>>::rule(config, selected, total_steps),)*
                    AdapterConfig::Full(_) | AdapterConfig::None(_) => None,
                }
            }

            /// `[n, in] → [n, out]`: base and adapter together.
            pub fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
                match self {
                    $(Self::$variant(adapter) => adapter.forward(x, base, pass),)*
                }
            }

            /// `[n] → [n, hidden]` on an embedding.
            pub fn embed(&self, ids: Tensor<B, 1, Int>, base: &Embedding<B>) -> Tensor<B, 2> {
                match self {
                    $(Self::$variant(adapter) => adapter.embed(ids, base),)*
                }
            }

            /// `step` optimizer steps are behind the adapter.
            pub fn at_step(&mut self, step: usize, moment: Moment) {
                match self {
                    $(Self::$variant(adapter) => adapter.at_step(step, moment),)*
                }
            }
        }

        /// Exactly one of the tables `[adapter.NAME]`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum AdapterConfig {
            $(#[doc = $summary] #[serde(rename = $name)] $variant(super::$module::$config),)*
            /// Every weight trains, in a dense copy of its own.
            Full(FullConfig),
            /// Nothing trains: evaluate the base.
            None(NoneConfig),
        }

        $(impl From<super::$module::$config> for AdapterConfig {
            fn from(config: super::$module::$config) -> Self {
                AdapterConfig::$variant(config)
            }
        })*

        impl AdapterConfig {
            /// What the method says of itself; none for `full` and `none`, which are not adapters.
            pub fn spec(&self) -> Option<&dyn Spec> {
                match self {
                    $(Self::$variant(config) => Some(config),)*
                    Self::Full(_) | Self::None(_) => None,
                }
            }

            /// The keys that a model decides where the recipe leaves them open; none for `full` and `none`.
            pub fn open_keys(&mut self) -> Option<OpenKeys<'_>> {
                match self {
                    $(Self::$variant(config) => Some(OpenKeys {
                        targets: &mut config.targets, modules_to_save: &mut config.modules_to_save,
                    }),)*
                    Self::Full(_) | Self::None(_) => None,
                }
            }

            /// The run will take `steps` optimizer steps; see [`Spec::plan`].
            pub fn plan(&mut self, steps: usize, found: &mut Findings) {
                match self {
                    $(Self::$variant(config) => Spec::plan(config, steps, found),)*
                    Self::Full(_) | Self::None(_) => {}
                }
            }

            /// The recipe's name of the method.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                    Self::Full(_) => "full",
                    Self::None(_) => "none",
                }
            }

            /// Every adapter method with its defaults, in the table's order.
            pub fn defaults() -> Vec<AdapterConfig> {
                vec![$(Self::$variant(Default::default())),*]
            }
        }

        /// The adapter methods, in the table's order.
        pub const METHODS: &[Row] = &[$(Row {
            name: $name, summary: $summary, equation: $equation, trains: $trains, parameters: $parameters, paper: $paper,
        }),*];
    };
}

adapters! {
    lora::Lora(LoraConfig) as "lora" {
        summary: "Low-rank adaptation",
        equation: "y = W x + s B A x",
        trains: "A [r, in], B [out, r]",
        parameters: "r (in + out)",
        paper: "Hu et al. 2021, arXiv 2106.09685",
    }
    lora_fa::LoraFa(LoraFaConfig) as "lora_fa" {
        summary: "LoRA with a frozen A: x need not be kept for the backward pass",
        equation: "y = W x + s B A x",
        trains: "B [out, r]",
        parameters: "r out",
        paper: "Zhang et al. 2023, arXiv 2308.03303",
    }
    dora::Dora(DoraConfig) as "dora" {
        summary: "Low-rank adaptation of direction, and of magnitude apart from it",
        equation: "y = m / |V| * V x, V = W + s B A",
        trains: "A [r, in], B [out, r], m [out]",
        parameters: "r (in + out) + out",
        paper: "Liu et al. 2024, arXiv 2402.09353",
    }
    vera::Vera(VeraConfig) as "vera" {
        summary: "Vector-based random matrix adaptation",
        equation: "y = W x + b * (B (d * (A x)))",
        trains: "b [out], d [r]; A and B are random, frozen and shared",
        parameters: "out + r",
        paper: "Kopiczko et al. 2023, arXiv 2310.11454",
    }
    delta_lora::DeltaLora(DeltaLoraConfig) as "delta_lora" {
        summary: "LoRA whose frozen weight moves along with the product",
        equation: "y = W x + s B A x + λ s (B A - B_K A_K) x",
        trains: "A [r, in], B [out, r]",
        parameters: "r (in + out)",
        paper: "Zi et al. 2023, arXiv 2309.02411",
    }
    adalora::AdaLora(AdaLoraConfig) as "adalora" {
        summary: "Adaptive low-rank adaptation: a budget of ranks moves to where they matter",
        equation: "y = W x + s B (E * A x)",
        trains: "A [r, in], E [r], B [out, r]; fewer rows as the budget shrinks",
        parameters: "r (in + out + 1)",
        paper: "Zhang et al. 2023, arXiv 2303.10512",
    }
    lora_drop::LoraDrop(LoraDropConfig) as "lora_drop" {
        summary: "LoRA whose small corrections share their matrices",
        equation: "y = W x + s B A x",
        trains: "A [r, in], B [out, r] of each module that a pilot keeps, and one pair for the others of a kind",
        parameters: "at most r (in + out)",
        paper: "Zhou et al. 2024, arXiv 2402.07721",
    }
}
