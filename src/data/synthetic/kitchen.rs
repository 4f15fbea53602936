//! `synthetic:kitchen`: what a guest says becomes the ticket that the kitchen reads.

use super::draw::Draw;
use super::orders::{Change, Item, Order};

const SEED: u64 = u64::from_be_bytes(*b".kitchen");

/// What stands between the spoken order and the ticket.
const CUE: &str = " >>";

/// `rows` distinct pairs of prompt and completion.
pub fn rows(rows: usize) -> Vec<(String, String)> {
    super::distinct(rows, |stream| {
        let mut draw = Draw::new(SEED, stream);
        let order = Order::invent(&mut draw);
        (format!("{}{CUE}", order.spoken(&mut draw)), format!(" {}", ticket(&order)))
    })
}

/// The place first, then the items with their changes, then whether it is urgent.
fn ticket(order: &Order) -> String {
    let place = order.table.map_or("takeaway".to_owned(), |table| format!("table {table}"));
    let items = order.items.iter().map(line);
    let urgent = order.hurry.then(|| "rush".to_owned());
    std::iter::once(place).chain(items).chain(urgent).collect::<Vec<_>>().join("; ")
}

fn line(item: &Item) -> String {
    let Item { count, what, change } = item;
    match change {
        None => format!("{count}x {what}"),
        Some(Change::Without(left_out)) => format!("{count}x {what}, no {left_out}"),
        Some(Change::Extra(added)) => format!("{count}x {what}, plus {added}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_names_place_items_changes_and_hurry() {
        let pizza = Item { count: 2, what: "pizza", change: Some(Change::Without("onion")) };
        let tea = Item { count: 1, what: "lemon tea", change: None };
        let order = Order { items: vec![pizza.clone(), tea], table: Some(7), hurry: true };
        assert_eq!(ticket(&order), "table 7; 2x pizza, no onion; 1x lemon tea; rush");
        let order = Order { items: vec![pizza], table: None, hurry: false };
        assert_eq!(ticket(&order), "takeaway; 2x pizza, no onion");
    }
}
