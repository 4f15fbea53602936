//! LoRA-drop: what the pilot measures, and what modules share.

use std::collections::{BTreeMap, HashMap};

use lowrank::adapters::{AdapterConfig, LoraConfig, LoraDropConfig, Selected, Spec};
use lowrank::data::{Batch, IGNORE};
use lowrank::recipe::BaseDtype;
use lowrank::runtime::{Base, Learner, Micro, Runtime};
use lowrank::tensors::HostTensors;

use super::golden::{Fixtures, assert_close, attach, e2e, load, open};

fn base(runtime: &dyn Runtime) -> Box<dyn Base> {
    load(runtime, &open("llama"), BaseDtype::F32)
}

fn train_batch(k: usize) -> Batch {
    Fixtures::read(e2e("llama").join("fixtures.safetensors")).train_batch(k)
}

fn lora(base: &dyn Base) -> Box<dyn Learner> {
    attach(base, &LoraConfig::default().into(), 3)
}

fn lora_drop(base: &dyn Base, keep: &[&str]) -> Box<dyn Learner> {
    let keep = keep.iter().map(|name| format!("model.layers.{name}")).collect();
    attach(base, &LoraDropConfig { keep, ..LoraDropConfig::default() }.into(), 3)
}

/// B away from zero, differently in every module.
fn moved(learner: &mut dyn Learner) -> HostTensors {
    let mut values = learner.export();
    for (k, (_, b)) in values.iter_mut().filter(|(path, _)| path.ends_with("lora_B")).enumerate() {
        b.values.iter_mut().enumerate().for_each(|(i, b)| *b = 0.02 * ((i * (k + 3)) as f32).sin());
    }
    learner.import(&values).unwrap();
    values
}

/// Rows `at` of a batch, each with `padding` more positions.
fn part(batch: &Batch, at: &[usize], padding: usize) -> Batch {
    let take = |values: &[i32], pad: i32| -> Vec<i32> {
        let row = |&row: &usize| {
            let row = &values[row * batch.len..(row + 1) * batch.len];
            row.iter().copied().chain(std::iter::repeat_n(pad, padding)).collect::<Vec<_>>()
        };
        at.iter().flat_map(row).collect()
    };
    Batch {
        rows: at.len(),
        len: batch.len + padding,
        ids: take(&batch.ids, 7),
        targets: take(&batch.targets, IGNORE),
        segment: take(&batch.segment, 0),
        position: take(&batch.position, 0),
        ..Batch::default()
    }
}

fn energies(learner: &dyn Learner, batch: &Batch) -> BTreeMap<String, f64> {
    learner.update_energy(batch).unwrap().into_iter().collect()
}

#[track_caller]
fn assert_same(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) {
    assert!(a.keys().eq(b.keys()) && !a.is_empty());
    for (path, a) in a {
        assert!((a - b[path]).abs() <= 1e-5 * a.abs() && *a > 0.0, "{path}: {a} and {}", b[path]);
    }
}

