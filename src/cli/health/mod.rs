//! `--health ADDR`: answers `/health` and `/metrics` by HTTP while a command runs.
//!
//! ```text
//!   GET /health    200 if everything is delivered, else 503, with the reasons as JSON
//!   GET /metrics   the metrics of the process, for Prometheus
//! ```
//!
//! Only what the command proves counts: a process that lives proves nothing.

mod exchange;
mod http;
mod sources;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

use self::exchange::{HttpAnswer, HttpRequest};
use self::http::{HttpServer, Responder};
pub(crate) use self::sources::{SourceMonitor, canary_period, proof_limit};
use super::messages::print_message;
use super::outcome::Failure;

/// The time that a client has for its request and the answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// The health of a command, at one time.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    /// The reasons why something may not be delivered; empty if all is well. No text contains a control character.
    pub(crate) problems: Vec<String>,
    /// The parts that the command serves, such as its connections.
    pub(crate) details: serde_json::Value,
}

/// A server of HTTP on a thread of its own. It ends when it is dropped, and waits for no client.
pub(crate) struct HealthServer {
    _server: HttpServer,
}

impl HealthServer {
    /// Starts to answer, and prints where unless it should be quiet. `check` is called for each request, also to record metrics
    /// that are only read then. It must not block.
    pub(crate) fn start(
        address: &str,
        is_quiet: bool,
        check: impl Fn() -> Health + Send + 'static,
    ) -> Result<Self, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::Failed(format!("could not answer --health at {address}: {error}"));
        // All addresses of a name: the first one that is free.
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(|error| failed(&error))?.collect();
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let responder = HealthResponder { check, metrics };
        let server = HttpServer::start(&addresses, CLIENT_LIMIT, responder).map_err(|error| failed(&error))?;
        metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
        if !is_quiet {
            // Port 0 is any free port.
            print_message(format_args!("/health and /metrics are at http://{}", server.address));
        }
        Ok(Self { _server: server })
    }
}

/// Answers from the state of the command.
struct HealthResponder<C> {
    check: C,
    metrics: PrometheusHandle,
}

impl<C: Fn() -> Health> Responder for HealthResponder<C> {
    fn answer(&mut self, request: &HttpRequest) -> HttpAnswer {
        let answer = |status, content_type, body| HttpAnswer { status, content_type, body };
        match request.path.as_str() {
            "/health" => {
                let health = (self.check)();
                let body = serde_json::to_string(&health).unwrap_or_default() + "\n";
                answer(if health.problems.is_empty() { 200 } else { 503 }, "application/json", body)
            }
            "/metrics" => {
                drop((self.check)());
                self.metrics.run_upkeep();
                answer(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            }
            _ => HttpAnswer::text(404, "there are /health and /metrics"),
        }
    }

    /// Releases what the metrics keep until they are read, which may be never.
    fn tidy(&mut self) {
        self.metrics.run_upkeep();
    }
}
