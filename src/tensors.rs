//! Named tensors on the host, and their safetensors form.

use std::borrow::Cow;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors, View};

use crate::{Error, Result};

/// One tensor on the host, f32, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub type HostTensors = IndexMap<String, HostTensor>;

impl HostTensor {
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        Self { shape: shape.into(), values }
    }
}
