//! The columns that a trigger function names. Tables with equal columns share a function.

use super::rows::changes_error;
use super::sql::{self, literal};
use crate::error::Error;

/// The types of which PostgreSQL returns the length without reading the value. Of other types it returns the stored size.
const STRING_TYPES: [&str; 4] = ["text", "character varying", "character", "bytea"];

/// The weight of a stored byte, which may be the result of compression.
const STORED_WEIGHT: u32 = 8;

/// The columns that a trigger function names, as `wanted.sql` returns them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableShape {
    /// The columns with possibly long values, each with its type.
    guard: Vec<(String, String)>,
    /// The columns of the key; `None` in the function for any table.
    key: Option<Vec<String>>,
}

impl TableShape {
    /// Returns the shape for a function that serves any table.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// Parses the column `columns` of `wanted.sql`, for a function of this kind.
    pub(crate) fn parse(kind: &str, columns: &str) -> Result<Self, Error> {
        type Columns = Vec<(String, String)>;
        let names = |columns: Columns| columns.into_iter().map(|(name, _)| name).collect();
        let shape = match kind {
            "rows" => serde_json::from_str(columns)
                .map(|(guard, key): (Columns, Columns)| Self { guard, key: Some(names(key)) }),
            "row_keys" => {
                serde_json::from_str(columns).map(|key: Columns| Self { guard: Vec::new(), key: Some(names(key)) })
            }
            _ => serde_json::from_str(columns).map(|key| Self { guard: Vec::new(), key: Some(key) }),
        };
        shape.map_err(|error| {
            changes_error(format!("the server described a table's columns in an unexpected form: {error}"))
        })
    }

    /// Returns `true` if the table is known to have no key.
    pub(crate) fn has_no_key(&self) -> bool {
        self.key.as_ref().is_some_and(Vec::is_empty)
    }

    /// Returns an SQL condition that is true if a value in one of these rows has more than `limit` bytes; `None` if none can
    /// have.
    ///
    /// The condition reads no value from TOAST storage, so a row of a gigabyte costs no more than a small row. It uses the
    /// length of strings, and the stored size of other types.
    pub(crate) fn has_long_value(&self, rows: &[&str], limit: u32) -> Option<String> {
        let sizes: Vec<_> = rows.iter().flat_map(|row| self.guard.iter().map(|column| size(row, column))).collect();
        // GREATEST ignores NULL.
        (!sizes.is_empty()).then(|| format!("GREATEST({}) OPERATOR(pg_catalog.>) {limit}", sizes.join(", ")))
    }

    /// Returns an SQL condition that is true if the values of one of these rows together have more than `limit` bytes.
    ///
    /// It reads no value, like [`has_long_value`](Self::has_long_value). A stored byte of a type that is no string counts for
    /// [`STORED_WEIGHT`] bytes.
    pub(crate) fn is_long(&self, rows: &[&str], limit: u32) -> Option<String> {
        let is_long = |row: &&str| {
            let term = |column: &(String, String)| {
                let weight = if is_string(&column.1) { 1 } else { STORED_WEIGHT };
                format!("(coalesce({}, 0)::bigint OPERATOR(pg_catalog.*) {weight})", size(row, column))
            };
            let terms: Vec<_> = self.guard.iter().map(term).collect();
            // A sum of 1,600 terms would be too deep for the parser's stack.
            let sums: Vec<_> = terms.chunks(40).map(sum).collect();
            format!("{} OPERATOR(pg_catalog.>) {limit}", sum(&sums))
        };
        (!self.guard.is_empty()).then(|| rows.iter().map(is_long).collect::<Vec<_>>().join(" OR "))
    }

    /// Returns an SQL expression for the key of a row as JSON, which is NULL for a table without a key.
    ///
    /// In the function for any table, the expression reads the key's columns from the catalogs.
    pub(crate) fn key(&self, row: &str) -> String {
        let Some(key) = &self.key else {
            return include_str!("sql/any_key.sql").trim_end().replace("{row}", row);
        };
        if key.is_empty() {
            return "NULL::pg_catalog.text".to_owned();
        }
        let fields = key.iter().enumerate().map(|(n, name)| {
            let start = format!("{}{}:", if n == 0 { '{' } else { ',' }, serde_json::Value::from(name.as_str()));
            format!("{}, coalesce(pg_catalog.to_json({row}.{}), 'null')", literal(&start), sql::identifier(name))
        });
        format!("pg_catalog.concat({}, '}}')", fields.collect::<Vec<_>>().join(", "))
    }
}

fn is_string(column_type: &str) -> bool {
    STRING_TYPES.contains(&column_type)
}

/// Returns an SQL expression for the length of a string, or for the stored size of another value.
fn size(row: &str, (name, column_type): &(String, String)) -> String {
    let function = if is_string(column_type) { "octet_length" } else { "pg_column_size" };
    format!("pg_catalog.{function}({row}.{})", sql::identifier(name))
}

fn sum(terms: &[String]) -> String {
    format!("({})", terms.join(" OPERATOR(pg_catalog.+) "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings_are_quoted() {
        let columns = r#"[[["a \"b\" $x$ 'c'\\","text"],["n","numeric"]],[["k \"'\\","integer"]]]"#;
        let shape = TableShape::parse("rows", columns).unwrap();
        assert_eq!(
            shape.has_long_value(&["NEW"], 9).unwrap(),
            r#"GREATEST(pg_catalog.octet_length(NEW."a ""b"" $x$ 'c'\"), pg_catalog.pg_column_size(NEW."n")) OPERATOR(pg_catalog.>) 9"#
        );
        // All qualified operators have the same precedence.
        assert_eq!(
            shape.is_long(&["NEW"], 9).unwrap(),
            r#"(((coalesce(pg_catalog.octet_length(NEW."a ""b"" $x$ 'c'\"), 0)::bigint OPERATOR(pg_catalog.*) 1) OPERATOR(pg_catalog.+) (coalesce(pg_catalog.pg_column_size(NEW."n"), 0)::bigint OPERATOR(pg_catalog.*) 8))) OPERATOR(pg_catalog.>) 9"#
        );
        assert_eq!(
            shape.key("o"),
            r#"pg_catalog.concat( E'{"k \\"''\\\\":', coalesce(pg_catalog.to_json(o."k ""'\"), 'null'), '}')"#
        );
    }

    #[test]
    fn a_table_without_long_columns_or_a_key_has_no_expressions_for_them() {
        let shape = TableShape::parse("rows", "[[],[]]").unwrap();
        assert_eq!(
            (shape.is_long(&["NEW"], 1), shape.has_long_value(&["NEW"], 1), shape.has_no_key()),
            (None, None, true)
        );
        assert!(!TableShape::any().has_no_key());
        assert!(TableShape::parse("keys", r#"[["a"]]"#).is_err());
    }
}
