use super::memory::VOCABULARY_ENTRY;
use super::*;
use crate::adapters::{AdapterConfig, LoraConfig, METHODS, Module, Origin, Targets, VeraConfig, peft, tiny};
use crate::models::Outline;
use crate::recipe::{BaseDtype, BaseStorage, Blocks, Offload, Quant};
use crate::tensors::{self, HostTensor};

fn built_in(name: &str) -> Outline {
    Outline::find(name).unwrap().0
}

/// Parameters that the method of `table` trains on PEFT's default targets of a built-in model.
fn trains(model: &str, table: &str) -> usize {
    let outline = built_in(model);
    let targets = Targets::Names(outline.default_targets.iter().map(ToString::to_string).collect());
    let adapter: AdapterConfig = toml::from_str(table).unwrap();
    let adapter = adapter.with_targets(&targets).unwrap();
    let selected = adapter.select(&outline.modules, Origin::Recipe).unwrap();
    trained(&outline, &adapter, &selected).value as usize
}

#[test]
fn counts_are_the_published_ones() {
    for (model, table, expected) in [
        // PEFT's MetaMathQA benchmark.
        ("llama-3.2-3b", "[lora]\nrank = 32", 9_175_040),
        ("llama-3.2-3b", "[lora_fa]\nrank = 32", 3_670_016),
        ("llama-3.2-3b", "[dora]\nrank = 32", 9_289_728),
        ("llama-3.2-3b", "[vera]\nrank = 256", 129_024),
        // VeRA's table 2: 0.043 M and 0.061 M.
        ("roberta-base", "[vera]\nrank = 1024", 43_008),
        ("roberta-large", "[vera]\nrank = 256", 61_440),
        // GPT-2 under LoRA on E2E: 12 layers of r (2304 + 768); LoRA on the whole c_attn.
        ("gpt2", "[lora]\nrank = 4", 147_456),
        ("gpt2", "[lora]\nrank = 64", 2_359_296),
        // What PEFT prints for ChatGLM-6B at rank 8.
        ("chatglm-6b", "[lora]\nrank = 8", 3_670_016),
    ] {
        assert_eq!(trains(model, table), expected, "{model} {table}");
    }
}

/// A row's formula is what the method counts, for any shape of a module.
#[test]
fn formulas_of_methods_are_their_counts() {
    let (rows, cols, rank) = (7, 5, 3);
    let numbers = |formula: &str| {
        let plain = formula.trim_start_matches("at most ").replace("out", "7").replace("in", "5").replace('r', "3");
        // Beside each other means times: "3 (5 + 7)", "3 7".
        let (factor, sum) = match plain.split_once('(') {
            Some((factor, rest)) => (factor.trim(), rest),
            None => ("", plain.as_str()),
        };
        let (inner, after) = sum.split_once(')').unwrap_or((sum, ""));
        let added = |sum: &str| -> usize {
            let product = |term: &str| term.split_whitespace().map(|n| n.parse::<usize>().unwrap()).product::<usize>();
            sum.split('+').filter(|term| !term.trim().is_empty()).map(product).sum()
        };
        factor.parse::<usize>().unwrap_or(1) * added(inner) + added(after)
    };
    for (row, method) in METHODS.iter().zip(AdapterConfig::defaults()) {
        let linear = vec![Module::linear("a.b", rows, cols)];
        let method = method.with_rank(rank).unwrap();
        let selected = method.select(&linear, Origin::Recipe).unwrap();
        let counted: usize = selected.iter().map(|site| method.spec().unwrap().parameters(site)).sum();
        assert_eq!(numbers(row.parameters), counted, "{}: {}", row.name, row.parameters);
    }
}

