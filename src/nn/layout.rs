//! Where the tokens of a forward pass stand, and what each layer sees of them.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use lowrank_kernels::{
    AttentionLayout, Heads, LowRankBackend, PositionTensors, Positions, TrainBackend, attend, join_heads, split_heads,
};

use super::rotary_tables;
use super::stack::{AtStack, Buckets, StackView};
use crate::data::Batch;
use crate::models::families::Place;

/// How the attention of some layers sees other tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub direction: Direction,
    /// Rotation of each pair of a head's dimensions per position, in radians, `[head_dim / 2]`; zeros rotate nothing.
    pub frequencies: Vec<f32>,
    /// The last tokens that are seen, the token itself included; all where there is none.
    pub window: Option<usize>,
    /// What each head takes off its scores per position of distance, `[heads]` (ALiBi, Press et al. 2021); empty for rotary views.
    pub slopes: Vec<f32>,
    /// Of a stack of two, which has nothing of the above.
    pub stack: Option<Buckets>,
}

/// Which tokens of its own text a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Itself and those before it.
    Back,
    /// All, as encoders do. Nothing is rotated then, nor is there a window.
    Both,
}

impl View {
    /// Everything before is seen, and nothing rotated.
    pub fn plain(head_dim: usize) -> Self {
        Self::rotary(vec![0.0; head_dim / 2])
    }

    /// Everything before is seen.
    pub fn rotary(frequencies: Vec<f32>) -> Self {
        Self { direction: Direction::Back, frequencies, window: None, slopes: Vec::new(), stack: None }
    }

    /// Everything is seen, before and after, and nothing rotated.
    pub fn both() -> Self {
        Self { direction: Direction::Both, ..Self::plain(0) }
    }

    /// The tokens of one stack see each other, those of a decoder what comes before, and all of the encoder.
    pub fn stack(buckets: Buckets) -> Self {
        Self { stack: Some(buckets), ..Self::plain(0) }
    }

    fn positions(&self, position: &[i32], segment: Vec<i32>, [batch, len]: [usize; 2]) -> Positions {
        let (cos, sin) = rotary_tables(position, &self.frequencies);
        Positions { batch, len, cos, sin, segment, window: self.window }
    }
}

/// The views of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Views {
    pub kinds: Vec<View>,
    /// Index into `kinds`, for each layer.
    pub of_layer: Vec<usize>,
}

impl Views {
    /// All layers see alike.
    pub fn alike(view: View, layers: usize) -> Self {
        Self { kinds: vec![view], of_layer: vec![0; layers] }
    }
}

/// Shape, rotations and visibility of one batch.
#[derive(Clone, Debug)]
pub struct Layout<B: Backend> {
    views: Vec<Seen<B>>,
    of_layer: Vec<usize>,
    /// `[rows × len]`
    position: Vec<i32>,
    /// The same, or empty.
    token_type: Vec<i32>,
}

/// One view of one batch.
#[derive(Clone, Debug)]
pub enum Seen<B: Backend> {
    Rotary(AttentionLayout<B>),
    /// What is added to the scores, `[rows, heads, len, len]`; one head where it is the same for all.
    Biased(Tensor<B, 4>),
    Stack(StackView<B>),
}

impl<B: LowRankBackend> Layout<B> {
    pub fn new(batch: &Batch, views: &Views, device: &B::Device) -> Self {
        let view = |view: &View| {
            if view.direction == Direction::Both {
                return Seen::Biased(segments(batch, device));
            }
            if let Some(buckets) = view.stack {
                return Seen::Stack(StackView::of_batch(buckets, batch, device));
            }
            let positions = view.positions(&batch.position, batch.segment.clone(), [batch.rows, batch.len]);
            match view.slopes[..] {
                [] => Seen::Rotary(AttentionLayout::new(positions, device)),
                ref slopes => Seen::Biased(biases(&positions, &batch.position, slopes, device)),
            }
        };
        Self {
            views: views.kinds.iter().map(view).collect(),
            of_layer: views.of_layer.clone(),
            position: batch.position.clone(),
            token_type: batch.token_type.clone(),
        }
    }

    /// Where the tokens stand.
    pub fn place(&self) -> Place<'_> {
        Place { position: &self.position, token_type: &self.token_type }
    }

    pub fn layers(&self) -> usize {
        self.of_layer.len()
    }

    pub fn at(&self, layer: usize) -> At<'_, B> {
        At::Batch(&self.views[self.of_layer[layer]])
    }
}

