//! Sessions: make, list, look at, end.

use std::collections::BTreeMap;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tendon_actors::api::End;
use tendon_protocol::id::SessionId;
use tendon_storage::meta::{Page, SessionFilter};
use tendon_storage::records::{DatasetName, RowClock, SessionRecord, SessionState, SessionType};
use uuid::Uuid;

use super::body::{Body, Fields, NoFields, cursor, limit, one, optional, page};
use super::door::{Granted, Operate, ReadOwn};
use super::{ApiError, HttpState, now_ns};
use crate::auth::{AuthError, Identity};

/// Longest free metadata of a session in bytes of JSON; a record may have a megabyte in all.
const METADATA_BYTES_MAX: usize = 64 << 10;
/// Longest reason of a failure in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// What a new session is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSession {
    operator: String,
    robot: String,
    embodiment: String,
    #[serde(rename = "type")]
    kind: SessionType,
    fps: u32,
    #[serde(default)]
    row_clock: RowClock,
    dataset: DatasetName,
    #[serde(default)]
    metadata: Map<String, Value>,
}

impl NewSession {
    fn into_record(self) -> Result<SessionRecord, ApiError> {
        let record = SessionRecord {
            id: SessionId(Uuid::now_v7().into_bytes()),
            operator: self.operator,
            robot: self.robot,
            embodiment: self.embodiment,
            kind: self.kind,
            fps: self.fps,
            row_clock: self.row_clock,
            dataset: self.dataset,
            state: SessionState::Created,
            created_ns: now_ns(),
            ended_ns: None,
            failure: None,
            producer: None,
            epoch: 0,
            streams: Vec::new(),
            positions: BTreeMap::new(),
            released: BTreeMap::new(),
            journal_applied: 0,
            lost: BTreeMap::new(),
            duplicates_removed: 0,
            episodes: 0,
            metadata: self.metadata,
        };
        record.check().map_err(ApiError::invalid)?;
        let bytes = serde_json::to_vec(&record.metadata).map_or(0, |json| json.len());
        if bytes > METADATA_BYTES_MAX {
            let message = format!(
                "metadata has {bytes} bytes, the limit is {METADATA_BYTES_MAX}; keep files elsewhere and put their names here"
            );
            return Err(ApiError::invalid(message));
        }
        Ok(record)
    }
}

pub(super) async fn create(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    body: Body<NewSession>,
) -> Result<HttpResponse, ApiError> {
    let record = body.0.into_record()?;
    let stored = state.ask(move |meta| {
        meta.datasets.ensure(&record.dataset, record.created_ns)?;
        meta.sessions.create(&record)?;
        Ok(record)
    });
    let record = stored.await?;
    let place = format!("/api/v1/sessions/{}", record.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, place)).json(record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    robot: Option<String>,
    operator: Option<String>,
    state: Option<String>,
    dataset: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    day: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

impl Asked {
    /// The filter for this caller: a robot's list holds its own sessions only.
    fn filter(&self, identity: &Identity) -> Result<SessionFilter, ApiError> {
        let mut filter = SessionFilter {
            robot: self.robot.clone(),
            operator: self.operator.clone(),
            state: optional("state", self.state.as_ref())?,
            dataset: optional("dataset", self.dataset.as_ref())?,
            kind: optional("type", self.kind.as_ref())?,
            day: optional("day", self.day.as_ref())?,
        };
        if let Some(own) = identity.own_robot() {
            if filter.robot.as_deref().is_some_and(|robot| robot != own) {
                return Err(AuthError::NotOwn { robot: own.to_owned() }.into());
            }
            filter.robot = Some(own.to_owned());
        }
        Ok(filter)
    }
}

pub(super) async fn list(
    granted: Granted<ReadOwn>,
    state: web::Data<HttpState>,
    asked: Fields<Asked>,
) -> Result<HttpResponse, ApiError> {
    let asked = asked.0;
    let filter = asked.filter(&granted.identity)?;
    let (limit, cursor) = (limit(asked.limit.as_ref())?, cursor(asked.cursor.as_ref())?);
    let found: Page<SessionRecord> = state.ask(move |meta| meta.sessions.list(&filter, cursor.as_ref(), limit)).await?;
    Ok(HttpResponse::Ok().json(page("sessions", &found)))
}

/// The session of a path, if there is one and this caller may see it.
pub(super) async fn seen(state: &HttpState, identity: &Identity, id: &str) -> Result<SessionRecord, ApiError> {
    let id: SessionId = one("session", id)?;
    let found = state.ask(move |meta| meta.sessions.get(id)).await?;
    let record = found.ok_or_else(|| ApiError::not_found("session", id))?;
    identity.may_see(&record)?;
    Ok(record)
}

pub(super) async fn get(
    granted: Granted<ReadOwn>,
    state: web::Data<HttpState>,
    id: web::Path<String>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    let record = seen(&state, &granted.identity, &id).await?;
    let live = state.fleet.live(record.id).await;
    Ok(HttpResponse::Ok().json(with_live(&record, live)))
}

/// A record with how it stands at this moment in `live`, `null` when its actor does not run.
pub(crate) fn with_live(record: &SessionRecord, live: Option<tendon_actors::api::Live>) -> Value {
    let mut shown = json!(record);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("live".to_owned(), json!(live));
    }
    shown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn complete(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    id: web::Path<String>,
    _: Body<Nothing>,
) -> Result<HttpResponse, ApiError> {
    let record = state.fleet.end(one("session", &id)?, End::Completed).await?;
    Ok(HttpResponse::Ok().json(record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    reason: String,
}

pub(super) async fn fail(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    id: web::Path<String>,
    body: Body<Failure>,
) -> Result<HttpResponse, ApiError> {
    let reason = body.0.reason;
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
        let message =
            format!("reason has {} bytes; say in 1 to {REASON_BYTES_MAX} bytes why the session failed", reason.len());
        return Err(ApiError::invalid(message));
    }
    let record = state.fleet.end(one("session", &id)?, End::Failed(reason)).await?;
    Ok(HttpResponse::Ok().json(record))
}
