//! The tables that a worker reports.

use super::change::{Change, SchemaChange};
use super::glob;

/// Patterns of table names. Without patterns, every table is accepted.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableFilter {
    pub(crate) patterns: Vec<String>,
}

impl TableFilter {
    fn accepts(&self, schema: &str, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| glob::fits_table(pattern, schema, name))
    }

    /// Returns `true` if a pattern matches the table, or the partition.
    pub(crate) fn accepts_change(&self, change: &Change) -> bool {
        let partition = change.partition_schema.as_deref().zip(change.partition_name.as_deref());
        self.accepts(&change.table_schema, &change.table_name)
            || partition.is_some_and(|(schema, name)| self.accepts(schema, name))
    }

    pub(crate) fn accepts_schema(&self, change: &SchemaChange) -> bool {
        let (schema, name) = (change.schema_name.as_deref(), change.object_name.as_deref());
        self.accepts(schema.unwrap_or_default(), name.unwrap_or_default())
    }
}
