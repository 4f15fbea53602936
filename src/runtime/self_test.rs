//! A device tries what training needs of it; sums on the host say whether it is right.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::four_bit::Quantised;
use lowrank_kernels::{LowRankBackend, bf16, splitmix};

use super::learner::to_host;
use crate::nn::Storage;
use crate::recipe::{BaseDtype, BaseStorage, Blocks, Quant};
use crate::{Error, Result};

/// How long products are timed.
const BUDGET: Duration = Duration::from_millis(800);
/// Rows of the square matrices that are multiplied, at least and at most: the largest three take 192 MiB.
const SIZES: [usize; 2] = [256, 4096];
/// Errors allowed, in root mean squares of what is expected. Sums in another order stay far below it, and so do
/// tensor cores that round f32 to 10 bits; a wrong index does not.
const TOLERANCE: f64 = 5e-3;

/// What a device that works did in about a second.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SelfTest {
    /// Milliseconds that first calls took longer than the same ones later: waking the device and compiling kernels.
    pub first_use_ms: f64,
    pub matmul: Matmul,
    pub frozen: Vec<Frozen>,
}

/// f32 products of square matrices, one after the other.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Matmul {
    /// Rows and columns.
    pub size: usize,
    pub products: usize,
    /// 1e9 multiplications and additions a second, over all products.
    pub gflops: f64,
    /// Largest error, in root mean squares of what is expected.
    pub error: f64,
}

/// Products with a frozen matrix both ways, and rows of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Frozen {
    /// How the matrix is stored.
    pub storage: &'static str,
    /// Largest error, in root mean squares of what is expected.
    pub error: f64,
}

/// A way to store a frozen matrix, and the values that the host finds in it.
struct Way {
    name: &'static str,
    storage: BaseStorage,
    values: fn(&[f32]) -> Vec<f32>,
}

fn ways() -> [Way; 3] {
    let four_bit = BaseStorage { quant: Some(Quant::Nf4(Blocks::default())), ..BaseStorage::default() };
    [
        Way { name: "f32", storage: BaseDtype::F32.into(), values: <[f32]>::to_vec },
        Way { name: "bf16", storage: BaseDtype::Bf16.into(), values: through_bf16 },
        Way { name: "nf4", storage: four_bit, values: through_nf4 },
    ]
}

fn through_bf16(values: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    bf16::unpack(&bf16::pack(values), 0, &mut out);
    out
}

fn through_nf4(values: &[f32]) -> Vec<f32> {
    Quantised::new(values, Quant::Nf4(Blocks::default()).format()).dequantise()
}

/// Tests `device` in about a second, kernel compilation aside.
///
/// # Errors
/// [`Error::Failed`] if a result is wrong, the device refuses, or its driver panics.
pub(super) fn run<B: LowRankBackend>(device: &B::Device) -> Result<SelfTest> {
    guarded(|| {
        let mut first_use = Duration::ZERO;
        let matmul = matmul::<B>(device, &mut first_use)?;
        let test = |way: &Way| {
            let (start, error) = (Instant::now(), frozen::<B>(device, way)?);
            let first = start.elapsed();
            let start = Instant::now();
            frozen::<B>(device, way)?;
            first_use += first.saturating_sub(start.elapsed());
            Ok(Frozen { storage: way.name, error })
        };
        let frozen = ways().iter().map(test).collect::<Result<_>>()?;
        Ok(SelfTest { first_use_ms: first_use.as_secs_f64() * 1e3, matmul, frozen })
    })
}

/// A driver that panics has failed like any other.
fn guarded<T>(test: impl FnOnce() -> Result<T>) -> Result<T> {
    let said = |panic: Box<dyn Any + Send>| match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => text.to_string(),
        (None, None) => "no reason given".into(),
    };
    catch_unwind(AssertUnwindSafe(test))
        .unwrap_or_else(|panic| Err(Error::Failed(format!("panicked: {}", said(panic)))))
}

