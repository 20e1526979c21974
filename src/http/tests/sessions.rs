use super::*;

#[actix_web::test]
async fn a_session_comes_back_as_it_was_made_and_makes_its_dataset() {
    let house = House::new();
    let body = new_session(&json!({ "row_clock": "stream:observation.state", "metadata": { "table": 3 } }));
    let made = house.post("/api/v1/sessions", &body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    for (key, value) in body.as_object().unwrap() {
        assert_eq!(&made.json()[key], value, "{key}");
    }
    assert_eq!(made.json()["state"], "created");
    let place = made.header("location").to_owned();
    let found = house.get(&place).await.json();
    assert_eq!(found["id"], made.json()["id"]);
    assert_eq!(found["live"]["epoch"], 2);
    assert_eq!(house.get("/api/v1/datasets/pick-and-place").await.status, StatusCode::OK);
    // The next session of the dataset finds it there.
    house.session(&json!({})).await;
    let datasets = house.get("/api/v1/datasets").await.json();
    assert_eq!(datasets["datasets"].as_array().unwrap().len(), 1);
    assert_eq!(datasets["next"], Value::Null);
}

#[actix_web::test]
async fn fields_that_cannot_be_right_are_refused_by_name_and_make_nothing() {
    let house = House::new();
    let long = "x".repeat(129);
    for (changes, part) in [
        (json!({ "fps": 0 }), "fps is 0; choose 1 to 1000"),
        (json!({ "fps": 1001 }), "fps is 1001"),
        (json!({ "fps": -1 }), "-1"),
        (json!({ "fps": 29.97 }), "29.97"),
        (json!({ "operator": "" }), "operator"),
        (json!({ "robot": "a\nb" }), "robot"),
        (json!({ "robot": " a" }), "robot"),
        (json!({ "embodiment": long }), "embodiment"),
        (json!({ "operator": null }), "operator"),
        (json!({ "dataset": "../etc" }), "dataset name"),
        (json!({ "dataset": "a/b" }), "'/'"),
        (json!({ "dataset": "" }), "is empty"),
        (json!({ "dataset": ".hidden" }), "dot"),
        (json!({ "type": "telepathy" }), "vr_quest"),
        (json!({ "row_clock": "stream:" }), "row clock"),
        (json!({ "row_clock": "sometimes" }), "grid"),
        (json!({ "metadata": { "log": "x".repeat(65 << 10) } }), "metadata"),
    ] {
        let answer = house.post("/api/v1/sessions", &new_session(&changes)).await;
        let message = answer.refused(422, "invalid");
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(house.get("/api/v1/sessions").await.json()["sessions"], json!([]));
    assert_eq!(house.get("/api/v1/datasets").await.json()["datasets"], json!([]));
}

#[actix_web::test]
async fn lists_are_filtered_and_pages_join_to_the_whole_list() {
    let house = House::new();
    let mut ids = Vec::new();
    for number in 0..5 {
        let robot = if number % 2 == 0 { "even" } else { "odd" };
        ids.push(
            house.session(&json!({ "robot": robot, "type": if number == 4 { "policy" } else { "gamepad" } })).await,
        );
    }
    ids.reverse();
    let mut listed = Vec::new();
    let mut uri = "/api/v1/sessions?limit=2".to_owned();
    for pages in 1.. {
        let page = house.get(&uri).await.json();
        listed.extend(
            page["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()),
        );
        assert!(pages < 10);
        let Some(next) = page["next"].as_str() else { break };
        uri = format!("/api/v1/sessions?limit=2&cursor={next}");
    }
    assert_eq!(listed, ids, "newest first, none twice, none missing");
    for (query, count) in [
        ("robot=even", 3),
        ("robot=odd&type=gamepad", 2),
        ("robot=odd&type=policy", 0),
        ("operator=ada&state=created&dataset=pick-and-place", 5),
        ("state=failed", 0),
        ("day=1999-12-31", 0),
        ("robot=%F0%9F%A4%96", 0),
    ] {
        let page = house.get(&format!("/api/v1/sessions?{query}")).await.json();
        assert_eq!(page["sessions"].as_array().unwrap().len(), count, "{query}");
    }
}

#[actix_web::test]
async fn queries_that_cannot_be_read_are_refused_by_field() {
    let house = House::new();
    for (query, part) in [
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=many", "many"),
        ("limit=1&limit=2", "duplicate"),
        ("robto=a", "robto"),
        ("state=sleeping", "recording"),
        ("type=x", "vr_quest"),
        ("day=2025-02-30", "2025-02-30"),
        ("dataset=a%2Fb", "dataset"),
        ("cursor=zz", "cursor"),
    ] {
        let message = house.get(&format!("/api/v1/sessions?{query}")).await.refused(400, "unreadable");
        assert!(message.contains(part), "{part}: {message}");
    }
    // The cursor of one list means nothing in another.
    house.session(&json!({})).await;
    house.session(&json!({})).await;
    let next = house.get("/api/v1/sessions?limit=1").await.json()["next"].as_str().unwrap().to_owned();
    house.get(&format!("/api/v1/datasets?cursor={next}")).await.refused(400, "unreadable");
}

#[actix_web::test]
async fn sessions_that_do_not_exist_and_ids_that_are_none_are_told_apart() {
    let house = House::new();
    let nobody = SessionId([7; 16]);
    house.get(&format!("/api/v1/sessions/{nobody}")).await.refused(404, "not_found");
    house.get("/api/v1/sessions/seven").await.refused(400, "unreadable");
    house.get(&format!("/api/v1/sessions/{nobody}?live=1")).await.refused(400, "unreadable");
}

#[actix_web::test]
async fn a_robot_sees_its_own_sessions_and_no_others() {
    let house = House::new();
    let own = house.session(&json!({})).await;
    let other = house.session(&json!({ "robot": "arm-2" })).await;
    let get = |uri: String| house.send(house.request(Role::Robot, Method::GET, &uri).to_request());
    let listed = get("/api/v1/sessions".to_owned()).await.json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(listed["sessions"][0]["id"], json!(own));
    assert_eq!(get(format!("/api/v1/sessions/{own}")).await.status, StatusCode::OK);
    get("/api/v1/sessions?robot=arm-2".to_owned()).await.refused(403, "not_own_robot");
    for rest in ["", "/episodes", "/episodes/0", "/episodes/0/frames"] {
        get(format!("/api/v1/sessions/{other}{rest}")).await.refused(403, "not_own_robot");
    }
}

#[actix_web::test]
async fn a_session_is_ended_by_its_actor_and_a_failure_needs_a_reason() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    let uri = format!("/api/v1/sessions/{session}");
    house.post_bytes(&format!("{uri}/complete"), "").await.refused(404, "not_found");
    house.post(&format!("{uri}/fail"), &json!({ "reason": "motor 3 hot" })).await.refused(404, "not_found");
    assert_eq!(house.asked(), ["end Completed", "end Failed(\"motor 3 hot\")"]);
    house.post(&format!("{uri}/fail"), &json!({})).await.refused(422, "invalid");
    house.post(&format!("{uri}/fail"), &json!({ "reason": " " })).await.refused(422, "invalid");
    house.post(&format!("{uri}/fail"), &json!({ "reason": "x".repeat(4097) })).await.refused(422, "invalid");
    assert_eq!(house.asked(), Vec::<String>::new());
}

#[actix_web::test]
async fn datasets_are_made_once_with_a_safe_name() {
    let house = House::new();
    let make = |name: &str| json!({ "name": name, "description": "cups" });
    let made = house.post("/api/v1/datasets", &make("cups")).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::CREATED, "/api/v1/datasets/cups"));
    house.post("/api/v1/datasets", &make("cups")).await.refused(409, "exists");
    house.post("/api/v1/datasets", &make("a/../b")).await.refused(422, "invalid");
    assert_eq!(house.post("/api/v1/datasets", &make("杯子")).await.status, StatusCode::CREATED);
    assert_eq!(house.get("/api/v1/datasets/%E6%9D%AF%E5%AD%90").await.json()["name"], "杯子");
    house.get("/api/v1/datasets/none").await.refused(404, "not_found");
    house.get("/api/v1/datasets/..%2Fetc").await.refused(400, "unreadable");
}
