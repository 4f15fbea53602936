//! Attention on the CPU: one pass per group of heads, over a few queries at a time and the keys that they see, and nothing
//! kept but q, k and v.

use std::ops::Range;

use rayon::prelude::*;

use crate::attention::{Heads, Positions};
use crate::cpu_heads::Results;
use crate::exp::exp;
use crate::matrix::{Accum, Matrix, multiply};

/// Queries of a head whose scores exist at a time: few, as the last of them decides how many keys all are multiplied with.
const QUERIES: usize = 32;

/// Forward result `[n, heads × d]` of `q`, `k` and `v`; see [`crate::FusedAttention`].
pub(crate) fn forward(qkv: [&[f32]; 3], heads: Heads, at: &Positions) -> Vec<f32> {
    let first = at.first_seen();
    let mut y = Results::new(heads.heads, heads.head_dim, at);
    let results = y.shared();
    groups(heads, at).into_par_iter().for_each(|group| {
        let mut work = Work::new(group, qkv, at, &first);
        let mut y = Vec::new();
        for block in work.blocks() {
            let mut q = work.queries(qkv[0], &block);
            work.rotate_queries(&mut q, &block, Direction::Forward);
            work.softmax_scores(&q, &block);
            y.resize(q.len(), 0.0);
            multiply(&mut y, work.weights(&block), work.keys(&work.v, &block), 1.0, Accum::Replace);
            // SAFETY: the heads and the row are this task's alone.
            unsafe { results.put(work.group.row, work.group.queries(), block.queries, &y) };
        }
    });
    // SAFETY: the groups have all heads and rows, and their blocks all tokens.
    unsafe { y.written() }
}

/// Gradients to `q`, `k` and `v` from the gradient to the result.
pub(crate) fn backward(qkv: [&[f32]; 3], grad: &[f32], heads: Heads, at: &Positions) -> [Vec<f32>; 3] {
    let (first, dim) = (at.first_seen(), heads.head_dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let mut made = [heads.heads, heads.kv_heads, heads.kv_heads].map(|heads| Results::new(heads, dim, at));
    let [dqs, dks, dvs] = made.each_mut().map(Results::shared);
    groups(heads, at).into_par_iter().for_each(|group| {
        let mut work = Work::new(group, qkv, at, &first);
        let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0; at.len * dim]);
        let (mut ds, mut dq) = (Vec::new(), Vec::new());
        for block in work.blocks() {
            let [mut q, g] = [qkv[0], grad].map(|x| work.queries(x, &block));
            work.rotate_queries(&mut q, &block, Direction::Forward);
            work.softmax_scores(&q, &block);
            dq.resize(q.len(), 0.0);
            let [q, g] = [&q, &g].map(|rows| Matrix::new(rows, rows.len() / dim, dim));
            let seen = block.keys.start * dim..block.keys.end * dim;
            multiply(&mut dv[seen.clone()], work.weights(&block).t(), g, 1.0, Accum::Add);
            ds.resize(work.scores.len(), 0.0);
            multiply(&mut ds, g, work.keys(&work.v, &block).t(), 1.0, Accum::Replace);
            work.softmax_backward(&mut ds, &block);
            let ds = Matrix::new(&ds, q.shape()[0], block.keys.len());
            multiply(&mut dk[seen], ds.t(), q, scale, Accum::Add);
            multiply(&mut dq, ds, work.keys(&work.k, &block), scale, Accum::Replace);
            work.rotate_queries(&mut dq, &block, Direction::Back);
            // SAFETY: the heads and the row are this task's alone.
            unsafe { dqs.put(work.group.row, work.group.queries(), block.queries, &dq) };
        }
        work.rotate(&mut dk, 0, Direction::Back);
        for (gradients, made) in [(&dks, &dk), (&dvs, &dv)] {
            // SAFETY: as above.
            unsafe { gradients.put(work.group.row, work.group.kv..work.group.kv + 1, 0..at.len, made) };
        }
    });
    // SAFETY: as in the forward pass.
    made.map(|made| unsafe { made.written() })
}

/// One row of the batch and one key head, with the query heads that share it.
struct Group {
    row: usize,
    kv: usize,
    heads: Heads,
}

fn groups(heads: Heads, at: &Positions) -> Vec<Group> {
    let rows = 0..at.batch;
    rows.flat_map(|row| (0..heads.kv_heads).map(move |kv| Group { row, kv, heads })).collect()
}

impl Group {
    fn queries(&self) -> Range<usize> {
        let share = self.heads.heads / self.heads.kv_heads;
        self.kv * share..(self.kv + 1) * share
    }
}

/// Some queries of each head of a group, and the keys that one of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Back,
}

/// What the heads of one group share.
struct Work<'a> {
    group: Group,
    at: &'a Positions,
    /// First position that each token of the row sees; it never falls.
    first: &'a [usize],
    /// Rotated, `[len, d]`.
    k: Vec<f32>,
    /// `[len, d]`
    v: Vec<f32>,
    /// Scores of one block, then its attention weights, `[heads × queries, keys]`.
    scores: Vec<f32>,
}