/// Sizes double until one product takes a fair part of the time there is; the rest of it goes to that size.
fn matmul<B: Backend>(device: &B::Device, first_use: &mut Duration) -> Result<Matmul> {
    let start = Instant::now();
    let [mut size, largest] = SIZES;
    loop {
        let pair = Pair::<B>::new(size, device);
        let first = pair.time()?;
        let once = pair.time()?;
        *first_use += first.saturating_sub(once);
        if size == largest || once * 8 > BUDGET / 8 {
            let spent = start.elapsed().saturating_sub(*first_use);
            return pair.sustained(BUDGET.saturating_sub(spent));
        }
        size *= 2;
    }
}

/// Two square matrices, on the host and on the device.
struct Pair<B: Backend> {
    size: usize,
    host: [Vec<f32>; 2],
    device: [Tensor<B, 2>; 2],
}

impl<B: Backend> Pair<B> {
    fn new(size: usize, device: &B::Device) -> Self {
        let host = [0, 1].map(|seed| noise(size * size, seed));
        let device = host.each_ref().map(|values| tensor(values, [size, size], device));
        Self { size, host, device }
    }

    fn product(&self) -> Tensor<B, 2> {
        let [a, b] = &self.device;
        a.clone().matmul(b.clone())
    }

    /// One product, from the call until it is there.
    fn time(&self) -> Result<Duration> {
        let start = Instant::now();
        let product = self.product();
        B::sync(&product.device()).map_err(|error| Error::Failed(format!("device: {error:?}")))?;
        Ok(start.elapsed())
    }

    /// Products for about as long as `budget`, one at least; then whether they are right.
    fn sustained(&self, budget: Duration) -> Result<Matmul> {
        let (mut spent, mut products) = (Duration::ZERO, 0);
        while products == 0 || spent < budget {
            spent += self.time()?;
            products += 1;
        }
        let size = self.size;
        let operations = 2.0 * (size as f64).powi(3) * products as f64;
        let error = self.error(&to_host(self.product().reshape([-1]))?);
        checked(&format!("product of f32 matrices [{size}, {size}]"), error)?;
        Ok(Matmul { size, products, gflops: operations / spent.as_secs_f64() / 1e9, error })
    }

    /// Freivalds' check (1977): `C v` against `A (B v)` for random signs v sees every element of C in n² sums.
    fn error(&self, product: &[f32]) -> f64 {
        let signs: Vec<f64> =
            (0..self.size as u64).map(|i| if splitmix::next(i) & 1 == 0 { 1.0 } else { -1.0 }).collect();
        let [a, b] = &self.host;
        error_of(&times(product, &signs), &times(a, &times(b, &signs)))
    }
}

/// Both products with a frozen matrix and some of its rows, against the same on the host; the largest error.
fn frozen<B: LowRankBackend>(device: &B::Device, way: &Way) -> Result<f64> {
    const SHAPE: [usize; 2] = [192, 128];
    const N: usize = 5;
    let [rows, cols] = SHAPE;
    let values = noise(rows * cols, 2);
    let storage = Storage::<B>::new(way.storage, device);
    let weight = match way.storage.quant {
        Some(quant) => storage.four_bit(&Quantised::new(&values, quant.format()), SHAPE),
        None => storage.weight(values.clone(), SHAPE),
    };
    let stored = (way.values)(&values);
    let (x, g, ids) = (noise(N * cols, 3), noise(N * rows, 4), [rows - 1, 0, rows / 2]);
    let column = |j: usize| stored.iter().copied().skip(j).step_by(cols).collect::<Vec<_>>();
    let forward = x.chunks(cols).flat_map(|x| times(&stored, &wide(x))).collect::<Vec<_>>();
    let columns: Vec<f32> = (0..cols).flat_map(column).collect();
    let backward = g.chunks(rows).flat_map(|g| times(&columns, &wide(g))).collect::<Vec<_>>();
    let picked = ids.iter().flat_map(|&id| wide(&stored[id * cols..][..cols])).collect::<Vec<_>>();
    let ids = Tensor::<B, 1, Int>::from_data(TensorData::from(ids.map(|id| id as i32)), device);
    let parts = [
        ("product", weight.matmul(tensor(&x, [N, cols], device)), forward),
        ("transposed product", weight.matmul_transposed(tensor(&g, [N, rows], device)), backward),
        ("rows", weight.rows(ids), picked),
    ];
    let mut worst = 0.0_f64;
    for (what, found, expected) in parts {
        let error = error_of(&wide(&to_host(found.reshape([-1]))?), &expected);
        worst = worst.max(checked(&format!("{what} of a frozen {} matrix", way.name), error)?);
    }
    Ok(worst)
}

