//! Rows to a dataset, with an account of every row.

use indexmap::IndexMap;
use rayon::prelude::*;

use super::columns::Columns;
use super::{Made, Purpose, RowEncoder, Unusable};
use crate::data::dataset::{Dataset, none_left, too_long};
use crate::data::encode::Note;
use crate::data::rows::{Row, Table};
use crate::error::InputError;
use crate::recipe::OverLength;
use crate::{Error, Result};

/// Encodes rows of a table and leaves out those that are too long or train nothing.
///
/// # Errors
/// The first row that cannot be encoded, a row over the length where that is an error, or no row left; for prediction also a row
/// without a token.
pub fn build(encoder: &RowEncoder, table: &Table, columns: &Columns, rows: &[&Row]) -> Result<Dataset> {
    let encode = |row: &&Row| encoder.encode(&columns.row(table, row));
    let made: Vec<Result<Made, Unusable>> = rows.par_iter().map(encode).collect();
    let mut dataset = Dataset::default();
    let mut notes: IndexMap<Note, usize> = IndexMap::new();
    dataset.report.rows = rows.len();
    let mut used = 0;
    for (row, made) in rows.iter().zip(made) {
        match made {
            Ok(made) => {
                made.notes.iter().for_each(|&note| *notes.entry(note).or_default() += 1);
                used += 1;
                add(&mut dataset, made);
            }
            Err(Unusable::Bad(error)) => return Err(located(error, table, row).into()),
            Err(Unusable::TooLong(tokens)) => match encoder.data.over_length {
                OverLength::Error => return Err(located(too_long(tokens, encoder.data.max_len), table, row).into()),
                _ => dataset.report.dropped_long += 1,
            },
            Err(Unusable::Untrained) if encoder.purpose == Purpose::Predict => {
                return Err(located(Error::input("the row gives no token"), table, row).into());
            }
            Err(Unusable::Untrained) => dataset.report.untrained += 1,
        }
    }
    dataset.warn(notes);
    dataset.measure();
    dataset.report.used = used;
    match used {
        0 => Err(none_left(&table.path, &dataset.report, encoder.data).into()),
        _ => Ok(dataset),
    }
}

fn add(dataset: &mut Dataset, made: Made) {
    dataset.sequences.extend(made.sequences);
    dataset.prompts.extend(made.prompt);
    dataset.reference.append(made.reference);
    dataset.report.truncated += usize::from(made.cut);
}

fn located(error: InputError, table: &Table, row: &Row) -> InputError {
    match error.place {
        Some(_) => error,
        None => error.file(&table.path).place(table.place, row.number.to_string()),
    }
}
