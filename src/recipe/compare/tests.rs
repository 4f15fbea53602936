//! What a compare recipe may say, and what its writer is told when it is wrong.

use super::*;
use crate::recipe::Shipped;

const BASE: &str = r#"
version = 1
[model]
path = "tiny"
[adapter.lora]
rank = 4
[data]
train = "synthetic:menu"
eval = { fraction = 0.1 }
[optim]
adamw = { lr = 1e-3 }
"#;

const GOOD: &str = r#"
extends = "base"
[compare]
seeds = 2
reference = "dora"
[train]
max_steps = 7
[[variant]]
name = "lora"
sweep = { "optim.adamw.lr" = [1e-3, 3e-3], "adapter.lora.rank" = [2, 4] }
[[variant]]
name = "dora"
[variant.adapter.dora]
rank = 2
[[variant]]
name = "nf4"
[variant.base]
quant = { nf4 = {} }
[[variant]]
name = "bf16"
[variant.model]
dtype = "bf16"
"#;

fn read(text: &str, sets: &[&str]) -> Result<CompareRecipe> {
    let text: &'static str = Box::leak(text.to_string().into_boxed_str());
    let shipped = Shipped(Box::leak(Box::new([("base", BASE), ("all", text)])));
    shipped.load_comparison("all", &sets.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn refused(text: &str, sets: &[&str]) -> String {
    match read(text, sets).expect_err("should be refused") {
        Error::Inputs(errors) => errors.iter().map(|error| format!("{error}\n")).collect(),
        other => other.to_string(),
    }
}

#[test]
fn variants_are_the_recipe_with_what_they_change() {
    let recipe = read(GOOD, &["seed=5", "compare.seeds=3"]).unwrap();
    assert_eq!((recipe.name.as_str(), recipe.compare.seeds, recipe.reference()), ("all", 3, "dora"));
    let [lora, dora, nf4, bf16] = &recipe.variants[..] else { panic!() };
    assert_eq!(
        [lora, dora, nf4].map(|v| (v.resolved.recipe.seed, v.resolved.recipe.train.max_steps)),
        [(5, Some(7)); 3]
    );
    assert_eq!([lora, dora, nf4].map(|v| v.resolved.recipe.adapter.name()), ["lora", "dora", "lora"]);
    assert_eq!(bf16.resolved.recipe.model.dtype, crate::recipe::BaseDtype::Bf16);
    assert!(nf4.resolved.recipe.storage().quant.is_some() && lora.resolved.recipe.storage().quant.is_none());
    let labels: Vec<_> = lora.candidates.iter().map(|candidate| candidate.label.as_str()).collect();
    let rates = ["optim.adamw.lr=0.001", "optim.adamw.lr=0.003"];
    let all = rates.map(|rate| [2, 4].map(|rank| format!("{rate},adapter.lora.rank={rank}"))).concat();
    assert_eq!(labels, all);
    assert_eq!(lora.candidates[2].resolved.recipe.adapter.spec().unwrap().shared().rank, 2);
    assert!(dora.candidates.is_empty());
}

#[test]
fn what_is_written_out_resolves_to_the_same() {
    for mode in ["race", "sequence"] {
        let recipe = read(GOOD, &[&format!("compare.mode={mode}"), "compare.match=params"]).unwrap();
        let again = read(&recipe.to_toml().unwrap(), &[]).unwrap();
        assert_eq!(again.compare, recipe.compare);
        assert_eq!(again.to_toml().unwrap(), recipe.to_toml().unwrap());
        for (a, b) in recipe.variants.iter().zip(&again.variants) {
            assert_eq!((&a.name, &a.resolved.recipe, &a.choices), (&b.name, &b.resolved.recipe, &b.choices));
        }
    }
}

#[test]
fn only_keeps_what_it_names_and_the_reference_must_be_among_them() {
    let only = |names: &[&str]| -> Result<Vec<String>> {
        let mut recipe = read(GOOD, &[])?;
        recipe.only(&names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        Ok(recipe.variants.into_iter().map(|variant| variant.name).collect())
    };
    assert_eq!(only(&["nf4", "dora"]).unwrap(), ["dora", "nf4"]);
    assert!(only(&["lora"]).unwrap_err().to_string().contains("the reference `dora` is left out"));
    assert!(only(&["drao"]).unwrap_err().to_string().contains("did you mean `dora`?"));
}

#[test]
fn a_recipe_with_variants_of_its_own_is_one_run_as_well() {
    let both = format!("{BASE}[compare]\nseeds = 2\n[[variant]]\nname = \"a\"\n");
    assert_eq!(read(&both, &[]).unwrap().variants.len(), 1);
    assert_eq!(crate::recipe::parse(&both).unwrap(), crate::recipe::parse(BASE).unwrap());
    let told = match crate::recipe::parse(GOOD).unwrap_err() {
        Error::Inputs(errors) => errors[0].to_string(),
        other => panic!("{other}"),
    };
    assert!(told.contains("compares variants of another") && told.contains("lowrank compare"), "{told}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let changed = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    let cases = [
        (changed("seeds = 2", "seeds = 0"), "`compare.seeds` is 0"),
        (changed("seeds = 2", "sedes = 2"), "did you mean `seeds`?"),
        (changed("reference = \"dora\"", "reference = \"drao\""), "did you mean `dora`?"),
        (changed("name = \"dora\"", "name = \"lora\""), "two variants are named `lora`"),
        (changed("name = \"dora\"", "name = \"../x\""), "not the name of a variant"),
        (changed("name = \"dora\"\n", ""), "a variant needs a name"),
        (changed("rank = 2", "rnak = 2"), "variant `dora`: unknown key `rnak`"),
        (changed("[variant.base]\nquant = { nf4 = {} }", "[variant.train]\nbatch = 2"), "changes `train`"),
        (changed("[1e-3, 3e-3]", "[]"), "nothing to try of `optim.adamw.lr`"),
        (changed("[1e-3, 3e-3]", "1e-3"), "is no list of values"),
        (changed("\"optim.adamw.lr\"", "\"train.batch\""), "`train.batch` cannot be swept"),
        (changed("[1e-3, 3e-3]", "[-1.0]"), "out of range"),
        (changed("extends = \"base\"", "extends = \"bsae\""), "did you mean `base`?"),
        (changed("extends = \"base\"", "extends = 3"), "`extends` has the wrong type"),
        ("extends = \"base\"\n[compare]\n".into(), "a comparison needs variants"),
    ];
    for (text, expected) in cases {
        let told = refused(&text, &[]);
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(refused(GOOD, &["optim.adamw.lr=1"]).contains("is swept and set as well"));
    assert!(refused(BASE, &[]).contains("this recipe compares nothing"));
    let sequence = GOOD
        .replace("seeds = 2", "mode = \"sequence\"")
        .replace("[variant.base]\nquant = { nf4 = {} }", "[variant.train]\nbatch = 2");
    assert!(read(&sequence, &[]).is_ok(), "one after the other they need not see the same batches");
}
