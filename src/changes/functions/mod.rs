//! The functions that an installation consists of.

mod definition;
mod log;
mod payload;
mod trigger;

use self::definition::TABLE_LIMIT;
pub(crate) use self::definition::{ExecutionRole, FunctionDefinition};
pub(crate) use self::trigger::{for_tables, serves_any_table};
use super::options::{InstallOptions, Shape};
use super::shape::TableShape;
use super::sql::{self, render};

/// Returns the functions of every installation with these options, without those that are made for certain tables.
pub(crate) fn common(options: &InstallOptions) -> Vec<FunctionDefinition> {
    // Triggers call these. They are the same with all options, so that triggers continue to work while another build changes
    // the options.
    let spill = render!("spill.sql", limit = TABLE_LIMIT);
    let mut functions = vec![
        payload::payload(options),
        payload::payloads(options),
        FunctionDefinition::new("spill", "payload text", "text", ExecutionRole::Owner, &spill),
    ];
    functions.extend(log::called(options));
    let kinds = match options.shape {
        Shape::Rows => &trigger::KINDS[..1],
        Shape::Keys => &trigger::KINDS[1..],
    };
    functions.extend(kinds.iter().map(|kind| for_tables(kind, kind, &TableShape::any(), options)));
    functions.extend(trigger::rowless(options));
    if options.has_schema_events {
        functions.extend(event_triggers(options));
    }
    functions
}

fn event_triggers(options: &InstallOptions) -> [FunctionDefinition; 2] {
    let (report, end) = match options.has_log() {
        false => {
            ("PERFORM pg_notify('notifyman', notifyman.payload(NULL, NULL, NULL, NULL, NULL, ", ", NULL, NULL)) FROM")
        }
        // `append` draws the number.
        true => ("PERFORM notifyman.append(concat('{\"number\":0,', substr(", "::text, 2))) FROM"),
    };
    let tables = sql::tables(options, "c.oid = ANY (part)");
    let cover = render!("cover.sql", tables, report, end);
    let (options, coverable, named) = (sql::options(options), sql::COVERABLE, sql::named());
    let on_ddl = render!("ddl.sql", cover, report, end, options, coverable, named);
    let on_drop = render!("drop.sql", cover, report, end, options, named);
    [("on_ddl", on_ddl), ("on_drop", on_drop)]
        .map(|(name, body)| FunctionDefinition::new(name, "", "event_trigger", ExecutionRole::EventTrigger, &body))
}
