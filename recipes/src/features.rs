//! Which cargo features this program was built with.

/// Every feature of the package, and whether it is compiled in.
pub const FEATURES: [(&str, bool); 9] = [
    ("flex", cfg!(feature = "flex")),
    ("ndarray", cfg!(feature = "ndarray")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("cuda", cfg!(feature = "cuda")),
    ("fusion", cfg!(feature = "fusion")),
    ("autotune", cfg!(feature = "autotune")),
    ("tui", cfg!(feature = "tui")),
    ("hub", cfg!(feature = "hub")),
    ("png", cfg!(feature = "png")),
];

#[cfg(test)]
mod tests {
    use super::FEATURES;

    #[test]
    fn no_feature_of_the_package_is_left_out() {
        let manifest = include_str!("../Cargo.toml");
        let table = manifest.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
        let names = table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
        let mut names: Vec<&str> = names.filter(|name| *name != "default").collect();
        let mut listed = FEATURES.map(|(name, _)| name).to_vec();
        names.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, names);
    }
}