impl<B: TrainBackend> Layout<B> {
    /// The same for the backend that is differentiated.
    pub fn inner(&self) -> Layout<B::InnerBackend> {
        Layout {
            views: self.views.iter().map(Seen::inner).collect(),
            of_layer: self.of_layer.clone(),
            position: self.position.clone(),
            token_type: self.token_type.clone(),
        }
    }
}

impl<B: TrainBackend> Seen<B> {
    fn inner(&self) -> Seen<B::InnerBackend> {
        match self {
            Seen::Rotary(layout) => Seen::Rotary(layout.inner()),
            Seen::Biased(biases) => Seen::Biased(biases.clone().inner()),
            Seen::Stack(view) => Seen::Stack(view.inner()),
        }
    }
}

/// The penalty on distance, and what hides tokens from others. As all scores of a token may be shifted alike, the key's
/// position alone will do.
fn biases<B: Backend>(at: &Positions, position: &[i32], slopes: &[f32], device: &B::Device) -> Tensor<B, 4> {
    let (len, heads, first) = (at.len, slopes.len(), at.first_seen());
    let mut values = vec![HIDDEN; at.batch * heads * len * len];
    for (i, row) in values.chunks_exact_mut(len).enumerate() {
        let (query, slope) = (i / (heads * len) * len + i % len, slopes[i / len % heads]);
        let keys = first[query]..=query % len;
        let start = query - query % len;
        keys.for_each(|key| row[key] = slope * position[start + key] as f32);
    }
    Tensor::from_data(TensorData::new(values, [at.batch, heads, len, len]), device)
}

/// What hides tokens from those of other segments, in both directions. Padding is seen by none and sees the texts of its row, as in
/// transformers; where it is all that a row has, it sees itself, so that no scores are all hidden.
fn segments<B: Backend>(batch: &Batch, device: &B::Device) -> Tensor<B, 4> {
    let mut values = Vec::with_capacity(batch.segment.len() * batch.len);
    for row in batch.segment.chunks_exact(batch.len.max(1)) {
        let empty = row.iter().all(|&segment| segment == 0);
        for &query in row {
            let sees = |key: i32| if query == 0 { empty || key != 0 } else { key == query };
            values.extend(row.iter().map(|&key| if sees(key) { 0.0 } else { HIDDEN }));
        }
    }
    Tensor::from_data(TensorData::new(values, [batch.rows, 1, batch.len, batch.len]), device)
}

/// Low enough that its exponential is 0, high enough to stay finite when scores are added.
pub(super) const HIDDEN: f32 = -1e30;

/// Positions of the new tokens of one row, whose earlier ones are in a cache.
#[derive(Clone, Debug)]
pub struct NewTokens<B: Backend> {
    views: Vec<SeenNew<B>>,
    of_layer: Vec<usize>,
    position: Vec<i32>,
}

/// One view of new tokens.
#[derive(Clone, Debug)]
pub enum SeenNew<B: Backend> {
    Row(SeenBefore<B>),
    Stack(StackView<B>),
}

/// What new tokens see of those before.
#[derive(Clone, Debug)]
pub struct SeenBefore<B: Backend> {
    at: PositionTensors<B>,
    window: Option<usize>,
    /// Of ALiBi; what is added to the scores among the new tokens.
    slopes: Vec<f32>,
    biases: Option<Tensor<B, 4>>,
}

/// Keys and values seen so far, `[batch, kv_heads, seen, head_dim]`.
#[derive(Clone, Debug)]
pub struct LayerCache<B: Backend> {
    pub(super) keys: Tensor<B, 4>,
    pub(super) values: Tensor<B, 4>,
    /// Those of an encoder's tokens, where the layer has read them.
    pub(super) source: Option<[Tensor<B, 4>; 2]>,
}

impl<B: Backend> NewTokens<B> {
    /// `len` tokens from position `start` on; of a decoder that goes on, one.
    pub fn new(start: usize, len: usize, views: &Views, device: &B::Device) -> Self {
        Self::after(0, start, len, views, device)
    }

    /// `source` tokens of an encoder and the first of a decoder.
    pub fn pair(source: usize, views: &Views, device: &B::Device) -> Self {
        Self::after(source, 0, 1, views, device)
    }

