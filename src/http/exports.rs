//! Exports: start, watch, fetch.

use actix_web::body::SizedStream;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use tendon_actors::api::NewExport;
use tendon_storage::records::{ExportRecord, JobState};

use super::body::{Body, Fields, NoFields, cursor, limit, optional, page};
use super::door::{Export, Granted, Read};
use super::{ApiError, HttpState};

pub(super) async fn create(
    _: Granted<Export>,
    state: web::Data<HttpState>,
    body: Body<NewExport>,
) -> Result<HttpResponse, ApiError> {
    let record = state.fleet.export(body.0).await?;
    let place = format!("/api/v1/exports/{}", record.id);
    Ok(HttpResponse::Accepted().insert_header((header::LOCATION, place)).json(record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    state: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn list(
    _: Granted<Read>,
    state: web::Data<HttpState>,
    asked: Fields<Asked>,
) -> Result<HttpResponse, ApiError> {
    let asked = asked.0;
    let wanted = optional("state", asked.state.as_ref())?;
    let (limit, cursor) = (limit(asked.limit.as_ref())?, cursor(asked.cursor.as_ref())?);
    let found = state.ask(move |meta| meta.exports.list(wanted, cursor.as_ref(), limit)).await?;
    Ok(HttpResponse::Ok().json(page("exports", &found)))
}

async fn found(state: &HttpState, id: &str) -> Result<ExportRecord, ApiError> {
    let wanted = id.to_owned();
    let found = state.ask(move |meta| meta.exports.get(&wanted)).await?;
    found.ok_or_else(|| ApiError::not_found("export", id.chars().take(64).collect::<String>()))
}

pub(super) async fn get(
    _: Granted<Read>,
    state: web::Data<HttpState>,
    id: web::Path<String>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(found(&state, &id).await?))
}

/// An export whose files are whole.
async fn done(state: &HttpState, id: &str) -> Result<ExportRecord, ApiError> {
    let record = found(state, id).await?;
    let message = match record.state {
        JobState::Done => return Ok(record),
        JobState::Queued | JobState::Running => format!(
            "export {} is {} ({:.0} %); fetch its files when its state is done",
            record.id,
            record.state,
            record.progress * 100.0
        ),
        JobState::Failed => format!(
            "export {} failed ({}); correct that and start a new one",
            record.id,
            record.error.as_deref().unwrap_or("no reason is recorded")
        ),
    };
    Err(ApiError::wrong_state(message))
}

pub(super) async fn files(
    _: Granted<Export>,
    state: web::Data<HttpState>,
    id: web::Path<String>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    let record = done(&state, &id).await?;
    Ok(HttpResponse::Ok().json(json!({ "files": record.files })))
}

/// One file. Only paths that the record lists are looked for, so no path leads elsewhere.
pub(super) async fn file(
    _: Granted<Export>,
    state: web::Data<HttpState>,
    path: web::Path<(String, String)>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    let (id, wanted) = path.into_inner();
    let record = done(&state, &id).await?;
    let Some(listed) = record.files.iter().find(|file| file.path == wanted) else {
        let wanted: String = wanted.chars().take(128).collect();
        return Err(ApiError::not_found("file", format!("{wanted:?} of export {}", record.id)));
    };
    let object = state.objects.get_stream(&format!("{}/{}", record.prefix.trim_end_matches('/'), listed.path)).await?;
    let response = HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((header::CONTENT_DISPOSITION, "attachment"))
        .body(SizedStream::new(object.bytes, object.pieces));
    Ok(response)
}
