//! The gated unit on the CPU: one pass over memory each way, in pieces that stay in the cache.

use rayon::prelude::*;

use crate::exp::exp;

const PIECE: usize = 1024;

/// `silu(gate) ⊙ up`.
pub(crate) fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = Box::new_uninit_slice(gate.len());
    y.par_chunks_mut(PIECE).zip(gate.par_chunks(PIECE)).zip(up.par_chunks(PIECE)).for_each(|((y, gate), up)| {
        let y = y.write_copy_of_slice(gate);
        y.iter_mut().for_each(|y| *y = -*y);
        exp(y);
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate / (1.0 + *y) * up;
        }
    });
    // SAFETY: the pieces are all of it, and each was written.
    unsafe { y.assume_init() }.into_vec()
}

/// Gradients to gate and up.
pub(crate) fn gradients(gate: &[f32], up: &[f32], grad: &[f32]) -> [Vec<f32>; 2] {
    let [mut dgate, mut dup] = [gate, up].map(|operand| Box::new_uninit_slice(operand.len()));
    let operands = gate.par_chunks(PIECE).zip(up.par_chunks(PIECE)).zip(grad.par_chunks(PIECE));
    let results = dgate.par_chunks_mut(PIECE).zip(dup.par_chunks_mut(PIECE));
    results.zip(operands).for_each(|((dgate, dup), ((gate, up), grad))| {
        let (dgate, dup) = (dgate.write_copy_of_slice(gate), dup.write_copy_of_slice(grad));
        dgate.iter_mut().for_each(|dgate| *dgate = -*dgate);
        exp(dgate);
        for i in 0..gate.len() {
            let sigmoid = 1.0 / (1.0 + dgate[i]);
            let silu = gate[i] * sigmoid;
            dup[i] *= silu;
            dgate[i] = grad[i] * up[i] * (sigmoid + silu * (1.0 - sigmoid));
        }
    });
    // SAFETY: as above.
    [dgate, dup].map(|part| unsafe { part.assume_init() }.into_vec())
}
