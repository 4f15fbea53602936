//! Which variant a run is of, told by its name.

use crate::compare::Plan;

/// What a run is to its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All there is of it.
    Whole,
    Seed(u64),
    /// A short run that decides something for the others, shown only while it runs.
    Pilot,
}

/// `lora/seed-1` is a run of `lora`, `lora/sweep/lr-1` a pilot of it, and a lone `lora` is all of `lora`: in a comparison, its
/// run with the first seed.
pub fn place(name: &str, plan: Option<&Plan>) -> (String, Part) {
    let planned = plan.iter().flat_map(|plan| &plan.variants).filter_map(|variant| {
        let rest = name.strip_prefix(variant.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some((variant, rest))
    });
    // Of two variants `a` and `a/b`, `a/b/seed-0` is a run of the second.
    let (variant, rest) = match planned.max_by_key(|(variant, _)| variant.len()) {
        Some((variant, rest)) => (variant.clone(), rest),
        None => split(name),
    };
    let seed = rest.strip_prefix("/seed-").and_then(|seed| seed.parse().ok());
    let first = || plan.and_then(|plan| plan.seeds.first().copied());
    match (seed, rest) {
        (Some(seed), _) => (variant, Part::Seed(seed)),
        (None, "") => (variant, first().map_or(Part::Whole, Part::Seed)),
        _ => (variant, Part::Pilot),
    }
}

fn split(name: &str) -> (String, &str) {
    let is_seed = |at: &usize| name[at + 6..].parse::<u64>().is_ok();
    let at = name.find("/sweep/").or_else(|| name.rfind("/seed-").filter(is_seed)).unwrap_or(name.len());
    (name[..at].into(), &name[at..])
}

/// Whether the end of this run is not that of what was asked for.
pub fn is_pilot(name: &str) -> bool {
    place(name, None).1 == Part::Pilot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Mode;

    #[test]
    fn a_run_is_placed_with_and_without_a_plan() {
        let variants = vec!["lora".into(), "lora/b".into(), "lora_fa".into()];
        let plan = Plan {
            name: "x".into(),
            reference: "lora".into(),
            mode: Mode::Race,
            metric: None,
            seeds: vec![3, 4],
            variants,
            sweeps: Vec::new(),
        };
        let with = |name| place(name, Some(&plan));
        assert_eq!(with("lora/seed-4"), ("lora".into(), Part::Seed(4)));
        assert_eq!(with("lora"), ("lora".into(), Part::Seed(3)));
        assert_eq!(with("lora/b/seed-3"), ("lora/b".into(), Part::Seed(3)));
        assert_eq!(with("lora_fa/sweep/lr-2"), ("lora_fa".into(), Part::Pilot));
        let without = |name| place(name, None);
        assert_eq!(without("runs/a/seed-0"), ("runs/a".into(), Part::Seed(0)));
        assert_eq!(without("a/seed-x"), ("a/seed-x".into(), Part::Whole));
        assert_eq!(without("my run"), ("my run".into(), Part::Whole));
        assert!(is_pilot("a/sweep/1e-3/seed-0") && !is_pilot("a/seed-0"));
    }
}
