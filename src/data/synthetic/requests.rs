//! `synthetic:intents`, `synthetic:rewrite`, `synthetic:similar` and `synthetic:similar_scored`: requests to an assistant, in several
//! wordings of the same facts. What tells the sets apart is what they ask about a request: its intent, its facts, or its likeness to
//! another.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::draw::Draw;
use super::grammar::{Section, drawn, fill, sections, slots};

static INTENTS: LazyLock<Vec<Section>> = LazyLock::new(|| sections(include_str!("requests.txt")));

const SEED: u64 = u64::from_be_bytes(*b"requests");

/// What is wanted, in no words yet.
#[derive(Clone, PartialEq)]
struct Request {
    /// Index of the intent.
    intent: usize,
    /// The values of the slots, by slot.
    facts: BTreeMap<&'static str, String>,
}

impl Request {
    /// A request of the intent that `number` counts to.
    fn invent(number: u64, draw: &mut Draw) -> Self {
        let intent = (number % INTENTS.len() as u64) as usize;
        let first = INTENTS[intent].lines[0];
        let facts = slots(first).filter_map(|slot| Some((slot, drawn(slot, draw)?))).collect();
        Self { intent, facts }
    }

    /// The same facts, as far as they go, in a request of another intent.
    fn otherwise(&self, draw: &mut Draw) -> Self {
        let step = 1 + draw.below(INTENTS.len() - 1);
        let mut other = Self::invent((self.intent + step) as u64, draw);
        for (slot, value) in &mut other.facts {
            self.facts.get(slot).inspect(|shared| value.clone_from(shared));
        }
        other
    }

    fn name(&self) -> &'static str {
        INTENTS[self.intent].names[0]
    }

    /// The request in one of its wordings, and in another.
    fn wordings(&self, draw: &mut Draw) -> [String; 2] {
        let mut lines = INTENTS[self.intent].lines.clone();
        draw.shuffle(&mut lines);
        [lines[0], lines[1]].map(|line| fill(line, |slot| self.facts.get(slot).cloned()).unwrap_or_default())
    }

    /// `set alarm: Monday, seven`: the intent, and the facts in the order of their slots' names.
    fn command(&self) -> String {
        let facts: Vec<&str> = self.facts.values().map(String::as_str).collect();
        format!("{}: {}", self.name().replace('_', " "), facts.join(", "))
    }
}

/// `text` and `label`, the intents in turn.
pub fn intents(number: u64) -> Value {
    let mut draw = Draw::new(SEED, number);
    let request = Request::invent(number, &mut draw);
    let [text, _] = request.wordings(&mut draw);
    json!({"text": text, "label": request.name()})
}

/// `source` and `target`: a request, and the command it amounts to.
pub fn rewrite(number: u64) -> Value {
    let mut draw = Draw::new(SEED, number);
    let request = Request::invent(number, &mut draw);
    let [source, _] = request.wordings(&mut draw);
    json!({"source": source, "target": request.command()})
}

/// `text`, `positive` and `negative`: a request, the same in other words, and another intent that shares words with it.
pub fn similar(number: u64) -> Value {
    let mut draw = Draw::new(SEED, number);
    let request = Request::invent(number, &mut draw);
    let [text, positive] = request.wordings(&mut draw);
    let [negative, _] = request.otherwise(&mut draw).wordings(&mut draw);
    json!({"text": text, "positive": positive, "negative": negative})
}

/// `sentence1`, `sentence2` and `score`: 1 for the same request in other words, 0.5 for the same intent with other facts, 0 for
/// another intent.
pub fn similar_scored(number: u64) -> Value {
    // Not the requests of `similar`, which are trained on.
    let mut draw = Draw::new(!SEED, number);
    let request = Request::invent(draw.below(INTENTS.len()) as u64, &mut draw);
    let [text, same] = request.wordings(&mut draw);
    let (other, score) = match number % 3 {
        0 => (same, 1.0),
        1 => (request.otherwise(&mut draw).wordings(&mut draw)[0].clone(), 0.0),
        _ => {
            let mut other = Request::invent(request.intent as u64, &mut draw);
            while other == request {
                other = Request::invent(request.intent as u64, &mut draw);
            }
            (other.wordings(&mut draw)[0].clone(), 0.5)
        }
    };
    json!({"sentence1": text, "sentence2": other, "score": score})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_wording_of_an_intent_tells_the_same_facts() {
        assert_eq!(INTENTS.len(), 8);
        for (number, intent) in INTENTS.iter().enumerate() {
            let facts = |line: &'static str| slots(line).collect::<BTreeSet<_>>();
            assert!(intent.lines.len() >= 6);
            assert!(intent.lines.iter().all(|line| facts(line) == facts(intent.lines[0])), "{:?}", intent.names);
            let request = Request::invent(number as u64, &mut Draw::new(0, 0));
            let wordings = request.wordings(&mut Draw::new(0, 0));
            assert!(request.facts.len() >= 2 && wordings.iter().all(|text| !text.is_empty()), "{:?}", intent.names);
        }
    }

    #[test]
    fn a_command_tells_intent_and_facts() {
        let row = rewrite(0);
        let (source, target) = (row["source"].as_str().unwrap(), row["target"].as_str().unwrap());
        let (intent, facts) = target.split_once(": ").unwrap();
        assert_eq!(intent, "set alarm");
        assert!(facts.split(", ").count() == 2 && facts.split(", ").all(|fact| source.contains(fact)), "{row}");
    }

    #[test]
    fn likeness_is_of_requests_and_not_of_words() {
        for number in 0..60 {
            let row = similar(number);
            assert!(row["text"] != row["positive"] && row["text"] != row["negative"], "{row}");
            let scored = similar_scored(number);
            assert_eq!(scored["score"].as_f64().unwrap(), [1.0, 0.0, 0.5][number as usize % 3]);
            assert_ne!(scored["sentence1"], scored["sentence2"]);
        }
    }
}
