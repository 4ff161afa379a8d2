//! Taking in rows from elsewhere, under the ids that they had there.
//!
//! # Model
//!
//! An import is a list of rows: masters, change sources, objects and the objects' items. A row that is here
//! already, the same in all that it says, is passed over; one that is not here is written; anything else is a
//! conflict, and then nothing of the list is. So an import can be repeated, and one in several requests be
//! taken up again.
//!
//! # Invariants
//!
//! - An import never changes or removes what is here.
//! - Ids that are given out later are above all imported ones.
//! - Masters come in inactive, and change sources unowned: leases and claims are rights of those who live.
//!
//! # What it leaves out
//!
//! Files, and reading rows out: that is a query for each connector.

use serde::{Deserialize, Serialize};

use crate::encoding::raw;
use crate::limits::{IMPORT_BYTES_MAX, IMPORT_ID_MAX, IMPORT_ROWS_MAX, VALUE_BYTES_MAX};
use crate::machine::Stop;
use crate::refusal::{Field, check_bounds, check_id, check_name};
use crate::table::Txn;
use crate::{Bytes, Refusal, changesources, masters, state};

/// A row from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are what their names say; the others are described")]
pub enum Row {
    /// A master.
    Master {
        id: i64,
        name: String,
        /// Wall clock, in milliseconds since 1970. For display only; of a master that is here, ignored.
        last_active_ms: u64,
    },
    /// A change source, and the group that it is in.
    ChangeSource { id: i64, name: String, group: Option<String> },
    /// An object.
    Object { id: i64, name: String, class_name: String },
    /// An item; its object is here, or comes before it.
    Item {
        object: i64,
        name: String,
        #[serde(with = "raw")]
        value: Bytes,
    },
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Where the rows come to.
    pub namespace: String,
    /// Taken in in this order: all, or none.
    pub rows: Vec<Row>,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// How many rows were written; all others were here already.
    pub written: u64,
}

/// A row that is here and contradicts one from elsewhere, for people.
pub(crate) struct Clash(pub(crate) String);

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::Namespace, &self.namespace)?;
        check_bounds(Field::Rows, self.rows.len() as u64, 1..=IMPORT_ROWS_MAX)?;
        check_bounds(Field::RowsBytes, self.text_bytes() as u64, 0..=IMPORT_BYTES_MAX)?;
        self.rows.iter().try_for_each(Row::validate)
    }

    /// About how many bytes its rows take; never less than their names and values do.
    pub(crate) fn text_bytes(&self) -> usize {
        /// More than the numbers and tags of a row take.
        const ROW_BYTES: usize = 40;
        let rows = self.rows.iter().map(|row| ROW_BYTES + row.text_bytes());
        self.namespace.len() + rows.sum::<usize>()
    }
}

impl Row {
    fn validate(&self) -> Result<(), Refusal> {
        match self {
            Row::Master { id, name, .. } => {
                check_imported_id(Field::MasterId, *id)?;
                check_name(Field::Name, name)
            }
            Row::ChangeSource { id, name, group } => {
                check_imported_id(Field::ChangeSourceId, *id)?;
                check_name(Field::Name, name)?;
                group.as_deref().map_or(Ok(()), |group| check_name(Field::Group, group))
            }
            Row::Object { id, name, class_name } => {
                check_imported_id(Field::ObjectId, *id)?;
                check_name(Field::Name, name)?;
                check_name(Field::ClassName, class_name)
            }
            Row::Item { object, name, value } => {
                check_imported_id(Field::ObjectId, *object)?;
                check_name(Field::Name, name)?;
                let (actual, allowed) = (value.len() as u64, VALUE_BYTES_MAX as u64);
                match actual > allowed {
                    true => Err(Refusal::ValueTooLarge { actual, allowed }),
                    false => Ok(()),
                }
            }
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Row::Master { name, .. } => name.len(),
            Row::ChangeSource { name, group, .. } => {
                name.len() + group.as_ref().map_or(0, String::len)
            }
            Row::Object { name, class_name, .. } => name.len() + class_name.len(),
            Row::Item { name, value, .. } => name.len() + value.len(),
        }
    }
}

/// Refuses an id that would leave too few above it.
fn check_imported_id(field: Field, id: i64) -> Result<(), Refusal> {
    check_id(field, id)?;
    check_bounds(field, id.unsigned_abs(), 1..=IMPORT_ID_MAX)
}

/// At most how many bytes a command adds; rows that are here already count like the others.
pub(crate) fn growth(command: &Command) -> u64 {
    let namespace = command.namespace.len();
    let of = |row: &Row| match row {
        // By id and by name.
        Row::Master { .. } | Row::Object { .. } => (2, 2 * row.text_bytes()),
        // And by group.
        Row::ChangeSource { .. } => (3, 2 * row.text_bytes()),
        Row::Item { .. } => (1, row.text_bytes()),
    };
    let rows = command.rows.iter().map(of);
    rows.map(|(rows, text)| crate::growth::of_rows(rows, rows * namespace + text)).sum()
}

