//! Pieces of a model that are read, and listed, under the names of their fields.

use lowrank_kernels::LowRankBackend;

use super::super::Site;
use super::super::load::Reader;
use crate::Result;
use crate::nn::{Attention, Embedding, FusedMlp, LayerNorm, Linear, Mlp, RmsNorm};

/// A layer, or several under one name. Shapes and biases come from [`super::Family::modules`].
pub trait Part<B: LowRankBackend>: Sized {
    /// Reads what lies under `path`.
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self>;
    /// Adds the layers with their paths, in forward order.
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>);
}

/// Structs whose fields are parts, under their own names. A field with `= value` is none: `value` computes it from the reader.
macro_rules! parts {
    ($($(#[$meta:meta])* pub struct $name:ident<B> {
        $($(#[$doc:meta])* pub $field:ident: $type:ty $(= $value:expr)?,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(burn::module::Module, Debug)]
        pub struct $name<B: burn::tensor::backend::Backend> {
            $($(#[$doc])* pub $field: $type,)*
        }

        $crate::models::families::parts!(@impl $name { $($field $(= $value)?,)* });
    )*};
    // Of a struct defined elsewhere.
    (@impl $name:ident { $($field:ident $(= $value:expr)?,)* }) => {
        impl<B: lowrank_kernels::LowRankBackend> $crate::models::families::Part<B> for $name<B> {
            fn read(reader: &mut $crate::models::load::Reader<'_, B>, path: &str) -> $crate::Result<Self> {
                Ok(Self { $($field: $crate::models::families::parts!(@read reader path $field $(= $value)?),)* })
            }

            fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, $crate::models::Site<'a, B>)>) {
                $($crate::models::families::parts!(@sites self path found $field $(= $value)?);)*
            }
        }
    };
    (@read $reader:ident $path:ident $field:ident) => {
        $crate::models::families::Part::read(
            $reader, &$crate::models::families::join($path, $crate::models::families::named(stringify!($field))),
        )?
    };
    (@read $reader:ident $path:ident $field:ident = $value:expr) => { $value(&$reader) };
    (@sites $self:ident $path:ident $found:ident $field:ident) => {
        $crate::models::families::Part::sites(
            &mut $self.$field,
            &$crate::models::families::join($path, $crate::models::families::named(stringify!($field))),
            $found,
        )
    };
    (@sites $self:ident $path:ident $found:ident $field:ident = $value:expr) => {};
}
pub(crate) use parts;

/// The checkpoint's name of a field: words that Rust keeps for itself have an underscore behind them.
pub(crate) fn named(field: &str) -> &str {
    field.strip_suffix('_').unwrap_or(field)
}

/// `path.name`, or `name` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

impl<B: LowRankBackend> Part<B> for Linear<B> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        reader.linear(path)
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        found.push((path.into(), Site::Linear(self)));
    }
}

impl<B: LowRankBackend> Part<B> for Embedding<B> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        reader.embedding(path)
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        found.push((path.into(), Site::Embedding(self)));
    }
}

impl<B: LowRankBackend> Part<B> for RmsNorm<B> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        reader.rms_norm(path)
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        found.push((path.into(), Site::Norm(self)));
    }
}

impl<B: LowRankBackend> Part<B> for LayerNorm<B> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        reader.layer_norm(path)
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        found.push((path.into(), Site::LayerNorm(self)));
    }
}

parts!(@impl Attention {
    q_proj,
    k_proj,
    v_proj,
    o_proj,
    q_norm,
    k_norm,
    heads = |reader: &Reader<'_, B>| reader.config.num_attention_heads,
    kv_heads = |reader: &Reader<'_, B>| reader.config.num_key_value_heads,
    head_dim = |reader: &Reader<'_, B>| reader.config.head_dim,
    form = |reader: &Reader<'_, B>| reader.config.architecture.family().attention(),
});

parts!(@impl Mlp {
    gate_proj,
    up_proj,
    down_proj,
    gate = |reader: &Reader<'_, B>| reader.config.architecture.family().gate(),
});

parts!(@impl FusedMlp {
    gate_up_proj,
    down_proj,
    gate = |reader: &Reader<'_, B>| reader.config.architecture.family().gate(),
});

/// Present where the model has a tensor under the name.
impl<B: LowRankBackend, P: Part<B>> Part<B> for Option<P> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        reader.has(path).then(|| P::read(reader, path)).transpose()
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        self.iter_mut().for_each(|part| part.sites(path, found));
    }
}

/// As many as the model has, under their numbers.
impl<B: LowRankBackend, P: Part<B>> Part<B> for Vec<P> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        let mut parts = Vec::new();
        while let Some(part) = Part::read(reader, &format!("{path}.{}", parts.len()))? {
            parts.push(part);
        }
        Ok(parts)
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        self.iter_mut().enumerate().for_each(|(i, part)| part.sites(&format!("{path}.{i}"), found));
    }
}

/// Parts of several kinds, under their places.
macro_rules! tuples {
    ($(($($part:ident $at:tt),*))*) => {$(
        impl<B: LowRankBackend, $($part: Part<B>),*> Part<B> for ($($part,)*) {
            fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
                Ok(($($part::read(reader, &join(path, stringify!($at)))?,)*))
            }
            fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
                $(self.$at.sites(&join(path, stringify!($at)), found);)*
            }
        }
    )*};
}
tuples! { (P 0, Q 1) (P 0, Q 1, R 2) }
