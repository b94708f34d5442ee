//! One connection to an engine: finds the server that is a master, logs in, and makes calls within time limits.
//!
//! The commands and the answers are those of the crate `redis`. The socket is the crate's own, because a connection of that
//! crate cannot be ended by another thread while it waits for an answer.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Parser, Value, cmd};

use super::address::{EngineAddress, EngineConfig};
use super::fault::{CONNECTING, EngineFault, FaultKind};
use super::socket::{EngineSocket, Interrupt};

/// The longest time beyond that of its wait after which a server must have answered a call that waits.
const WAITED_ANSWER_MAX: Duration = Duration::from_secs(1);

/// A connection to the master of an engine. After a failure that is [`Unreachable`](FaultKind::Unreachable) it is of no use.
pub(crate) struct EngineConnection {
    socket: EngineSocket,
    parser: Parser,
    address: EngineAddress,
    answer_timeout: Duration,
    /// The timeout of the socket's reads.
    read_timeout: Duration,
    interrupt: Arc<Interrupt>,
    /// The run id of the server, once it is known.
    engine: Option<Box<str>>,
}

impl EngineConnection {
    /// Connects to the first server that is a master.
    ///
    /// # Errors
    ///
    /// The failures at all addresses, if there is none.
    pub(crate) fn open(config: &EngineConfig, interrupt: &Arc<Interrupt>) -> Result<Self, EngineFault> {
        let mut faults = Vec::new();
        for address in &config.addresses {
            if interrupt.is_stopped() {
                faults.push(EngineFault::new(FaultKind::Unreachable, address, "the connection was stopped"));
                break;
            }
            match Self::open_at(address, config, interrupt) {
                Ok(connection) => return Ok(connection),
                Err(fault) => faults.push(fault),
            }
        }
        Err(EngineFault::join(&faults))
    }

    fn open_at(
        address: &EngineAddress,
        config: &EngineConfig,
        interrupt: &Arc<Interrupt>,
    ) -> Result<Self, EngineFault> {
        let failed = |error| EngineFault::of_socket(address, CONNECTING, &error, config.connect_timeout);
        let socket = EngineSocket::connect(&address.place, config.connect_timeout, interrupt).map_err(failed)?;
        let limit = config.answer_timeout;
        socket.set_timeouts(limit, limit).map_err(failed)?;
        let parser = Parser::new();
        let interrupt = Arc::clone(interrupt);
        let (address, answer_timeout, read_timeout) = (address.clone(), limit, limit);
        let mut connection = Self { socket, parser, address, answer_timeout, read_timeout, interrupt, engine: None };
        connection.log_in()?;
        Ok(connection)
    }

    /// Logs in, checks that the server is a master, and selects the database.
    fn log_in(&mut self) -> Result<(), EngineFault> {
        let mut hello = cmd("HELLO");
        hello.arg(2);
        if let Some(password) = &self.address.password {
            hello.arg("AUTH").arg(self.address.user.as_deref().unwrap_or("default")).arg(password);
        }
        hello.arg("SETNAME").arg("notifyman");
        let answer = self.call(&hello)?;
        let refuse = |kind, problem: String| Err(EngineFault::new(kind, &self.address, problem));
        match (property(&answer, "role"), property(&answer, "mode")) {
            (_, Some("cluster")) => refuse(
                FaultKind::Final,
                "the server is a member of a cluster, which is not supported: use a single server, or one with replicas"
                    .into(),
            ),
            (Some("master"), _) if self.address.database > 0 => {
                let database = self.address.database;
                self.call(cmd("SELECT").arg(database)).map(|_| ())
            }
            (Some("master"), _) => Ok(()),
            (Some(role), _) => refuse(
                FaultKind::Unreachable,
                format!("the server is a {role}, and no master: give the addresses of all servers"),
            ),
            (None, _) => Err(EngineFault::of_protocol(&self.address, "HELLO")),
        }
    }

    /// Returns the address of the server.
    pub(crate) fn address(&self) -> &EngineAddress {
        &self.address
    }

    /// Returns the run id of the server, if it was [set](Self::set_engine).
    pub(super) fn engine(&self) -> Option<&str> {
        self.engine.as_deref()
    }

    pub(super) fn set_engine(&mut self, engine: &str) {
        self.engine = Some(engine.into());
    }

