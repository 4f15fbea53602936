//! What a user may write, and what they are told when it is wrong.

use super::*;
use crate::adapters::{AdapterConfig, Targets};
use crate::error::{Error, InputError};

const GOOD: &str = r#"
version = 1
[model]
path = "tiny"
[adapter.lora]
rank = 4
[data]
train = "synthetic:menu"
"#;

/// Resolves `GOOD` with overrides.
fn good(sets: &[&str]) -> Recipe {
    problems_or(GOOD, sets).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn problems_or(text: &str, sets: &[&str]) -> std::result::Result<Recipe, Vec<InputError>> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    match resolve::resolve(Some("my.toml".into()), text, &sets, "my".into(), ".".into()) {
        Ok(resolved) => Ok(resolved.recipe),
        Err(Error::Inputs(errors)) => Err(errors),
        Err(other) => panic!("not an input error: {other}"),
    }
}

fn problems(text: &str, sets: &[&str]) -> Vec<InputError> {
    problems_or(text, sets).expect_err("should be refused")
}

/// The one problem of `GOOD` with one override.
fn refused(set: &str) -> String {
    let errors = problems(GOOD, &[set]);
    assert_eq!(errors.len(), 1, "{set}: {errors:#?}");
    errors[0].to_string()
}

#[test]
fn everything_left_out_has_its_documented_default() {
    let recipe = good(&[]);
    let AdapterConfig::Lora(lora) = &recipe.adapter else { panic!("{recipe:?}") };
    assert_eq!((lora.rank, lora.alpha), (4, 16.0));
    assert_eq!(lora.targets, Targets::of_family());
    assert_eq!(recipe.optim.schedule, Schedule::Cosine { warmup: 0.03 });
    assert_eq!((recipe.data.max_len, recipe.train.keep, recipe.log.every), (128, 3, 10));
}

#[test]
fn every_form_a_key_may_take_is_read() {
    for (sets, check) in [
        (vec!["optim.schedule=constant"], "constant"),
        (vec!["optim.schedule={ linear = { warmup = 10 } }"], "linear"),
        (vec!["optim.schedule.polynomial.power=2", "optim.schedule.polynomial.end=0.1"], "polynomial"),
        (vec!["data.eval=more.jsonl"], "more.jsonl"),
        (vec!["data.eval={ fraction = 0.1 }"], "fraction"),
        (vec!["data.eval.fraction=0.1"], "fraction"),
        (vec!["data.format=sharegpt"], "sharegpt"),
        (vec!["data.format.columns={ prompt = \"mr\", completion = \"ref\" }"], "completion = \"ref\""),
        (vec!["optim.lora_plus_ratio=16"], "lora_plus_ratio = 16"),
        (vec!["adapter.lora_fa.corrected=false"], "corrected = false"),
        (vec!["adapter=none"], "[adapter.none]"),
        (vec!["adapter.full={}"], "[adapter.full]"),
        (vec!["adapter.lora.targets=[\"q_proj\", \"v_proj\"]"], "v_proj"),
        (vec!["adapter.lora.rank_pattern.\"layers.0.q_proj\"=2"], "\"layers.0.q_proj\" = 2"),
        (vec!["train.max_steps=7", "seed=3"], "max_steps = 7"),
    ] {
        let toml = good(&sets).to_toml().unwrap();
        assert!(toml.contains(check), "{sets:?}\n{toml}");
    }
}

