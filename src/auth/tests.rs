use actix_http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const SECRET: &str = "tendon_0123456789abcdef_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn read(fields: &[(HeaderName, &str)]) -> Result<String, &'static str> {
    header::token(&headers(fields)).map(|secret| secret.expose().to_owned()).map_err(|error| error.code())
}

fn auth(origins: &[&str]) -> (TempDir, Auth) {
    let folder = tempfile::tempdir().unwrap();
    let meta = Meta::open(&folder.path().join("meta")).unwrap();
    let origins = origins.iter().map(|origin| origin.parse::<Origin>().unwrap()).collect();
    let auth = Auth::new(&meta, folder.path().join("inbox"), origins);
    (folder, auth)
}

fn request(uri: &str, fields: &[(HeaderName, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    head.uri = uri.parse().unwrap();
    head.headers = headers(fields);
    head
}

#[test]
fn a_token_is_read_from_the_header_or_the_subprotocols() {
    assert_eq!(read(&[(AUTHORIZATION, "Bearer abc_1")]), Ok("abc_1".to_owned()));
    assert_eq!(read(&[(AUTHORIZATION, "bearer   abc")]), Ok("abc".to_owned()));
    assert_eq!(read(&[(SEC_WEBSOCKET_PROTOCOL, "tendon, bearer.abc")]), Ok("abc".to_owned()));
    assert_eq!(
        read(&[(SEC_WEBSOCKET_PROTOCOL, "bearer.abc"), (SEC_WEBSOCKET_PROTOCOL, "tendon")]),
        Ok("abc".to_owned())
    );
    let both = [(AUTHORIZATION, "Bearer abc"), (SEC_WEBSOCKET_PROTOCOL, "tendon,bearer.abc")];
    assert_eq!(read(&both), Ok("abc".to_owned()));
}

#[test]
fn requests_without_one_clear_token_are_refused_by_their_fault() {
    assert_eq!(read(&[]), Err("token_missing"));
    assert_eq!(read(&[(SEC_WEBSOCKET_PROTOCOL, "tendon")]), Err("token_missing"));
    assert_eq!(read(&[(SEC_WEBSOCKET_PROTOCOL, "bearer.abc")]), Err("token_malformed"));
    assert_eq!(read(&[(AUTHORIZATION, "Bearer ")]), Err("token_malformed"));
    assert_eq!(read(&[(AUTHORIZATION, "Bearer a b")]), Err("token_malformed"));
    assert_eq!(read(&[(AUTHORIZATION, "Basic YTpi")]), Err("token_malformed"));
    assert_eq!(read(&[(AUTHORIZATION, &format!("Bearer {}", "a".repeat(257)))]), Err("token_malformed"));
    assert_eq!(read(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer a")]), Err("token_ambiguous"));
    assert_eq!(read(&[(SEC_WEBSOCKET_PROTOCOL, "tendon, bearer.a, bearer.b")]), Err("token_ambiguous"));
    let differ = [(AUTHORIZATION, "Bearer a"), (SEC_WEBSOCKET_PROTOCOL, "tendon, bearer.b")];
    assert_eq!(read(&differ), Err("token_ambiguous"));
}

/// The story: who forgets the word Bearer sends the token as the scheme, and an error that repeats
/// the scheme prints the token.
#[test]
fn no_refusal_repeats_any_part_of_a_token() {
    for value in [
        SECRET.to_owned(),
        format!("Basic {SECRET}"),
        format!("Bearer {SECRET} {SECRET}"),
        format!("Bearer {SECRET}\u{e9}"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        let error = header::token(&headers).unwrap_err();
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("0011223344"), "{printed}");
    }
    let secret = header::token(&headers(&[(AUTHORIZATION, &format!("Bearer {SECRET}"))])).unwrap();
    assert!(!format!("{secret:?}").contains("0011"), "{secret:?}");
}

proptest! {
    #[test]
    fn any_header_is_read_or_refused(values in proptest::collection::vec(proptest::collection::vec(32u8..=255, 0..300), 0..4), protocol in any::<bool>()) {
        let mut headers = HeaderMap::new();
        for value in values {
            let name = if protocol { SEC_WEBSOCKET_PROTOCOL } else { AUTHORIZATION };
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        if let Ok(secret) = header::token(&headers) {
            prop_assert!((1..=256).contains(&secret.expose().len()));
        }
    }

    /// Every token comes through both ways unchanged.
    #[test]
    fn a_token_comes_through_header_and_subprotocol_alike(token in "[A-Za-z0-9_.~-]{1,256}") {
        let authorization = format!("Bearer {token}");
        let protocols = format!("tendon, bearer.{token}");
        prop_assert_eq!(read(&[(AUTHORIZATION, authorization.as_str())]), Ok(token.clone()));
        prop_assert_eq!(read(&[(SEC_WEBSOCKET_PROTOCOL, protocols.as_str())]), Ok(token));
    }

    #[test]
    fn any_query_is_looked_through(query in "\\PC{0,200}") {
        let _ = header::holds_token(&query);
    }

    #[test]
    fn an_origin_comes_back_from_its_text(host in "[a-z0-9]{1,10}(\\.[a-z0-9]{1,10}){0,2}", port in 1u16.., secure in any::<bool>()) {
        let scheme = if secure { "https" } else { "http" };
        let origin = format!("{scheme}://{host}:{port}").parse::<Origin>().unwrap();
        prop_assert_eq!(origin.to_string().parse::<Origin>().unwrap(), origin);
    }

    #[test]
    fn any_text_is_an_origin_or_refused(text in "\\PC{0,40}") {
        let _ = text.parse::<Origin>();
        let _ = format!("http://{text}").parse::<Origin>();
    }
}

#[test]
fn a_token_in_a_query_is_found_by_name_or_by_look() {
    let by_look = format!("dataset={SECRET}");
    for query in [
        "token=x",
        "a=b&Access_Token=x",
        "%74oken=x",
        "api_key",
        &by_look,
        "x=%74endon_0123456789abcdef_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    ] {
        assert!(header::holds_token(query), "{query}");
    }
    for query in ["", "robot=token", "dataset=tendon_demo", "limit=5&cursor=01ab", "%", "%zz=%4"] {
        assert!(!header::holds_token(query), "{query}");
    }
}

#[test]
fn texts_that_are_no_origin_are_refused() {
    for text in [
        "null",
        "",
        "http://",
        "ftp://a",
        "http://a/b",
        "http://a:b",
        "http://a:70000",
        "http://u@a",
        "http://a b",
        "http://[::1",
        "http://[x]",
        "http://a:+8",
    ] {
        assert!(text.parse::<Origin>().is_err(), "{text}");
    }
    for text in ["http://localhost", "https://Example.org:8443", "http://[::1]:7400"] {
        assert!(text.parse::<Origin>().is_ok(), "{text}");
    }
    assert_eq!("https://A.b".parse::<Origin>().unwrap(), "https://a.b:443".parse::<Origin>().unwrap());
}

#[test]
fn pages_of_the_server_itself_and_programs_pass_and_other_pages_do_not() {
    let allowed = ["https://dash.example".parse::<Origin>().unwrap()];
    let check = |fields: &[(HeaderName, &str)]| origin::check(&headers(fields), &allowed);
    assert!(check(&[(HOST, "robot:7400")]).is_ok());
    assert!(check(&[(HOST, "robot:7400"), (ORIGIN, "http://robot:7400")]).is_ok());
    // Behind a proxy that ends TLS the page is https while this server speaks http.
    assert!(check(&[(HOST, "robot.example"), (ORIGIN, "https://robot.example")]).is_ok());
    assert!(check(&[(HOST, "robot:7400"), (ORIGIN, "https://dash.example")]).is_ok());
    for origin in ["http://dash.example", "https://evil.example", "null", "http://robot:7401", "http://robot"] {
        assert!(check(&[(HOST, "robot:7400"), (ORIGIN, origin)]).is_err(), "{origin}");
    }
    assert!(check(&[(ORIGIN, "https://evil.example")]).is_err());
    let two = [(HOST, "robot:7400"), (ORIGIN, "http://robot:7400"), (ORIGIN, "https://evil.example")];
    assert!(check(&two).is_err());
}

#[actix_web::test]
async fn a_good_token_is_let_in_with_its_role_and_a_wrong_one_is_not() {
    let (_folder, auth) = auth(&[]);
    let (token, record) = auth.accounts().create("ada", Role::Operator, 5).unwrap();
    let bearer = format!("Bearer {}", token.reveal());
    let identity = auth.admit(&request("/api/v1/sessions", &[(AUTHORIZATION, &bearer)])).await.unwrap();
    assert_eq!(identity, Identity { token: record.id, name: "ada".to_owned(), role: Role::Operator });
    assert!(identity.require(Right::Export).is_ok());
    assert_eq!(identity.require(Right::Admin).unwrap_err().code(), "right_missing");
    let wrong = format!("Bearer {SECRET}");
    assert_eq!(auth.admit(&request("/", &[(AUTHORIZATION, &wrong)])).await.unwrap_err().code(), "token_refused");
    let short = auth.admit(&request("/", &[(AUTHORIZATION, "Bearer abc")])).await.unwrap_err();
    assert_eq!(short.code(), "token_malformed");
}

#[actix_web::test]
async fn a_good_token_in_the_url_or_from_a_foreign_page_is_refused() {
    let (_folder, auth) = auth(&[]);
    let (token, _) = auth.accounts().create("ada", Role::Operator, 5).unwrap();
    let bearer = format!("Bearer {}", token.reveal());
    let good = (AUTHORIZATION, bearer.as_str());
    let in_url = format!("/api/v1/sessions?token={}", token.reveal());
    assert_eq!(auth.admit(&request(&in_url, std::slice::from_ref(&good))).await.unwrap_err().code(), "token_in_url");
    let foreign = auth.admit(&request("/", &[good, (ORIGIN, "https://evil.example")])).await;
    assert_eq!(foreign.unwrap_err().code(), "origin_refused");
}

#[actix_web::test]
async fn a_revoked_token_ends_at_once_here_and_within_the_time_of_memory_elsewhere() {
    let (_folder, auth) = auth(&[]);
    let (token, record) = auth.accounts().create("ada", Role::Operator, 5).unwrap();
    let bearer = format!("Bearer {}", token.reveal());
    let fields = [(AUTHORIZATION, bearer.as_str())];
    let identity = auth.authenticate(&headers(&fields)).await.unwrap();
    auth.recheck(&identity).await.unwrap();

    auth.accounts().revoke(&record.id, 9).unwrap();
    assert!(auth.authenticate(&headers(&fields)).await.is_ok(), "still remembered");
    assert_eq!(auth.recheck(&identity).await.unwrap_err().code(), "token_refused");
    let fingerprint = header::token(&headers(&fields)).unwrap().fingerprint();
    let checked = auth.remembered().get(&fingerprint).unwrap().checked;
    assert!(auth.recall(&fingerprint, checked + REMEMBERED_FOR).is_none());
    assert!(REMEMBERED_FOR < Duration::from_secs(5));

    auth.forget(&record.id);
    assert_eq!(auth.authenticate(&headers(&fields)).await.unwrap_err().code(), "token_refused");
}

#[actix_web::test]
async fn the_memory_of_tokens_is_bounded_and_holds_no_secret() {
    let (_folder, auth) = auth(&[]);
    let identity = Identity { token: "x".to_owned(), name: "x".to_owned(), role: Role::Viewer };
    let now = Instant::now();
    for number in 0..REMEMBERED_MAX * 2 + 1 {
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&number.to_be_bytes());
        auth.remember(fingerprint, identity.clone(), now);
        assert!(auth.remembered().len() <= REMEMBERED_MAX);
    }
}
