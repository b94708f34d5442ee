//! `--health ADDR`: answers `/health` and `/metrics` by HTTP while a command runs.
//!
//! ```text
//!   GET /health    200 if everything is delivered, else 503, with the reasons as JSON
//!   GET /metrics   the metrics of the process, for Prometheus
//! ```
//!
//! Only what the command proves counts: a process that lives proves nothing.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tiny_http::{Header, Method, Request, Response, Server};

use super::outcome::Failure;
use super::output::print_message;

/// The health of a command, at one time.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    /// The reasons why something may not be delivered; empty if all is well. No text contains a control character.
    pub(crate) problems: Vec<String>,
    /// The parts that the command serves, such as its connections.
    pub(crate) details: serde_json::Value,
}

/// A server of HTTP on a thread of its own. It ends when it is dropped.
pub(crate) struct HealthServer {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl HealthServer {
    /// Starts to answer, and prints where unless it should be quiet. `check` is called for each request, also to record metrics
    /// that are only read then.
    pub(crate) fn start(
        address: &str,
        is_quiet: bool,
        check: impl Fn() -> Health + Send + 'static,
    ) -> Result<Self, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::Failed(format!("could not answer --health at {address}: {error}"));
        // All addresses of a name: the first one that is free.
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(|error| failed(&error))?.collect();
        let server = Arc::new(Server::http(&*addresses).map_err(|error| failed(&error))?);
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
        let answering = Arc::clone(&server);
        let answer_all = move || {
            for request in answering.incoming_requests() {
                // The client is gone.
                let _ = answer(request, &check, &metrics);
            }
        };
        let thread = thread::Builder::new().name("health".into()).spawn(answer_all).map_err(|error| failed(&error))?;
        if !is_quiet {
            // Port 0 is any free port.
            print_message(format_args!("/health and /metrics are at http://{}", server.server_addr()));
        }
        Ok(Self { server, thread: Some(thread) })
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn answer(request: Request, check: &impl Fn() -> Health, metrics: &PrometheusHandle) -> std::io::Result<()> {
    let respond = |status: u16, kind: &str, text: String| {
        let header = Header::from_bytes("Content-Type", kind);
        Response::from_string(text).with_status_code(status).with_header_if(header)
    };
    let path = request.url().split('?').next().unwrap_or_default();
    let response = match (request.method(), path) {
        (Method::Get | Method::Head, "/health") => {
            let health = check();
            let text = serde_json::to_string(&health).unwrap_or_default() + "\n";
            respond(if health.problems.is_empty() { 200 } else { 503 }, "application/json", text)
        }
        (Method::Get | Method::Head, "/metrics") => {
            drop(check());
            metrics.run_upkeep();
            respond(200, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
        }
        (Method::Get | Method::Head, _) => {
            respond(404, "text/plain; charset=utf-8", "there are /health and /metrics\n".to_owned())
        }
        _ => respond(405, "text/plain; charset=utf-8", "only GET is answered\n".to_owned()),
    };
    request.respond(response)
}

/// A response with a header, if that is valid.
trait WithHeader {
    fn with_header_if(self, header: Result<Header, ()>) -> Self;
}

impl<R: std::io::Read> WithHeader for Response<R> {
    fn with_header_if(self, header: Result<Header, ()>) -> Self {
        match header {
            Ok(header) => self.with_header(header),
            Err(()) => self,
        }
    }
}