/// The first block's queries see x = norm(embedding), which can be had from the outside: with all other modules at zero, the
/// energy is ‖s B A x‖² with s = 2.
pub fn energy_is_the_squared_norm_of_the_correction(runtime: &dyn Runtime) {
    let (base, batch) = (base(runtime), train_batch(0));
    let mut learner = lora(base.as_ref());
    let fresh = learner.update_energy(&batch).unwrap();
    assert!(fresh.len() == 14 && fresh.values().all(|g| *g == 0.0), "B starts at zero: {fresh:?}");
    let values = moved(learner.as_mut());
    let path = "model.layers.0.self_attn.q_proj";
    let (a, b) = (&values[&format!("{path}.lora_A")], &values[&format!("{path}.lora_B")]);
    let weights = open("llama").weights;
    let table = weights.read("model.embed_tokens.weight").unwrap();
    let norm = weights.read("model.layers.0.input_layernorm.weight").unwrap();
    let (hidden, rank) = (96, 8);
    let energy = |&id: &i32| -> f64 {
        let x: Vec<f64> = table[id as usize * hidden..][..hidden].iter().map(|value| f64::from(*value)).collect();
        let scale = (x.iter().map(|x| x * x).sum::<f64>() / hidden as f64 + 1e-5).sqrt();
        let x: Vec<f64> = x.iter().zip(&norm).map(|(x, norm)| x / scale * f64::from(*norm)).collect();
        let h: Vec<f64> =
            a.values.chunks(hidden).map(|a| a.iter().zip(&x).map(|(a, x)| f64::from(*a) * x).sum()).collect();
        let y = b.values.chunks(rank).map(|b| 2.0 * b.iter().zip(&h).map(|(b, h)| f64::from(*b) * h).sum::<f64>());
        y.map(|y| y * y).sum()
    };
    let expected: f64 = batch.ids.iter().map(energy).sum();
    let found = learner.update_energy(&batch).unwrap()[path];
    assert!((found - expected).abs() < 1e-4 * expected, "{found}, by hand {expected}");
}

pub fn energies_do_not_depend_on_batches_order_or_padding(runtime: &dyn Runtime) {
    let (base, batch) = (base(runtime), train_batch(0));
    let mut learner = lora(base.as_ref());
    moved(learner.as_mut());
    let whole = energies(learner.as_ref(), &batch);
    let rows: Vec<usize> = (0..batch.rows).rev().collect();
    assert_same(&whole, &energies(learner.as_ref(), &part(&batch, &rows, 0)));
    let mut split: BTreeMap<String, f64> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        for (path, energy) in energies(learner.as_ref(), &part(&batch, &[*row], 3 * i)) {
            *split.entry(path).or_default() += energy;
        }
    }
    assert_same(&whole, &split);
}

pub fn doubling_b_quadruples_the_energy(runtime: &dyn Runtime) {
    let (base, batch) = (base(runtime), train_batch(0));
    let mut learner = lora(base.as_ref());
    let mut values = moved(learner.as_mut());
    let path = "model.layers.1.mlp.gate_proj";
    let before = learner.update_energy(&batch).unwrap()[path];
    values[&format!("{path}.lora_B")].values.iter_mut().for_each(|b| *b *= 2.0);
    learner.import(&values).unwrap();
    // Exactly: a power of two rounds nothing.
    assert_eq!(learner.update_energy(&batch).unwrap()[path], 4.0 * before);
}

/// Two modules are given the only corrections; the decision finds those two.
pub fn planted_corrections_are_found(runtime: &dyn Runtime) {
    let (base, batch) = (base(runtime), train_batch(0));
    let open = LoraDropConfig::default();
    let planted = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.v_proj"];
    let mut learner = attach(base.as_ref(), &open.clone().into(), 3);
    let mut values = moved(learner.as_mut());
    for (path, b) in values.iter_mut().filter(|(path, _)| path.ends_with("lora_B")) {
        if !planted.iter().any(|module| path.starts_with(module)) {
            b.values.iter_mut().for_each(|b| *b *= 1e-3);
        }
    }
    learner.import(&values).unwrap();
    let energy = learner.update_energy(&batch).unwrap();
    let decision = open.pilot().unwrap().decide(&energy, learner.adapted()).unwrap();
    let AdapterConfig::LoraDrop(decided) = decision.adapter else { panic!() };
    assert_eq!(decided.keep, planted);
}

