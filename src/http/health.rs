//! How the server is: for a supervisor, a load balancer and Prometheus.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::door::{Granted, Read};
use super::{ApiError, HttpState};

/// The process runs and serves sockets. Restart it when this fails.
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "alive", "version": env!("CARGO_PKG_VERSION") }))
}

/// Samples can be stored. When not, say a full disk, the server stays up and recovers by itself.
pub(super) async fn ready(state: web::Data<HttpState>) -> Result<HttpResponse, ApiError> {
    match state.fleet.readiness().await {
        Ok(()) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Err(reason) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason)),
    }
}

pub(super) async fn metrics(_: Granted<Read>, state: web::Data<HttpState>) -> Result<HttpResponse, ApiError> {
    let handle = state.metrics.clone();
    // Sorting the collected times takes a moment when nobody has asked for long.
    let printed = web::block(move || {
        handle.run_upkeep();
        handle.render()
    });
    let text = printed.await.map_err(|_| ApiError::stopping())?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
