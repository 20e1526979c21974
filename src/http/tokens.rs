//! Tokens: make, list, revoke. For admins.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use tendon_storage::accounts::{AccountError, Accounts};
use tendon_storage::records::{Role, TokenRecord};

use super::body::{Body, Fields, NoFields};
use super::door::{Admin, Granted};
use super::{ApiError, HttpState, now_ns};

/// A token as lists show it: without its hash.
fn shown(record: &TokenRecord) -> Value {
    json!({
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "created_ns": record.created_ns,
        "revoked_ns": record.revoked_ns,
    })
}

/// Asks the accounts in a blocking thread.
async fn ask<T: Send + 'static>(
    state: &HttpState,
    question: impl FnOnce(&Accounts) -> Result<T, AccountError> + Send + 'static,
) -> Result<T, ApiError> {
    let accounts = state.auth.accounts().clone();
    let answer = web::block(move || question(&accounts)).await;
    Ok(answer.map_err(|_| ApiError::stopping())??)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    role: Role,
}

/// The one answer in which a token's text is seen; nothing on the way may keep it.
pub(super) async fn create(
    granted: Granted<Admin>,
    state: web::Data<HttpState>,
    body: Body<NewToken>,
) -> Result<HttpResponse, ApiError> {
    let NewToken { name, role } = body.0;
    let (token, record) = ask(&state, move |accounts| accounts.create(&name, role, now_ns())).await?;
    tracing::info!(token = record.id, role = %record.role, by = granted.identity.token, "token made");
    let mut answer = shown(&record);
    answer["token"] = json!(token.reveal());
    Ok(HttpResponse::Created().json(answer))
}

pub(super) async fn list(
    _: Granted<Admin>,
    state: web::Data<HttpState>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    let records = ask(&state, Accounts::list).await?;
    let tokens: Vec<Value> = records.iter().map(shown).collect();
    Ok(HttpResponse::Ok().json(json!({ "tokens": tokens })))
}

pub(super) async fn revoke(
    granted: Granted<Admin>,
    state: web::Data<HttpState>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    let record = ask(&state, move |accounts| accounts.revoke(&id, now_ns())).await?;
    state.auth.forget(&record.id);
    tracing::info!(token = record.id, by = granted.identity.token, "token revoked");
    Ok(HttpResponse::Ok().json(shown(&record)))
}
