//! Datasets: make, list, look at.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use tendon_storage::records::{DatasetName, DatasetRecord};

use super::body::{Body, Fields, NoFields, cursor, limit, one, page};
use super::door::{Granted, Operate, Read};
use super::{ApiError, HttpState, now_ns};

/// Longest description of a dataset in bytes.
const DESCRIPTION_BYTES_MAX: usize = 16 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDataset {
    name: DatasetName,
    #[serde(default)]
    description: String,
}

pub(super) async fn create(
    _: Granted<Operate>,
    state: web::Data<HttpState>,
    body: Body<NewDataset>,
) -> Result<HttpResponse, ApiError> {
    let NewDataset { name, description } = body.0;
    if description.len() > DESCRIPTION_BYTES_MAX {
        let message =
            format!("description has {} bytes, the limit is {DESCRIPTION_BYTES_MAX}; shorten it", description.len());
        return Err(ApiError::invalid(message));
    }
    let record = DatasetRecord { name, created_ns: now_ns(), description };
    let stored = state.ask(move |meta| {
        meta.datasets.create(&record)?;
        Ok(record)
    });
    let record = stored.await?;
    // Names may hold letters of any script, a header may not: the path is left to the caller then.
    let place = record.name.as_str().is_ascii().then(|| format!("/api/v1/datasets/{}", record.name));
    let mut response = HttpResponse::Created();
    if let Some(place) = place {
        response.insert_header((header::LOCATION, place));
    }
    Ok(response.json(record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn list(
    _: Granted<Read>,
    state: web::Data<HttpState>,
    asked: Fields<Asked>,
) -> Result<HttpResponse, ApiError> {
    let (limit, cursor) = (limit(asked.0.limit.as_ref())?, cursor(asked.0.cursor.as_ref())?);
    let found = state.ask(move |meta| meta.datasets.list(cursor.as_ref(), limit)).await?;
    Ok(HttpResponse::Ok().json(page("datasets", &found)))
}

pub(super) async fn get(
    _: Granted<Read>,
    state: web::Data<HttpState>,
    name: web::Path<String>,
    _: Fields<NoFields>,
) -> Result<HttpResponse, ApiError> {
    let name: DatasetName = one("dataset", &name)?;
    let wanted = name.clone();
    let found = state.ask(move |meta| meta.datasets.get(&wanted)).await?;
    let record = found.ok_or_else(|| ApiError::not_found("dataset", name))?;
    Ok(HttpResponse::Ok().json(record))
}
