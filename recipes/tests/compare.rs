//! `lowrank compare` as a user meets it.

use std::path::Path;
use std::process::{Command, Stdio};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What a call that ends with exit code 2 complains of.
fn refused(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    stderr
}

fn recipe(folder: &Path, text: &str) -> String {
    let path = folder.join("my.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

/// A comparison of three variants that takes a second or two.
fn small_comparison(folder: &Path) -> String {
    let variants = "[[variant]]\nname = \"lora\"\n[[variant]]\nname = \"fa\"\nadapter.lora_fa = { rank = 2 }\n[[variant]]\nname = \"none\"\nadapter.none = {}\n";
    let text = format!(
        "extends = \"tiny/lora\"\n[compare]\nseeds = 2\n[data]\nmax_rows = 40\neval = {{ fraction = 0.1 }}\n[train]\nbatch = 2\nmax_steps = 2\n\
         eval_generate = 0\n{variants}"
    );
    recipe(folder, &text)
}

#[test]
fn variants_are_compared_and_finished_ones_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (small_comparison(folder.path()), folder.path().join("out"));
    let (out, csv) = (out.display().to_string(), folder.path().join("runs.csv").display().to_string());
    let (code, table, told) = run(&["compare", &recipe, "--no-tui", "--out", &out, "--export-csv", &csv]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("3 variants · 2 seeds · race") && told.contains("[lora/seed-1]"), "{told}");
    assert!(table.contains("| lora") && table.contains("95 %") && table.contains("the reference"), "{table}");
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 1 + 6);
    for file in
        ["compare.toml", "compare.json", "report.html", "recipe.resolved.toml", "fa/seed-1/final/adapter_config.json"]
    {
        assert!(Path::new(&out).join(file).is_file(), "{file}");
    }

    let (code, again, told) = run(&["compare", &format!("--resume={out}"), "--no-tui"]);
    assert_eq!((code, again), (0, table), "{told}");
    assert_eq!(told.matches("had finished before").count(), 6, "{told}");

    // The same from the runs themselves.
    let (code, _, told) = run(&["compare", &out]);
    assert_eq!(code, 0, "{told}");
    assert!(refused(&["compare", &recipe, "--out", &out]).contains("not empty"));

    // Another rate is another run: what was there is kept.
    let resume = format!("--resume={out}");
    let (code, _, told) =
        run(&["compare", &recipe, "--no-tui", &resume, "--set", "optim.adamw.lr=1e-4", "--only", "lora"]);
    assert_eq!(code, 0, "{told}");
    assert!(Path::new(&out).join("lora/seed-0.aside-1/run.json").is_file());
    assert!(told.contains("set aside"), "{told}");
    let whole = std::fs::read_to_string(Path::new(&out).join("recipe.resolved.toml")).unwrap();
    assert!(whole.contains("name = \"fa\""), "resuming a part keeps the recipe of the whole");
}

#[test]
fn a_comparison_that_cannot_be_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = small_comparison(folder.path());
    assert!(refused(&["compare", "tiny/lora"]).contains("compares nothing"));
    assert!(refused(&["train", &recipe]).contains("lowrank compare"));
    assert!(refused(&["compare", &recipe, "--only", "dora"]).contains("no variant `dora`"));
    assert!(refused(&["compare", &recipe, "--reference", "lroa"]).contains("did you mean `lora`?"));
    assert!(refused(&["compare", "tiny/all", "tiny/lora"]).contains("one recipe at a time"));
    let (code, dry, told) = run(&["compare", &recipe, "--dry-run"]);
    assert_eq!(code, 0, "{told}");
    let resolved = folder.path().join("resolved.toml");
    std::fs::write(&resolved, &dry).unwrap();
    let (_, again, told) = run(&["compare", &resolved.display().to_string(), "--dry-run"]);
    assert_eq!(again, dry, "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