#[test]
fn a_resolved_recipe_resolves_to_itself() {
    for sets in [
        vec![],
        vec!["adapter=full", "optim.schedule=inverse_sqrt", "data.eval.fraction=0.25"],
        vec!["data.format.columns.prompt=mr", "adapter.lora.alpha=0.1", "optim.adamw.lr=1e-5", "train.max_steps=3"],
        vec!["adapter.lora.rank_pattern.\"a.b\"=2", "adapter.lora.layers=[0, 2]", "adapter.lora.targets=[\"q_proj\"]"],
    ] {
        let recipe = good(&sets);
        assert_eq!(parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
    }
}

#[test]
fn an_unknown_key_is_pointed_at_with_a_suggestion() {
    let text = format!("{GOOD}max_length = 3\n[train]\nbacth = 1\nlr = 2.0\n");
    let errors = problems(&text, &[]);
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!(told[0], "my.toml: line 9: unknown key `max_length` in [data]\nhint: did you mean `max_len`?");
    assert!(told[1].ends_with("did you mean `batch`?"), "{}", told[1]);
    assert!(told[2].ends_with("`lr` belongs in [optim.adamw]"), "{}", told[2]);
    let span = errors[1].span.clone().unwrap();
    assert_eq!(&errors[1].text.as_ref().unwrap()[span], "bacth");
}

#[test]
fn an_unknown_key_of_an_override_is_pointed_at_too() {
    let errors = problems(GOOD, &["adapter.lora.alhpa=3"]);
    assert_eq!(
        errors[0].to_string(),
        "--set adapter.lora.alhpa=3: unknown key `alhpa` in [adapter.lora]\nhint: did you mean `alpha`?"
    );
    assert_eq!(errors[0].span, Some(0.."adapter.lora.alhpa".len()));
}

#[test]
fn all_problems_are_told_at_once() {
    let text =
        "vresion = 1\n[model]\npath = 3\n[adapter.lora]\nrank = 0\nalpha = nan\n[data]\ntrain = \"x.csv\"\npack = 1\n";
    let told = problems(text, &["train.batch=0", "log.evry=2", "broken"]);
    for part in ["vresion", "model.path", "data.pack", "log", "broken"] {
        assert!(told.iter().any(|error| error.to_string().contains(part)), "{part}: {told:#?}");
    }
    let text = text.replace("path = 3", "path = \"tiny\"");
    let told = problems(&text, &["train.batch=0", "log.evry=2"]);
    for part in ["rank", "alpha", "batch", "evry"] {
        assert!(told.iter().any(|error| error.to_string().contains(part)), "{part}: {told:#?}");
    }
}

#[test]
fn what_must_be_there_is_asked_for() {
    let told = problems("seed = 1\n", &[]);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        ["`model`", "`adapter`", "`data`"].iter().zip(&told).all(|(key, error)| error.what.contains(key)),
        "{told:#?}"
    );
    assert!(problems(&GOOD.replace("path = \"tiny\"", ""), &[])[0].to_string().contains("no `path` in [model]"));
}

#[test]
fn two_adapters_contradict_each_other() {
    let errors = problems(&format!("{GOOD}[adapter.full]\n"), &[]);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].to_string().contains("line 9: `full` contradicts `lora`"), "{}", errors[0]);
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    for set in [
        "version=2",
        "seed=-1",
        "task=causal",
        "model.path=",
        "model.dtype=f8",
        "adapter.lora.rank=0",
        "adapter.lora.rank=8.0",
        "adapter.lora.rank=9223372036854775807",
        "adapter.lora.alpha=nan",
        "adapter.lora.alpha=0",
        "adapter.lora.dropout=1.0",
        "adapter.lora.dropout=-0.1",
        "adapter.lora.init=orthogonl",
        "adapter.lora.init=pissa_niter_",
        "adapter.lora.init=pissa_niter_1.5",
        "adapter.lora.init=pissa_niter_99999",
        "adapter.lora.init=loftq_iter_0",
        "adapter.lora.init=loftq_iter_",
        "adapter.lora.targets=[]",
        "adapter.lora.targets=[\"\"]",
        "adapter.lora.targets=(q_proj",
        "adapter.lora.targets=[1]",
        "adapter.lora.layers=[-1]",
        "adapter.lora.rank_pattern.q_proj=0",
        "adapter.lora.alpha_pattern.q_proj=inf",
        "adapter.lora.bias=some",
        "adapter.lora={ rank = 3, init = \"orthogonal\" }",
        "adapter.vera.rank=0",
        "adapter.vera.alpha=16",
        "adapter.vera.d_initial=0",
        "adapter.vera.d_initial=1e-50",
        "adapter.vera.projection_prng_key=-1",
        "adapter.vera.projection_prng_key=4294967296",
        "data.train=rows.xml",
        "data.train=synthetic:meun",
        "data.eval={ fraction = 1.0 }",
        "data.eval={ fraction = 0 }",
        "data.eval={ fraction = \"x\" }",
        "data.eval={ share = 0.1 }",
        "data.format=alpacca",
        "data.format={ columns = {} }",
        "data.max_len=1",
        "data.max_rows=0",
        "data.pack=yes",
        "optim.adamw.lr=nan",
        "optim.adamw.lr=-1e-3",
        "optim.adamw.lr=0",
        "optim.adamw.lr=1e10",
        "optim.adamw.lr=fast",
        "optim.adamw.beta2=1.0",
        "optim.adamw.eps=0",
        "optim.lora_plus_ratio=0.5",
        "optim.lora_plus_ratio=nan",
        "optim.lora_plus_ratio=1e9",
        "optim.clip=-1",
        "optim.offload=gpu",
        "optim.schedule=cosin",
        "optim.schedule.cosine.warmup=-1",
        "optim.schedule.cosine.warmup=1.5",
        "optim.schedule={}",
        "train.batch=0",
        "train.accumulate=0",
        "train.epochs=0",
        "train.max_steps=0",
        "train.keep=0",
        "train.eval_generate=8",
        "log.every=0",
        "log=3",
    ] {
        refused(set);
    }
}