/// Every method, starts that double the rank, biases, whole modules and embeddings.
#[test]
fn a_file_is_as_large_as_it_was_said_to_be() {
    let config = tiny::llama();
    let outline = Outline::of(&config);
    let tables = [
        "[lora]\nrank = 4\nbias = \"all\"\nmodules_to_save = [\"norm\", \"lm_head\"]",
        "[lora]\nrank = 4\ninit = \"pissa\"\nrank_pattern = { q_proj = 2 }",
        "[lora]\nrank = 4\ntargets = [\"embed_tokens\", \"q_proj\", \"lm_head\"]",
        "[dora]\nrank = 4\ninit = \"olora\"",
        "[vera]\nrank = 16\nsave_projection = false",
    ];
    let methods = AdapterConfig::defaults().into_iter().chain(tables.map(|table| toml::from_str(table).unwrap()));
    for mut adapter in methods {
        adapter.settle_targets(&["q_proj", "down_proj"], "llama").unwrap();
        let saved = adapter.spec().unwrap().saved_as(usize::MAX);
        let shapes = peft::file_shapes(&saved, &outline).unwrap();
        let zeros = |(name, shape): &(String, Vec<usize>)| {
            let values = vec![0.0; shape.iter().product()];
            (name.clone(), HostTensor { shape: shape.clone(), values })
        };
        let bytes = tensors::encode(&shapes.iter().map(zeros).collect()).unwrap();
        assert_eq!(file(&outline, &adapter, usize::MAX).unwrap().value, bytes.len() as u64, "{adapter:?}");
        // The names and shapes are those that a reader of such a file asks for.
        let folder = tempfile::tempdir().unwrap();
        let peft_config = peft::PeftConfig::new(saved, "base");
        let read_back =
            peft::write(folder.path(), &peft_config, &tensors::decode(&bytes, "m".as_ref()).unwrap(), &outline.modules)
                .and_then(|()| peft::read(folder.path(), &outline.model_type, &outline.modules));
        read_back.unwrap_or_else(|error| panic!("{adapter:?}: {error}"));
    }
}

#[test]
fn what_is_saved_depends_on_how_long_the_run_is() {
    let outline = Outline::of(&tiny::llama());
    let delta: AdapterConfig =
        toml::from_str("[delta_lora]\nrank = 4\nstart_step = 10\ntargets = \"all-linear\"").unwrap();
    let lora = |rank| file(&outline, &LoraConfig { rank, ..LoraConfig::default() }.into(), 0).unwrap();
    assert_eq!(file(&outline, &delta, 9).unwrap(), lora(4));
    assert_eq!(file(&outline, &delta, 10).unwrap(), lora(8));
    assert_eq!(file(&outline, &AdapterConfig::none(), 10).unwrap().value, 0);
}

#[test]
fn weights_are_in_four_bits_in_blocks_alone() {
    let outline = built_in("llama-3.2-3b");
    let of = |storage: BaseStorage| weights(&outline, storage.dtype, in_blocks(storage));
    let all = outline.parameters() as u64;
    assert_eq!(of(BaseStorage::default()), Figure { value: 4 * all, formula: "4 bytes x 3,212,749,824".into() });
    let vectors = 57 * 3072;
    let bf16 = of(BaseDtype::Bf16.into());
    assert_eq!(bf16.value, 2 * (all - vectors) + 4 * vectors);
    assert_eq!(bf16.formula, "2 bytes x 3,212,574,720 + 4 bytes x 175,104");
    let quant =
        |double| BaseStorage { quant: Some(Quant::Nf4(Blocks { block: 64, double })), ..BaseStorage::default() };
    let blocks = all - vectors - 128_256 * 3072;
    let nf4 = of(quant(true));
    assert_eq!(nf4.formula, "4.127 bits x 2,818,572,288 + 4 bytes x 394,177,536");
    let expected = blocks as f64 * (4.0 + 8.0 / 64.0 + 32.0 / 16384.0) / 8.0 + 4.0 * (all - blocks) as f64;
    // An offset for each of 196 matrices.
    assert_eq!(nf4.value, expected as u64 + 4 * 196);
    assert!(of(quant(false)).formula.starts_with("4.500 bits x "));
}

#[test]
fn formulas_of_memory_are_their_numbers() {
    let outline = Outline::of(&tiny::llama());
    let of = |adapter: AdapterConfig, gradient_checkpointing| {
        let selected = adapter.select(&outline.modules, Origin::Recipe).unwrap();
        let batch = Batch { tokens: 20, len: 10, trained: 15 };
        let (adapter, selected) = (&adapter, &selected[..]);
        let setup =
            Setup { outline: &outline, adapter, selected, batch, gradient_checkpointing, offload: Offload::Device };
        Needs::of(setup)
    };
    for adapter in AdapterConfig::defaults().into_iter().chain([AdapterConfig::full(), AdapterConfig::none()]) {
        for recomputes in [false, true] {
            let needs = of(adapter.clone(), recomputes);
            for (name, figure) in needs.items() {
                if !["process", "allocator"].contains(&name) && figure.value > 0 {
                    assert_eq!(evaluated(&figure.formula), figure.value, "{name}: {}", figure.formula);
                }
            }
            let used = [&needs.blocks, &needs.adapters, &needs.temporaries, &needs.logits].map(|figure| figure.value);
            assert_eq!(needs.free.value, used.iter().sum::<u64>() / 10);
            assert_eq!(needs.process.value, (85 << 20) + 512 * VOCABULARY_ENTRY as u64);
            assert_eq!(needs.total(), needs.items().iter().map(|(_, figure)| figure.value).sum::<u64>());
        }
    }
    let vera = VeraConfig { rank: 16, ..VeraConfig::default() };
    assert_eq!(of(vera.into(), false).adapter.formula, "4 bytes x (2,016 + 8,192 frozen)");
}

