//! What a recipe says of an adapter: the keys that methods share, and what a method says of itself.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::peft::Part;
use super::{AdapterConfig, Findings, ModuleKind, Pilot, Selected};
use crate::Result;
use crate::error::InputError;
use crate::optim::Form;
use crate::tensors::HostTensors;

/// The keys that decide which modules carry an adapter, and of what rank and scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    pub rslora: bool,
    pub targets: Targets,
    pub exclude: Targets,
    pub layers: Vec<usize>,
    pub layers_pattern: Vec<String>,
    pub rank_pattern: IndexMap<String, usize>,
    pub alpha_pattern: IndexMap<String, f64>,
    pub bias: BiasMode,
    pub modules_to_save: Vec<String>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::default(),
            exclude: Targets::Names(Vec::new()),
            layers: Vec::new(),
            layers_pattern: Vec::new(),
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            bias: BiasMode::None,
            modules_to_save: Vec::new(),
        }
    }
}

/// What a method says of itself before any tensor exists, and of its tensors on the host.
pub trait Spec {
    /// Rank, scale and choice of modules.
    fn shared(&self) -> Shared;

    /// Ranges and contradictions beyond those of the shared keys; keys are relative to the method's table.
    fn validate(&self, _found: &mut Findings) {}

    /// Whether the recipe chooses a start of its own, which values from a file would undo.
    fn chooses_start(&self) -> bool {
        false
    }

    /// Iterations of LoftQ, where the adapter starts from what the base's quantisation takes off.
    fn loftq(&self) -> Option<u16> {
        None
    }

    /// Whether alpha scales the correction.
    fn has_alpha(&self) -> bool {
        true
    }

    /// The recipe's key for the rank.
    fn rank_key(&self) -> &'static str {
        "rank"
    }

    /// The run will take `steps` optimizer steps: what follows from that, and what does not fit into it.
    fn plan(&mut self, _steps: usize, _found: &mut Findings) {}

    /// Whether the method is defined on an embedding as well as on linear layers.
    fn adapts_embeddings(&self) -> bool {
        true
    }

    /// Why the method cannot start on a module, if it cannot; keys are relative to the method's table.
    fn refuses(&self, _site: &Selected) -> Option<InputError> {
        None
    }

    /// The modules with the rank and scale that they have under this method, where those are not LoRA's.
    fn fit(&self, selected: Vec<Selected>) -> Result<Vec<Selected>, InputError> {
        Ok(selected)
    }

    /// Why the method cannot start on these modules together.
    fn refuses_all(&self, _selected: &[Selected]) -> Option<InputError> {
        None
    }

    /// Field and shape of everything that trains in one module.
    fn fields(&self, site: &Selected) -> Vec<(&'static str, Vec<usize>)> {
        super::lora::fields(site)
    }

    /// The modules without those whose parameters are another's before them.
    fn owners<'a>(&self, selected: &'a [Selected]) -> Vec<&'a Selected> {
        selected.iter().collect()
    }

    /// Path and shape of everything that trains in the adapters. What modules share goes by the first of them.
    fn trains(&self, selected: &[Selected]) -> IndexMap<String, Vec<usize>> {
        let adapted = self.owners(selected).into_iter().filter(|site| site.rank > 0);
        let named = |site: &Selected| {
            let path = site.path.clone();
            self.fields(site).into_iter().map(move |(field, shape)| (format!("{path}.{field}"), shape))
        };
        adapted.flat_map(named).collect()
    }

    /// Parameters that train in one module.
    fn parameters(&self, site: &Selected) -> usize {
        self.fields(site).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// The short training that must come first, where the configuration leaves something open.
    fn pilot(&self) -> Option<&dyn Pilot> {
        None
    }

    /// Parameters that the adapters of all modules have together and do not train.
    fn frozen_parameters(&self, _selected: &[Selected]) -> usize {
        0
    }

    /// Floats per token that one module's correction needs again in the backward pass.
    fn retained(&self, site: &Selected) -> usize {
        match site.kind {
            // A's columns are looked up, so there is no x to keep.
            ModuleKind::Embedding => site.rank,
            _ => site.rank + site.cols,
        }
    }

    /// The arithmetic of AdamW that the method's reference was trained with.
    fn optimizer(&self) -> Form {
        Form::Torch
    }

    /// Why `optim.lora_plus_ratio` means nothing to the method; none where an A and a B train.
    fn refuses_lora_plus(&self) -> Option<&'static str> {
        None
    }

    /// What is odd about a run of this many optimizer steps, one sentence each.
    fn warnings(&self, _total_steps: usize) -> Vec<String> {
        Vec::new()
    }

    /// The method under which PEFT opens the adapter after `total_steps`, before there are values: what the file's size follows from.
    fn saved_as(&self, total_steps: usize) -> AdapterConfig;

    /// The method under which PEFT opens the trained adapter, and its values. `values` are by path: adapter
    /// parameters (frozen ones too), biases and modules that train whole.
    fn export(&self, values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)>;

    /// The tensors of one module in PEFT's file, with their shapes; asked only of the methods that [`Self::export`] returns.
    fn parts(&self, site: &Selected) -> Vec<(Part, Vec<usize>)> {
        super::lora::parts(site)
    }

    /// The tensors in PEFT's file that the modules share.
    fn common_parts(&self, _selected: &[Selected]) -> Vec<(Part, Vec<usize>)> {
        Vec::new()
    }

    /// What the modules share and the file leaves out, because it follows from the configuration; by path.
    fn derived(&self, _selected: &[Selected]) -> HostTensors {
        HostTensors::new()
    }

    /// How one module's weight changes; asked only of the methods that [`Self::export`] returns.
    fn update(&self, site: &Selected, values: &HostTensors) -> Result<Update> {
        super::lora::product(site, values)
    }
}

