//! Two stacks over one tensor of tokens, all rows of an encoder before those of a decoder. Self-attention tells distances by a
//! learned table (Raffel et al. 2020, section 2.1); scores are not scaled.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::{LowRankBackend, TrainBackend, attend, join_heads, split_heads};

use super::Embedding;
use super::layout::{HIDDEN, LayerCache};
use crate::data::Batch;

/// Which of two stacks a layer is of, or tokens are of. Models with one stack have the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    #[default]
    Encoder,
    Decoder,
}

/// How the layers of one stack tell distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub stack: Stack,
    /// Rows of the table.
    pub count: usize,
    /// Where the last bucket begins.
    pub max_distance: usize,
}

impl Buckets {
    /// Row of the table for a key that is `distance` positions after its query: one each for half of them, wider ones, in steps of
    /// the logarithm, for what is further away. An encoder has half of all for keys that come after.
    pub fn of(self, distance: i32) -> i32 {
        let (count, first, far) = match self.stack {
            Stack::Encoder if distance > 0 => (self.count / 2, self.count / 2, distance),
            Stack::Encoder => (self.count / 2, 0, -distance),
            Stack::Decoder => (self.count, 0, (-distance).max(0)),
        };
        let (exact, far) = (count / 2, far as usize);
        if far < exact {
            return (first + far) as i32;
        }
        // In f32, as the reference rounds.
        let whole = (self.max_distance as f64 / exact as f64).ln() as f32;
        let beyond = (far as f32 / exact as f32).ln() / whole * (count - exact) as f32;
        (first + (exact + beyond as usize).min(count - 1)) as i32
    }

    /// Of every query at `queries` and key before `keys`, `[queries × keys]`; none where there are no queries.
    fn table<B: Backend>(
        self,
        queries: std::ops::Range<usize>,
        keys: usize,
        device: &B::Device,
    ) -> Option<Tensor<B, 1, Int>> {
        let of = |query: usize| (0..keys).map(move |key| self.of(key as i32 - query as i32));
        let all: Vec<i32> = queries.flat_map(of).collect();
        (!all.is_empty()).then(|| Tensor::from_data(TensorData::from(&all[..]), device))
    }
}

/// What the layers of one stack see of a batch, or of new tokens.
#[derive(Clone, Debug)]
pub struct StackView<B: Backend> {
    stack: Stack,
    rows: usize,
    /// Of each row, those of the encoder and those of the decoder.
    tokens: [usize; 2],
    /// Of each own query and key; none where the stack has no tokens.
    buckets: Option<Tensor<B, 1, Int>>,
    /// Added to the scores of own tokens, broadcast to `[rows, heads, queries, keys]`.
    own: Option<Tensor<B, 4>>,
    /// Added to the scores of the encoder's tokens, `[rows, 1, 1, keys]`.
    source: Option<Tensor<B, 4>>,
}

impl<B: Backend> StackView<B> {
    pub fn of_batch(buckets: Buckets, batch: &Batch, device: &B::Device) -> Self {
        let tokens = [batch.len, batch.decoder.as_ref().map_or(0, |decoder| decoder.len)];
        let own = tokens[buckets.stack as usize];
        let padding = padding(batch, device);
        Self {
            stack: buckets.stack,
            rows: batch.rows,
            tokens,
            buckets: buckets.table(0..own, own, device),
            own: match buckets.stack {
                Stack::Encoder => padding.clone(),
                Stack::Decoder => later(own, device),
            },
            source: padding,
        }
    }

    /// Of one row without padding: `source` tokens of the encoder, and one of the decoder after `before`.
    pub fn of_new(buckets: Buckets, source: usize, before: usize, device: &B::Device) -> Self {
        let table = match buckets.stack {
            Stack::Encoder => buckets.table(0..source, source, device),
            Stack::Decoder => buckets.table(before..before + 1, before + 1, device),
        };
        Self { stack: buckets.stack, rows: 1, tokens: [source, 1], buckets: table, own: None, source: None }
    }

    /// What a layer's attention works on. An encoder reads all of its tokens at once, and keeps nothing for later ones.
    pub fn at<'a>(&'a self, cache: Option<&'a mut Option<LayerCache<B>>>) -> AtStack<'a, B> {
        AtStack { view: self, cache: cache.filter(|_| self.stack == Stack::Decoder) }
    }

    /// The tokens of one stack, of all.
    pub fn of(&self, stack: Stack, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match (stack, self.tokens.map(|tokens| self.rows * tokens)) {
            (Stack::Encoder, [_, 0]) | (Stack::Decoder, [0, _]) => x,
            (Stack::Encoder, [source, _]) => x.narrow(0, 0, source),
            (Stack::Decoder, [source, target]) => x.narrow(0, source, target),
        }
    }

    /// Maps the stack's own tokens, and leaves the other's; all of them where the stack has none.
    pub fn change(&self, x: Tensor<B, 2>, map: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>) -> Tensor<B, 2> {
        if self.buckets.is_none() {
            return x;
        }
        let own = map(self.of(self.stack, x.clone()));
        match (self.stack, self.tokens) {
            (Stack::Encoder, [_, 0]) | (Stack::Decoder, [0, _]) => own,
            (Stack::Encoder, _) => Tensor::cat(vec![own, self.of(Stack::Decoder, x)], 0),
            (Stack::Decoder, _) => Tensor::cat(vec![self.of(Stack::Encoder, x), own], 0),
        }
    }
}

