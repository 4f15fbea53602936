//! Four-bit bases against bitsandbytes and PEFT.

use lowrank::adapters::{AdapterConfig, LoraConfig};
use lowrank::recipe::{BaseDtype, BaseStorage, Blocks, Quant};
use lowrank::runtime::{Micro, Runtime};
use lowrank::train::attach_saved;

use super::golden::{Fixtures, assert_close, attach, e2e, load, open};

fn stored(quant: Quant) -> BaseStorage {
    BaseStorage { quant: Some(quant), ..BaseStorage::default() }
}

fn blocks(double: bool) -> Blocks {
    Blocks { block: 64, double }
}

/// Logits of base and adapter and twenty steps of training, over weights that bitsandbytes quantised.
pub fn equals_bitsandbytes_and_peft(runtime: &dyn Runtime) {
    let (opened, golden) = (open("llama"), Fixtures::read(e2e("llama").join("fixtures.safetensors")));
    let theirs = Fixtures::read(e2e("llama_extra").join("qlora_sim.safetensors"));
    let cases =
        [("nf4", Quant::Nf4(blocks(false))), ("nf4_dq", Quant::Nf4(blocks(true))), ("fp4", Quant::Fp4(blocks(false)))];
    for (name, quant) in cases {
        let base = load(runtime, &opened, stored(quant));
        let batch = golden.batch("input_ids", "labels");
        let plain = attach(base.as_ref(), &AdapterConfig::none(), 0).logits(&batch).unwrap();
        assert_close(&plain, &theirs.f32(&format!("{name}.base.logits")), 1e-4, name);
        let adapter = e2e("llama").join("adapters").join("lora");
        let (mut learner, _) = attach_saved(base.as_ref(), &opened.config, &adapter).unwrap();
        assert_close(&learner.logits(&batch).unwrap(), &theirs.f32(&format!("{name}.lora.logits")), 1e-4, name);
        for (k, expected) in theirs.f32(&format!("{name}.lora.trace20")).into_iter().enumerate() {
            let batch = golden.train_batch(k);
            let weight = 1.0 / batch.terms() as f64;
            let loss = learner.accumulate(&batch, &Micro { weight, ..Micro::default() }).unwrap().loss * weight;
            learner.step(1e-3, 1.0);
            assert!((loss - f64::from(expected)).abs() < 1e-4 * loss, "{name} step {k}: {loss}, PEFT {expected}");
        }
    }
}

/// 4 bits of code, and of scales 32 / 64 or (8 + 32 / 256) / 64; embedding, norms and head as they were.
pub fn takes_the_bits_it_says(runtime: &dyn Runtime) {
    let opened = open("llama");
    let dense = load(runtime, &opened, BaseDtype::F32).bytes();
    let weights = 2 * (96 * (96 + 48 + 48 + 96) + 3 * 96 * 256);
    for (quant, bits) in
        [(Quant::Nf4(blocks(false)), 4.5), (Quant::Fp4(blocks(false)), 4.5), (Quant::Nf4(blocks(true)), 4.127)]
    {
        let saved = dense - load(runtime, &opened, stored(quant)).bytes();
        let found = 32.0 - 8.0 * saved as f64 / weights as f64;
        // Each of the 14 matrices rounds up to whole integers and may have an offset.
        assert!((found - bits).abs() < 14.0 * 96.0 / weights as f64, "{quant:?}: {found} bits a weight");
    }
}

/// `modules_to_save` over a quantised layer trains a dense copy of what the layer computes with.
pub fn a_trained_weight_is_its_dequantised_self(runtime: &dyn Runtime) {
    let (opened, golden) = (open("llama"), Fixtures::read(e2e("llama").join("fixtures.safetensors")));
    let base = load(runtime, &opened, stored(Quant::Nf4(blocks(true))));
    let batch = golden.batch("input_ids", "labels");
    let plain = attach(base.as_ref(), &AdapterConfig::none(), 0).logits(&batch).unwrap();
    let lora = LoraConfig { modules_to_save: vec!["down_proj".into()], ..LoraConfig::default() };
    let learner = attach(base.as_ref(), &lora.into(), 0);
    assert!(learner.trainable().keys().any(|path| path.ends_with("mlp.down_proj.weight")));
    assert_close(&learner.logits(&batch).unwrap(), &plain, 2e-5, "logits");
}