#[test]
fn contradictory_keys_are_refused() {
    for sets in [
        vec!["adapter=none", "train.gradient_checkpointing=true"],
        vec!["adapter=none", "optim.offload=host"],
        vec!["adapter.lora.layers_pattern=[\"layers\"]"],
        vec!["adapter.lora.layers=[0]", "adapter.lora.targets=\".*q_proj\""],
        vec!["optim.schedule.linear.warmup=20", "train.max_steps=10"],
        vec!["adapter.none.dropout=0.1"],
        vec!["optim.lora_plus_ratio=16", "adapter=none"],
        vec!["optim.lora_plus_ratio=16", "adapter=full"],
        vec!["optim.lora_plus_ratio=16", "adapter=lora_fa"],
        vec!["adapter.lora.init=orthogonal", "adapter.lora.rank_pattern.q_proj=3"],
    ] {
        assert_eq!(problems(GOOD, &sets).len(), 1, "{sets:?}");
    }
    good(&["adapter.lora.layers=[0]"]);
}

/// What does not go together, and the reason that the refusal gives.
#[test]
fn combinations_that_cannot_be_are_refused_for_their_reason() {
    let table: [(&[&str], &str); 28] = [
        (&["adapter.lora.init=orthogonal", "adapter.lora.rank=3"], "orthogonal initialisation halves the rank"),
        (&["adapter.lora.layers=[0]", "adapter.lora.targets=.*q_proj"], "`layers` needs targets by name"),
        (&["adapter.lora.layers_pattern=[\"h\"]"], "`layers_pattern` says where the layer number stands"),
        (&["adapter.lora.dropout=1.0"], "`adapter.lora.dropout` is out of range"),
        (&["adapter=none", "train.gradient_checkpointing=true"], "[adapter.none] has none"),
        (&["adapter=none", "optim.offload=host"], "[adapter.none] has no optimizer"),
        (&["adapter=none", "train.init_from=a"], "`init_from` names an adapter, and [adapter.none] has none"),
        (&["adapter=full", "train.init_from=a"], "`init_from` names an adapter, and [adapter.full] has none"),
        (&["adapter.lora.init=gaussian", "train.init_from=a"], "`init` chooses how the adapter starts"),
        (&["adapter.lora.init=orthogonal", "train.init_from=a"], "`init` chooses how the adapter starts"),
        (&["adapter.lora.init=pissa", "train.init_from=a"], "`init` chooses how the adapter starts"),
        (&["adapter.dora.init=olora", "train.init_from=a"], "`init` chooses how the adapter starts"),
        (&["adapter.delta_lora.dropout=0.1"], "with dropout the gradient of B·A is not the gradient of W"),
        (&["adapter.vera.alpha=16"], "unknown key `alpha` in [adapter.vera]"),
        (&["adapter.vera.rslora=true"], "unknown key `rslora` in [adapter.vera]"),
        (&["adapter.adalora.init=pissa"], "unknown key `init` in [adapter.adalora]"),
        (&["adapter.adalora.rslora=true"], "unknown key `rslora` in [adapter.adalora]"),
        (&["train.init_from="], "`train.init_from` is empty"),
        (&["train.eval_generate=2"], "`data.eval` is missing"),
        (&["optim.schedule.linear.warmup=20", "train.max_steps=10"], "warm-up is longer than the run"),
        (&["optim.lora_plus_ratio=16", "adapter=lora_fa"], "means nothing with [adapter.lora_fa]: A is frozen"),
        (&["optim.lora_plus_ratio=16", "adapter=vera"], "means nothing with [adapter.vera]: A and B are frozen"),
        (
            &["optim.lora_plus_ratio=16", "adapter=adalora"],
            "means nothing with [adapter.adalora]: E is neither A nor B",
        ),
        (&["optim.lora_plus_ratio=16", "adapter=full"], "means nothing with [adapter.full]"),
        (&["optim.lora_plus_ratio=0.5"], "`optim.lora_plus_ratio` is out of range"),
        (&["adapter.lora.init=loftq"], "LoftQ starts from what `base.quant` takes off the weights"),
        (&["adapter.dora.init=loftq_iter_5"], "LoftQ starts from what `base.quant` takes off the weights"),
        (&["base.quant.nf4.block=48"], "no such block size; found 48"),
    ];
    for (sets, reason) in table {
        let told: Vec<String> = problems(GOOD, sets).iter().map(ToString::to_string).collect();
        assert!(matches!(&told[..], [one] if one.contains(reason)), "{sets:?}: {told:#?}");
    }
}

