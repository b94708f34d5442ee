//! The entries of a stream, to and from the fields that an engine stores.
//!
//! An engine stores an entry as names and values, both of any bytes. The page [`relay`](crate::docs::relay) has a table of them,
//! for readers in other languages. The names are short, and each occurs once, since clients make a map of them.
//!
//! Numbers are decimal, and text is UTF-8. A reader ignores fields that it does not know, and refuses another version and an
//! unknown kind. An engine is not trusted: every value is checked here, once.

use std::borrow::Cow;
use std::fmt;

use super::engine_time::EngineTime;
use super::position::{StreamPosition, decimal};
use crate::error::Escaped;
use crate::gap::Gap;
use crate::notification::Batch;

/// The version of the format.
const VERSION: &str = "1";

/// The server whose notifications an entry contains. After a failover the timeline is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StreamOrigin {
    /// The system identifier of the cluster.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    /// The number of the database in the cluster.
    pub(crate) database: u32,
}

impl StreamOrigin {
    /// Returns `true` if a leader of this origin can follow one of another: of the same database, after a failover on a later
    /// timeline.
    pub(crate) fn can_follow(self, other: Self) -> bool {
        (self.system, self.database) == (other.system, other.database) && self.timeline >= other.timeline
    }
}

/// The parts, for an error text.
impl fmt::Display for StreamOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, timeline, database } = self;
        write!(f, "database {database} of the cluster {system}, timeline {timeline}")
    }
}

/// An entry of a stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamEntry {
    pub(crate) origin: StreamOrigin,
    pub(crate) content: EntryContent,
}

/// The content of an entry, by its kind.
#[derive(Debug, Clone)]
pub(crate) enum EntryContent {
    /// The claim of a term, always its entry 0. It fences earlier leaders, and makes no leader alone.
    Claim {
        /// The name of the relay's process.
        relay: Box<str>,
    },
    /// The start of a term, always its entry 1.
    Start {
        /// The last entry before this term, if nothing was lost since.
        continues: Option<StreamPosition>,
        /// The channels that are relayed.
        channels: Vec<Box<str>>,
        /// The time without an entry after which this leader has failed.
        silence_ms: u64,
    },
    /// Notifications, in the order in which the server sent them.
    Notifications(Batch),
    /// The report of notifications that were not relayed.
    Gap {
        channels: Vec<Box<str>>,
        /// One line.
        cause: Box<str>,
        since_unix_ms: u64,
        until_unix_ms: u64,
    },
    /// A place in the order of notifications, which every relay of the database finds.
    Canary {
        /// Unique in the database.
        marker: Box<str>,
        /// A time before it was sent.
        sent: EngineTime,
        /// The channels that are relayed, for readers that begin here.
        channels: Vec<Box<str>>,
        /// As in the start.
        silence_ms: u64,
    },
}

/// A field of an entry, as it is written.
pub(crate) type EntryField<'e> = (&'static str, Cow<'e, [u8]>);

