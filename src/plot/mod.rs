//! What the dashboard and the report draw alike: round marks along an axis, curves made fit to be seen, one palette.

pub mod curve;
pub mod palette;
pub mod ticks;

/// Kind and layer of a module: `model.layers.3.self_attn.q_proj` is a `q_proj` in layer 3. Modules outside the layers
/// count as layer 0.
pub fn place(module: &str) -> (String, usize) {
    let layer = module.split('.').find_map(|part| part.parse().ok()).unwrap_or(0);
    let kind = module.rsplit('.').find(|part| part.parse::<usize>().is_err()).unwrap_or(module);
    (crate::events::printable(kind), layer)
}
