//! Rows of different lengths to one rectangle.

use super::{Batch, IGNORE, Sequence};

/// Right-pads sequences with `pad_id` to the longest one and shifts the targets: each position predicts
/// the next token of its own document, where that token is trained.
pub fn collate(sequences: &[&Sequence], pad_id: u32) -> Batch {
    let len = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
    let mut batch = Batch { rows: sequences.len(), len, ..Batch::default() };
    for sequence in sequences {
        let padding = len - sequence.ids.len();
        let pad = |value: i32| std::iter::repeat_n(value, padding);
        batch.ids.extend(sequence.ids.iter().map(|&id| id as i32).chain(pad(pad_id as i32)));
        batch.targets.extend(targets(sequence).chain(pad(IGNORE)));
        batch.segment.extend(sequence.document.iter().map(|&document| 1 + document as i32).chain(pad(0)));
        batch.position.extend(positions(&sequence.document).chain(pad(0)));
    }
    batch
}

fn targets(sequence: &Sequence) -> impl Iterator<Item = i32> {
    let Sequence { ids, trained, document, .. } = sequence;
    (1..=ids.len()).map(move |next| match next < ids.len() && trained[next] && document[next] == document[next - 1] {
        true => ids[next] as i32,
        false => IGNORE,
    })
}

fn positions(document: &[u32]) -> impl Iterator<Item = i32> {
    let mut start = 0;
    (0..document.len()).map(move |at| {
        if document[at] != document[start] {
            start = at;
        }
        (at - start) as i32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(ids: &[u32], trained: &[usize], document: &[u32]) -> Sequence {
        let trained = (0..ids.len()).map(|at| trained.contains(&at)).collect();
        Sequence { ids: ids.to_vec(), trained, document: document.to_vec(), ..Sequence::default() }
    }

    #[test]
    fn targets_shift_inside_documents_and_padding_is_right() {
        let packed = sequence(&[1, 7, 8, 1, 9], &[1, 2, 3, 4], &[0, 0, 0, 1, 1]);
        let short = sequence(&[1, 5, 6], &[2], &[0, 0, 0]);
        let batch = collate(&[&packed, &short], 99);
        assert_eq!((batch.rows, batch.len), (2, 5));
        assert_eq!(batch.ids, [1, 7, 8, 1, 9, 1, 5, 6, 99, 99]);
        assert_eq!(batch.targets, [7, 8, IGNORE, 9, IGNORE, IGNORE, 6, IGNORE, IGNORE, IGNORE]);
        assert_eq!(batch.segment, [1, 1, 1, 2, 2, 1, 1, 1, 0, 0]);
        assert_eq!(batch.position, [0, 1, 2, 0, 1, 0, 1, 2, 0, 0]);
        assert_eq!((batch.tokens(), batch.terms()), (8, 4));
    }

    #[test]
    fn nothing_makes_an_empty_batch() {
        assert_eq!(collate(&[], 0), Batch::default());
    }

    #[test]
    fn every_token_and_every_trained_token_is_kept() {
        let rows: Vec<_> = (1..40_u32)
            .map(|len| {
                sequence(&(0..len).collect::<Vec<_>>(), &[len as usize / 2, len as usize - 1], &vec![0; len as usize])
            })
            .collect();
        let batch = collate(&rows.iter().collect::<Vec<_>>(), 0);
        assert_eq!(batch.tokens(), rows.iter().map(|row| row.ids.len()).sum::<usize>());
        let trained = |row: &Sequence| row.trained.iter().skip(1).filter(|&&trained| trained).count();
        assert_eq!(batch.terms(), rows.iter().map(trained).sum::<usize>());
    }
}
