//! The command as a user meets it: what goes to stdout, what to stderr, and how it ends.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn lowrank(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.args(arguments).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = lowrank(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// What a successful call prints.
fn printed(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// What a call that ends with exit code 2 complains of; it prints no data.
fn refused(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains('\x1b'), "{stderr}");
    stderr
}

fn recipe(folder: &Path, text: &str) -> String {
    let path = folder.join("my.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn every_problem_of_a_recipe_is_shown_in_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(
        folder.path(),
        "[model]\npath = \"tiny\"\n[adapter.lora]\nalhpa = 16\nrank = 0\n[data]\ntrain = \"rows.csv\"\n",
    );
    let told = refused(&["check", &path]);
    for part in
        ["unknown key `alhpa` in [adapter.lora]", "my.toml:4:1", "did you mean `alpha`?", "my.toml:5:8", "found 0"]
    {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    assert!(told.contains("2 problems"), "{told}");
    assert_eq!(refused(&["train", &path]), told);
}

#[test]
fn overrides_are_checked_like_the_file() {
    let told = refused(&["check", "tiny/lora", "--set", "train.bacth=3"]);
    assert!(told.contains("train.bacth=3") && told.contains("did you mean `batch`?"), "{told}");
    assert!(refused(&["train", "tiny/lora", "--set", "seed", "--dry-run"]).contains("path.to.key=VALUE"));
    assert!(refused(&["train", "tiny/lora", "--set", "compare.seeds=3"]).contains("unknown key `compare`"));
}

#[test]
fn a_missing_file_is_a_problem_of_a_file_and_a_warning_of_a_shipped_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path(), "[model]\npath=\"tiny\"\n[adapter.none]\n[data]\ntrain=\"absent.csv\"\n");
    assert!(refused(&["check", &path]).contains("absent.csv"));
    assert!(refused(&["check", "absent.toml"]).contains("absent.toml"));
    let (code, _, stderr) = run(&["check", "tiny/lora", "tiny/full", "smollm2/e2e"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn the_dry_run_prints_a_recipe_that_resolves_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let first = printed(&[
        "train",
        "tiny/lora",
        "--set",
        "adapter.lora.rank=3",
        "--seed",
        "5",
        "--max-steps",
        "7",
        "--dry-run",
    ]);
    assert!(first.contains("rank = 3") && first.contains("seed = 5") && first.contains("max_steps = 7"), "{first}");
    let path = recipe(folder.path(), &first);
    assert_eq!(printed(&["train", &path, "--dry-run"]), first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a dry run writes nothing");
}

#[test]
fn what_trains_is_listed_before_anything_runs() {
    let (code, _, stderr) = run(&["train", "tiny/lora", "--dry-run"]);
    assert_eq!(code, 0, "{stderr}");
    for line in [
        "parameters  model.layers.{0..3}.self_attn.{q,o}_proj  lora_A [8, 128] lora_B [128, 8]\n",
        "  model.layers.{0..3}.self_attn.{k,v}_proj  lora_A [8, 128] lora_B [64, 8]\n",
        "  model.layers.{0..3}.mlp.{gate,up}_proj    lora_A [8, 128] lora_B [384, 8]\n",
        "  model.layers.{0..3}.mlp.down_proj         lora_A [8, 384] lora_B [128, 8]\n",
    ] {
        assert!(stderr.contains(line), "{line}:\n{stderr}");
    }
    let (_, _, stderr) = run(&["train", "tiny/lora", "--dry-run", "--set", "adapter.none={}"]);
    assert!(stderr.contains("none trains"), "{stderr}");
}

#[test]
fn devices_that_are_not_compiled_in_are_refused_by_name() {
    if !cfg!(feature = "cuda") {
        assert!(refused(&["train", "tiny/lora", "--dry-run", "--device", "cuda:1"]).contains("--features cuda"));
    }
    assert!(refused(&["train", "tiny/lora", "--dry-run", "--device", "felx"]).contains("did you mean `flex`?"));
}

#[test]
fn the_listings_are_data() {
    let recipes: serde_json::Value = serde_json::from_str(&printed(&["recipes", "ls", "--format", "json"])).unwrap();
    assert_eq!(recipes[0]["name"], "tiny/all");
    let methods = printed(&["methods"]);
    assert!(methods.starts_with("method") && methods.contains("lora") && methods.contains("none"), "{methods}");
    assert!(printed(&["methods", "show", "lora"]).contains("modules_to_save"));
    let schema: serde_json::Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    assert!(schema["properties"]["adapter"].is_object());
    assert!(printed(&["schema", "--field", "optim.adamw.lr"]).contains("0.0002"));
    assert!(refused(&["schema", "--field", "optim.adam"]).contains("did you mean `adamw`?"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completions", shell]).contains("lowrank"));
    }
}

#[test]
fn the_doctor_tests_every_device() {
    let doctor: serde_json::Value = serde_json::from_str(&printed(&["doctor", "--format", "json", "-q"])).unwrap();
    assert_eq!(doctor["features"]["flex"], cfg!(feature = "flex"));
    assert!(doctor["host"]["threads"].as_u64() >= Some(1));
    let backends = doctor["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 4);
    for backend in backends {
        let compiled_in = doctor["features"][backend["name"].as_str().unwrap()] == true;
        assert_eq!(backend["processor"].is_string(), compiled_in, "{backend}");
        for device in backend["devices"].as_array().unwrap() {
            let test = &device["self_test"];
            assert!(device["error"].is_null() && test["matmul"]["gflops"].as_f64() > Some(0.0), "{device}");
            assert_eq!(test["frozen"].as_array().unwrap().len(), 3);
        }
    }
    let text = printed(&["doctor"]);
    assert!(text.contains("f32 bf16 nf4 right") && text.contains("what `--device auto` takes"), "{text}");
}

#[test]
fn where_moments_lie_is_shown_before_anything_runs() {
    let (code, resolved, stderr) = run(&["train", "tiny/lora", "--dry-run", "--set", "optim.offload=host"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(resolved.contains("offload = \"host\""), "{resolved}");
    assert!(stderr.contains("optimizer: 0 B on the device, ") && stderr.contains(" in host memory"), "{stderr}");
}

#[test]
fn a_copied_recipe_is_the_shipped_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let path = path.to_str().unwrap();
    assert_eq!(printed(&["recipes", "copy", "tiny/lora", path]), format!("{path}\n"));
    assert_eq!(std::fs::read_to_string(path).unwrap(), printed(&["recipes", "show", "tiny/lora"]));
    assert!(refused(&["recipes", "copy", "tiny/lora", path]).contains("already"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = lowrank(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn colour_comes_only_when_asked_for() {
    let wrong = ["check", "tiny/lroa"];
    let colored = lowrank(&wrong).args(["--color", "always"]).env("NO_COLOR", "1").output().unwrap();
    assert!(colored.stderr.contains(&0x1b));
    assert!(!lowrank(&wrong).output().unwrap().stderr.contains(&0x1b));
}

#[test]
fn bad_flags_end_with_two_and_help_with_examples() {
    assert_eq!(run(&["train"]).0, 2);
    assert_eq!(run(&["trian", "tiny/lora"]).0, 2);
    for command in [vec!["--help"], vec!["train", "--help"], vec!["generate", "--help"], vec!["merge", "--help"]] {
        assert!(printed(&command).contains("Examples:"), "{command:?}");
    }
}

#[test]
fn models_adapters_and_data_are_looked_into() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let model = format!("{golden}/gguf/llama.gguf");
    let shown = printed(&["inspect", &model]);
    for part in ["family      llama", "model.embed_tokens.weight", "Q8_0", "512 x 32"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&printed(&["inspect", &model, "--format", "json"])).unwrap();
    assert_eq!(json["model"]["vocab_size"], 512);

    let data = ["inspect", "synthetic:menu", "--recipe", "tiny/lora", "--rows", "1", "--set"];
    let shown = printed(&[&data[..], &[&format!("model.path={model}")]].concat());
    assert!(shown.starts_with("sequence 1:") && shown.contains(" trained"), "{shown}");

    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.csv");
    std::fs::write(&rows, "prompt,completion\n").unwrap();
    let rows = rows.to_str().unwrap();
    assert!(refused(&["inspect", rows]).contains("--recipe"));
    let empty = ["inspect", rows, "--recipe", "tiny/lora", "--set"];
    assert!(refused(&[&empty[..], &[&format!("model.path={model}")]].concat()).contains("rows.csv"));
    assert!(refused(&["inspect", "absent"]).contains("absent"));
}

#[test]
fn adapters_are_combined_taken_off_and_converted() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/e2e/llama");
    let at = |name: &str| format!("{golden}/{name}");
    let (base, lora, other) = (at("base"), at("adapters/lora"), at("adapters/lora_rslora_pattern"));
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let two = ["merge", &lora, &other, "--base", &base, "--out"];
    let with = |name: &str, rest: &[&str]| {
        let arguments: Vec<String> = two.iter().map(ToString::to_string).chain([out(name)]).collect();
        arguments.into_iter().chain(rest.iter().map(ToString::to_string)).collect::<Vec<_>>()
    };
    let call = |arguments: &[String]| printed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let refusal = |arguments: &[String]| refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(call(&with("both", &["--weights", "0.7,-0.3"])), format!("{}\n", out("both")));
    assert!(folder.path().join("both/adapter_model.safetensors").is_file());
    call(&with("model", &["--weights", "1,1", "--write", "model"]));
    assert!(folder.path().join("model/model.safetensors").is_file());
    for (rest, reason) in [
        (&[][..], "every adapter needs a weight"),
        (&["--weights", "1,1", "--method", "linear"], "adapters of one rank"),
        (&["--weights", "1,1", "--method", "ties"], "key density"),
        (&["--weights", "1,1", "--dtype", "bf16"], "--write model"),
    ] {
        let told = refusal(&with("none", rest));
        assert!(told.contains(reason) && !folder.path().join("none").exists(), "{told}");
    }
    printed(&["merge", &lora, "--base", &base, "--out", &out("merged")]);
    printed(&["merge", &lora, "--base", &out("merged"), "--unmerge", "--out", &out("back")]);
    let (code, _, told) = run(&["convert", &lora, "--base", &base, "--rank", "2", "--out", &out("small")]);
    assert!(code == 0 && told.contains("largest rank 8 → 2") && told.contains("relative error"), "{told}");
    let again = ["convert", &lora, "--base", &base, "--out", &out("small")];
    assert!(refused(&again).contains("not empty"));
}

/// A short run over four bits, and everything that `merge` makes of it.
#[test]
fn a_run_over_a_quantised_base_is_merged_three_ways() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let short =
        ["--max-steps", "2", "--set", "train.eval_every=0", "--set", "train.batch=2", "--set", "data.max_rows=16"];
    let quant = ["--set", "base.quant.nf4.block=64", "--set", "train.eval_generate=0", "--out"];
    printed(&[&["train", "tiny/lora", "-q"][..], &short, &quant, &[&at("run")]].concat());
    let merged = |name: &str, rest: &[&str]| {
        let (code, _, told) = run(&[&["merge", &at("run"), "--out", &at(name)][..], rest].concat());
        assert_eq!(code, 0, "{rest:?}: {told}");
        told
    };
    let told = merged("exact", &[]);
    for line in ["8 held-out rows", "dequantised", "original", "requantised"] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    // Largest difference of a logit, by kind.
    let difference = |told: &str, kind: &str| {
        let row = told.lines().find(|line| line.trim_start().starts_with(kind)).unwrap();
        row.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    assert!(difference(&told, "dequantised") < 1e-4, "{told}");
    assert!(difference(&told, "original") > 1e-2 && difference(&told, "requantised") > 1e-2, "{told}");

    merged("base", &["--base-only"]);
    let told = merged("codes", &["--base-only", "--into", "requantised"]);
    assert!(told.contains("0 of them changed"), "{told}");
    assert!(printed(&["inspect", &at("codes")]).contains("NF4") && !printed(&["inspect", &at("base")]).contains("NF4"));

    // The codes are a base like another: the adapter belongs to them as well.
    let (adapter, codes) = (at("run/final"), at("codes"));
    let over_codes = ["merge", &adapter, "--base", &codes, "--out"];
    let (code, _, told) = run(&[&over_codes[..], &[&at("again")]].concat());
    assert!(code == 0 && told.contains("not known"), "{told}");
    let bytes = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(bytes("again"), bytes("exact"));
    let none = at("none");
    let told = refused(&[&over_codes[..], &[&none, "--into", "original"]].concat());
    assert!(told.contains("original weights are not known"), "{told}");

    let path = format!("model.path={codes}");
    let train = ["train", "tiny/lora", "--dry-run", "--set", &path];
    let (code, _, told) = run(&train);
    assert!(code == 0 && told.contains("linears nf4 (block 64, double) · f32 · quantised in its files"), "{told}");
    assert!(refused(&[&train[..], &["--set", "base.quant.fp4.block=64"]].concat()).contains("base.quant"));
    assert!(refused(&[&train[..], &["--set", "adapter.full={}"]].concat()).contains("trains every weight"));
}

#[test]
fn a_base_in_floats_is_not_requantised() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/e2e/llama");
    let (base, lora) = (format!("{golden}/base"), format!("{golden}/adapters/lora"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_string();
    let merge = ["merge", &lora, "--base", &base, "--out", &out, "--into"];
    assert!(refused(&[&merge[..], &["requantised"]].concat()).contains("this base is not quantised"));
    let (code, _, told) = run(&[&merge[..], &["original"]].concat());
    assert!(code == 0 && !told.contains("KL"), "{told}");
    assert!(refused(&["merge", &base, &base, "--base-only", "--out", &out]).contains("one base at a time"));
}

#[test]
fn an_adapter_is_shown_with_its_norms() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write(
        "adapter_config.json",
        br#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"], "base_model_name_or_path": "some/base\u001b"}"#,
    );
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}}}"#);
    let values = [3.0_f32.to_le_bytes(), 4.0_f32.to_le_bytes()].concat();
    let length = (header.len() as u64).to_le_bytes();
    write("adapter_model.safetensors", &[&length[..], header.as_bytes(), &values].concat());
    let shown = printed(&["inspect", folder.path().to_str().unwrap()]);
    for part in ["rank        1", "some/base", name, "1 x 2", "5.0000"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    assert!(!shown.contains('\x1b'));
}

/// A run directory as another program may write it.
fn recorded_run(root: &Path, name: &str) -> String {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/events/metrics.jsonl");
    let dir = root.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(recording, dir.join("metrics.jsonl")).unwrap();
    dir.to_str().unwrap().into()
}

#[test]
fn a_report_is_made_of_recorded_runs_alone() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (recorded_run(root.path(), "a"), recorded_run(root.path(), "b"));
    let out = root.path().join("out");
    let csv = root.path().join("runs.csv");
    let (out_name, csv_name) = (out.to_str().unwrap(), csv.to_str().unwrap());
    let told = printed(&["report", &a, &b, "--out", out_name, "--svg", "--reference", "b", "--export-csv", csv_name]);
    for file in ["compare.json", "compare.md", "report.html", "loss-by-step.svg", "quality-by-trained-parameters.svg"] {
        assert!(told.contains(file), "{file}:\n{told}");
    }
    assert!(told.lines().all(|path| Path::new(path).is_file()), "{told}");
    let json = printed(&["report", &a, &b, "--out", out_name, "--format", "json"]);
    assert_eq!(std::fs::read_to_string(out.join("compare.json")).unwrap(), json);
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 3);
}

#[test]
fn a_report_of_spoiled_runs_names_the_line() {
    let root = tempfile::tempdir().unwrap();
    let a = recorded_run(root.path(), "a");
    std::fs::write(root.path().join("a/metrics.jsonl"), "{}\n").unwrap();
    assert!(refused(&["report", &a]).contains("line 1: not a record of a run"));
    assert!(refused(&["report", root.path().to_str().unwrap()]).contains("neither a run nor a comparison"));
}

/// The picture itself depends on the system's fonts; that there is one, or a word about why not, does not.
#[cfg(feature = "png")]
#[test]
fn plots_become_png_where_there_is_a_font() {
    let root = tempfile::tempdir().unwrap();
    let a = recorded_run(root.path(), "a");
    let (code, _, stderr) = run(&["report", &a, "--png"]);
    match std::fs::read(root.path().join("a/loss-by-step.png")) {
        Ok(bytes) => assert!(code == 0 && bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{stderr}"),
        Err(_) => assert!(code == 2 && stderr.contains("no font"), "{stderr}"),
    }
}
