//! Reference numbers: tensors made with PEFT and transformers.

use std::path::PathBuf;

use lowrank::adapters::{AdapterConfig, Factors, Loftq, LoftqPlan, Module, Origin};
use lowrank::data::{Batch, IGNORE};
use lowrank::models::{self, Opened};
use lowrank::recipe::{BaseDtype, BaseStorage, Optim};
use lowrank::runtime::{AdapterSpec, Base, BaseSpec, Learner, Processor, Runtime};
use lowrank::tensors::HostTensors;
use safetensors::SafeTensors;

/// `tests/golden/e2e/NAME`.
pub fn e2e(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|dir| dir.join("tests/golden").is_dir()).expect("inside the repository");
    root.join("tests/golden/e2e").join(name)
}

/// A safetensors file of f32 and i64 tensors.
pub struct Fixtures(Vec<u8>);

impl Fixtures {
    pub fn read(path: PathBuf) -> Self {
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).data().to_vec();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).is_ok()
    }

    pub fn i64(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        let values = tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
        (tensor.shape().to_vec(), values)
    }

    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(String::from).collect()
    }

    /// Token ids and labels `[rows, len]`, as transformers takes them.
    pub fn batch(&self, ids: &str, labels: &str) -> Batch {
        let (shape, ids) = self.i64(ids);
        let (_, labels) = self.i64(labels);
        batch(shape[0], shape[1], &ids, &labels)
    }

    /// Batch `k` of `train.*`, `[batches, rows, len]`.
    pub fn train_batch(&self, k: usize) -> Batch {
        let (shape, ids) = self.i64("train.input_ids");
        let (_, labels) = self.i64("train.labels");
        let size = shape[1] * shape[2];
        batch(shape[1], shape[2], &ids[k * size..(k + 1) * size], &labels[k * size..(k + 1) * size])
    }
}

/// Labels are shifted inside: position i predicts label i + 1.
fn batch(rows: usize, len: usize, ids: &[i64], labels: &[i64]) -> Batch {
    let target = |i: usize| match i % len {
        last if last == len - 1 => IGNORE,
        _ if labels[i + 1] < 0 => IGNORE,
        _ => labels[i + 1] as i32,
    };
    Batch {
        rows,
        len,
        ids: ids.iter().map(|&id| id as i32).collect(),
        targets: (0..rows * len).map(target).collect(),
        segment: vec![1; rows * len],
        position: (0..rows * len).map(|i| (i % len) as i32).collect(),
        ..Batch::default()
    }
}

/// The rows of `a` and then those of `b`, which are as long.
pub fn one_after_the_other(a: &Batch, b: &Batch) -> Batch {
    Batch {
        rows: a.rows + b.rows,
        len: a.len,
        ids: [&a.ids[..], &b.ids].concat(),
        targets: [&a.targets[..], &b.targets].concat(),
        segment: [&a.segment[..], &b.segment].concat(),
        position: [&a.position[..], &b.position].concat(),
        ..Batch::default()
    }
}

pub fn open(name: &str) -> Opened {
    models::open(&e2e(name).join("base").display().to_string(), &PathBuf::from("/")).unwrap()
}

pub fn load(runtime: &dyn Runtime, opened: &Opened, storage: impl Into<BaseStorage>) -> Box<dyn Base> {
    load_for(runtime, opened, storage.into(), None)
}

/// A base for a start with LoftQ, where there is a plan for one.
pub fn load_for(
    runtime: &dyn Runtime,
    opened: &Opened,
    storage: BaseStorage,
    plan: Option<&LoftqPlan>,
) -> Box<dyn Base> {
    let loftq = plan.map(|plan| Loftq { plan, factors: Factors::Keep, progress: |_, _| {} });
    let spec = BaseSpec { config: &opened.config, weights: opened.weights.as_ref(), storage, loftq };
    runtime.load(0, &spec).unwrap()
}

/// The layers that start with LoftQ under `adapter`, if any do.
pub fn loftq(opened: &Opened, adapter: &AdapterConfig) -> Option<LoftqPlan> {
    LoftqPlan::new(adapter, &adapter.select(&Module::list(&opened.config), Origin::Recipe).unwrap())
}

pub fn attach(base: &dyn Base, adapter: &AdapterConfig, seed: u64) -> Box<dyn Learner> {
    base.attach(&AdapterSpec::fresh(adapter, &Optim::default(), seed)).unwrap()
}

pub fn plain(runtime: &dyn Runtime, name: &str) -> Box<dyn Learner> {
    attach(load(runtime, &open(name), BaseDtype::F32).as_ref(), &AdapterConfig::none(), 0)
}

/// Largest absolute difference.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, d| if d.is_nan() { f32::INFINITY } else { max.max(d) })
}

/// Equal to the bit on a CPU. A GPU may add up in another order each time, and what it adds up scales every gradient.
pub fn assert_same(runtime: &dyn Runtime, a: &HostTensors, b: &HostTensors, what: &str) {
    assert!(a.keys().eq(b.keys()), "{what}");
    for (name, tensor) in a {
        match runtime.processor() {
            Processor::Cpu => assert!(tensor.values == b[name].values, "{name}: {what}"),
            Processor::Gpu => assert_close(&tensor.values, &b[name].values, 1e-5, name),
        }
    }
}

#[track_caller]
pub fn assert_close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    let difference = difference(a, b);
    assert!(difference <= tolerance, "{what}: differs by {difference}, tolerance {tolerance}");
}
