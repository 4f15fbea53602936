//! LoRA-FA: what stays, what moves, what is kept for the backward pass.

use lowrank::adapters::{AdapterConfig, LoraConfig, LoraFaConfig, ModuleKind, Shared, Spec, Targets};
use lowrank::linalg;
use lowrank::recipe::BaseDtype;
use lowrank::runtime::{DropoutKey, Learner, Micro, Runtime};
use lowrank_kernels::take_retained_bytes;

use super::golden::{Fixtures, attach, e2e, load, open};

fn fixtures() -> Fixtures {
    Fixtures::read(e2e("llama").join("fixtures.safetensors"))
}

fn fresh(runtime: &dyn Runtime, adapter: &AdapterConfig, seed: u64) -> Box<dyn Learner> {
    attach(load(runtime, &open("llama"), BaseDtype::F32).as_ref(), adapter, seed)
}

fn step(learner: &mut dyn Learner, golden: &Fixtures, k: usize) {
    let batch = golden.train_batch(k);
    let micro = Micro { weight: 1.0 / batch.terms() as f64, ..Micro::default() };
    learner.accumulate(&batch, &micro).unwrap();
    learner.step(1e-2, 0.7);
}

pub fn a_stays_and_the_update_stays_in_its_rows(runtime: &dyn Runtime) {
    for corrected in [true, false] {
        let config = LoraFaConfig { corrected, ..LoraFaConfig::default() };
        let (mut learner, golden) = (fresh(runtime, &config.clone().into(), 3), fixtures());
        let sites = learner.adapted().to_vec();
        let counted: usize = learner.trainable().values().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!(counted, sites.iter().map(|site| config.parameters(site)).sum::<usize>());
        let before = learner.export();
        (0..4).for_each(|k| step(learner.as_mut(), &golden, k));
        let after = learner.export();
        for (path, tensor) in &after {
            assert_eq!(*tensor == before[path], path.ends_with("lora_A"), "{path}");
        }
        let site = &sites[0];
        let values = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let (a, r, cols) = (&before[&format!("{}.lora_A", site.path)].values, site.rank, site.cols);
        let b = values(&after[&format!("{}.lora_B", site.path)].values);
        let update = linalg::matmul(&b, [site.rows, r], &values(a), cols);
        let turned: Vec<f64> = (0..cols).flat_map(|j| (0..r).map(move |i| f64::from(a[i * cols + j]))).collect();
        let rows = linalg::qr(&turned, [cols, r]).q;
        let along = linalg::matmul(&update, [site.rows, cols], &rows, r);
        let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        let (whole, inside) = (square(&update), square(&along));
        assert!(whole > 0.0 && (whole - inside).abs() < 1e-10 * whole, "{inside} of {whole}");
    }
}

/// Each linear layer of the model, and the head, which only trained tokens reach.
fn everywhere(dropout: f64) -> Shared {
    Shared { dropout, targets: Targets::Pattern(".*(_proj|lm_head)".into()), ..Shared::default() }
}

pub fn what_adapters_keep_is_what_was_foretold(runtime: &dyn Runtime) {
    let batch = fixtures().train_batch(0);
    for dropout in [0.0, 0.5] {
        let lora: AdapterConfig = LoraConfig::default().with(everywhere(dropout)).into();
        let lora_fa: AdapterConfig = LoraFaConfig::default().with(everywhere(dropout)).into();
        let measured = [lora, lora_fa].map(|adapter| {
            let mut learner = fresh(runtime, &adapter, 3);
            let key = DropoutKey { seed: 1, step: 0, micro: 0 };
            take_retained_bytes();
            let micro = Micro { weight: 1.0, dropout: Some(key), gradient_checkpointing: false };
            learner.accumulate(&batch, &micro).unwrap();
            let measured = take_retained_bytes();
            let tokens = |kind| if kind == ModuleKind::Head { batch.terms() } else { batch.ids.len() };
            let spec = adapter.spec().unwrap();
            let floats = learner.adapted().iter().map(|site| tokens(site.kind) * spec.retained(site));
            assert_eq!(measured, 4 * floats.sum::<usize>() as u64, "{} {dropout}", adapter.name());
            measured
        });
        // n (in + r) against n r, at r = 8 and inputs of 96 and 256.
        assert!(measured[0] > 10 * measured[1], "{measured:?}");
    }
}

/// A checkpoint's A is not the fresh one: the correction must be that of the A that was read.
pub fn corrected_training_survives_a_round_trip(runtime: &dyn Runtime) {
    let golden = fixtures();
    let adapter = AdapterConfig::from(LoraFaConfig::default());
    let run = |break_at: Option<usize>| {
        let mut learner = fresh(runtime, &adapter, 3);
        for k in 0..4 {
            if break_at == Some(k) {
                let (values, state) = (learner.export(), learner.state());
                learner = fresh(runtime, &adapter, 4);
                learner.import(&values).unwrap();
                learner.set_state(&state, k).unwrap();
            }
            step(learner.as_mut(), &golden, k);
        }
        learner.export()
    };
    assert_eq!(run(None), run(Some(2)));
}

pub fn saved_as_lora_it_gives_the_same_logits(runtime: &dyn Runtime) {
    let golden = fixtures();
    let config = LoraFaConfig { rslora: true, ..LoraFaConfig::default() };
    let mut learner = fresh(runtime, &config.clone().into(), 3);
    (0..2).for_each(|k| step(learner.as_mut(), &golden, k));
    let (saved_as, values) = config.export(learner.export(), learner.adapted()).unwrap();
    assert_eq!(saved_as.name(), "lora");
    let mut lora = fresh(runtime, &saved_as, 4);
    lora.import(&values).unwrap();
    let batch = golden.batch("input_ids", "labels");
    assert_eq!(lora.logits(&batch).unwrap(), learner.logits(&batch).unwrap());
}