#[test]
fn a_start_that_is_none_is_answered_with_those_that_are() {
    for init in ["default", "gaussian", "orthogonal", "pissa", "pissa_niter_0", "pissa_niter_128", "olora"] {
        let AdapterConfig::Lora(lora) = good(&[&format!("adapter.lora.init={init}")]).adapter else { unreachable!() };
        assert_eq!(lora.init.to_string(), init);
    }
    for init in ["loftq", "loftq_iter_5"] {
        let sets = ["base.quant.nf4.block=64", &format!("adapter.lora.init={init}")];
        let AdapterConfig::Lora(lora) = good(&sets).adapter else { unreachable!() };
        assert_eq!(lora.init.to_string(), init);
    }
    let told = refused("adapter.lora.init=pisa_niter_16");
    assert!(told.contains("did you mean `pissa_niter_16`") && told.contains("olora"), "{told}");
}

#[test]
fn a_rank_budget_must_fit_the_run() {
    let text = GOOD.replace("lora]\nrank = 4", "adalora]\ninit_rank = 6\ntarget_rank = 3");
    let with = |sets: &[&str]| problems_or(&text, &[&["train.max_steps=20"], sets].concat());
    assert!(with(&["adapter.adalora.warmup_steps=9", "adapter.adalora.final_steps=10"]).is_ok());
    for (set, key) in [
        ("init_rank=0", "init_rank"),
        ("target_rank=0", "target_rank"),
        ("target_rank=7", "target_rank"),
        ("alpha=0", "alpha"),
        ("interval=0", "interval"),
        ("beta1=1.0", "beta1"),
        ("beta2=-0.1", "beta2"),
        ("orth_weight=-1", "orth_weight"),
        ("warmup_steps=20", "warmup_steps"),
        ("final_steps=20", "warmup_steps"),
        ("rank=4", "rank"),
        ("rslora=true", "rslora"),
        ("init=pissa", "init"),
        ("rank_pattern.q_proj=4", "rank_pattern"),
        ("outcome={}", "outcome"),
    ] {
        let errors = with(&[&format!("adapter.adalora.{set}")]).unwrap_err();
        assert!(errors.iter().any(|error| error.to_string().contains(key)), "{set}: {errors:#?}");
    }
    let both = problems(&format!("{text}[adapter.dora]\n"), &[]);
    assert!(both[0].to_string().contains("dora"), "{both:#?}");
    // Without `max_steps` the length of the run is known only once the data is.
    let Ok(mut recipe) = problems_or(&text, &["adapter.adalora.warmup_steps=9"]) else { panic!("a good recipe") };
    assert!(plan_adapter(&mut recipe.adapter, 10).is_ok());
    let error = plan_adapter(&mut recipe.adapter, 9).unwrap_err().to_string();
    assert!(error.contains("adapter.adalora.warmup_steps") && error.contains("9 steps"), "{error}");
}

