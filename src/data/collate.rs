//! Rows of different lengths to one rectangle.

use super::{Answer, Batch, Contrast, Decoder, Goal, IGNORE, Sequence};

/// Right-pads sequences with `pad_id` to the longest one, and says what is asked about them: the next token of its own document where
/// that token is trained, or the answer of a task. All sequences are of one task. Texts that rows should be like follow the rows.
pub fn collate(sequences: &[&Sequence], pad_id: u32) -> Batch {
    let all = with_others(sequences);
    let len = all.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
    let typed = all.iter().any(|sequence| !sequence.token_type.is_empty());
    let mut batch = Batch { rows: all.len(), len, goal: goal(sequences), ..Batch::default() };
    for sequence in &all {
        let padding = len - sequence.ids.len();
        let pad = |value: i32| std::iter::repeat_n(value, padding);
        batch.ids.extend(sequence.ids.iter().map(|&id| id as i32).chain(pad(pad_id as i32)));
        batch.targets.extend(targets(sequence).into_iter().chain(pad(IGNORE)));
        batch.segment.extend(sequence.document.iter().map(|&document| 1 + document as i32).chain(pad(0)));
        batch.position.extend(positions(&sequence.document).chain(pad(0)));
        if typed {
            batch.token_type.extend(&sequence.token_type);
            batch.token_type.resize(batch.ids.len(), 0);
        }
    }
    decode(&mut batch, sequences, pad_id);
    batch
}

/// The rows, then the first other text of each, then what further ones there are, row by row.
fn with_others<'a>(sequences: &[&'a Sequence]) -> Vec<&'a Sequence> {
    let first = sequences.iter().filter_map(|sequence| sequence.others().first());
    let further = sequences.iter().flat_map(|sequence| sequence.others().iter().skip(1));
    sequences.iter().copied().chain(first).chain(further).collect()
}

fn goal(sequences: &[&Sequence]) -> Goal {
    let spans = sequences.iter().filter_map(|sequence| match sequence.answer {
        Answer::Span(span) => Some(span.map(|at| at as i32)),
        _ => None,
    });
    let numbers = sequences.iter().filter_map(|sequence| match sequence.answer {
        Answer::Number(number) => Some(number),
        _ => None,
    });
    match sequences.first().map(|sequence| &sequence.answer) {
        Some(Answer::Number(_)) => Goal::Numbers(numbers.collect()),
        Some(Answer::Span(_)) => Goal::Spans(spans.collect()),
        Some(Answer::Alike { .. }) => Goal::Alike(Contrast::of(sequences.len())),
        _ => Goal::Classes,
    }
}

fn targets(sequence: &Sequence) -> Vec<i32> {
    let Sequence { ids, trained, document, answer, .. } = sequence;
    let at_trained = |class: i32| trained.iter().map(|&trained| if trained { class } else { IGNORE }).collect();
    match answer {
        Answer::Tokens => {
            let follows = |next: usize| next < ids.len() && trained[next] && document[next] == document[next - 1];
            (1..=ids.len()).map(|next| if follows(next) { ids[next] as i32 } else { IGNORE }).collect()
        }
        // The number itself is in the goal; here it has a place.
        Answer::Unknown | Answer::Number(_) => at_trained(0),
        Answer::Class(class) => at_trained(*class as i32),
        Answer::Tags(tags) => tags.clone(),
        Answer::Span(_) | Answer::Alike { .. } | Answer::Text(_) => vec![IGNORE; ids.len()],
    }
}

