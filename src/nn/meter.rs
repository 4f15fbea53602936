//! Measures what adapters add to their layers, in a forward pass that keeps no graph.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::data::Batch;

/// For each layer the sum of ‖correction‖² over the positions of one batch that are not padding.
#[derive(Debug)]
pub struct Meter {
    /// Whether each position holds a token.
    real: Vec<bool>,
    /// By the hash of the layer's path.
    energy: RefCell<HashMap<u64, f64>>,
}

impl Meter {
    pub fn new(batch: &Batch) -> Self {
        Self { real: batch.segment.iter().map(|&segment| segment != 0).collect(), energy: RefCell::default() }
    }

    /// Takes down `correction [rows × len, out]` of a layer. Rows are added up on the host in f64, so that neither the
    /// padding nor the size of the batch leaves a trace; a device that fails leaves NaN.
    pub fn add<B: Backend>(&self, layer: u64, correction: &Tensor<B, 2>) {
        let squares = (correction.clone() * correction.clone()).sum_dim(1);
        let data = squares.try_into_data().map(|data| data.convert::<f32>().into_vec::<f32>());
        let energy = match data {
            Ok(Ok(rows)) => {
                rows.iter().zip(&self.real).filter(|(_, real)| **real).map(|(row, _)| f64::from(*row)).sum()
            }
            _ => f64::NAN,
        };
        *self.energy.borrow_mut().entry(layer).or_default() += energy;
    }

    /// What [`Self::add`] has gathered for a layer; none where its method reports nothing.
    pub fn energy(&self, layer: u64) -> Option<f64> {
        self.energy.borrow().get(&layer).copied()
    }
}