    fn after(source: usize, start: usize, len: usize, views: &Views, device: &B::Device) -> Self {
        let position: Vec<i32> = (0..source as i32).chain((start as i32..).take(len)).collect();
        let view = |view: &View| {
            if let Some(buckets) = view.stack {
                return SeenNew::Stack(StackView::of_new(buckets, source, start, device));
            }
            let positions = view.positions(&position, vec![1; len], [1, len]);
            let slopes = view.slopes.clone();
            let biases = (!slopes.is_empty()).then(|| biases(&positions, &position, &slopes, device));
            SeenNew::Row(SeenBefore { at: positions.tensors(device), window: view.window, slopes, biases })
        };
        Self { views: views.kinds.iter().map(view).collect(), of_layer: views.of_layer.clone(), position }
    }

    /// Where the tokens stand.
    pub fn place(&self) -> Place<'_> {
        Place { position: &self.position, token_type: &[] }
    }

    pub fn at<'a>(&'a self, layer: usize, cache: &'a mut Option<LayerCache<B>>) -> At<'a, B> {
        At::Cached(&self.views[self.of_layer[layer]], self.position.len(), cache)
    }
}

/// What the attention of one layer works on.
#[derive(Debug)]
pub enum At<'a, B: Backend> {
    /// A whole batch.
    Batch(&'a Seen<B>),
    /// So many new tokens of one row, after those in the cache, which is extended. Several at once are only right where the
    /// cache is empty; a single one sees all of it.
    Cached(&'a SeenNew<B>, usize, &'a mut Option<LayerCache<B>>),
}

impl<'a, B: LowRankBackend> At<'a, B> {
    /// The same for a layer of a stack of two; none in models that have one.
    pub fn stack(self) -> Option<AtStack<'a, B>> {
        match self {
            At::Batch(Seen::Stack(view)) => Some(view.at(None)),
            At::Cached(SeenNew::Stack(view), _, cache) => Some(view.at(Some(cache))),
            _ => None,
        }
    }

    /// `q [n, heads × d]`, `k` and `v [n, kv_heads × d]`, before rotation, to `[n, heads × d]`.
    pub fn attention(self, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>, heads: Heads) -> Tensor<B, 2> {
        match self {
            At::Batch(Seen::Rotary(layout)) => layout.attention(q, k, v, heads),
            At::Batch(Seen::Biased(biases)) => {
                let [batch, _, len, _] = biases.dims();
                let q = split_heads(q, [batch, len], heads.heads);
                let [k, v] = [k, v].map(|x| split_heads(x, [batch, len], heads.kv_heads));
                join_heads(attend(q, k, v, Some(biases)))
            }
            At::Cached(SeenNew::Row(seen), len, cache) => cached([q, k, v], heads, seen, len, cache),
            At::Batch(Seen::Stack(view)) => view.at(None).own([q, k, v], heads.heads, None),
            At::Cached(SeenNew::Stack(view), _, cache) => view.at(Some(cache)).own([q, k, v], heads.heads, None),
        }
    }
}

fn cached<B: Backend>(
    [q, k, v]: [Tensor<B, 2>; 3],
    heads: Heads,
    seen: &SeenBefore<B>,
    len: usize,
    cache: &mut Option<LayerCache<B>>,
) -> Tensor<B, 2> {
    let rotate = |x: Tensor<B, 4>| if seen.slopes.is_empty() { seen.at.rotate(x) } else { x };
    let q = rotate(split_heads(q, [1, len], heads.heads));
    let k = rotate(split_heads(k, [1, len], heads.kv_heads));
    let v = split_heads(v, [1, len], heads.kv_heads);
    let (k, v) = match cache.take() {
        Some(old) => (Tensor::cat(vec![old.keys, k], 2), Tensor::cat(vec![old.values, v], 2)),
        None => (k, v),
    };
    *cache = Some(LayerCache { keys: k.clone(), values: v.clone(), source: None });
    join_heads(match (&seen.biases, len) {
        (None, 1) => {
            let before = k.dims()[2].saturating_sub(seen.window.unwrap_or(usize::MAX));
            let last = |x: Tensor<B, 4>| if before == 0 { x } else { x.slice_dim(2, before..) };
            attend(q, last(k), last(v), None)
        }
        (None, _) => seen.at.attend(q, k, v),
        (Some(_), 1) => {
            let (keys, device) = (k.dims()[2], k.device());
            let biases = seen.slopes.iter().flat_map(|slope| (0..keys).map(move |key| slope * key as f32)).collect();
            let shape = [1, seen.slopes.len(), 1, keys];
            attend(q, k, v, Some(&Tensor::from_data(TensorData::new(biases, shape), &device)))
        }
        (Some(biases), _) => attend(q, k, v, Some(biases)),
    })
}
