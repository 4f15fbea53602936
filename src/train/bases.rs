//! Bases on one device: runs that need the same one share it.

use std::cell::RefCell;
use std::rc::Rc;

use super::Job;
use crate::Result;
use crate::adapters::{Factors, Loftq, LoftqPlan};
use crate::models::ModelConfig;
use crate::recipe::BaseStorage;
use crate::runtime::{Base, BaseSpec};

/// Every base that was asked for, loaded once.
#[derive(Default)]
pub struct Bases(RefCell<Vec<(Key, Rc<dyn Base>)>>);

/// What decides the values of a base and how they are kept.
#[derive(PartialEq)]
struct Key {
    sha256: String,
    /// With its head, which may have been made.
    config: ModelConfig,
    storage: BaseStorage,
    loftq: Option<LoftqPlan>,
}

impl Bases {
    pub(super) fn get(&self, job: &Job) -> Result<Rc<dyn Base>> {
        let config = job.opened.config.clone();
        let key = Key { sha256: job.opened.base_sha256(), config, storage: job.storage, loftq: job.loftq() };
        if let Some((_, base)) = self.0.borrow().iter().find(|(known, _)| *known == key) {
            return Ok(base.clone());
        }
        let loftq = key.loftq.as_ref().map(|plan| Loftq { plan, factors: Factors::Keep, progress: job.progress });
        let (config, weights) = (&job.opened.config, job.opened.weights.as_ref());
        let spec = BaseSpec { config, weights, storage: job.storage, loftq };
        let base: Rc<dyn Base> = job.target.runtime.load(job.target.index, &spec)?.into();
        // A base that is quantised around one adapter goes when its run does.
        if !key.loftq.as_ref().is_some_and(LoftqPlan::owns_base) {
            self.0.borrow_mut().push((key, base.clone()));
        }
        Ok(base)
    }
}
