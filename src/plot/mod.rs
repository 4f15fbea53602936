//! What the dashboard and the report draw alike: round marks along an axis, curves made fit to be seen, one palette.

pub mod curve;
pub mod palette;
pub mod ticks;

/// A number of one module, by the module's kind and layer: `model.layers.3.self_attn.q_proj` is a `q_proj` in layer 3. Modules
/// outside the layers count as layer 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub kind: String,
    pub layer: usize,
    pub value: f64,
}

impl Cell {
    pub fn new(module: &str, value: f64) -> Self {
        let layer = module.split('.').find_map(|part| part.parse().ok()).unwrap_or(0);
        let kind = module.rsplit('.').find(|part| part.parse::<usize>().is_err()).unwrap_or(module);
        Self { kind: crate::events::printable(kind), layer, value }
    }
}
