//! Orders in a restaurant and how guests speak them.

use super::draw::Draw;
use super::grammar::{enumerated, in_words, list, plural, with_article};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub count: usize,
    pub what: &'static str,
    pub change: Option<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Without(&'static str),
    Extra(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub items: Vec<Item>,
    /// Table number; `None` is an order to take away.
    pub table: Option<usize>,
    pub hurry: bool,
}

impl Order {
    pub fn invent(draw: &mut Draw) -> Self {
        let mut items = Vec::new();
        let mut dishes = list("dish").to_vec();
        draw.shuffle(&mut dishes);
        for &what in &dishes[..draw.between(1, 2)] {
            let change = match draw.below(5) {
                0 | 1 => Some(Change::Without(draw.pick(list("extra")))),
                2 => Some(Change::Extra(draw.pick(list("extra")))),
                _ => None,
            };
            items.push(Item { count: draw.between(1, 6), what, change });
        }
        if draw.chance(60) {
            items.push(Item { count: draw.between(1, 6), what: draw.pick(list("drink")), change: None });
        }
        let table = draw.chance(75).then(|| draw.between(1, 20));
        Self { items, table, hurry: draw.chance(25) }
    }

    /// The order as a guest or a waiter says it, one of several wordings.
    pub fn spoken(&self, draw: &mut Draw) -> String {
        let items = enumerated(&self.items.iter().map(|item| item.spoken(draw)).collect::<Vec<_>>());
        let names = if draw.chance(50) { "female" } else { "male" };
        let name = draw.pick(list(names));
        let sentence = match self.table.map(in_words) {
            Some(table) => match draw.below(5) {
                0 => format!("Could we have {items} at table {table}, please?"),
                1 => format!("Table {table} would like {items}."),
                2 => format!("We are at table {table} and would like {items}."),
                3 => format!("{name} at table {table} ordered {items}."),
                _ => format!("Please bring {items} to table {table}."),
            },
            None => match draw.below(4) {
                0 => format!("I would like {items} to take away."),
                1 => format!("{name} wants to take away {items}."),
                2 => format!("Could I take away {items}, please?"),
                _ => format!("To take away, {items}, please."),
            },
        };
        match (self.hurry, draw.below(3)) {
            (false, _) => sentence,
            (true, 0) => format!("{sentence} We are in a hurry."),
            (true, 1) => format!("{sentence} Be quick, please."),
            (true, _) => format!("{sentence} There is not much time."),
        }
    }
}

impl Item {
    fn spoken(&self, draw: &mut Draw) -> String {
        let counted = match self.count {
            1 => with_article(self.what),
            count => format!("{} {}", in_words(count), plural(self.what)),
        };
        match self.change {
            None => counted,
            Some(Change::Without(what)) if draw.chance(50) => format!("{counted} with no {what}"),
            Some(Change::Without(what)) => format!("{counted} without {what}"),
            Some(Change::Extra(what)) if draw.chance(50) => format!("{counted} with extra {what}"),
            Some(Change::Extra(what)) => format!("{counted} with a lot of {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_tells_counts_changes_and_table() {
        let order = Order {
            items: vec![
                Item { count: 2, what: "curry", change: Some(Change::Without("onion")) },
                Item { count: 1, what: "espresso", change: None },
            ],
            table: Some(17),
            hurry: true,
        };
        for stream in 0..40 {
            let text = order.spoken(&mut Draw::new(0, stream));
            let said = ["two curries with", "onion and an espresso", "table seventeen"];
            let said = said.iter().all(|part| text.to_lowercase().contains(part));
            assert!(said && text.matches(['.', '?']).count() == 2, "{text}");
        }
    }
}
