//! A race: runs that take turns on one thread, each step on the same batch.

use super::run::{Asked, Left, Outcome, Run};
use crate::Result;
use crate::events::{Bus, Control};

/// One run of a race and where its events go.
pub struct Racer<'a> {
    pub run: Run<'a>,
    pub bus: Bus,
}

/// A racer that has started.
struct Lane<'a> {
    place: usize,
    racer: Racer<'a>,
    asked: Asked,
}

/// Lets all advance together: whoever has taken the fewest steps is next. One that fails or diverges drops out and the others go on;
/// a stop, a save or an evaluation that `control` asks for is asked of all. Outcomes come in the order of `racers`.
pub fn race(racers: Vec<Racer<'_>>, control: &Control) -> Vec<Result<Outcome>> {
    let mut outcomes: Vec<Option<Result<Outcome>>> = racers.iter().map(|_| None).collect();
    let mut lanes = Vec::new();
    for (place, mut racer) in racers.into_iter().enumerate() {
        match racer.run.start(&racer.bus, control).transpose() {
            None => lanes.push(Lane { place, racer, asked: Asked::default() }),
            Some(left) => outcomes[place] = Some(racer.end(control, left)),
        }
    }
    while !lanes.is_empty() {
        let asked = Asked::take(control);
        lanes.iter_mut().for_each(|lane| lane.asked.add(asked));
        let next = (0..lanes.len()).min_by_key(|&i| lanes[i].racer.run.step()).unwrap_or(0);
        let Lane { racer: Racer { run, bus }, asked, .. } = &mut lanes[next];
        if let Some(left) = run.turn(bus, control, std::mem::take(asked)).transpose() {
            let Lane { place, racer, .. } = lanes.remove(next);
            outcomes[place] = Some(racer.end(control, left));
        }
    }
    outcomes.into_iter().flatten().collect()
}

impl Racer<'_> {
    fn end(self, control: &Control, left: Result<Left>) -> Result<Outcome> {
        self.run.end(&self.bus, control, left)
    }
}
