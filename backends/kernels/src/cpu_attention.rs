//! Attention on the CPU: one pass per group of heads, scores of one head at a time, nothing kept but q, k and v.

use rayon::prelude::*;

use crate::attention::{Heads, Positions};
use crate::exp::exp;
use crate::matrix::{Matrix, multiply};

/// Forward result `[n, heads × d]` of `q`, `k` and `v`; see [`crate::FusedAttention`].
pub(crate) fn forward(qkv: [&[f32]; 3], heads: Heads, at: &Positions) -> Vec<f32> {
    let first = at.first_seen();
    let made = groups(heads, at)
        .into_par_iter()
        .map(|group| {
            let mut work = Work::new(&group, qkv, at);
            let of_head = |head| {
                let q = work.rotated(qkv[0], heads.heads, head);
                work.softmax_scores(&q, &first);
                let mut y = vec![0.0; at.len * heads.head_dim];
                multiply(&mut y, work.weights(), work.v.view(), 1.0, 0.0);
                y
            };
            group.queries().map(of_head).collect()
        })
        .collect();
    assemble(&flat(made), heads.heads, heads.head_dim, at)
}

/// Gradients to `q`, `k` and `v` from the gradient to the result.
pub(crate) fn backward(qkv: [&[f32]; 3], grad: &[f32], heads: Heads, at: &Positions) -> [Vec<f32>; 3] {
    let (first, dim) = (at.first_seen(), heads.head_dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let made: Vec<_> = groups(heads, at)
        .into_par_iter()
        .map(|group| {
            let mut work = Work::new(&group, qkv, at);
            let size = at.len * dim;
            let (mut dk, mut dv) = (vec![0.0; size], vec![0.0; size]);
            let mut ds = vec![0.0; at.len * at.len];
            let mut dqs = Vec::new();
            for head in group.queries() {
                let q = work.rotated(qkv[0], heads.heads, head);
                work.softmax_scores(&q, &first);
                let g = gather(grad, at.len, group.row, head, heads.heads, dim);
                multiply(&mut dv, work.weights().t(), g.view(), 1.0, 1.0);
                multiply(&mut ds, g.view(), work.v.view().t(), 1.0, 0.0);
                work.softmax_backward(&mut ds, &first);
                let ds = Matrix::new(&ds, at.len, at.len);
                multiply(&mut dk, ds.t(), q.view(), scale, 1.0);
                let mut dq = vec![0.0; size];
                multiply(&mut dq, ds, work.k.view(), scale, 0.0);
                work.rotate(&mut dq, -1.0);
                dqs.push(dq);
            }
            work.rotate(&mut dk, -1.0);
            (dqs, (dk, dv))
        })
        .collect();
    let (dq, (dk, dv)): (Vec<_>, (Vec<_>, Vec<_>)) = made.into_iter().unzip();
    [(flat(dq), heads.heads), (dk, heads.kv_heads), (dv, heads.kv_heads)]
        .map(|(parts, heads)| assemble(&parts, heads, dim, at))
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
    fn queries(&self) -> std::ops::Range<usize> {
        let share = self.heads.heads / self.heads.kv_heads;
        self.kv * share..(self.kv + 1) * share
    }
}

/// `[len, d]` of one head, contiguous.
struct Head {
    values: Vec<f32>,
    len: usize,
    dim: usize,
}

impl Head {
    fn view(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.len, self.dim)
    }
}

/// What the heads of one group share.
struct Work<'a> {
    row: usize,
    at: &'a Positions,
    k: Head,
    v: Head,
    /// Scores of one head, then its attention weights, `[len, len]`.
    scores: Vec<f32>,
}

impl<'a> Work<'a> {
    fn new(group: &Group, [_, k, v]: [&[f32]; 3], at: &'a Positions) -> Self {
        let Heads { kv_heads, head_dim, .. } = group.heads;
        let part = |x| gather(x, at.len, group.row, group.kv, kv_heads, head_dim);
        let mut work = Self { row: group.row, at, k: part(k), v: part(v), scores: vec![0.0; at.len * at.len] };
        let mut k = std::mem::take(&mut work.k.values);
        work.rotate(&mut k, 1.0);
        work.k.values = k;
        work
    }