impl StreamEntry {
    /// Returns the fields, in the order in which they are written.
    pub(crate) fn to_fields(&self) -> Vec<EntryField<'_>> {
        let StreamOrigin { system, timeline, database } = self.origin;
        let mut fields = vec![
            ("v", text(VERSION)),
            ("k", text(self.content.kind())),
            ("s", number(system)),
            ("t", number(timeline.into())),
            ("d", number(database.into())),
        ];
        fields.extend(self.content.fields());
        fields
    }

    /// Reads the entry at a position from its fields, in any order.
    ///
    /// # Errors
    ///
    /// An [`EntryError`] if the entry was not written by a relay, or by one of another version.
    pub(crate) fn from_fields<N, V>(position: StreamPosition, fields: &[(N, V)]) -> Result<Self, EntryError>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let reader = FieldReader { position, fields };
        match reader.text("v")? {
            VERSION => {}
            version if decimal(version).is_some() => {
                return Err(reader.error(format_args!(
                    "has the format {}, and this program reads the format {VERSION}: update this program",
                    shown(version.as_bytes())
                )));
            }
            _ => return Err(reader.broken("v", "is not a version")),
        }
        let timeline = u32::try_from(reader.number("t")?).map_err(|_| reader.broken("t", "is not a timeline"))?;
        let database = u32::try_from(reader.number("d")?).map_err(|_| reader.broken("d", "is not a database"))?;
        let origin = StreamOrigin { system: reader.number("s")?, timeline, database };
        let content = match reader.text("k")? {
            EntryContent::CLAIM => EntryContent::Claim { relay: reader.text("r")?.into() },
            EntryContent::START => EntryContent::Start {
                continues: match reader.find("p")? {
                    Some(_) => Some(reader.text("p")?.parse().map_err(|_| reader.broken("p", "is not a position"))?),
                    None => None,
                },
                channels: reader.names("c")?,
                silence_ms: reader.silence()?,
            },
            EntryContent::BATCH => EntryContent::Notifications(reader.notifications("n")?),
            EntryContent::GAP => EntryContent::Gap {
                channels: reader.names("c")?,
                cause: reader.text("e")?.into(),
                since_unix_ms: reader.number("a")?,
                until_unix_ms: reader.number("b")?,
            },
            EntryContent::CANARY => EntryContent::Canary {
                marker: reader.text("m")?.into(),
                sent: EngineTime { unix_ms: reader.number("u")?, engine: reader.text("g")?.into() },
                channels: reader.names("c")?,
                silence_ms: reader.silence()?,
            },
            kind => {
                return Err(reader.error(format_args!(
                    "is of the unknown kind {}: update this program if the relay is newer, or read another stream",
                    shown(kind.as_bytes())
                )));
            }
        };
        if content.has_place(position.sequence) {
            Ok(Self { origin, content })
        } else {
            Err(reader.broken("k", "is a kind that has another place in its term"))
        }
    }
}

/// Entries are equal if the same is written for them.
impl PartialEq for StreamEntry {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin && self.content == other.content
    }
}

impl PartialEq for EntryContent {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.fields() == other.fields()
    }
}

impl From<&Gap> for EntryContent {
    fn from(gap: &Gap) -> Self {
        let [since_unix_ms, until_unix_ms] = gap.unix_ms();
        Self::Gap {
            channels: gap.channels().to_vec(),
            cause: format!("{:#}", gap.cause()).into(),
            since_unix_ms,
            until_unix_ms,
        }
    }
}

impl EntryContent {
    const CLAIM: &'static str = "claim";
    const START: &'static str = "start";
    const BATCH: &'static str = "batch";
    const GAP: &'static str = "gap";
    const CANARY: &'static str = "canary";

    fn kind(&self) -> &'static str {
        match self {
            Self::Claim { .. } => Self::CLAIM,
            Self::Start { .. } => Self::START,
            Self::Notifications(_) => Self::BATCH,
            Self::Gap { .. } => Self::GAP,
            Self::Canary { .. } => Self::CANARY,
        }
    }

    /// Returns the fields that belong to the kind.
    fn fields(&self) -> Vec<EntryField<'_>> {
        match self {
            Self::Claim { relay } => vec![("r", text(relay))],
            Self::Start { continues, channels, silence_ms } => {
                let continues = continues.map(|position| ("p", Cow::Owned(position.to_string().into_bytes())));
                continues.into_iter().chain([("c", names(channels)), ("w", number(*silence_ms))]).collect()
            }
            Self::Notifications(batch) => vec![("n", batch.notification_frames())],
            Self::Gap { channels, cause, since_unix_ms, until_unix_ms } => vec![
                ("c", names(channels)),
                ("e", text(cause)),
                ("a", number(*since_unix_ms)),
                ("b", number(*until_unix_ms)),
            ],
            Self::Canary { marker, sent: EngineTime { unix_ms, engine }, channels, silence_ms } => vec![
                ("m", text(marker)),
                ("u", number(*unix_ms)),
                ("g", text(engine)),
                ("c", names(channels)),
                ("w", number(*silence_ms)),
            ],
        }
    }

    /// Returns `true` if an entry of this kind can have this sequence number.
    fn has_place(&self, sequence: u64) -> bool {
        match self {
            Self::Claim { .. } => sequence == StreamPosition::CLAIM,
            Self::Start { .. } => sequence == StreamPosition::START,
            _ => sequence > StreamPosition::START,
        }
    }
}

