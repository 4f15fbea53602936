//! How the frozen base is stored and computed with.

use lowrank_kernels::Compute;
use lowrank_kernels::four_bit::{Code, Format, ScaleFormat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Recipe;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BaseDtype {
    #[default]
    F32,
    Bf16,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Linear layers of blocks in four bits; embeddings, norms and head stay as `model.dtype` says. A checkpoint that
    /// is quantised already needs no `quant` and keeps its codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<Quant>,
    /// In which numbers products with packed weights (`bf16` or `quant`) are computed; sums are f32 throughout.
    #[serde(default)]
    pub compute: BaseCompute,
}

/// Four-bit storage (Dettmers et al. 2023, arXiv 2305.14314).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Quant {
    /// NormalFloat: the quantiles of a normal distribution.
    Nf4(Blocks),
    /// One sign, two exponent and one mantissa bit.
    Fp4(Blocks),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Blocks {
    /// Elements that share a scale: 32, 64, 128, 256, 512, 1024, 2048 or 4096.
    pub block: usize,
    /// Double quantisation: scales in eight bits.
    pub double: bool,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { block: 64, double: true }
    }
}

impl Quant {
    pub fn blocks(self) -> Blocks {
        match self {
            Quant::Nf4(blocks) | Quant::Fp4(blocks) => blocks,
        }
    }

    pub fn format(self) -> Format {
        let Blocks { block, double } = self.blocks();
        let code = if matches!(self, Quant::Nf4(_)) { Code::Nf4 } else { Code::Fp4 };
        Format { code, block, scales: if double { ScaleFormat::Nested } else { ScaleFormat::F32 } }
    }

    /// `nf4 (block 64, double)`
    pub fn describe(self) -> String {
        let Format { code, block, scales } = self.format();
        let double = if scales == ScaleFormat::Nested { ", double" } else { "" };
        format!("{} (block {block}{double})", code.name())
    }
}

impl From<Format> for Quant {
    fn from(Format { code, block, scales }: Format) -> Self {
        let blocks = Blocks { block, double: scales == ScaleFormat::Nested };
        match code {
            Code::Nf4 => Quant::Nf4(blocks),
            Code::Fp4 => Quant::Fp4(blocks),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BaseCompute {
    #[default]
    F32,
    Bf16,
    F16,
}

impl From<BaseCompute> for Compute {
    fn from(compute: BaseCompute) -> Self {
        match compute {
            BaseCompute::F32 => Compute::F32,
            BaseCompute::Bf16 => Compute::Bf16,
            BaseCompute::F16 => Compute::F16,
        }
    }
}

/// How a frozen base is kept on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BaseStorage {
    pub dtype: BaseDtype,
    pub quant: Option<Quant>,
    pub compute: BaseCompute,
}

impl From<BaseDtype> for BaseStorage {
    fn from(dtype: BaseDtype) -> Self {
        Self { dtype, ..Self::default() }
    }
}

impl BaseStorage {
    /// Whether every weight is plain f32.
    pub fn is_dense(self) -> bool {
        self.dtype == BaseDtype::F32 && self.quant.is_none()
    }

    /// `f32`, `linears nf4 (block 64, double) · f32 · computes in bf16`
    pub fn describe(self) -> String {
        let mut parts = vec![if self.dtype == BaseDtype::Bf16 { "bf16".to_string() } else { "f32".to_string() }];
        if let Some(quant) = self.quant {
            parts.insert(0, format!("linears {}", quant.describe()));
        }
        if self.compute != BaseCompute::F32 {
            parts.push(format!("computes in {}", Compute::from(self.compute).name()));
        }
        parts.join(" · ")
    }
}

impl Recipe {
    pub fn storage(&self) -> BaseStorage {
        BaseStorage { dtype: self.model.dtype, quant: self.base.quant, compute: self.base.compute }
    }
}
