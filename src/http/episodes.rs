//! Episodes: ask the producer for marks, list, look at, annotate, read frames.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::SessionId;
use tendon_protocol::limit::INSTRUCTION_BYTES_MAX;
use tendon_storage::meta::EpisodeFilter;
use tendon_storage::records::{Annotation, DatasetName, EpisodeKey, EpisodeRecord, Outcome};

use super::body::{Body, Fields, NoFields, cursor, limit, one, optional, page};
use super::door::{Granted, Operate, Read, ReadOwn};
use super::sessions::{Nothing, seen};
use super::{ApiError, HttpState, now_ns};
use crate::auth::Identity;

/// Longest note of an annotation in bytes.
const NOTE_BYTES_MAX: usize = 16 << 10;
/// Most annotations of an episode; each may hold 80 KiB and a record has a megabyte.
const ANNOTATIONS_MAX: usize = 256;

/// Asks the producer for a mark. What happened is known only when the mark has come: 202.
async fn request(
    state: &HttpState,
    session: &str,
    action: MarkAction,
    word: &str,
    instruction: String,
) -> Result<HttpResponse, ApiError> {
    let session: SessionId = one("session", session)?;
    state.fleet.request_mark(session, action, instruction).await?;
    Ok(HttpResponse::Accepted().json(json!({ "requested": word, "session": session })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    #[serde(default)]
    instruction: String,
}

pub(super) async fn start(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    session: web::Path<String>,
    body: Body<Start>,
) -> Result<HttpResponse, ApiError> {
    let instruction = body.0.instruction;
    check_text("instruction", &instruction, INSTRUCTION_BYTES_MAX)?;
    request(&state, &session, MarkAction::Start, "start", instruction).await
}

pub(super) async fn pause(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    session: web::Path<String>,
    _: Body<Nothing>,
) -> Result<HttpResponse, ApiError> {
    request(&state, &session, MarkAction::Pause, "pause", String::new()).await
}

pub(super) async fn resume(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    session: web::Path<String>,
    _: Body<Nothing>,
) -> Result<HttpResponse, ApiError> {
    request(&state, &session, MarkAction::Resume, "resume", String::new()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    outcome: Outcome,
}

pub(super) async fn stop(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    session: web::Path<String>,
    body: Body<Stop>,
) -> Result<HttpResponse, ApiError> {
    let action = match body.0.outcome {
        Outcome::Success => MarkAction::StopSuccess,
        Outcome::Failure => MarkAction::StopFailure,
    };
    request(&state, &session, action, "stop", String::new()).await
}

pub(super) async fn discard(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    session: web::Path<String>,
    _: Body<Nothing>,
) -> Result<HttpResponse, ApiError> {
    request(&state, &session, MarkAction::Discard, "discard", String::new()).await
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), ApiError> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    Err(ApiError::invalid(format!("{what} has {} bytes, the limit is {bytes_max}; shorten it", text.len())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    state: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

async fn list(state: &HttpState, filter: EpisodeFilter, asked: &Asked) -> Result<HttpResponse, ApiError> {
    let filter = EpisodeFilter { state: optional("state", asked.state.as_ref())?, ..filter };
    let (limit, cursor) = (limit(asked.limit.as_ref())?, cursor(asked.cursor.as_ref())?);
    let found = state.ask(move |meta| meta.episodes.list(&filter, cursor.as_ref(), limit)).await?;
    Ok(HttpResponse::Ok().json(page("episodes", &found)))
}

pub(super) async fn of_session(
    granted: Granted<ReadOwn>,
    state: web::Data<HttpState>,
    session: web::Path<String>,
    asked: Fields<Asked>,
) -> Result<HttpResponse, ApiError> {
    let session = seen(&state, &granted.identity, &session).await?;
    let filter = EpisodeFilter { session: Some(session.id), ..EpisodeFilter::default() };
    list(&state, filter, &asked.0).await
}

pub(super) async fn of_dataset(
    _: Granted<Read>,
    state: web::Data<HttpState>,
    dataset: web::Path<String>,
    asked: Fields<Asked>,
) -> Result<HttpResponse, ApiError> {
    let name: DatasetName = one("dataset", &dataset)?;
    let wanted = name.clone();
    if state.ask(move |meta| meta.datasets.get(&wanted)).await?.is_none() {
        return Err(ApiError::not_found("dataset", name));
    }
    let filter = EpisodeFilter { dataset: Some(name), ..EpisodeFilter::default() };
    list(&state, filter, &asked.0).await
}

/// The key of an episode from its path. One episode has one spelling: no sign, no zeros in front.
fn key_of(path: &(String, String)) -> Result<EpisodeKey, ApiError> {
    let session: SessionId = one("session", &path.0)?;
    let number = path.1.parse::<u32>().ok().filter(|number| number.to_string() == path.1);
    let number = number.ok_or_else(|| {
        let got: String = path.1.chars().take(32).collect();
        ApiError::unreadable(
            "episode",
            format!("{got:?} is no number of an episode; episodes are numbered 0, 1, 2 within their session"),
        )
    })?;
    Ok(EpisodeKey { session, number })
}

/// The episode of a path, if there is one and this caller may see it.
async fn seen_episode(
    state: &HttpState,
    identity: &Identity,
    path: &(String, String),
) -> Result<EpisodeRecord, ApiError> {
    let key = key_of(path)?;
    seen(state, identity, &path.0).await?;
    let found = state.ask(move |meta| meta.episodes.get(key)).await?;
    found.ok_or_else(|| ApiError::not_found("episode", key))
}

pub(super) async fn get(
    granted: Granted<ReadOwn>,
    state: web::Data<HttpState>,
    path: web::Path<(String, String)>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    let record = seen_episode(&state, &granted.identity, &path).await?;
    Ok(HttpResponse::Ok().json(record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAnnotation {
    #[serde(default)]
    instruction: Option<String>,
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default)]
    note: Option<String>,
}

pub(super) async fn annotate(
    granted: Granted<Operate>,
    state: web::Data<HttpState>,
    path: web::Path<(String, String)>,
    body: Body<NewAnnotation>,
) -> Result<HttpResponse, ApiError> {
    let key = key_of(&path)?;
    let NewAnnotation { instruction, outcome, note } = body.0;
    if instruction.is_none() && outcome.is_none() && note.is_none() {
        return Err(ApiError::invalid("the annotation is empty; give instruction, outcome or note"));
    }
    check_text("instruction", instruction.as_deref().unwrap_or_default(), INSTRUCTION_BYTES_MAX)?;
    check_text("note", note.as_deref().unwrap_or_default(), NOTE_BYTES_MAX)?;
    let annotation = Annotation { at_ns: now_ns(), by: granted.identity.name, instruction, outcome, note };
    let meta = state.meta.clone();
    let annotated = web::block(move || {
        meta.episodes.try_update(key, |record| {
            if record.annotations.len() >= ANNOTATIONS_MAX {
                let message = format!("episode {key} has {ANNOTATIONS_MAX} annotations, the limit; put the rest into the session's metadata");
                return Err(ApiError::wrong_state(message));
            }
            record.annotations.push(annotation.clone());
            Ok(())
        })
    });
    let record = annotated.await.map_err(|_| ApiError::stopping())??;
    Ok(HttpResponse::Ok().json(record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FramesAsked {
    feature: Option<String>,
    from: Option<String>,
    limit: Option<String>,
}

pub(super) async fn frames(
    granted: Granted<ReadOwn>,
    state: web::Data<HttpState>,
    path: web::Path<(String, String)>,
    asked: Fields<FramesAsked>,
) -> Result<HttpResponse, ApiError> {
    let asked = asked.0;
    let from = optional("from", asked.from.as_ref())?.unwrap_or(0);
    let limit = limit(asked.limit.as_ref())?;
    let record = seen_episode(&state, &granted.identity, &path).await?;
    let found = state.fleet.frames(record.session, record.number, asked.feature, from, limit).await?;
    Ok(HttpResponse::Ok().json(found))
}
