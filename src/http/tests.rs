//! The REST interface over a real metadata store, a real object store and actors that only note
//! what they are asked.

mod console;
mod episodes;
mod exports;
mod sessions;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Mutex;

use actix_http::Request;
use actix_web::body::to_bytes;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::{App, test};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tendon_actors::api::{End, FramesPage, Live, NewExport, Refusal, RefusalCode};
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::{ClockId, SessionId};
use tendon_storage::records::{EpisodeRecord, EpisodeState, ExportRecord, Role, SessionRecord};

use super::*;

/// Actors that note what they are asked and answer what the test wants.
#[derive(Default)]
struct Noted {
    asked: Mutex<Vec<String>>,
    refusal: Mutex<Option<Refusal>>,
    reason: Mutex<Option<String>>,
}

impl Noted {
    fn note(&self, asked: String) -> Result<(), Refusal> {
        self.asked.lock().unwrap().push(asked);
        self.refusal.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

fn later<'a, T: 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

fn unanswered<T>() -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::NotFound, "the test has no answer for this"))
}

impl Fleet for Noted {
    fn request_mark(&self, _: SessionId, action: MarkAction, instruction: String) -> Answer<'_, Result<(), Refusal>> {
        later(self.note(format!("mark {action:?} {instruction}")))
    }

    fn end(&self, _: SessionId, end: End) -> Answer<'_, Result<SessionRecord, Refusal>> {
        later(self.note(format!("end {end:?}")).and_then(|()| unanswered()))
    }

    fn export(&self, new: NewExport) -> Answer<'_, Result<ExportRecord, Refusal>> {
        later(self.note(format!("export {new:?}")).and_then(|()| unanswered()))
    }

    fn frames(
        &self,
        _: SessionId,
        episode: u32,
        feature: Option<String>,
        from: u64,
        limit: usize,
    ) -> Answer<'_, Result<FramesPage, Refusal>> {
        let noted = self.note(format!("frames {episode} {feature:?} {from} {limit}"));
        let page = FramesPage { feature: feature.unwrap_or_default(), frames: Vec::new(), next: None };
        later(noted.map(|()| page))
    }

    fn live(&self, _: SessionId) -> Answer<'_, Option<Live>> {
        later(Some(Live { connected: true, epoch: 2, episode: None, streams: Vec::new(), last_error: None }))
    }

    fn readiness(&self) -> Answer<'_, Result<(), String>> {
        later(self.reason.lock().unwrap().clone().map_or(Ok(()), Err))
    }
}

/// A server's state in a folder that goes with it, and a token of each role.
struct House {
    _folder: TempDir,
    fleet: Arc<Noted>,
    state: web::Data<HttpState>,
    tokens: BTreeMap<Role, String>,
}

