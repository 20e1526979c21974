//! What every request passes: the check of its token, and the headers of every answer.

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, web};
use metrics::counter;
use tendon_storage::records::Right;

use super::{ApiError, HttpState};
use crate::auth::Identity;
use crate::telemetry::REQUESTS_REFUSED;

/// What an answer tells a browser: nothing may be guessed, framed, kept or referred to.
const HARDENING: [(header::HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Lets a request in, and keeps who sent it for [`Granted`].
pub(super) async fn admit<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let Some(state) = request.app_data::<web::Data<HttpState>>().cloned() else {
        return Ok(request.into_response(unmounted().response()).map_into_right_body());
    };
    match state.auth.admit(request.head()).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(error) => {
            counter!(REQUESTS_REFUSED, "code" => error.code()).increment(1);
            Ok(request.into_response(ApiError::from(error).response()).map_into_right_body())
        }
    }
}

/// Adds the headers of every answer, and answers the question of a browser whether a page of
/// another site may ask.
pub(super) async fn harden<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let state = request.app_data::<web::Data<HttpState>>().cloned();
    let page = state.and_then(|state| state.auth.foreign_origin(request.headers()));
    let is_question =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_question && page.is_some() {
        request.into_response(HttpResponse::NoContent().finish()).map_into_right_body()
    } else {
        next.call(request).await?.map_into_left_body()
    };
    let headers = response.headers_mut();
    for (name, value) in HARDENING {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    headers.insert(header::VARY, header::HeaderValue::from_static("origin"));
    if let Some(page) = page.and_then(|page| header::HeaderValue::from_str(&page).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
    }
    Ok(response)
}

/// A right that a handler needs, as a type, so that no handler can forget to ask.
pub(crate) trait Needed {
    /// The right.
    const RIGHT: Right;
}

macro_rules! needed {
    ($($name:ident),+) => { $(
        #[doc = concat!("Needs [`Right::", stringify!($name), "`].")]
        pub(crate) enum $name {}
        impl Needed for $name {
            const RIGHT: Right = Right::$name;
        }
    )+ };
}
needed!(Read, ReadOwn, Operate, Export, Admin);

/// Proof that the sender of a request holds a right. The first argument of every handler.
pub(crate) struct Granted<R: Needed> {
    pub(crate) identity: Identity,
    right: PhantomData<R>,
}

impl<R: Needed> FromRequest for Granted<R> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let granted = request.extensions().get::<Identity>().cloned().ok_or_else(unmounted);
        ready(granted.and_then(|identity| {
            identity.require(R::RIGHT)?;
            Ok(Self { identity, right: PhantomData })
        }))
    }
}

/// Only a mistake in this program leads here: refuse.
fn unmounted() -> ApiError {
    tracing::error!("a handler is mounted outside the door");
    let message = "the server is mounted wrongly; report this with the server's version";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}
