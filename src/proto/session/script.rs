//! The server's messages, for tests. Each function returns one message as a server would send it.

#![cfg_attr(fuzzing, allow(dead_code, reason = "a fuzz body writes fewer messages than the tests"))]

pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// Returns a type and a length without a body.
pub(crate) fn header(tag: u8, length: u32) -> Vec<u8> {
    [&[tag], &length.to_be_bytes()[..]].concat()
}

pub(crate) fn notification(pid: i32, channel: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(b'A', &[&pid.to_be_bytes(), channel.as_ref(), b"\0", payload.as_ref(), b"\0"].concat())
}

pub(crate) fn authentication(code: i32, rest: &[u8]) -> Vec<u8> {
    frame(b'R', &[&code.to_be_bytes(), rest].concat())
}

pub(crate) fn parameter(name: &str, value: &str) -> Vec<u8> {
    frame(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub(crate) fn key(pid: i32, key: i32) -> Vec<u8> {
    frame(b'K', &[pid.to_be_bytes(), key.to_be_bytes()].concat())
}

/// Returns a ReadyForQuery with the status `I`, `T` or `E`.
pub(crate) fn ready(status: u8) -> Vec<u8> {
    frame(b'Z', &[status])
}

/// Returns a CommandComplete.
pub(crate) fn done(tag: &str) -> Vec<u8> {
    frame(b'C', format!("{tag}\0").as_bytes())
}

/// Returns a RowDescription of text columns that are all called `c`.
pub(crate) fn columns(count: u16) -> Vec<u8> {
    let column = [&b"c\0"[..], &[0; 18]].concat();
    frame(b'T', &[&count.to_be_bytes()[..], &column.repeat(usize::from(count))].concat())
}

pub(crate) fn row<V: AsRef<[u8]>>(values: &[Option<V>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    for value in values {
        match value.as_ref().map(AsRef::as_ref) {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend(i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
                body.extend(value);
            }
        }
    }
    frame(b'D', &body)
}

pub(crate) fn error(severity: &str, code: &str, message: &str) -> Vec<u8> {
    frame(b'E', report(severity, code, message).as_bytes())
}

pub(crate) fn notice(severity: &str, code: &str, message: &str) -> Vec<u8> {
    frame(b'N', report(severity, code, message).as_bytes())
}

fn report(severity: &str, code: &str, message: &str) -> String {
    format!("S{severity}\0V{severity}\0C{code}\0M{message}\0\0")
}

/// Returns a complete login by trust, as process 7 with the key 9.
pub(crate) fn login() -> Vec<u8> {
    [
        authentication(0, b""),
        parameter("server_version", "17.2"),
        parameter("server_encoding", "UTF8"),
        parameter("client_encoding", "UTF8"),
        key(7, 9),
        ready(b'I'),
    ]
    .concat()
}

/// Returns the answer to a statement without rows.
pub(crate) fn answer(tag: &str) -> Vec<u8> {
    [done(tag), ready(b'I')].concat()
}

/// Returns the answer to the query for the channels.
pub(crate) fn channel_rows(channels: &[&str]) -> Vec<u8> {
    let rows = channels.iter().flat_map(|channel| row(&[Some(channel)]));
    columns(1).into_iter().chain(rows).chain(answer("SELECT 1")).collect()
}
