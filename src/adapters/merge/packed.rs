//! Where the parts of four-bit weights go in a file.

use lowrank_kernels::four_bit::Quantised;

use super::dtype::OutDtype;
use super::merged::Merged;
use super::writer::Writer;
use crate::Result;
use crate::models::WeightSource;
use crate::models::bnb::{self, Part};

/// Every tensor of the file but the states of four-bit weights.
pub(super) fn layout(model: &Merged<'_>, dtype: OutDtype) -> Vec<Part> {
    let parts = |(name, shape): (&str, &[usize])| match (model.four_bit_format(name), shape) {
        (Some(format), &[rows, cols]) => bnb::parts(name, format, [rows, cols]),
        _ => {
            let mut shape = shape.to_vec();
            if model.is_transposed(name) {
                shape.reverse();
            }
            vec![Part { name: name.to_string(), dtype: dtype.name(), shape }]
        }
    };
    model.tensors().flat_map(parts).collect()
}

/// Names of those states.
pub(super) fn states(model: &Merged<'_>) -> Vec<String> {
    let state = |(name, _)| Some(bnb::state_name(name, model.four_bit_format(name)?.code));
    model.tensors().filter_map(state).collect()
}

/// Writes the parts of one weight.
pub(super) fn write(
    (name, shape): (&str, &[usize]),
    quantised: &Quantised,
    dtype: OutDtype,
    writer: &mut Writer,
) -> Result<()> {
    let &[rows, cols] = shape else { return Ok(()) };
    let shape = [rows, cols];
    for (part, bytes) in bnb::parts(name, quantised.format(), shape).iter().zip(bnb::contents(quantised)) {
        writer.bytes(&part.name, &bytes)?;
    }
    let (state, json) = bnb::state_part(name, quantised, shape, dtype.torch_name());
    writer.late(state, json);
    Ok(())
}