fn checked(what: &str, error: f64) -> Result<f64> {
    // A NaN is no error to be proud of either.
    if error <= TOLERANCE {
        Ok(error)
    } else {
        Err(Error::Failed(format!("{what} is wrong, by {error:.1e} of its size")))
    }
}

/// Largest difference, in root mean squares of `expected`; infinite where there is no number.
fn error_of(found: &[f64], expected: &[f64]) -> f64 {
    let size = (expected.iter().map(|value| value * value).sum::<f64>() / expected.len() as f64).sqrt();
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    let worst = differences.fold(0.0, |worst: f64, next| if next.is_nan() { f64::INFINITY } else { worst.max(next) });
    if found.len() == expected.len() { worst / size } else { f64::INFINITY }
}

/// `matrix [rows, cols] · vector [cols]`.
fn times(matrix: &[f32], vector: &[f64]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(vector).map(|(a, b)| f64::from(*a) * b).sum();
    matrix.chunks(vector.len()).map(dot).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn tensor<B: Backend>(values: &[f32], shape: [usize; 2], device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Uniform in -1 to 1.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let draw = |i: u64| (splitmix::next((seed << 40) | i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..len as u64).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::backend::AutodiffBackend;

    use super::*;
    use crate::adapters::fixtures;

    type B = <fixtures::B as AutodiffBackend>::InnerBackend;

    #[test]
    fn a_device_that_works_passes_in_about_a_second() {
        let start = Instant::now();
        let SelfTest { matmul, frozen, first_use_ms } = run::<B>(&Default::default()).unwrap();
        assert!(start.elapsed() < 10 * BUDGET && first_use_ms >= 0.0);
        assert!(matmul.gflops > 0.01 && matmul.products > 0 && matmul.error < 1e-4, "{matmul:?}");
        assert_eq!(frozen.iter().map(|test| test.storage).collect::<Vec<_>>(), ["f32", "bf16", "nf4"]);
        assert!(frozen.iter().all(|test| test.error < 1e-4), "{frozen:?}");
    }

    #[test]
    fn one_wrong_element_among_many_is_seen() {
        let pair = Pair::<B>::new(256, &Default::default());
        let mut product = to_host(pair.product().reshape([-1])).unwrap();
        assert!(pair.error(&product) < 1e-5);
        for spoilt in [product[777] + 5.0, f32::NAN] {
            product[777] = spoilt;
            assert!(checked("product", pair.error(&product)).is_err());
        }
        assert!(pair.error(&product[256..]).is_infinite());
    }

    /// What a kernel that decodes wrongly would be found out by.
    #[test]
    fn other_values_than_the_stored_ones_are_seen() {
        for way in ways().into_iter().filter(|way| way.name == "nf4") {
            let error = frozen::<B>(&Default::default(), &Way { values: <[f32]>::to_vec, ..way }).unwrap_err();
            assert!(error.to_string().contains("product of a frozen nf4 matrix is wrong"), "{error}");
        }
    }

    #[test]
    fn a_panic_is_a_failure_with_its_reason() {
        let told = guarded::<()>(|| panic!("no driver {}", 7)).unwrap_err();
        assert_eq!((told.exit_code(), told.to_string().as_str()), (1, "panicked: no driver 7"));
    }
}
