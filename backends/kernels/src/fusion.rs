//! burn-fusion: the default bodies are plain tensor operations, which it fuses.

use burn_fusion::{Fusion, FusionBackend};

use crate::LowRankBackend;

impl<B: FusionBackend + LowRankBackend> LowRankBackend for Fusion<B> {}
