//! A position in the time of runs that are watched: the board as it was then, from the records up to it.

use super::board::Board;
use crate::compare::Plan;
use crate::events::Record;

/// Seconds that a whole replay takes.
const LENGTH: f64 = 30.0;

/// Every record so far, and what the clock showed after it.
#[derive(Default)]
pub struct Replay {
    records: Vec<Record>,
    times: Vec<f64>,
    position: Option<Position>,
}

struct Position {
    /// Records that the board is made of.
    count: usize,
    /// Seconds.
    t: f64,
    board: Board,
    playing: bool,
}

/// Where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    Begin,
    /// The newest, and on with what comes.
    End,
    /// By hundredths of the whole time.
    By(i8),
}

impl Replay {
    pub fn push(&mut self, record: Record, elapsed: f64) {
        // A run that started over sets the clock back; a position in time only ever goes on.
        let t = elapsed.max(self.end());
        self.records.push(record);
        self.times.push(t);
    }

    fn end(&self) -> f64 {
        self.times.last().copied().unwrap_or(0.0)
    }

    /// None where the newest is shown.
    pub fn board(&self) -> Option<&Board> {
        self.position.as_ref().map(|position| &position.board)
    }

    pub fn board_mut(&mut self) -> Option<&mut Board> {
        self.position.as_mut().map(|position| &mut position.board)
    }

    pub fn is_playing(&self) -> bool {
        self.position.as_ref().is_some_and(|position| position.playing)
    }

    /// Seconds of the position and of all.
    pub fn place(&self) -> Option<(f64, f64)> {
        self.position.as_ref().map(|position| (position.t, self.end()))
    }

    pub fn jump(&mut self, plan: Option<&Plan>, jump: Jump) {
        match jump {
            Jump::Begin => self.go(plan, 0.0),
            Jump::End => self.position = None,
            Jump::By(hundredths) => self.advance(plan, f64::from(hundredths) / 100.0),
        }
    }

    /// The board at a share of the whole time.
    pub fn at(&mut self, plan: Option<&Plan>, share: f64) {
        self.go(plan, share * self.end());
    }

    fn advance(&mut self, plan: Option<&Plan>, share: f64) {
        let from = self.position.as_ref().map_or(self.end(), |position| position.t);
        self.go(plan, from + share * self.end());
    }

    /// Starts or stops; from the beginning, where the end has been reached.
    pub fn play(&mut self, plan: Option<&Plan>) {
        if self.position.is_none() {
            self.go(plan, 0.0);
        }
        if let Some(position) = &mut self.position {
            position.playing = !position.playing;
        }
    }

    pub fn tick(&mut self, plan: Option<&Plan>, seconds: f64) {
        if self.is_playing() {
            self.advance(plan, seconds / LENGTH);
        }
    }

    /// Past the end there is no position any more.
    fn go(&mut self, plan: Option<&Plan>, t: f64) {
        let t = t.max(0.0);
        if t >= self.end() && t > 0.0 {
            self.position = None;
            return;
        }
        let count = self.times.partition_point(|&time| time <= t);
        let fresh = || Position { count: 0, t, board: Board::new(plan.cloned()), playing: false };
        let mut position = self.position.take().unwrap_or_else(fresh);
        if count < position.count {
            position = Position { playing: position.playing, ..fresh() };
        }
        self.records[position.count..count].iter().for_each(|record| position.board.record(record));
        (position.count, position.t) = (count, t);
        self.position = Some(position);
    }
}