/// What hides the encoder's padding from every query, where there is any.
fn padding<B: Backend>(batch: &Batch, device: &B::Device) -> Option<Tensor<B, 4>> {
    let hidden = |&segment: &i32| if segment == 0 { HIDDEN } else { 0.0 };
    let mask: Vec<f32> = batch.segment.iter().map(hidden).collect();
    let data = TensorData::new(mask, [batch.rows, 1, 1, batch.len]);
    batch.segment.contains(&0).then(|| Tensor::from_data(data, device))
}

/// What hides tokens from those before them, where there are several. Padding comes after all others, and needs no more.
fn later<B: Backend>(len: usize, device: &B::Device) -> Option<Tensor<B, 4>> {
    let row = |query: usize| (0..len).map(move |key| if key > query { HIDDEN } else { 0.0 });
    let mask: Vec<f32> = (0..len).flat_map(row).collect();
    (len > 1).then(|| Tensor::from_data(TensorData::new(mask, [1, 1, len, len]), device))
}

impl<B: TrainBackend> StackView<B> {
    /// The same for the backend that is differentiated.
    pub fn inner(&self) -> StackView<B::InnerBackend> {
        let inner = |mask: &Option<Tensor<B, 4>>| mask.clone().map(Tensor::inner);
        StackView {
            stack: self.stack,
            rows: self.rows,
            tokens: self.tokens,
            buckets: self.buckets.clone().map(Tensor::inner),
            own: inner(&self.own),
            source: inner(&self.source),
        }
    }
}

/// What the attention of one layer of a stack works on.
#[derive(Debug)]
pub struct AtStack<'a, B: Backend> {
    pub view: &'a StackView<B>,
    /// Of a decoder that reads one new token.
    cache: Option<&'a mut Option<LayerCache<B>>>,
}

impl<B: LowRankBackend> AtStack<'_, B> {
    /// Attention among the stack's own tokens: `q`, `k` and `v [n, heads × d]` to `[n, heads × d]`. `table [buckets, heads]` is
    /// added to the scores.
    pub fn own(&mut self, qkv: [Tensor<B, 2>; 3], heads: usize, table: Option<&Embedding<B>>) -> Tensor<B, 2> {
        let shape = self.shape(self.view.stack);
        let [q, mut k, mut v] = qkv.map(|x| split_heads(x, shape, heads));
        if let Some(cache) = &mut self.cache {
            let (old, source) = cache.take().map_or((None, None), |old| (Some([old.keys, old.values]), old.source));
            if let Some([keys, values]) = old {
                (k, v) = (Tensor::cat(vec![keys, k], 2), Tensor::cat(vec![values, v], 2));
            }
            **cache = Some(LayerCache { keys: k.clone(), values: v.clone(), source });
        }
        let biases = table.and_then(|table| self.biases(table, [q.dims()[2], k.dims()[2]]));
        let mask = match (biases, self.view.own.clone()) {
            (Some(biases), Some(mask)) => Some(biases + mask),
            (biases, mask) => biases.or(mask),
        };
        unscaled(q, k, v, mask.as_ref())
    }

    /// Attention of own queries `[n, heads × d]` to the encoder's tokens, whose keys and values `read` computes where no cache has
    /// them.
    pub fn source(&mut self, q: Tensor<B, 2>, heads: usize, read: impl FnOnce() -> [Tensor<B, 2>; 2]) -> Tensor<B, 2> {
        let q = split_heads(q, self.shape(self.view.stack), heads);
        let shape = self.shape(Stack::Encoder);
        let mut cached = self.cache.as_mut().and_then(|cache| cache.as_mut());
        let [k, v] = match cached.as_ref().and_then(|cache| cache.source.clone()) {
            Some(source) => source,
            None => read().map(|x| split_heads(x, shape, heads)),
        };
        if let Some(cache) = &mut cached {
            cache.source = Some([k.clone(), v.clone()]);
        }
        unscaled(q, k, v, self.view.source.as_ref())
    }

    fn shape(&self, stack: Stack) -> [usize; 2] {
        [self.view.rows, self.view.tokens[stack as usize]]
    }

    /// What the table says about each query and key, `[1, heads, queries, keys]`.
    fn biases(&self, table: &Embedding<B>, [queries, keys]: [usize; 2]) -> Option<Tensor<B, 4>> {
        let rows = table.forward(self.view.buckets.clone()?);
        let heads = rows.dims()[1];
        Some(rows.transpose().reshape([1, heads, queries, keys]))
    }
}

/// [`attend`] without its scale.
fn unscaled<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Option<&Tensor<B, 4>>,
) -> Tensor<B, 2> {
    let scale = (q.dims()[3] as f64).sqrt();
    join_heads(attend(q.mul_scalar(scale), k, v, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of transformers, for distances from -200 to 200.
    #[test]
    fn buckets_grow_with_the_logarithm() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tasks/t5/seq2seq_relu_tied");
        let bytes = std::fs::read(format!("{dir}/fixtures.safetensors")).unwrap();
        let fixtures = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (count, max_distance) in [(8, 12), (32, 128), (16, 20)] {
            for (stack, name) in [(Stack::Encoder, "bidirectional"), (Stack::Decoder, "causal")] {
                let expected = fixtures.tensor(&format!("buckets.{count}.{max_distance}.{name}")).unwrap();
                let buckets = Buckets { stack, count, max_distance };
                for (distance, bucket) in (-200..=200).zip(expected.data().chunks_exact(8)) {
                    let bucket = i64::from_le_bytes(bucket.try_into().unwrap());
                    assert_eq!(i64::from(buckets.of(distance)), bucket, "{count} {max_distance} {name} {distance}");
                }
            }
        }
    }
}