/// Gives the batch its decoder, and the decoder's targets, where rows are answered by texts.
fn decode(batch: &mut Batch, sequences: &[&Sequence], pad_id: u32) {
    let texts = sequences.iter().filter_map(|sequence| match &sequence.answer {
        Answer::Text(ids) => Some(ids.iter().map(|&id| id as i32).collect::<Vec<_>>()),
        _ => None,
    });
    let texts: Vec<_> = texts.collect();
    let Some(len) = texts.iter().map(|ids| ids.len().saturating_sub(1)).max() else { return };
    let mut decoder = Decoder { len, ..Decoder::default() };
    batch.targets.clear();
    for (row, ids) in texts.iter().enumerate() {
        let (read, said) = (ids.split_last().map_or(&[][..], |(_, read)| read), ids.get(1..).unwrap_or_default());
        decoder.ids.extend(read);
        decoder.segment.extend(read.iter().map(|_| 1));
        batch.targets.extend(said);
        decoder.ids.resize((row + 1) * len, pad_id as i32);
        decoder.segment.resize((row + 1) * len, 0);
        batch.targets.resize((row + 1) * len, IGNORE);
    }
    batch.decoder = Some(decoder);
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

    /// A row of one document.
    fn row(ids: &[u32], trained: &[usize], answer: Answer) -> Sequence {
        Sequence { answer, ..sequence(ids, trained, &vec![0; ids.len()]) }
    }

    #[test]
    fn classes_and_numbers_stand_where_they_are_read() {
        let (long, short) = (row(&[5, 6, 7], &[0], Answer::Class(2)), row(&[5, 6], &[1], Answer::Class(1)));
        let batch = collate(&[&long, &short], 9);
        assert_eq!(batch.targets, [2, IGNORE, IGNORE, IGNORE, 1, IGNORE]);
        assert_eq!((batch.goal.clone(), batch.terms()), (Goal::Classes, 2));
        let (long, short) = (row(&[5, 6, 7], &[2], Answer::Number(0.5)), row(&[5, 6], &[1], Answer::Number(-1.0)));
        let batch = collate(&[&long, &short], 9);
        assert_eq!((batch.goal.clone(), batch.terms()), (Goal::Numbers(vec![0.5, -1.0]), 2));
        assert_eq!(batch.targets, [IGNORE, IGNORE, 0, IGNORE, 0, IGNORE]);
        let unknown = row(&[5, 6], &[1], Answer::Unknown);
        assert_eq!(collate(&[&unknown], 9).targets, [IGNORE, 0]);
    }

    #[test]
    fn tags_and_spans_keep_their_places() {
        let tags = row(&[1, 5, 6], &[1], Answer::Tags(vec![IGNORE, 4, IGNORE]));
        assert_eq!(collate(&[&tags, &tags], 9).targets, [IGNORE, 4, IGNORE, IGNORE, 4, IGNORE]);
        let spans = [row(&[1, 5, 6], &[1, 2], Answer::Span([1, 2])), row(&[1], &[0], Answer::Span([0, 0]))];
        let batch = collate(&spans.iter().collect::<Vec<_>>(), 9);
        assert_eq!((batch.goal.clone(), batch.terms()), (Goal::Spans(vec![[1, 2], [0, 0]]), 2));
        assert!(batch.targets.iter().all(|&target| target == IGNORE));
    }

    #[test]
    fn token_types_are_filled_where_any_row_has_them() {
        let mut pair = row(&[1, 5, 6], &[0], Answer::Class(0));
        let single = row(&[1, 5], &[0], Answer::Class(0));
        assert!(collate(&[&single, &pair], 9).token_type.is_empty());
        pair.token_type = vec![0, 0, 1];
        assert_eq!(collate(&[&single, &pair], 9).token_type, [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn texts_to_be_alike_come_after_the_rows_and_negatives_last() {
        let text = |id: u32| row(&[id], &[0], Answer::Unknown);
        let alike = |id, others: &[u32]| {
            let others = others.iter().map(|&id| text(id)).collect();
            row(&[id, id], &[0, 1], Answer::Alike { others, score: None })
        };
        let batch = collate(&[&alike(1, &[11]), &alike(2, &[12, 22]), &alike(3, &[13])], 0);
        assert_eq!((batch.rows, batch.len, batch.goal.clone(), batch.terms()), (7, 2, Goal::Alike(Contrast::of(3)), 3));
        assert_eq!(batch.ids, [1, 1, 2, 2, 3, 3, 11, 0, 12, 0, 13, 0, 22, 0]);
    }

    #[test]
    fn a_decoder_reads_its_text_shifted_right() {
        let (long, short) =
            (row(&[5, 6], &[], Answer::Text(vec![0, 7, 8, 2])), row(&[5], &[], Answer::Text(vec![0, 2])));
        let batch = collate(&[&short, &long], 9);
        let decoder = batch.decoder.as_ref().unwrap();
        assert_eq!((batch.len, decoder.len), (2, 3));
        assert_eq!(decoder.ids, [0, 9, 9, 0, 7, 8]);
        assert_eq!(decoder.segment, [1, 0, 0, 1, 1, 1]);
        assert_eq!(batch.targets, [2, IGNORE, IGNORE, 7, 8, 2]);
        assert_eq!((batch.terms(), batch.tokens(), long.counted()), (4, 7, 3));
    }
}