    fn rotated(&self, x: &[f32], heads: usize, head: usize) -> Head {
        let mut x = gather(x, self.at.len, self.row, head, heads, self.k.dim);
        self.rotate(&mut x.values, 1.0);
        x
    }

    /// Rotates the rows of one head by their positions, or back with `direction` -1.
    fn rotate(&self, x: &mut [f32], direction: f32) {
        let (dim, half) = (self.k.dim, self.k.dim / 2);
        let angles = self.row * self.at.len * half..;
        let (cos, sin) = (&self.at.cos[angles.clone()], &self.at.sin[angles]);
        for ((row, cos), sin) in x.chunks_exact_mut(dim).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half)) {
            let (a, b) = row.split_at_mut(half);
            for i in 0..half {
                let (x, y, s) = (a[i], b[i], direction * sin[i]);
                (a[i], b[i]) = (x * cos[i] - y * s, y * cos[i] + x * s);
            }
        }
    }

    fn seen(&self, first: &[usize], i: usize) -> std::ops::Range<usize> {
        first[self.row * self.at.len + i]..i + 1
    }

    /// Leaves the attention weights of `q` in `scores`.
    fn softmax_scores(&mut self, q: &Head, first: &[usize]) {
        let (len, scale) = (self.at.len, 1.0 / (self.k.dim as f32).sqrt());
        multiply(&mut self.scores, q.view(), self.k.view().t(), scale, 0.0);
        for i in 0..len {
            let seen = self.seen(first, i);
            let row = &mut self.scores[i * len..(i + 1) * len];
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            let row = &mut row[seen];
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|score| *score -= highest);
            exp(row);
            let norm = 1.0 / row.iter().sum::<f32>();
            row.iter_mut().for_each(|weight| *weight *= norm);
        }
    }

    fn weights(&self) -> Matrix<'_> {
        Matrix::new(&self.scores, self.at.len, self.at.len)
    }

    /// From the gradient to the weights to the gradient to the scores, in place.
    fn softmax_backward(&self, grad: &mut [f32], first: &[usize]) {
        let len = self.at.len;
        for (i, (grad, weights)) in grad.chunks_exact_mut(len).zip(self.scores.chunks_exact(len)).enumerate() {
            let seen = self.seen(first, i);
            grad[..seen.start].fill(0.0);
            grad[seen.end..].fill(0.0);
            let (grad, weights) = (&mut grad[seen.clone()], &weights[seen]);
            let dot: f32 = grad.iter().zip(weights).map(|(g, w)| g * w).sum();
            grad.iter_mut().zip(weights).for_each(|(g, w)| *g = w * (*g - dot));
        }
    }
}

/// Head `head` of `heads` in batch row `row` of `x [batch × len, heads × d]`.
fn gather(x: &[f32], len: usize, row: usize, head: usize, heads: usize, dim: usize) -> Head {
    let mut values = Vec::with_capacity(len * dim);
    for token in x[row * len * heads * dim..].chunks_exact(heads * dim).take(len) {
        values.extend_from_slice(&token[head * dim..(head + 1) * dim]);
    }
    Head { values, len, dim }
}

fn flat(made: Vec<Vec<Vec<f32>>>) -> Vec<Vec<f32>> {
    made.into_iter().flatten().collect()
}

/// `[batch × len, heads × d]` of what was made for each head of each row, `[len, d]`, in their order.
fn assemble(parts: &[Vec<f32>], heads: usize, dim: usize, at: &Positions) -> Vec<f32> {
    /// For one task.
    const TOKENS: usize = 32;
    let width = heads * dim;
    let mut x = Box::new_uninit_slice(at.batch * at.len * width);
    x.par_chunks_mut(TOKENS * width).enumerate().for_each(|(block, tokens)| {
        for (n, token) in (block * TOKENS..).zip(tokens.chunks_exact_mut(width)) {
            let (row, i) = (n / at.len, n % at.len);
            for (head, part) in token.chunks_exact_mut(dim).zip(&parts[row * heads..]) {
                head.write_copy_of_slice(&part[i * dim..][..dim]);
            }
        }
    });
    // SAFETY: each token has been written, head by head.
    unsafe { x.assume_init() }.into_vec()
}