/// A change of a weight: `W + scaling · left · right`, its rows or columns then brought to the lengths `magnitude`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// `[rows, rank]`
    pub left: Vec<f32>,
    /// `[rank, cols]`
    pub right: Vec<f32>,
    pub rank: usize,
    pub cols: usize,
    pub scaling: f32,
    pub magnitude: Option<Lengths>,
}

/// Lengths of the rows `[rows]` or the columns `[cols]` of a weight as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Lengths {
    Rows(Vec<f32>),
    Columns(Vec<f32>),
}

/// Declares the table `[adapter.NAME]` of a method: its own keys, then the shared ones. `scaled` methods have a rank, alpha and
/// patterns of both; `plain` ones say in `shared` what stands for them.
macro_rules! method_config {
    ($(#[$meta:meta])* pub struct $name:ident: scaled { $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)* }) => {
        $crate::adapters::method_config!(@struct $(#[$meta])* $name {
            /// Rows of A and columns of B.
            pub rank: usize = 8,
            /// The correction is scaled by alpha / rank.
            pub alpha: f64 = 16.0,
            /// Scale by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023).
            pub rslora: bool = false,
            /// Module name pattern to rank; the first match wins.
            pub rank_pattern: indexmap::IndexMap<String, usize> = indexmap::IndexMap::new(),
            /// Module name pattern to alpha; the first match wins.
            pub alpha_pattern: indexmap::IndexMap<String, f64> = indexmap::IndexMap::new(),
            $($(#[$doc])* pub $field: $type = $default,)*
        });

        impl $name {
            /// The keys that methods share.
            pub fn shared(&self) -> $crate::adapters::Shared {
                $crate::adapters::Shared {
                    rank: self.rank,
                    alpha: self.alpha,
                    rslora: self.rslora,
                    rank_pattern: self.rank_pattern.clone(),
                    alpha_pattern: self.alpha_pattern.clone(),
                    ..self.scope()
                }
            }

            /// This method with the shared keys of another.
            pub fn with(self, shared: $crate::adapters::Shared) -> Self {
                let $crate::adapters::Shared { rank, alpha, rslora, rank_pattern, alpha_pattern, .. } = shared.clone();
                Self { rank, alpha, rslora, rank_pattern, alpha_pattern, ..self }.with_scope(shared)
            }
        }
    };
    ($(#[$meta:meta])* pub struct $name:ident: plain { $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)* }) => {
        $crate::adapters::method_config!(@struct $(#[$meta])* $name { $($(#[$doc])* pub $field: $type = $default,)* });
    };
    (@struct $(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            /// Probability that an input of the adapter branch is dropped while training.
            pub dropout: f64,
            /// Which linear layers (or embeddings) get a correction; those that PEFT has for the model's family when left out.
            #[serde(default = "crate::adapters::Targets::of_family")]
            pub targets: $crate::adapters::Targets,
            /// Modules that `targets` names and that stay as they are: suffixes or one regular expression.
            pub exclude: $crate::adapters::Targets,
            /// Only these layer indices (PEFT's `layers_to_transform`).
            pub layers: Vec<usize>,
            /// Names of the list the layer number follows, if it is not the first number of the path.
            pub layers_pattern: Vec<String>,
            /// Which bias vectors of the base train too.
            pub bias: $crate::adapters::BiasMode,
            /// Modules that train whole and are saved beside the adapter.
            pub modules_to_save: Vec<String>,
        }

        impl Default for $name {
            fn default() -> Self {
                let $crate::adapters::Shared { dropout, targets, exclude, layers, layers_pattern, bias, modules_to_save, .. } =
                    Default::default();
                Self { $($field: $default,)* dropout, targets, exclude, layers, layers_pattern, bias, modules_to_save }
            }
        }

        impl $name {
            fn scope(&self) -> $crate::adapters::Shared {
                $crate::adapters::Shared {
                    dropout: self.dropout,
                    targets: self.targets.clone(),
                    exclude: self.exclude.clone(),
                    layers: self.layers.clone(),
                    layers_pattern: self.layers_pattern.clone(),
                    bias: self.bias,
                    modules_to_save: self.modules_to_save.clone(),
                    ..Default::default()
                }
            }

            fn with_scope(self, shared: $crate::adapters::Shared) -> Self {
                let $crate::adapters::Shared { dropout, targets, exclude, layers, layers_pattern, bias, modules_to_save, .. } =
                    shared;
                Self { dropout, targets, exclude, layers, layers_pattern, bias, modules_to_save, ..self }
            }
        }
    };
}
pub(crate) use method_config;

/// A list of name suffixes, `"all-linear"`, `"default"`, or one regular expression over the whole module path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    Names(Vec<String>),
    /// `all-linear`, `default` (PEFT's for the model's family) or a regular expression.
    Pattern(String),
}

impl Targets {
    /// What a recipe that says nothing means: the model's family decides.
    pub fn of_family() -> Self {
        Targets::Pattern("default".into())
    }
}

impl Default for Targets {
    fn default() -> Self {
        Targets::Pattern("all-linear".into())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BiasMode {
    /// No bias.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The bias of each adapted layer.
    LoraOnly,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FullConfig {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NoneConfig {}

impl AdapterConfig {
    /// The keys that all adapter methods share; none for `full` and `none`.
    pub fn shared(&self) -> Option<Shared> {
        self.spec().map(Spec::shared)
    }

    pub fn full() -> Self {
        AdapterConfig::Full(FullConfig {})
    }

    pub fn none() -> Self {
        AdapterConfig::None(NoneConfig {})
    }
}