#[test]
fn files_that_are_no_recipe_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let absent = folder.path().join("absent.toml");
    let deep = format!("a = {}", "[".repeat(100_000));
    for path in [
        absent,
        folder.path().to_path_buf(),
        write("latin.toml", b"model = \"\xe9\""),
        write("huge.toml", &vec![b'#'; (1 << 20) + 1]),
        write("deep.toml", deep.as_bytes()),
        write("empty.toml", b""),
    ] {
        let error = load(&path, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn paths_start_from_the_recipe_and_overridden_ones_from_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    std::fs::write(folder.path().join("rows.csv"), "a,b\n").unwrap();
    std::fs::write(&path, GOOD.replace("synthetic:menu", "rows.csv")).unwrap();
    let resolved = load(&path, &[]).unwrap();
    assert_eq!((resolved.name.as_str(), resolved.overrides), ("my", 0));
    assert!(resolved.locate(&resolved.recipe.data.train).exists());
    assert!(resolved.missing_files().is_empty());
    assert_eq!(resolved.anchored().data.train, folder.path().join("rows.csv").to_str().unwrap());
    assert_eq!(resolved.anchored().model.path, "tiny");
    let missing = load(&path, &["data.eval=absent.csv".into()]).unwrap().missing_files();
    assert_eq!(missing.len(), 1);
    let here = std::env::current_dir().unwrap();
    let overridden = load(&path, &["data.template=Cargo.toml".into()]).unwrap();
    assert_eq!(overridden.recipe.data.template, here.join("Cargo.toml").to_str().unwrap());
}

#[test]
fn shipped_recipes_are_found_by_name() {
    let shipped =
        Shipped(&[("tiny/lora", "# A first run.\n[model]\npath=\"tiny\"\n[adapter.none]\n[data]\ntrain=\"x.txt\"\n")]);
    assert_eq!(shipped.load("tiny/lora", &["seed=4".into()]).unwrap().recipe.seed, 4);
    assert_eq!(shipped.summary("tiny/lora"), "A first run.");
    let error = shipped.load("tiny/lroa", &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean `tiny/lora`?"), "{error}");
}

#[test]
fn delta_lora_takes_no_dropout_and_no_negative_lambda() {
    for (set, says) in [
        ("adapter.delta_lora.dropout=0.1", "not the gradient of W"),
        ("adapter.delta_lora.lambda=-1", "`adapter.delta_lora.lambda` is out of range"),
        ("adapter.delta_lora.lambda=nan", "`adapter.delta_lora.lambda` is out of range"),
        ("adapter.delta_lora.lambda=1e300", "`adapter.delta_lora.lambda` is out of range"),
        ("adapter.delta_lora.start_step=-1", "start_step"),
        ("adapter.delta_lora.rank=40000", "twice its rank"),
    ] {
        assert!(refused(set).contains(says), "{}", refused(set));
    }
    let AdapterConfig::DeltaLora(delta) = good(&["adapter.delta_lora={}"]).adapter else { panic!() };
    assert_eq!((delta.rank, delta.lambda, delta.start_step), (8, 2.0, 500));
}