/// Takes the rows in. Refused if one contradicts what is here.
pub(crate) fn apply(txn: &mut Txn<'_>, session: u64, command: &Command) -> Result<Reply, Stop> {
    let namespace = command.namespace.as_str();
    let mut written = 0;
    for (nth, row) in command.rows.iter().enumerate() {
        let taken = match row {
            Row::Master { id, name, last_active_ms } => {
                masters::import(txn, namespace, *id, name, *last_active_ms)?
            }
            Row::ChangeSource { id, name, group } => {
                changesources::import(txn, namespace, *id, name, group.as_deref())?
            }
            Row::Object { id, name, class_name } => {
                state::import_object(txn, namespace, *id, name, class_name)?
            }
            Row::Item { object, name, value } => {
                state::import_item(txn, session, (namespace, *object, name), value)?
            }
        };
        match taken {
            Ok(is_new) => written += u64::from(is_new),
            Err(Clash(found)) => {
                let (nth, row) = (nth as u64, row.to_string());
                return Err(Refusal::ImportConflict { nth, row, found }.into());
            }
        }
    }
    Ok(Reply { written })
}

impl std::fmt::Display for Row {
    /// For people, and short.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&match self {
            Row::Master { id, name, .. } => spell_named("master", *id, name),
            Row::ChangeSource { id, name, group } => spell_source(*id, name, group.as_deref()),
            Row::Object { id, name, class_name } => spell_object(*id, name, class_name),
            Row::Item { object, name, value } => spell_item(*object, name, value),
        })
    }
}

/// Spells a thing that has an id and a name.
pub(crate) fn spell_named(kind: &str, id: i64, name: &str) -> String {
    format!("{kind} {id} {}", shorten(name))
}

/// Spells a change source.
pub(crate) fn spell_source(id: i64, name: &str, group: Option<&str>) -> String {
    let named = spell_named("change source", id, name);
    match group {
        Some(group) => format!("{named} in group {}", shorten(group)),
        None => named,
    }
}

/// Spells an object.
pub(crate) fn spell_object(id: i64, name: &str, class_name: &str) -> String {
    format!("object {id} {}/{}", shorten(class_name), shorten(name))
}

/// Spells an item.
pub(crate) fn spell_item(object: i64, name: &str, value: &[u8]) -> String {
    format!("{} of object {object} = {}", shorten(name), state::spell_value(value))
}

/// The beginning of a text, so that a refusal that names several fits into an outcome.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response;

    fn command(rows: Vec<Row>) -> Command {
        Command { namespace: "n".to_owned(), rows }
    }

    fn item(len: usize) -> Row {
        Row::Item { object: 1, name: "k".to_owned(), value: vec![0; len].into() }
    }

    // S7 G9
    #[test]
    fn at_most_1_000_rows() {
        let rows = |count| command(vec![item(0); count]).validate();
        let refused =
            |actual| Refusal::OutOfBounds { field: Field::Rows, actual, min: 1, max: 1000 };
        assert_eq!(rows(0), Err(refused(0)));
        assert_eq!(rows(1000), Ok(()));
        assert_eq!(rows(1001), Err(refused(1001)));
    }

    // S7 G9
    #[test]
    fn at_most_2_mib_of_names_and_values() {
        let max = 2 << 20;
        let full = command(vec![item(VALUE_BYTES_MAX), item(0)]).text_bytes();
        let of = |bytes: usize| command(vec![item(VALUE_BYTES_MAX), item(bytes - full)]);
        assert_eq!((of(max).text_bytes(), of(max).validate()), (max, Ok(())));
        let (actual, max, field) = (max as u64 + 1, max as u64, Field::RowsBytes);
        let refused = Refusal::OutOfBounds { field, actual, min: 0, max };
        assert_eq!(of((2 << 20) + 1).validate(), Err(refused));
    }

    // S7 G4
    #[test]
    fn a_conflict_of_the_longest_names_is_a_short_outcome() {
        let long = || "\u{1f600}".repeat(256);
        let (id, group) = (i64::MAX, Some(long()));
        let rows = [
            Row::Master { id, name: long(), last_active_ms: u64::MAX },
            Row::ChangeSource { id, name: long(), group },
            Row::Object { id, name: long(), class_name: long() },
            Row::Item { object: id, name: long(), value: vec![0xff; 4096].into() },
        ];
        for row in rows {
            let (nth, row) = (u64::MAX, row.to_string());
            let refusal = Refusal::ImportConflict { nth, found: row.clone(), row };
            let response = Response { revision: u64::MAX, outcome: Err(refusal) };
            assert!(response.encode().is_ok_and(|bytes| bytes.len() < 2048), "{response:?}");
        }
    }
}
