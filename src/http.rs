//! The REST interface under `/api/v1`, health, readiness and metrics.
//!
//! Read [`configure`] first: it is the table of paths. Each request passes [`door`] (who it is),
//! then one handler, whose first argument says which right it needs ([`door::Granted`]). Handlers
//! translate: they parse once, ask the stores in a blocking thread or the fleet, and answer with
//! records as they are. `docs/api.md` describes it for those who call it.
//!
//! A request with `Upgrade: websocket` does not come here but to `ingest`, except for the console's.

mod body;
mod datasets;
pub(crate) mod door;
mod episodes;
mod error;
mod exports;
mod fleet;
mod health;
mod sessions;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::middleware::from_fn;
use actix_web::{Resource, guard, web};
use metrics_exporter_prometheus::PrometheusHandle;
use tendon_storage::meta::{Meta, MetaError};
use tendon_storage::objects::Objects;

use crate::auth::Auth;
use crate::console::console;

pub use error::ApiError;
pub use fleet::{Answer, Fleet};

/// Longest body of a request in bytes. The longest text in one is an instruction of 64 KiB.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What handlers work with. Shared by all workers.
pub struct HttpState {
    /// Sessions, episodes, datasets, exports.
    pub meta: Meta,
    /// Files of exports.
    pub objects: Objects,
    /// The actors.
    pub fleet: Arc<dyn Fleet>,
    /// Tokens and origins.
    pub auth: Arc<Auth>,
    /// Prints metrics.
    pub metrics: PrometheusHandle,
    /// Consoles that are open, see [`crate::console`].
    pub consoles: Arc<AtomicUsize>,
}

impl HttpState {
    /// The state of a server without open consoles.
    pub fn new(
        meta: Meta,
        objects: Objects,
        fleet: Arc<dyn Fleet>,
        auth: Arc<Auth>,
        metrics: PrometheusHandle,
    ) -> Self {
        Self { meta, objects, fleet, auth, metrics, consoles: Arc::default() }
    }

    /// Asks the stores in a blocking thread.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Meta) -> Result<T, MetaError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let meta = self.meta.clone();
        let answer = web::block(move || question(&meta)).await;
        Ok(answer.map_err(|_| ApiError::stopping())??)
    }
}

/// Unix nanoseconds; the limits of an `i64` when the clock is centuries off.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A path with the methods that it knows; others are refused with `405` and the list of these.
fn path(pattern: &str, routes: Vec<(&'static str, actix_web::Route)>) -> Resource {
    let allowed = routes.iter().map(|(method, _)| *method).collect::<Vec<_>>().join(", ");
    let mut resource = web::resource(pattern);
    for (method, route) in routes {
        resource = match method {
            "GET" => resource.route(route.guard(guard::Any(guard::Get()).or(guard::Head()))),
            "POST" => resource.route(route.guard(guard::Post())),
            _ => resource.route(route.guard(guard::Delete())),
        };
    }
    resource.default_service(web::to(move || {
        let allowed = allowed.clone();
        async move { error::method_not_allowed(&allowed) }
    }))
}

macro_rules! path {
    ($pattern:literal, $($method:ident $handler:expr),+ $(,)?) => {
        path($pattern, vec![$((stringify!($method), web::route().to($handler))),+])
    };
}

/// Mounts everything. Give it to `App::configure`.
pub fn configure(config: &mut web::ServiceConfig, state: web::Data<HttpState>) {
    let api = web::scope("/api/v1")
        .wrap(from_fn(door::admit))
        .service(path!("/sessions", GET sessions::list, POST sessions::create))
        .service(path!("/sessions/{session}", GET sessions::get))
        .service(path!("/sessions/{session}/complete", POST sessions::complete))
        .service(path!("/sessions/{session}/fail", POST sessions::fail))
        .service(path!("/sessions/{session}/episodes", GET episodes::of_session))
        .service(path!("/sessions/{session}/episodes/start", POST episodes::start))
        .service(path!("/sessions/{session}/episodes/pause", POST episodes::pause))
        .service(path!("/sessions/{session}/episodes/resume", POST episodes::resume))
        .service(path!("/sessions/{session}/episodes/stop", POST episodes::stop))
        .service(path!("/sessions/{session}/episodes/discard", POST episodes::discard))
        .service(path!("/sessions/{session}/episodes/{number}", GET episodes::get))
        .service(path!("/sessions/{session}/episodes/{number}/annotations", POST episodes::annotate))
        .service(path!("/sessions/{session}/episodes/{number}/frames", GET episodes::frames))
        .service(path!("/datasets", GET datasets::list, POST datasets::create))
        .service(path!("/datasets/{name}", GET datasets::get))
        .service(path!("/datasets/{name}/episodes", GET episodes::of_dataset))
        .service(path!("/exports", GET exports::list, POST exports::create))
        .service(path!("/exports/{export}", GET exports::get))
        .service(path!("/exports/{export}/files", GET exports::files))
        .service(path!("/exports/{export}/files/{path:.+}", GET exports::file))
        .service(path!("/tokens", GET tokens::list, POST tokens::create))
        .service(path!("/tokens/{token}", DELETE tokens::revoke))
        .service(path!("/console", GET console))
        .default_service(web::to(error::unknown_path));
    let metrics = web::scope("/metrics")
        .wrap(from_fn(door::admit))
        .service(path!("", GET health::metrics))
        .default_service(web::to(error::unknown_path));
    let everything = web::scope("")
        .app_data(state)
        .wrap(from_fn(door::harden))
        .service(api)
        .service(metrics)
        .service(path!("/healthz", GET health::alive))
        .service(path!("/readyz", GET health::ready))
        .default_service(web::to(error::unknown_path));
    config.service(everything);
}

#[cfg(test)]
mod tests;