impl<'a> Work<'a> {
    fn new(group: Group, [_, k, v]: [&[f32]; 3], at: &'a Positions, first: &'a [usize]) -> Self {
        let first = &first[group.row * at.len..][..at.len];
        let mut work = Self { group, at, first, k: Vec::new(), v: Vec::new(), scores: Vec::new() };
        let (kv, kv_heads) = (work.group.kv, work.group.heads.kv_heads);
        let part = |x| work.gather(x, kv_heads, kv..kv + 1, 0..at.len);
        let [mut k, v] = [k, v].map(part);
        work.rotate(&mut k, 0, Direction::Forward);
        (work.k, work.v) = (k, v);
        work
    }

    fn blocks(&self) -> Vec<Block> {
        let block = |start: usize| {
            let end = self.at.len.min(start + QUERIES);
            Block { queries: start..end, keys: self.first[start]..end }
        };
        (0..self.at.len).step_by(QUERIES).map(block).collect()
    }

    /// Tokens `at` of some of the `heads` of `x [n, heads × d]`, one head after the other, `[heads × tokens, d]`.
    fn gather(&self, x: &[f32], heads: usize, some: Range<usize>, at: Range<usize>) -> Vec<f32> {
        let dim = self.group.heads.head_dim;
        let mut values = Vec::with_capacity(some.len() * at.len() * dim);
        for head in some {
            for token in at.clone() {
                let token = &x[(self.group.row * self.at.len + token) * heads * dim..];
                values.extend_from_slice(&token[head * dim..(head + 1) * dim]);
            }
        }
        values
    }

    /// The block's rows of the group's query heads in `x [n, heads × d]`.
    fn queries(&self, x: &[f32], block: &Block) -> Vec<f32> {
        self.gather(x, self.group.heads.heads, self.group.queries(), block.queries.clone())
    }

    /// Rotates such rows.
    fn rotate_queries(&self, rows: &mut [f32], block: &Block, direction: Direction) {
        for rows in rows.chunks_exact_mut(block.queries.len() * self.group.heads.head_dim) {
            self.rotate(rows, block.queries.start, direction);
        }
    }

    /// The rows of `x [len, d]` that the block sees.
    fn keys<'x>(&self, x: &'x [f32], block: &Block) -> Matrix<'x> {
        Matrix::new(x, self.at.len, self.group.heads.head_dim).some_rows(block.keys.clone())
    }

    /// Rotates the rows of one head, the first of which is token `start`, by their positions, or back.
    fn rotate(&self, x: &mut [f32], start: usize, direction: Direction) {
        let (dim, half) = (self.group.heads.head_dim, self.group.heads.head_dim / 2);
        let angles = (self.group.row * self.at.len + start) * half..;
        let sign = match direction {
            Direction::Forward => 1.0,
            Direction::Back => -1.0,
        };
        let (cos, sin) = (&self.at.cos[angles.clone()], &self.at.sin[angles]);
        for ((row, cos), sin) in x.chunks_exact_mut(dim).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half)) {
            let (a, b) = row.split_at_mut(half);
            for i in 0..half {
                let (x, y, s) = (a[i], b[i], sign * sin[i]);
                (a[i], b[i]) = (x * cos[i] - y * s, y * cos[i] + x * s);
            }
        }
    }

    /// Which of the block's keys the query in a row of its scores sees.
    fn seen(&self, row: usize, block: &Block) -> Range<usize> {
        let query = block.queries.start + row % block.queries.len();
        self.first[query] - block.keys.start..query + 1 - block.keys.start
    }

    /// Leaves the attention weights of the rows of `q` in `scores`.
    fn softmax_scores(&mut self, q: &[f32], block: &Block) {
        let (dim, keys) = (self.group.heads.head_dim, block.keys.len());
        let q = Matrix::new(q, q.len() / dim, dim);
        let mut scores = std::mem::take(&mut self.scores);
        scores.resize(q.shape()[0] * keys, 0.0);
        multiply(&mut scores, q, self.keys(&self.k, block).t(), 1.0 / (dim as f32).sqrt(), Accum::Replace);
        for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
            let seen = self.seen(i, block);
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            let row = &mut row[seen];
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|score| *score -= highest);
            exp(row);
            let norm = 1.0 / row.iter().sum::<f32>();
            row.iter_mut().for_each(|weight| *weight *= norm);
        }
        self.scores = scores;
    }

    fn weights(&self, block: &Block) -> Matrix<'_> {
        let keys = block.keys.len();
        Matrix::new(&self.scores, self.scores.len() / keys, keys)
    }

    /// From the gradient to the weights to the gradient to the scores, in place.
    fn softmax_backward(&self, grad: &mut [f32], block: &Block) {
        let keys = block.keys.len();
        for (i, (grad, weights)) in grad.chunks_exact_mut(keys).zip(self.scores.chunks_exact(keys)).enumerate() {
            let seen = self.seen(i, block);
            grad[..seen.start].fill(0.0);
            grad[seen.end..].fill(0.0);
            let (grad, weights) = (&mut grad[seen.clone()], &weights[seen]);
            let dot: f32 = grad.iter().zip(weights).map(|(g, w)| g * w).sum();
            grad.iter_mut().zip(weights).for_each(|(g, w)| *g = w * (*g - dot));
        }
    }
}