    /// Makes a call.
    ///
    /// # Errors
    ///
    /// The failure of the connection, or the error with which the server answered.
    pub(crate) fn call(&mut self, command: &Cmd) -> Result<Value, EngineFault> {
        self.send(&command.get_packed_command(), self.answer_timeout)?;
        self.receive_answer(command)
    }

    /// Makes a call that the server answers after `wait` if it does not earlier. The answer may take only a little longer: after such a
    /// wait a server that is silent is a fault, which must be found soon.
    pub(crate) fn call_waiting(&mut self, command: &Cmd, wait: Duration) -> Result<Value, EngineFault> {
        self.send(&command.get_packed_command(), wait.saturating_add(self.answer_timeout.min(WAITED_ANSWER_MAX)))?;
        self.receive_answer(command)
    }

    fn receive_answer(&mut self, command: &Cmd) -> Result<Value, EngineFault> {
        let name = name_of(command);
        let answer = self.receive(&name)?;
        EngineFault::of_answer(&self.address, &name, &answer).map_or(Ok(answer), Err)
    }

    /// Makes all calls of a transaction; returns their answers, of which some may be errors.
    ///
    /// # Errors
    ///
    /// The failure of the connection, or the error with which the server refused the transaction: then none was made.
    pub(crate) fn call_together(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, EngineFault> {
        let mut packed = Vec::new();
        cmd("MULTI").write_packed_command(&mut packed);
        commands.iter().for_each(|command| command.write_packed_command(&mut packed));
        cmd("EXEC").write_packed_command(&mut packed);
        self.send(&packed, self.answer_timeout)?;
        let mut refused = None;
        for queued in ["MULTI".to_owned()].into_iter().chain(commands.iter().map(name_of)) {
            let answer = self.receive(&queued)?;
            refused = refused.or_else(|| EngineFault::of_answer(&self.address, &queued, &answer));
        }
        let answer = self.receive("EXEC")?;
        if let Some(refused) = refused.or_else(|| EngineFault::of_answer(&self.address, "EXEC", &answer)) {
            return Err(refused);
        }
        match answer {
            Value::Array(answers) if answers.len() == commands.len() => Ok(answers),
            _ => Err(EngineFault::of_protocol(&self.address, "EXEC")),
        }
    }

    /// Sends commands whose answers may take a time.
    fn send(&mut self, packed: &[u8], answer: Duration) -> Result<(), EngineFault> {
        let limit = self.answer_timeout;
        let mut send = || {
            let read_timeout = self.interrupt.limit(answer)?;
            if read_timeout != self.read_timeout {
                self.socket.set_timeouts(read_timeout, limit)?;
                self.read_timeout = read_timeout;
            }
            self.socket.write_all(packed)?;
            self.socket.flush()
        };
        send().map_err(|error| EngineFault::of_socket(&self.address, "sending a command", &error, limit))
    }

    fn receive(&mut self, command: &str) -> Result<Value, EngineFault> {
        self.parser.parse_value(&mut self.socket).map_err(|error| {
            let Some(source) = std::error::Error::source(&error).and_then(|it| it.downcast_ref::<io::Error>()) else {
                return match error.is_io_error() {
                    true if error.is_timeout() => self.lost(command, &io::ErrorKind::TimedOut.into()),
                    true => self.lost(command, &io::ErrorKind::UnexpectedEof.into()),
                    false => EngineFault::of_protocol(&self.address, command),
                };
            };
            self.lost(command, source)
        })
    }

    fn lost(&self, command: &str, error: &io::Error) -> EngineFault {
        let action = format!("the answer to {command}");
        EngineFault::of_socket(&self.address, &action, error, self.read_timeout)
    }
}

/// Returns the name of a command, and its key if it has one, for messages. Arguments may be secret.
fn name_of(command: &Cmd) -> String {
    let mut words = command.args_iter().map(|word| match word {
        redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    });
    let mut name = words.next().unwrap_or_default();
    let shown = match name.as_str() {
        "XADD" | "XREVRANGE" | "TYPE" => 1,
        "XINFO" => 2,
        _ => 0,
    };
    for word in words.take(shown) {
        let _ = write!(name, " {word}");
    }
    name
}

/// Returns a text in an answer that consists of names and values.
pub(super) fn property<'v>(answer: &'v Value, name: &str) -> Option<&'v str> {
    let Value::Array(items) = answer else { return None };
    let mut pairs = items.chunks_exact(2);
    pairs.find_map(|pair| (text(&pair[0])? == name).then(|| text(&pair[1])).flatten())
}

/// Returns the text of a value.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