/// All kept: the same values, the same gradients and the same logits as plain LoRA, to the bit.
pub fn keeping_every_module_is_lora(runtime: &dyn Runtime) {
    let base = base(runtime);
    let all: Vec<String> =
        lora(base.as_ref()).adapted().iter().map(|site| site.path.replace("model.layers.", "")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for keep in [&all[..], &[]] {
        let mut kept = lora_drop(base.as_ref(), keep);
        let mut plain = lora(base.as_ref());
        for k in 0..3 {
            for learner in [&mut plain, &mut kept] {
                learner.accumulate(&train_batch(k), &Micro { weight: 0.01, ..Micro::default() }).unwrap();
            }
            assert_eq!(plain.gradients(), kept.gradients());
            [&mut plain, &mut kept].into_iter().for_each(|learner| learner.step(1e-2, 1.0));
        }
        assert_eq!(plain.export(), kept.export());
        assert_eq!(plain.logits(&train_batch(3)).unwrap(), kept.logits(&train_batch(3)).unwrap());
    }
}

const KEEP: [&str; 3] = ["0.self_attn.q_proj", "1.mlp.up_proj", "0.mlp.up_proj"];

/// For each module the one whose values it has.
fn owners(adapted: &[Selected]) -> HashMap<String, String> {
    let kept = |path: &str| KEEP.iter().any(|name| path == format!("model.layers.{name}"));
    let of = |site: &Selected| {
        let kind = site.path.rsplit('.').next().unwrap();
        let same = |other: &&Selected| !kept(&other.path) && other.path.ends_with(kind);
        let owner = if kept(&site.path) { site } else { adapted.iter().find(same).unwrap() };
        (site.path.clone(), owner.path.clone())
    };
    adapted.iter().map(of).collect()
}

/// Against plain LoRA whose modules happen to have equal values: what is shared is stored once, computes the same, and its
/// gradient is the sum over its uses.
pub fn a_shared_gradient_is_the_sum_over_its_uses(runtime: &dyn Runtime) {
    let (base, batch) = (base(runtime), train_batch(0));
    let (mut sharing, mut apart) = (lora_drop(base.as_ref(), &KEEP), lora(base.as_ref()));
    let owners = owners(sharing.adapted());
    let values = moved(sharing.as_mut());
    // Three kept; q of block 1 alone; five kinds with two modules each.
    assert_eq!((values.len(), sharing.trainable().len()), (2 * 9, 2 * 9));
    let config = LoraDropConfig { keep: KEEP.map(|name| format!("model.layers.{name}")).into(), ..Default::default() };
    assert_eq!(sharing.trainable(), config.trains(sharing.adapted()));

    let (_, copies) = config.export(values, sharing.adapted()).unwrap();
    apart.import(&copies).unwrap();
    assert_eq!(sharing.logits(&batch).unwrap(), apart.logits(&batch).unwrap());

    for gradient_checkpointing in [false, true] {
        let micro = Micro { weight: 0.01, gradient_checkpointing, ..Micro::default() };
        let mut sums: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        apart.accumulate(&batch, &micro).unwrap();
        for (path, gradient) in apart.gradients() {
            let (module, factor) = path.rsplit_once('.').unwrap();
            let sum = sums.entry(format!("{}.{factor}", owners[module])).or_insert(vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
        sharing.accumulate(&batch, &micro).unwrap();
        let shared = sharing.gradients();
        assert_eq!(shared.len(), sums.len());
        sums.iter().for_each(|(path, sum)| assert_close(&shared[path], sum, 1e-5, path));
        [&mut apart, &mut sharing].into_iter().for_each(|learner| learner.discard());
    }
}

pub fn modules_go_on_sharing_after_steps(runtime: &dyn Runtime) {
    let base = base(runtime);
    let mut sharing = lora_drop(base.as_ref(), &KEEP);
    let mut apart = lora(base.as_ref());
    for k in 0..3 {
        sharing.accumulate(&train_batch(k), &Micro { weight: 0.01, ..Micro::default() }).unwrap();
        sharing.step(1e-2, 1.0);
    }
    let config = LoraDropConfig { keep: KEEP.map(|name| format!("model.layers.{name}")).into(), ..Default::default() };
    let (_, copies) = config.export(sharing.export(), sharing.adapted()).unwrap();
    apart.import(&copies).unwrap();
    let batch = train_batch(3);
    assert_eq!(sharing.logits(&batch).unwrap(), apart.logits(&batch).unwrap());
}
