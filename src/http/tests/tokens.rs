use super::*;

#[actix_web::test]
async fn a_token_is_shown_once_works_and_ends_when_it_is_revoked() {
    let house = House::new();
    let admin = |method: Method, uri: &str| house.request(Role::Admin, method, uri);
    let body = json!({ "name": "arm-2", "role": "robot" });
    let made = house.send(admin(Method::POST, "/api/v1/tokens").set_json(&body).to_request()).await;
    assert_eq!((made.status, made.header("cache-control")), (StatusCode::CREATED, "no-store"));
    let (id, secret) =
        (made.json()["id"].as_str().unwrap().to_owned(), made.json()["token"].as_str().unwrap().to_owned());

    let use_it = || {
        let request =
            test::TestRequest::with_uri("/api/v1/sessions").insert_header((AUTHORIZATION, format!("Bearer {secret}")));
        house.send(request.to_request())
    };
    assert_eq!(use_it().await.status, StatusCode::OK);
    let listed = house.send(admin(Method::GET, "/api/v1/tokens").to_request()).await;
    assert!(listed.text().contains(&id));
    assert!(!listed.text().contains(&secret) && !listed.text().contains("hash"), "{}", listed.text());

    let revoked = house.send(admin(Method::DELETE, &format!("/api/v1/tokens/{id}")).to_request()).await;
    assert_eq!(revoked.status, StatusCode::OK);
    assert!(revoked.json()["revoked_ns"].is_i64());
    use_it().await.refused(401, "token_refused");
}

#[actix_web::test]
async fn tokens_that_cannot_be_made_or_revoked_are_refused() {
    let house = House::new();
    let admin = |method: Method, uri: &str| house.request(Role::Admin, method, uri);
    for body in [
        json!({ "name": "", "role": "robot" }),
        json!({ "name": "a", "role": "king" }),
        json!({ "name": "a\u{0}", "role": "robot" }),
        json!({}),
    ] {
        house.send(admin(Method::POST, "/api/v1/tokens").set_json(&body).to_request()).await.refused(422, "invalid");
    }
    house.send(admin(Method::DELETE, "/api/v1/tokens/none").to_request()).await.refused(404, "not_found");
}