/// The name of the robot whose token [`House::tokens`] has.
const ROBOT: &str = "arm-1";

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let meta = Meta::open(&folder.path().join("meta")).unwrap();
        let objects = Objects::local(&folder.path().join("objects")).unwrap();
        let page = "https://dash.example".parse::<crate::auth::Origin>().unwrap();
        let auth = Arc::new(Auth::new(&meta, folder.path().join("inbox"), vec![page]));
        let token = |role: &Role| (*role, auth.accounts().create(ROBOT, *role, 1).unwrap().0.reveal());
        let tokens = Role::ALL.iter().map(token).collect();
        let fleet = Arc::new(Noted::default());
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let actors: Arc<dyn Fleet> = Arc::<Noted>::clone(&fleet);
        Self {
            _folder: folder,
            state: web::Data::new(HttpState::new(meta, objects, actors, auth, metrics)),
            fleet,
            tokens,
        }
    }

    /// A request of somebody with this role.
    fn request(&self, role: Role, method: Method, uri: &str) -> test::TestRequest {
        let bearer = format!("Bearer {}", self.tokens[&role]);
        test::TestRequest::with_uri(uri).method(method).insert_header((AUTHORIZATION, bearer))
    }

    async fn send(&self, request: Request) -> Answered {
        let state = self.state.clone();
        let app = test::init_service(App::new().configure(|config| configure(config, state))).await;
        let response = test::call_service(&app, request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body()).await.unwrap_or_default().to_vec();
        Answered { status, headers, bytes }
    }

    async fn get(&self, uri: &str) -> Answered {
        self.send(self.request(Role::Operator, Method::GET, uri).to_request()).await
    }

    async fn post(&self, uri: &str, body: &Value) -> Answered {
        self.send(self.request(Role::Operator, Method::POST, uri).set_json(body).to_request()).await
    }

    async fn post_bytes(&self, uri: &str, body: impl Into<web::Bytes>) -> Answered {
        self.send(self.request(Role::Operator, Method::POST, uri).set_payload(body).to_request()).await
    }

    /// Makes a session by the interface and gives its id.
    async fn session(&self, changes: &Value) -> String {
        let answer = self.post("/api/v1/sessions", &new_session(changes)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Puts an episode into the store, as the actors would.
    fn episode(&self, session: &str, number: u32, state: EpisodeState) {
        let session = self.state.meta.sessions.get(session.parse().unwrap()).unwrap().unwrap();
        let record = json!({
            "session": session.id, "number": number, "mark": number, "state": state, "clock": ClockId([1; 16]), "start_ns": 5,
            "dataset": session.dataset, "operator": session.operator, "robot": session.robot, "created_ns": 5 + number,
        });
        let record: EpisodeRecord = serde_json::from_value(record).unwrap();
        self.state.meta.episodes.create(&record).unwrap();
    }

    fn refuse(&self, code: RefusalCode) {
        *self.fleet.refusal.lock().unwrap() = Some(Refusal::new(code, "because the test says so"));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.fleet.asked.lock().unwrap())
    }
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answered {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a refusal in the one form, and gives its message.
    fn refused(&self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!((self.status.as_u16(), json["error"]["code"].as_str()), (status, Some(code)), "{json}");
        assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
        assert_eq!(json["error"].as_object().unwrap().len(), 2, "{json}");
        json["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// A good session with these fields changed; `null` leaves one out.
fn new_session(changes: &Value) -> Value {
    let mut session = json!({
        "operator": "ada", "robot": ROBOT, "embodiment": "so101", "type": "leader_arm", "fps": 30, "dataset": "pick-and-place",
    });
    for (key, value) in changes.as_object().unwrap() {
        let fields = session.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(key);
        } else {
            fields.insert(key.clone(), value.clone());
        }
    }
    session
}

#[actix_web::test]
async fn every_answer_is_json_also_where_nothing_is() {
    let house = House::new();
    let send = |method: Method, uri: &str| house.send(house.request(Role::Admin, method, uri).to_request());
    let root = house.send(test::TestRequest::with_uri("/").to_request()).await;
    assert!(root.refused(404, "unknown_path").contains("docs/api.md"));
    for uri in [
        "/nothing",
        "/api",
        "/api/v2/sessions",
        "/api/v1",
        "/api/v1/",
        "/api/v1/nothing",
        "/api/v1/sessions/a/b/c",
        "/metrics/more",
    ] {
        let message = send(Method::GET, uri).await.refused(404, "unknown_path");
        assert!(message.contains(uri), "{message}");
    }
    for (method, uri, allowed) in [
        (Method::DELETE, "/api/v1/sessions", "GET, POST"),
        (Method::PUT, "/api/v1/tokens", "GET, POST"),
        (Method::GET, "/api/v1/tokens/1", "DELETE"),
        (Method::POST, "/healthz", "GET"),
        (Method::POST, "/metrics", "GET"),
    ] {
        let answer = send(method, uri).await;
        assert!(answer.refused(405, "method_not_allowed").contains(allowed), "{uri}");
        assert_eq!(answer.header("allow"), allowed, "{uri}");
    }
}

#[actix_web::test]
async fn every_answer_tells_browsers_to_guess_frame_and_keep_nothing() {
    let house = House::new();
    for uri in ["/healthz", "/nothing", "/api/v1/sessions", "/metrics"] {
        let answer = house.send(test::TestRequest::with_uri(uri).to_request()).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{uri}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{uri}");
        assert_eq!(answer.header("cache-control"), "no-store", "{uri}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{uri}");
    }
}

/// Each row is a right; the columns are what the four roles get.
#[actix_web::test]
async fn each_path_asks_for_its_right() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    house.episode(&session, 0, EpisodeState::Stored);
    let of = |rest: &str| format!("/api/v1/sessions/{session}{rest}");
    let cases = [
        (Method::GET, "/api/v1/sessions".to_owned(), "viewer operator robot admin"),
        (Method::GET, of(""), "viewer operator robot admin"),
        (Method::GET, of("/episodes"), "viewer operator robot admin"),
        (Method::GET, of("/episodes/0"), "viewer operator robot admin"),
        (Method::GET, of("/episodes/0/frames"), "viewer operator robot admin"),
        (Method::GET, "/api/v1/datasets".to_owned(), "viewer operator admin"),
        (Method::GET, "/api/v1/datasets/a".to_owned(), "viewer operator admin"),
        (Method::GET, "/api/v1/datasets/a/episodes".to_owned(), "viewer operator admin"),
        (Method::GET, "/api/v1/exports".to_owned(), "viewer operator admin"),
        (Method::GET, "/api/v1/exports/1".to_owned(), "viewer operator admin"),
        (Method::GET, "/api/v1/console".to_owned(), "viewer operator admin"),
        (Method::GET, "/metrics".to_owned(), "viewer operator admin"),
        (Method::GET, "/api/v1/exports/1/files".to_owned(), "operator admin"),
        (Method::GET, "/api/v1/exports/1/files/a/b".to_owned(), "operator admin"),
        (Method::POST, "/api/v1/exports".to_owned(), "operator admin"),
        (Method::POST, "/api/v1/sessions".to_owned(), "operator admin"),
        (Method::POST, of("/complete"), "operator admin"),
        (Method::POST, of("/fail"), "operator admin"),
        (Method::POST, of("/episodes/start"), "operator admin"),
        (Method::POST, of("/episodes/pause"), "operator admin"),
        (Method::POST, of("/episodes/resume"), "operator admin"),
        (Method::POST, of("/episodes/stop"), "operator admin"),
        (Method::POST, of("/episodes/discard"), "operator admin"),
        (Method::POST, of("/episodes/0/annotations"), "operator admin"),
        (Method::POST, "/api/v1/datasets".to_owned(), "operator admin"),
        (Method::POST, "/api/v1/tokens".to_owned(), "admin"),
        (Method::GET, "/api/v1/tokens".to_owned(), "admin"),
        (Method::DELETE, "/api/v1/tokens/1".to_owned(), "admin"),
    ];
    for (method, uri, allowed) in cases {
        let stranger = house.send(test::TestRequest::with_uri(&uri).method(method.clone()).to_request()).await;
        stranger.refused(401, "token_missing");
        assert!(stranger.header("www-authenticate").starts_with("Bearer"), "{uri}");
        for role in Role::ALL {
            let answer = house.send(house.request(*role, method.clone(), &uri).to_request()).await;
            let may = allowed.split(' ').any(|name| name == role.as_str());
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, !may, "{role} {method} {uri}: {} {}", answer.status, answer.text());
        }
    }
}

#[actix_web::test]
async fn health_needs_no_token_and_readiness_says_what_is_wrong() {
    let house = House::new();
    let open = |uri: &str| house.send(test::TestRequest::with_uri(uri).to_request());
    assert_eq!(open("/healthz").await.json()["status"], "alive");
    assert_eq!(open("/readyz").await.json()["status"], "ready");
    *house.fleet.reason.lock().unwrap() = Some("the disk is full; free some space".to_owned());
    let answer = open("/readyz").await;
    assert!(answer.refused(503, "not_ready").contains("disk is full"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(open("/healthz").await.status, StatusCode::OK, "a full disk is no reason for a restart");
}

#[actix_web::test]
async fn metrics_are_text_for_prometheus() {
    let house = House::new();
    let answer = house.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
}

#[actix_web::test]
async fn a_token_in_the_url_is_refused_even_beside_a_good_one() {
    let house = House::new();
    let uri = format!("/api/v1/sessions?token={}", house.tokens[&Role::Admin]);
    let message = house.get(&uri).await.refused(400, "token_in_url");
    assert!(!message.contains(&house.tokens[&Role::Admin]), "{message}");
}

#[actix_web::test]
async fn pages_of_listed_origins_may_ask_and_others_may_not() {
    let house = House::new();
    let ask = |origin: &'static str, method: Method| {
        let request = house.request(Role::Viewer, method, "/api/v1/sessions").insert_header(("origin", origin));
        house.send(request.insert_header(("access-control-request-method", "POST")).to_request())
    };
    let answer = ask("https://dash.example", Method::GET).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (StatusCode::OK, "https://dash.example"));
    let question = ask("https://dash.example", Method::OPTIONS).await;
    assert_eq!(question.status, StatusCode::NO_CONTENT);
    assert!(question.header("access-control-allow-headers").contains("authorization"));
    let foreign = ask("https://evil.example", Method::GET).await;
    foreign.refused(403, "origin_refused");
    assert_eq!(foreign.header("access-control-allow-origin"), "");
    assert_eq!(ask("https://evil.example", Method::OPTIONS).await.header("access-control-allow-origin"), "");
}

#[actix_web::test]
async fn bodies_that_are_no_json_too_long_or_of_the_wrong_form_are_refused_in_their_own_way() {
    let house = House::new();
    let uri = "/api/v1/sessions";
    let message = house.post_bytes(uri, "{\n \"robot\": }").await.refused(400, "bad_json");
    assert!(message.contains("line 2 column 11"), "{message}");
    house.post_bytes(uri, vec![0xff, 0xfe]).await.refused(400, "bad_json");
    house.post_bytes(uri, "[".repeat(100_000)).await.refused(400, "bad_json");
    assert!(house.post_bytes(uri, "").await.refused(422, "invalid").contains("operator"));
    let list = house.post_bytes(uri, "[\"ada\", \"arm-1\", \"so101\", \"gamepad\", 30]").await;
    assert!(list.refused(422, "invalid").contains("no JSON object"));
    let wrong = house.post(uri, &new_session(&json!({ "fps": "fast" }))).await;
    assert!(wrong.refused(422, "invalid").contains("line 1 column"));
    let unknown = house.post(uri, &new_session(&json!({ "fsp": 30 }))).await.refused(422, "invalid");
    assert!(unknown.contains("fsp") && unknown.contains("fps"), "{unknown}");

    let long = format!("{{\"operator\": \"{}\"}}", "a".repeat(BODY_BYTES_MAX));
    let message = house.post_bytes(uri, long).await.refused(413, "body_too_large");
    assert!(message.contains("1048576"), "{message}");
    let stated = house.request(Role::Operator, Method::POST, uri).insert_header(("content-length", "99999999999"));
    let message = house.send(stated.to_request()).await.refused(413, "body_too_large");
    assert!(message.contains("99999999999"), "{message}");
}

#[actix_web::test]
async fn messages_stay_short_whatever_the_request_repeats() {
    let house = House::new();
    let answer = house.post_bytes("/api/v1/sessions", format!("{{\"{}\": 1}}", "x".repeat(500_000))).await;
    assert!(answer.refused(422, "invalid").chars().count() <= 1004);
}

#[actix_web::test]
async fn refusals_of_the_actors_keep_their_status_and_text() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    for (code, status, word) in [
        (RefusalCode::NotFound, 404, "not_found"),
        (RefusalCode::WrongState, 409, "wrong_state"),
        (RefusalCode::Invalid, 422, "invalid"),
        (RefusalCode::NoProducer, 409, "no_producer"),
        (RefusalCode::Busy, 429, "busy"),
        (RefusalCode::Storage, 503, "storage"),
    ] {
        house.refuse(code);
        let answer = house.post(&format!("/api/v1/sessions/{session}/complete"), &json!({})).await;
        assert_eq!(answer.refused(status, word), "because the test says so");
    }
}

/// Who calls the interface reads docs/api.md, not this source.
#[actix_web::test]
async fn every_path_is_described() {
    let (source, docs) = (include_str!("../http.rs"), include_str!("../../docs/api.md"));
    let mut paths = 0;
    for part in source.split("path!(\"").skip(1) {
        let mut pattern = part.split('"').next().unwrap().to_owned();
        for (ours, theirs) in
            [("{session}", "{id}"), ("{number}", "{n}"), ("{export}", "{id}"), ("{token}", "{id}"), (":.+}", "}")]
        {
            pattern = pattern.replace(ours, theirs);
        }
        assert!(docs.contains(&format!("{pattern}`")), "{pattern} is not in docs/api.md");
        paths += 1;
    }
    assert!(paths > 25, "only {paths} paths found");
}