/// What a formula such as `4 bytes x (20 tokens x 512 + 15 x 96)` comes to: words are units, and a comma before a word ends it.
fn evaluated(formula: &str) -> u64 {
    let numbers = formula.split(", ").next().unwrap();
    let product = |term: &str| -> u64 {
        let factor = |factor: &str| factor.trim().split(' ').next().unwrap().replace(',', "").parse::<u64>().unwrap();
        term.split(" x ").filter(|factor| !factor.trim().is_empty()).map(factor).product()
    };
    let sum = |terms: &str| terms.split(" + ").map(product).sum::<u64>();
    match numbers.split_once('(') {
        Some((before, inside)) => product(before.trim_end_matches(" x ")) * sum(inside.trim_end_matches(')')),
        None => sum(numbers),
    }
}

#[test]
fn a_head_that_trains_has_all_its_logits_at_once() {
    let outline = Outline::of(&tiny::llama());
    let of = |adapter: AdapterConfig| {
        let selected = adapter.select(&outline.modules, Origin::Recipe).unwrap();
        let batch = Batch { tokens: 1280, len: 128, trained: 1280 };
        let (adapter, selected) = (&adapter, &selected[..]);
        let setup = Setup {
            outline: &outline,
            adapter,
            selected,
            batch,
            gradient_checkpointing: false,
            offload: Offload::Host,
        };
        Needs::of(setup)
    };
    let [full, lora] = [AdapterConfig::full(), LoraConfig::default().into()].map(of);
    assert_eq!(full.logits.value - lora.logits.value, 8 * (1280 - 128) * 512);
    assert_eq!(lora.optimizer_host, lora.optimizer.value);
}

#[test]
fn a_weight_that_trains_is_counted_once_and_an_adapter_beside_it() {
    let outline = Outline::of(&tiny::llama());
    let lora = LoraConfig { rank: 4, modules_to_save: vec!["lm_head".into()], ..LoraConfig::default() };
    let lora = AdapterConfig::from(lora);
    let selected = lora.select(&outline.modules, Origin::Recipe).unwrap();
    let of_adapter: usize = selected.iter().map(|site| site.rank * (site.rows + site.cols)).sum();
    let expected = (of_adapter + 512 * 96, outline.parameters() + of_adapter);
    assert_eq!(parameters(&outline, &lora, &selected), expected);
    assert_eq!(trained(&outline, &lora, &selected).formula, "r (in + out), and 49,152 of the base");
}

#[test]
fn a_survey_has_every_method_at_every_rank() {
    let outline = built_in("mixtral-8x7b");
    let batch = Batch { tokens: 512, len: 128, trained: 512 };
    let survey = Survey::of(&outline, &Targets::default(), &[8, 16], batch).unwrap();
    assert_eq!(survey.costs.len(), 2 * METHODS.len() + 1);
    let last = survey.costs.last().unwrap();
    assert_eq!((last.method, last.rank, last.trainable.value), ("full", None, 46_702_792_704));
    let adalora = survey.costs.iter().find(|costs| costs.method == "adalora").unwrap();
    assert_eq!((adalora.rank, adalora.saved_as), (Some(8), Some(("adalora", 5))));

    let embedding = Targets::Names(vec!["embed_tokens".into()]);
    let survey = Survey::of(&outline, &embedding, &[8], batch).unwrap();
    let methods: Vec<_> = survey.costs.iter().map(|costs| costs.method).collect();
    assert_eq!(methods, ["lora", "dora", "full"]);
    assert!(survey.left_out[0].starts_with("lora_fa: ") && survey.left_out.len() == METHODS.len() - 2);
    let nothing = Targets::Names(vec!["qproj".into()]);
    let told = Survey::of(&outline, &nothing, &[8], batch).unwrap_err().to_string();
    assert!(told.contains("no module has this name") && told.contains("q_proj"), "{told}");
}
