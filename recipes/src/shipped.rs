//! The recipes that are compiled in.

use lowrank::recipe::Shipped;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => { Shipped(&[$(($name, include_str!(concat!("../", $name, ".toml")))),*]) };
}

/// `NAME` is the file `recipes/NAME.toml`.
pub const SHIPPED: Shipped = shipped![
    "tiny/all",
    "tiny/ranks",
    "tiny/quant",
    "tiny/lora",
    "tiny/qlora",
    "tiny/adalora",
    "tiny/lora_drop",
    "tiny/full",
    "tiny/pretrain",
    "smollm2/e2e",
    "smollm2/qlora",
    "minilm/intents",
    "minilm/ner",
    "minilm/qa",
    "minilm/similar",
    "t5/rewrite",
    "t5/e2e",
    "claims/rslora",
    "claims/lora_plus",
    "claims/lora_fa",
    "claims/vera",
    "claims/delta_lora",
    "claims/pissa",
    "claims/dora",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn resolves_again(recipe: &lowrank::recipe::Recipe) {
        assert_eq!(&lowrank::recipe::parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
    }

    #[test]
    fn every_shipped_recipe_resolves_and_opens_with_its_run_command() {
        for name in SHIPPED.names() {
            let text = SHIPPED.text(name).unwrap();
            let mut commands = Vec::new();
            if SHIPPED.compares(name) {
                let comparison = SHIPPED.load_comparison(name, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
                comparison.variants.iter().for_each(|variant| resolves_again(&variant.resolved.recipe));
                commands.push("compare");
            }
            if !text.contains("extends =") {
                resolves_again(&SHIPPED.load(name, &[]).unwrap_or_else(|error| panic!("{name}: {error}")).recipe);
                commands.push("train");
            }
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
            assert!(SHIPPED.summary(name).len() > 20, "{name}");
            for command in commands {
                let command = format!("lowrank {command} {name}");
                assert!(header.iter().any(|line| line.ends_with(&command)), "{name}: {header:#?}");
            }
            assert!(header.iter().any(|line| line.contains("--set")), "{name}: {header:#?}");
        }
    }

    #[test]
    fn every_recipe_file_is_in_the_table() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = 0;
        for folder in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if file.extension().is_some_and(|suffix| suffix == "toml") {
                    let name = file.strip_prefix(root).unwrap().with_extension("");
                    assert!(
                        SHIPPED.names().any(|known| name == std::path::Path::new(known)),
                        "{name:?} is not shipped"
                    );
                    files += 1;
                }
            }
        }
        assert_eq!(files, SHIPPED.names().count());
    }
}
