//! Several rows in one sequence: first-fit packing. Attention and targets stay inside each row.

use super::Sequence;

/// Sequences that still take rows. More would pack a little tighter and search a lot longer.
const OPEN: usize = 128;

/// Packs rows into sequences of at most `max_len` tokens, in the order given. A row is never split; one
/// longer than `max_len` stays alone. `document` numbers the rows of each sequence from 0.
pub fn pack(rows: Vec<Sequence>, max_len: usize) -> Vec<Sequence> {
    let mut packed: Vec<Sequence> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for row in rows {
        let fits = |&&at: &&usize| packed[at].ids.len() + row.ids.len() <= max_len;
        match open.iter().find(fits) {
            Some(&at) => append(&mut packed[at], row),
            None => {
                open.push(packed.len());
                packed.push(row);
            }
        }
        if open.len() > OPEN {
            close_fullest(&mut open, &packed);
        }
    }
    packed
}

fn append(sequence: &mut Sequence, row: Sequence) {
    let first = sequence.document.last().map_or(0, |last| last + 1);
    sequence.document.extend(row.document.iter().map(|document| first + document));
    sequence.ids.extend(row.ids);
    sequence.trained.extend(row.trained);
}

fn close_fullest(open: &mut Vec<usize>, packed: &[Sequence]) {
    if let Some(fullest) = (0..open.len()).max_by_key(|&slot| packed[open[slot]].ids.len()) {
        open.remove(fullest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::order::permutation;

    fn row(id: u32, len: usize) -> Sequence {
        let trained = (0..len).map(|at| at > 0 && at % 2 == 0).collect();
        Sequence { ids: vec![id; len], trained, document: vec![0; len], ..Sequence::default() }
    }

    #[test]
    fn rows_go_into_the_first_sequence_with_room() {
        let packed = pack([5, 4, 3, 2, 9].iter().enumerate().map(|(id, &len)| row(id as u32, len)).collect(), 8);
        let ids: Vec<_> = packed.iter().map(|sequence| sequence.ids.clone()).collect();
        assert_eq!(ids, [vec![0, 0, 0, 0, 0, 2, 2, 2], vec![1, 1, 1, 1, 3, 3], vec![4; 9]]);
        assert_eq!(packed[0].document, [0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(packed[1].document, [0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn every_row_survives_whole_and_once() {
        let max_len = 64;
        let rows: Vec<_> = permutation(3000, 5, 0).into_iter().map(|id| row(id as u32, 1 + id % 40)).collect();
        let packed = pack(rows.clone(), max_len);
        let mut found = Vec::new();
        for sequence in &packed {
            assert!(sequence.ids.len() <= max_len);
            let documents = sequence.document.last().unwrap() + 1;
            for document in 0..documents {
                let places: Vec<_> = (0..sequence.ids.len()).filter(|&at| sequence.document[at] == document).collect();
                let take = |at: &usize| (sequence.ids[*at], sequence.trained[*at]);
                let (ids, trained): (Vec<_>, Vec<_>) = places.iter().map(take).unzip();
                assert_eq!(places.last().unwrap() - places[0] + 1, places.len());
                found.push(Sequence { document: vec![0; ids.len()], ids, trained, ..Sequence::default() });
            }
        }
        let by_id = |sequence: &Sequence| sequence.ids[0];
        let mut rows = rows;
        rows.sort_by_key(by_id);
        found.sort_by_key(by_id);
        assert_eq!(found, rows);
        let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
        assert!(packed.len() * max_len < tokens * 11 / 10, "{} sequences for {tokens} tokens", packed.len());
    }
}