fn text(text: &str) -> Cow<'_, [u8]> {
    text.as_bytes().into()
}

fn number(number: u64) -> Cow<'static, [u8]> {
    number.to_string().into_bytes().into()
}

fn names(names: &[Box<str>]) -> Cow<'static, [u8]> {
    names.join("\0").into_bytes().into()
}

/// Returns the beginning of a value, safe to print.
fn shown(value: &[u8]) -> String {
    let start = String::from_utf8_lossy(value.get(..60).unwrap_or(value));
    format!("{:?}", Escaped(start).to_string())
}

/// The fields of the entry at a position, from which values are read.
struct FieldReader<'f, N, V> {
    position: StreamPosition,
    fields: &'f [(N, V)],
}

impl<'f, N: AsRef<[u8]>, V: AsRef<[u8]>> FieldReader<'f, N, V> {
    /// Returns the value of a field, which may occur once.
    fn find(&self, name: &'static str) -> Result<Option<&'f [u8]>, EntryError> {
        let mut found = self.fields.iter().filter(|(other, _)| other.as_ref() == name.as_bytes());
        let value = found.next().map(|(_, value)| value.as_ref());
        if found.next().is_some() { Err(self.broken(name, "occurs twice")) } else { Ok(value) }
    }

    fn bytes(&self, name: &'static str) -> Result<&'f [u8], EntryError> {
        self.find(name)?.ok_or_else(|| {
            self.error(format_args!("has no field {name:?}: it was not written by a relay, so read another stream"))
        })
    }

    fn text(&self, name: &'static str) -> Result<&'f str, EntryError> {
        str::from_utf8(self.bytes(name)?).map_err(|_| self.broken(name, "is not UTF-8"))
    }

    fn number(&self, name: &'static str) -> Result<u64, EntryError> {
        decimal(self.text(name)?).ok_or_else(|| self.broken(name, "is not a decimal number of 64 bits"))
    }

    /// Returns the time without an entry after which the leader has failed.
    fn silence(&self) -> Result<u64, EntryError> {
        match self.number("w")? {
            0 => Err(self.broken("w", "is no time")),
            silence_ms => Ok(silence_ms),
        }
    }

    fn names(&self, name: &'static str) -> Result<Vec<Box<str>>, EntryError> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<Box<str>> = text.split('\0').map(Into::into).collect();
        let has_empty = names.iter().any(|name| name.is_empty());
        if has_empty { Err(self.broken(name, "contains an empty channel name")) } else { Ok(names) }
    }

    fn notifications(&self, name: &'static str) -> Result<Batch, EntryError> {
        let bytes = self.bytes(name)?;
        match Batch::from_frames(bytes) {
            Ok(batch) if batch.is_empty() => Err(self.broken(name, "is empty")),
            Ok(batch) => Ok(batch),
            Err(at) => {
                let position = self.position;
                let message = format!(
                    "the entry {position} is invalid: its field {name:?} has no complete NotificationResponse at byte {at} of \
                     {}: read another stream, or report the fault of the relay or the engine",
                    bytes.len()
                );
                Err(EntryError { message: message.into() })
            }
        }
    }

    fn broken(&self, name: &'static str, reason: &str) -> EntryError {
        let value = self.fields.iter().find(|(other, _)| other.as_ref() == name.as_bytes());
        let value = value.map_or_else(String::new, |(_, value)| format!(" {}", shown(value.as_ref())));
        self.error(format_args!(
            "is invalid: its field {name:?}{value} {reason}: read another stream, or report the fault of the relay or the engine"
        ))
    }

    fn error(&self, problem: fmt::Arguments<'_>) -> EntryError {
        EntryError { message: format!("the entry {} {problem}", self.position).into() }
    }
}

/// The reason why an entry cannot be read: what is wrong, and what to do. No later attempt can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryError {
    message: Box<str>,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
