//! The fuzz targets, each a law over any bytes: `fuzz/` runs them with bytes of its own choice, the test below with
//! those that are kept in `fuzz/corpus/`.

/// Framing, and the insides of messages.
pub fn frames(data: &[u8]) {
    crate::proto::fuzz_frames(data);
}

/// A whole conversation: however the server's stream is cut, the same comes out.
pub fn session(data: &[u8]) {
    crate::proto::fuzz_session(data);
}

/// What answers before anything is proved: the wish for TLS, and the messages of a login.
pub fn handshake(data: &[u8]) {
    crate::proto::fuzz_handshake(data);
}

/// A connection string, read, written and read again.
pub fn connection_string(data: &[u8]) {
    crate::config::properties::fuzz_dsn(data);
}

/// A service file and a password file, and what is looked for in them.
pub fn source_files(data: &[u8]) {
    crate::config::properties::fuzz_source_files(data);
}

/// Names and literals, quoted, and read as the server would.
pub fn sql_quoting(data: &[u8]) {
    crate::proto::sql::fuzz_quoting(data);
}

/// Subscriptions that come, go, and are muted: the registry does as a naive one.
pub fn registry(data: &[u8]) {
    crate::notifier::properties::fuzz_registry(data);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs a target over the inputs that are kept for it. A packaged crate has none.
    fn replay(name: &str, target: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        if !corpus.exists() {
            return;
        }
        let mut replayed = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            // A panic's message doesn't say for which input; the last line printed does.
            println!("{}", path.display());
            target(&data);
            replayed += 1;
        }
        assert!(replayed > 0, "no input is kept for {name}");
    }

    #[test]
    fn frames() {
        replay("frames", super::frames);
    }

    #[test]
    fn session() {
        replay("session", super::session);
    }

    #[test]
    fn handshake() {
        replay("handshake", super::handshake);
    }

    #[test]
    fn connection_string() {
        replay("connection_string", super::connection_string);
    }

    #[test]
    fn source_files() {
        replay("source_files", super::source_files);
    }

    #[test]
    fn sql_quoting() {
        replay("sql_quoting", super::sql_quoting);
    }

    #[test]
    fn registry() {
        replay("registry", super::registry);
    }
}
