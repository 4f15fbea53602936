//! Measures what adapters add to their layers, in a forward pass that keeps no graph.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::Stack;
use crate::data::Batch;

/// For each layer the sum of ‖correction‖² over the positions of one batch that are not padding.
#[derive(Debug)]
pub struct Meter {
    /// Whether each position of an encoder, or of the only stack, and each of a decoder holds a token.
    real: [Vec<bool>; 2],
    /// By the hash of the layer's path.
    energy: RefCell<HashMap<u64, f64>>,
}

impl Meter {
    pub fn new(batch: &Batch) -> Self {
        let decoder = batch.decoder.as_ref().map_or(&[][..], |decoder| &decoder.segment);
        let real = |segments: &[i32]| segments.iter().map(|&segment| segment != 0).collect();
        Self { real: [real(&batch.segment), real(decoder)], energy: RefCell::default() }
    }

    /// Takes down `correction [rows × len, out]` of a layer at the tokens of `stack`. Rows are added up on the host in f64, so that neither the
    /// padding nor the size of the batch leaves a trace; a device that fails leaves NaN.
    pub fn add<B: Backend>(&self, layer: u64, stack: Stack, correction: &Tensor<B, 2>) {
        let squares = (correction.clone() * correction.clone()).sum_dim(1);
        let data = squares.try_into_data().map(|data| data.convert::<f32>().into_vec::<f32>());
        let energy = match data {
            Ok(Ok(rows)) => rows
                .iter()
                .zip(&self.real[stack as usize])
                .filter(|(_, real)| **real)
                .map(|(row, _)| f64::from(*row))
                .sum(),
            _ => f64::NAN,
        };
        *self.energy.borrow_mut().entry(layer).or_default() += energy;
    }

    /// What [`Self::add`] has gathered for a layer; none where its method reports nothing.
    pub fn energy(&self, layer: u64) -> Option<f64> {
        self.energy.borrow().get(&layer).copied()
    }
}
