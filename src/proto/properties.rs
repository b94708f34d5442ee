//! Properties of frames and messages for any bytes of a server, used as a fuzz body.

use super::frame::{HEADER, Next, kept, next};
use super::message::{
    backend_key_data, command_complete, data_row, lossy, parameter_status, row_description, server_error,
};

/// Checks for any bytes: a frame has the same length for every part of it that includes the header, and an error does
/// not depend on the bytes after it.
pub(crate) fn fuzz_frames(data: &[u8]) {
    let mut rest = data;
    loop {
        match next(rest) {
            Ok(Next::Whole { total }) => {
                let (frame, behind) = rest.split_at(total);
                assert!(kept(frame).len() <= total && frame.starts_with(kept(frame)));
                for there in (0..total).take(2 * HEADER).chain(total.saturating_sub(HEADER)..total) {
                    let part = frame.get(..there).unwrap_or_default();
                    let Ok(Next::Partial { known }) = next(part) else { unreachable!("{part:?} is part of {frame:?}") };
                    assert_eq!(known, (there >= HEADER).then_some((kept(frame).len(), total)));
                }
                let body = frame.get(HEADER..).unwrap_or_default();
                fuzz_body(frame.first().copied().unwrap_or_default(), body);
                rest = behind;
            }
            Ok(Next::Partial { known }) => {
                assert!(known.is_none_or(|(needed, total)| needed <= total && rest.len() < total));
                return;
            }
            Err(error) => {
                let header = rest.get(..HEADER).unwrap_or(rest);
                assert_eq!(next(header), Err(error));
                return;
            }
        }
    }
}

/// Checks for any bytes: nothing panics, and the result accounts for every byte.
fn fuzz_body(tag: u8, body: &[u8]) {
    match tag {
        b'E' | b'N' => {
            let error = server_error(body);
            let text = [&error.severity, &error.code, &error.message].map(String::len).iter().sum::<usize>();
            assert!(text <= 3 * body.len(), "a byte that is not UTF-8 becomes three");
        }
        b'S' => {
            if let Ok((name, value)) = parameter_status(body) {
                assert_eq!(lossy(body), format!("{name}\0{value}\0"));
            }
        }
        b'K' => assert_eq!(backend_key_data(body).is_ok(), body.len() == 8),
        b'T' => {
            if let Ok(columns) = row_description(body) {
                assert!(body.len() >= 2 + 19 * columns);
            }
        }
        b'D' => {
            let announced = body.first_chunk().map_or(0, |count| usize::from(u16::from_be_bytes(*count)));
            if let Ok(row) = data_row(body, announced) {
                let values = (0..row.len()).map(|column| row.get_bytes(column).unwrap_or_default());
                assert_eq!(2 + values.map(|value| 4 + value.len()).sum::<usize>(), body.len());
            }
            assert!(data_row(body, announced + 1).is_err());
        }
        b'C' => assert_eq!(
            command_complete(body).is_ok(),
            body.iter().position(|&byte| byte == 0) == body.len().checked_sub(1)
        ),
        _ => {}
    }
}
