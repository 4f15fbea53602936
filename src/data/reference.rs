//! What the outputs about sequences are read back with: which position is which word, or which bytes of a context.

use std::ops::Range;

/// One entry for each sequence of a dataset, where the task needs any.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Reference {
    /// Rows are answered as wholes; texts to generate are in the dataset's prompts.
    #[default]
    None,
    /// `token_cls`.
    Words(Vec<Words>),
    /// `question_ans`: several windows may be of one passage.
    Windows { passages: Vec<Passage>, windows: Vec<Window> },
}

/// Where the words of a sequence stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Position of the first token of each word of the row; `None` for words that were cut off or give no token.
    pub position: Vec<Option<usize>>,
}

/// A question, the text that answers it, and what counts as an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The row's number in its file.
    pub row: usize,
    pub question: String,
    pub context: String,
    /// Answers that are right; none where the context has no answer.
    pub references: Vec<String>,
}

/// The part of a passage's context that one sequence holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Index into the passages.
    pub passage: usize,
    /// For each position of the sequence the bytes of the context that its token stands for; `None` outside the context.
    pub spans: Vec<Option<Range<usize>>>,
}

impl Passage {
    /// The text between two positions of a window, both included; `None` where either is outside the context, or they are in the
    /// wrong order.
    pub fn text(&self, window: &Window, first: usize, last: usize) -> Option<&str> {
        let span = |at: usize| window.spans.get(at)?.as_ref();
        let bytes = span(first)?.start..span(last)?.end;
        (first <= last).then(|| self.context.get(bytes)).flatten().map(str::trim)
    }

    /// Characters (Unicode scalar values) before a byte of the context: what SQuAD's `answer_start` counts.
    pub fn characters_before(&self, byte: usize) -> usize {
        self.context.char_indices().take_while(|(at, _)| *at < byte).count()
    }
}

impl Reference {
    /// Adds the entries of further sequences.
    pub(super) fn append(&mut self, other: Reference) {
        match (&mut *self, other) {
            (_, Reference::None) => {}
            (Reference::Words(all), Reference::Words(more)) => all.extend(more),
            (Reference::Windows { passages, windows }, Reference::Windows { passages: more, windows: parts }) => {
                let before = passages.len();
                windows.extend(parts.into_iter().map(|part| Window { passage: part.passage + before, ..part }));
                passages.extend(more);
            }
            (_, other) => *self = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_from_the_context_by_positions() {
        let passage = Passage { context: "é Kelso town".into(), ..Passage::default() };
        let spans = vec![None, Some(0..2), Some(2..8), Some(8..13)];
        let window = Window { passage: 0, spans };
        assert_eq!(passage.text(&window, 2, 3), Some("Kelso town"));
        assert_eq!(passage.text(&window, 2, 2), Some("Kelso"));
        assert_eq!([passage.text(&window, 3, 2), passage.text(&window, 0, 2), passage.text(&window, 1, 9)], [None; 3]);
        assert_eq!((passage.characters_before(3), passage.characters_before(0)), (2, 0));
    }

    #[test]
    fn appended_windows_keep_their_passage() {
        let one = || Reference::Windows {
            passages: vec![Passage::default()],
            windows: vec![Window::default(), Window::default()],
        };
        let mut all = Reference::None;
        (0..2).for_each(|_| all.append(one()));
        all.append(Reference::None);
        let Reference::Windows { passages, windows } = all else { panic!() };
        assert_eq!(passages.len(), 2);
        assert_eq!(windows.iter().map(|window| window.passage).collect::<Vec<_>>(), [0, 0, 1, 1]);
    }
}
