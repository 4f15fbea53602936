//! What trains, and the file that it becomes.

use std::collections::HashMap;

use super::{Figure, times};
use crate::Result;
use crate::adapters::{AdapterConfig, METHODS, Selected, peft, trainable};
use crate::events::units::count;
use crate::models::Outline;
use crate::tensors::encoded_len;

/// Parameters that train; the formula is that of one module, to be summed over all.
pub fn trained(outline: &Outline, adapter: &AdapterConfig, selected: &[Selected]) -> Figure {
    let all = size(trainable(outline, adapter, selected).into_values());
    let formula = match adapter.spec() {
        None if all == 0 => "nothing".to_string(),
        None => "all".to_string(),
        Some(spec) => {
            let row = METHODS.iter().find(|row| row.name == adapter.name());
            let own = row.map_or("", |row| row.parameters).to_string();
            match all - size(spec.trains(selected).into_values()) {
                0 => own,
                whole => format!("{own}, and {} of the base", count(whole)),
            }
        }
    };
    Figure::new(all, formula)
}

/// Parameters that train, and all parameters: the base's, and what adapters have beside them.
pub fn parameters(outline: &Outline, adapter: &AdapterConfig, selected: &[Selected]) -> (usize, usize) {
    let base: HashMap<String, Vec<usize>> = outline.tensors().into_iter().collect();
    let trained = trainable(outline, adapter, selected);
    let beside = size(trained.iter().filter(|(path, _)| !base.contains_key(*path)).map(|(_, shape)| shape.clone()));
    let frozen = adapter.spec().map_or(0, |spec| spec.frozen_parameters(selected));
    (size(trained.into_values()), size(base.into_values()) + beside + frozen)
}

/// Bytes of the tensors' file of `final/` after `total_steps`: PEFT's adapter, or the whole model. AdaLoRA's holds the budget of ranks,
/// however the run shares it out.
///
/// # Errors
/// If the adapter does not fit the model.
pub fn file(outline: &Outline, adapter: &AdapterConfig, total_steps: usize) -> Result<Figure> {
    let shapes = match (adapter.spec(), adapter) {
        (Some(spec), _) => peft::file_shapes(&spec.saved_as(total_steps), outline)?,
        (None, AdapterConfig::None(_)) => return Ok(Figure::new(0, "nothing is saved")),
        (None, _) => outline.tensors(),
    };
    let values = size(shapes.iter().map(|(_, shape)| shape.clone()));
    let bytes = encoded_len(shapes)?;
    let header = bytes as usize - 4 * values;
    Ok(Figure::new(bytes as usize, format!("{} + {} of names", times(4, values), count(header))))
}

fn size(shapes: impl IntoIterator<Item = Vec<usize>>) -> usize {
    shapes.into_iter().map(|shape| shape.iter().product::<usize>()).sum()
}
