//! Four-bit checkpoints of bitsandbytes: safetensors whose linear weights are codes, scales and tables.
//!
//! A weight `W` is kept as `W` (codes), `W.absmax`, `W.quant_map`, with double quantisation `W.nested_absmax` and
//! `W.nested_quant_map`, and `W.quant_state.bitsandbytes__nf4` or `__fp4`, which says what the others are. Tables are
//! compared with the ones built in, never used; see [`parts`] for what is written and expected.

mod config;
#[cfg(test)]
mod hostile;
mod parts;
mod state;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use lowrank_kernels::four_bit::{Code, Format, Nested, Quantised, ScaleFormat, Scales, dynamic_map};
use safetensors::Dtype;

pub(super) use self::config::Settings;
pub(crate) use self::config::to_json as config_to_json;
pub(crate) use self::parts::{Part, contents, parts, state_name, state_part};
use self::parts::{Role, role};
use self::state::QuantState;
use super::{Safetensors, WeightSource};
use crate::error::InputError;
use crate::{Error, Result};

/// A checkpoint under its logical names: codes are handed out as they are, or dequantised.
pub(super) struct FourBitCheckpoint {
    raw: Safetensors,
    quantised: BTreeMap<String, QuantState>,
}

impl FourBitCheckpoint {
    /// # Errors
    /// If a weight's parts contradict each other, `settings` or what bitsandbytes writes, or if some belong to no weight.
    pub fn new(raw: Safetensors, settings: &Settings) -> Result<Self> {
        let quantised = states(&raw)?;
        let all = Self { raw, quantised };
        for (weight, state) in &all.quantised {
            all.check(weight, state, settings).map_err(|error| error.file(all.raw.path()))?;
        }
        all.refuse_strays()?;
        all.refuse_mixtures()?;
        Ok(all)
    }

    fn check(&self, weight: &str, state: &QuantState, settings: &Settings) -> Result<(), InputError> {
        let Format { code, scales, .. } = state.format;
        let nested = scales == ScaleFormat::Nested;
        if code != settings.code || nested != settings.double {
            let describe = |code: Code, nested| format!("{}{}", code.name(), if nested { ", double" } else { "" });
            let error = InputError::new("quantised differently from what config.json says").tensor(weight);
            let expected = describe(settings.code, settings.double);
            return Err(error.found(describe(code, nested)).expected(expected));
        }
        for part in parts(weight, state.format, state.shape) {
            let found = self.raw.shape(&part.name).map(|shape| (self.raw.dtype(&part.name), shape));
            let expected = (part.dtype.to_string(), part.shape);
            if found.as_ref() != Some(&expected) {
                let error = InputError::new("not what the quant_state asks for").tensor(part.name);
                let text = |(dtype, shape)| format!("{dtype} {shape:?}");
                return Err(error.found(found.map_or("nothing".into(), text)).expected(text(expected)));
            }
        }
        self.check_table(&format!("{weight}.quant_map"), &code.book(), 0.0)?;
        if nested {
            // The map comes from torch's `linspace`, whose last bit differs between processors.
            self.check_table(&format!("{weight}.nested_quant_map"), &dynamic_map(), 1e-6)?;
        }
        Ok(())
    }

    fn check_table(&self, name: &str, known: &[f32], tolerance: f32) -> Result<(), InputError> {
        let found = self.floats(name);
        // Not a number is no number of the table.
        let differs =
            |(found, known): (&f32, &f32)| (found - known).abs().partial_cmp(&tolerance).is_none_or(Ordering::is_gt);
        match found.iter().zip(known).position(differs) {
            None => Ok(()),
            Some(at) => {
                let error = InputError::new("not the table of bitsandbytes").tensor(name);
                Err(error.found(format!("{} at {at}", found[at])).expected(known[at]))
            }
        }
    }

    /// Parts of no weight, and packed weights without a state.
    fn refuse_strays(&self) -> Result<()> {
        let belongs = |name: &str, weight: &str| {
            let expected = self.quantised.get(weight).map(|state| parts(weight, state.format, state.shape));
            expected.is_some_and(|parts| parts.iter().any(|part| part.name == name))
        };
        for name in self.raw.names() {
            let error = match role(&name) {
                Role::State(_) => continue,
                Role::Part(weight) if belongs(&name, weight) => continue,
                Role::Part(_) => InputError::new("belongs to no quantised weight"),
                Role::Int8 => InputError::new("a part of an eight-bit weight (LLM.int8())").expected("nf4 or fp4"),
                Role::Whole if self.quantised.contains_key(&name) => continue,
                Role::Whole if ["U8", "I8"].contains(&self.raw.dtype(&name).as_str()) => {
                    InputError::new("packed, without a quant_state").found(self.raw.dtype(&name))
                }
                Role::Whole => continue,
            };
            return Err(error.file(self.raw.path()).tensor(name).into());
        }
        Ok(())
    }

