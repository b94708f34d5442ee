//! The server's messages of protocol version 3 as bytes, with one function for each.
//!
//! Nothing is checked, so that a script can send invalid messages, too; [`raw`] takes any tag and body.

/// A message with this tag and the correct length.
pub fn raw(tag: u8, body: &[u8]) -> Vec<u8> {
    raw_with_length(tag, body.len() as i32 + 4, body)
}

/// A message with a wrong length. The length field counts itself.
pub fn raw_with_length(tag: u8, length: i32, body: &[u8]) -> Vec<u8> {
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// AuthenticationOk.
pub fn auth_ok() -> Vec<u8> {
    auth(0, b"")
}

/// AuthenticationCleartextPassword.
pub fn auth_cleartext() -> Vec<u8> {
    auth(3, b"")
}

/// AuthenticationMD5Password.
pub fn auth_md5(salt: [u8; 4]) -> Vec<u8> {
    auth(5, &salt)
}

/// AuthenticationSASL, with the mechanisms that are offered.
pub fn auth_sasl(mechanisms: &[&str]) -> Vec<u8> {
    auth(10, &[mechanisms.iter().flat_map(|name| text(name)).collect(), vec![0]].concat())
}

/// AuthenticationSASLContinue.
pub fn auth_sasl_continue(data: &str) -> Vec<u8> {
    auth(11, data.as_bytes())
}

/// AuthenticationSASLFinal.
pub fn auth_sasl_final(data: &str) -> Vec<u8> {
    auth(12, data.as_bytes())
}

/// An Authentication request of any kind: 2 is Kerberos, 7 GSSAPI, 9 SSPI.
pub fn auth(kind: i32, data: &[u8]) -> Vec<u8> {
    raw(b'R', &[&kind.to_be_bytes(), data].concat())
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    raw(b'S', &[text(name), text(value)].concat())
}

/// BackendKeyData; the key has four bytes up to protocol 3.0, and up to 256 in 3.2.
pub fn backend_key_data(pid: i32, key: &[u8]) -> Vec<u8> {
    raw(b'K', &[&pid.to_be_bytes(), key].concat())
}

/// NegotiateProtocolVersion: the newest minor version, and the options that are not supported.
pub fn negotiate_protocol_version(minor: i32, options: &[&str]) -> Vec<u8> {
    let names: Vec<u8> = options.iter().flat_map(|name| text(name)).collect();
    raw(b'v', &[&minor.to_be_bytes()[..], &(options.len() as i32).to_be_bytes(), &names].concat())
}

/// ReadyForQuery: `b'I'` idle, `b'T'` in a transaction, `b'E'` in one that has failed.
pub fn ready(status: u8) -> Vec<u8> {
    raw(b'Z', &[status])
}

/// CommandComplete.
pub fn command_complete(tag: &str) -> Vec<u8> {
    raw(b'C', &text(tag))
}

/// EmptyQueryResponse.
pub fn empty_query() -> Vec<u8> {
    raw(b'I', b"")
}

/// NotificationResponse.
pub fn notification(pid: i32, channel: &str, payload: &str) -> Vec<u8> {
    notification_bytes(pid, channel.as_bytes(), payload.as_bytes())
}

/// NotificationResponse in any encoding.
pub fn notification_bytes(pid: i32, channel: &[u8], payload: &[u8]) -> Vec<u8> {
    raw(b'A', &[&pid.to_be_bytes(), channel, &[0], payload, &[0]].concat())
}

/// ErrorResponse.
pub fn error(severity: &str, code: &str, message: &str) -> Vec<u8> {
    report(b'E', &[(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)])
}

/// NoticeResponse.
pub fn notice(severity: &str, code: &str, message: &str) -> Vec<u8> {
    report(b'N', &[(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)])
}

/// ErrorResponse (`b'E'`) or NoticeResponse (`b'N'`) with any fields: `b'D'` is the detail, `b'H'` the hint.
pub fn report(tag: u8, fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = fields.iter().flat_map(|(field, value)| [vec![*field], text(value)].concat()).collect();
    body.push(0);
    raw(tag, &body)
}

/// RowDescription: columns of type text, in text format.
pub fn row_description(columns: &[&str]) -> Vec<u8> {
    let mut body = (columns.len() as i16).to_be_bytes().to_vec();
    for name in columns {
        body.extend(text(name));
        body.extend([0, 0, 0, 0, 0, 0]); // no table, no column
        body.extend([0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]); // type text, any length, no modifier
        body.extend([0, 0]); // text format
    }
    raw(b'T', &body)
}

/// DataRow; `None` is NULL.
pub fn data_row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
        body.extend(value.unwrap_or_default().as_bytes());
    }
    raw(b'D', &body)
}

/// CopyInResponse: text format, this number of columns.
pub fn copy_in_response(columns: i16) -> Vec<u8> {
    copy_response(b'G', columns)
}

/// CopyOutResponse: text format, this number of columns.
pub fn copy_out_response(columns: i16) -> Vec<u8> {
    copy_response(b'H', columns)
}

/// CopyBothResponse: text format, this number of columns.
pub fn copy_both_response(columns: i16) -> Vec<u8> {
    copy_response(b'W', columns)
}

/// CopyData.
pub fn copy_data(data: &[u8]) -> Vec<u8> {
    raw(b'd', data)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    raw(b'c', b"")
}

/// The end of a usual login: AuthenticationOk, parameters, BackendKeyData 4242 and 1, ReadyForQuery.
pub fn login() -> Vec<u8> {
    [
        auth_ok(),
        parameter_status("server_version", "17.0"),
        parameter_status("server_encoding", "UTF8"),
        parameter_status("client_encoding", "UTF8"),
        parameter_status("standard_conforming_strings", "on"),
        backend_key_data(4242, &[0, 0, 0, 1]),
        ready(b'I'),
    ]
    .concat()
}

fn copy_response(tag: u8, columns: i16) -> Vec<u8> {
    let formats = vec![0; 2 * columns as usize];
    raw(tag, &[&[0], &columns.to_be_bytes()[..], &formats].concat())
}

/// A string with its final NUL.
fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
