//! Results of attention, written by many tasks, each at heads of its own.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::attention::Positions;

/// `[batch × len, heads × d]`
pub(crate) struct Results {
    values: Box<[MaybeUninit<f32>]>,
    heads: usize,
    dim: usize,
    len: usize,
}

/// The same in the hands of many.
pub(crate) struct Shared<'a> {
    first: *mut f32,
    size: usize,
    heads: usize,
    dim: usize,
    len: usize,
    results: PhantomData<&'a mut [f32]>,
}

// SAFETY: `put` writes alone, and its callers vouch for what they write.
unsafe impl Sync for Shared<'_> {}

impl Results {
    pub fn new(heads: usize, dim: usize, at: &Positions) -> Self {
        let values = Box::new_uninit_slice(at.batch * at.len * heads * dim);
        Self { values, heads, dim, len: at.len }
    }

    pub fn shared(&mut self) -> Shared<'_> {
        let Self { heads, dim, len, .. } = *self;
        let (first, size) = (self.values.as_mut_ptr().cast(), self.values.len());
        Shared { first, size, heads, dim, len, results: PhantomData }
    }

    /// # Safety
    /// All heads of all tokens of all rows must have been put.
    pub unsafe fn written(self) -> Vec<f32> {
        // SAFETY: as the caller vouches.
        unsafe { self.values.assume_init() }.into_vec()
    }
}

impl Shared<'_> {
    /// Puts `values [heads × tokens, d]`, one head after the other, in their places in batch row `row`.
    ///
    /// # Safety
    /// Nobody else may have these tokens of these heads and this row at the same time.
    pub unsafe fn put(&self, row: usize, heads: Range<usize>, tokens: Range<usize>, values: &[f32]) {
        let (dim, count) = (self.dim, tokens.len());
        assert!(heads.end <= self.heads && tokens.end <= self.len && values.len() == heads.len() * count * dim);
        for (i, value) in values.chunks_exact(dim).enumerate() {
            let (head, token) = (heads.start + i / count, row * self.len + tokens.start + i % count);
            let start = (token * self.heads + head) * dim;
            assert!(start + dim <= self.size);
            // SAFETY: the place is there, and the caller's alone.
            unsafe { self.first.add(start).copy_from_nonoverlapping(value.as_ptr(), dim) }
        }
    }
}