    /// No weight at all, or weights in blocks of different lengths.
    fn refuse_mixtures(&self) -> Result<()> {
        let error = |what| InputError::new(what).file(self.raw.path());
        let mut states = self.quantised.iter();
        let Some((_, first)) = states.next() else {
            let error = error("config.json has a quantization_config and no tensor is quantised");
            return Err(error.hint("remove the key from a copy of config.json").into());
        };
        match states.find(|(_, state)| state.format != first.format) {
            None => Ok(()),
            Some((weight, state)) => {
                let error = error("blocks of another length than other weights").tensor(weight);
                let length = |state: &QuantState| state.format.block;
                Err(error.found(length(state)).expected(length(first)).into())
            }
        }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (_, bytes) = self.raw.stored(name).unwrap_or((Dtype::F32, &[]));
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.raw.stored(name).map(|(_, bytes)| bytes.to_vec()).unwrap_or_default()
    }

    fn quantised(&self, weight: &str, state: &QuantState) -> Result<Quantised> {
        let Format { code, block, scales } = state.format;
        let absmax = format!("{weight}.absmax");
        let scales = match scales {
            ScaleFormat::F32 => Scales::F32(self.floats(&absmax)),
            ScaleFormat::Nested => Scales::Nested(Nested {
                codes: self.bytes(&absmax),
                scales: self.floats(&format!("{weight}.nested_absmax")),
                offset: state.offset,
            }),
        };
        let len = state.shape.iter().product();
        let quantised = Quantised { code, block, len, bytes: self.bytes(weight), scales };
        let all = quantised.scales();
        let bad = all.iter().filter(|scale| !scale.is_finite()).count();
        if bad > 0 {
            let error = Error::input("scales that are not finite").file(self.raw.path()).tensor(weight);
            return Err(error.found(format!("{bad} of {} NaN or infinite", all.len())).into());
        }
        Ok(quantised)
    }
}

/// The state of every quantised weight, by the weight's name.
fn states(raw: &Safetensors) -> Result<BTreeMap<String, QuantState>> {
    let mut states = BTreeMap::new();
    for name in raw.names() {
        let Role::State(weight) = role(&name) else { continue };
        let error = |error: InputError| error.file(raw.path()).tensor(&name);
        let bytes = match raw.stored(&name) {
            Some((Dtype::U8, bytes)) => bytes,
            other => {
                let found = other.map_or("nothing".into(), |(dtype, _)| dtype.to_string());
                return Err(error(InputError::new("not a quant_state").found(found).expected("JSON as U8")).into());
            }
        };
        let suffix = &name[weight.len()..];
        let state = QuantState::parse(bytes, suffix).map_err(error)?;
        if states.insert(weight.to_string(), state).is_some() {
            return Err(error(InputError::new("a second quant_state of the same weight")).into());
        }
    }
    Ok(states)
}

impl WeightSource for FourBitCheckpoint {
    fn path(&self) -> &Path {
        self.raw.path()
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.raw.names();
        names.retain(|name| matches!(role(name), Role::Whole));
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self.quantised.get(name) {
            Some(state) => Some(state.shape.to_vec()),
            None => self.raw.shape(name).filter(|_| matches!(role(name), Role::Whole)),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        match self.four_bit(name)? {
            Some(quantised) => Ok(quantised.dequantise()),
            None => self.raw.read(name),
        }
    }

    fn dtype(&self, name: &str) -> String {
        match self.quantised.get(name) {
            Some(state) => state.format.code.name().to_uppercase(),
            None => self.raw.dtype(name),
        }
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        let Some(state) = self.quantised.get(name) else { return self.raw.stored_bytes(name) };
        let parts = parts(name, state.format, state.shape);
        parts.iter().map(|part| part.bytes() as u64).sum::<u64>() + state.json_bytes as u64
    }

    fn sha256(&self) -> String {
        self.raw.sha256()
    }

    fn four_bit_format(&self, name: &str) -> Option<Format> {
        self.quantised.get(name).map(|state| state.format)
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        self.quantised.get(name).map(|state| self.quantised(name, state)).transpose()
    }
}
