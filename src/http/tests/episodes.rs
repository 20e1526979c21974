use super::*;

#[actix_web::test]
async fn marks_are_requested_of_the_producer_and_never_made_here() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    let uri = |action: &str| format!("/api/v1/sessions/{session}/episodes/{action}");
    for (action, body, mark) in [
        ("start", json!({ "instruction": "place the cup" }), "mark Start place the cup"),
        ("start", json!({}), "mark Start "),
        ("pause", json!({}), "mark Pause "),
        ("resume", json!({}), "mark Resume "),
        ("stop", json!({ "outcome": "success" }), "mark StopSuccess "),
        ("stop", json!({ "outcome": "failure" }), "mark StopFailure "),
        ("discard", json!({}), "mark Discard "),
    ] {
        let answer = house.post(&uri(action), &body).await;
        assert_eq!((answer.status, &answer.json()["requested"]), (StatusCode::ACCEPTED, &json!(action)));
        assert_eq!(house.asked(), [mark]);
    }
    for (action, body) in [
        ("stop", json!({})),
        ("stop", json!({ "outcome": "maybe" })),
        ("pause", json!({ "instruction": "x" })),
        ("start", json!({ "instruction": "x".repeat((64 << 10) + 1) })),
    ] {
        house.post(&uri(action), &body).await.refused(422, "invalid");
    }
    assert_eq!(house.asked(), Vec::<String>::new());
    let longest = json!({ "instruction": "x".repeat(64 << 10) });
    assert_eq!(house.post(&uri("start"), &longest).await.status, StatusCode::ACCEPTED);
}

#[actix_web::test]
async fn episodes_are_listed_by_session_by_dataset_and_by_state() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    let other = house.session(&json!({})).await;
    house.episode(&session, 0, EpisodeState::Stored);
    house.episode(&session, 1, EpisodeState::Incomplete);
    house.episode(&other, 0, EpisodeState::Stored);
    for (uri, count) in [
        (format!("/api/v1/sessions/{session}/episodes"), 2),
        (format!("/api/v1/sessions/{session}/episodes?state=incomplete"), 1),
        (format!("/api/v1/sessions/{session}/episodes?limit=1"), 1),
        ("/api/v1/datasets/pick-and-place/episodes".to_owned(), 3),
        ("/api/v1/datasets/pick-and-place/episodes?state=stored".to_owned(), 2),
    ] {
        let page = house.get(&uri).await.json();
        assert_eq!(page["episodes"].as_array().unwrap().len(), count, "{uri}");
    }
    house.get("/api/v1/datasets/none/episodes").await.refused(404, "not_found");
    house.get(&format!("/api/v1/sessions/{session}/episodes?state=lost")).await.refused(400, "unreadable");
}

#[actix_web::test]
async fn an_episode_has_one_spelling() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    house.episode(&session, 3, EpisodeState::Stored);
    let get = |number: &str| {
        let uri = format!("/api/v1/sessions/{session}/episodes/{number}");
        let house = &house;
        async move { house.get(&uri).await }
    };
    assert_eq!(get("3").await.json()["number"], 3);
    for number in ["+3", "03", "3.0", "-1", "4294967296", "three"] {
        get(number).await.refused(400, "unreadable");
    }
    get("4").await.refused(404, "not_found");
}

#[actix_web::test]
async fn annotations_are_added_and_the_newest_counts() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    house.episode(&session, 0, EpisodeState::Stored);
    let uri = format!("/api/v1/sessions/{session}/episodes/0/annotations");
    house.post(&uri, &json!({ "instruction": "fold", "outcome": "failure" })).await;
    let answer = house.post(&uri, &json!({ "outcome": "success", "note": "second look" })).await;
    assert_eq!(answer.status, StatusCode::OK);
    let record: EpisodeRecord = serde_json::from_slice(&answer.bytes).unwrap();
    assert_eq!(record.annotations.len(), 2);
    assert_eq!(record.instruction_now(), "fold");
    assert_eq!(record.outcome_now().unwrap().as_str(), "success");
    assert_eq!(record.annotations[0].by, ROBOT);
    for body in [
        json!({}),
        json!({ "outcome": "maybe" }),
        json!({ "note": "x".repeat((16 << 10) + 1) }),
        json!({ "instruction": "x".repeat((64 << 10) + 1) }),
    ] {
        house.post(&uri, &body).await.refused(422, "invalid");
    }
    let missing = format!("/api/v1/sessions/{session}/episodes/9/annotations");
    house.post(&missing, &json!({ "note": "x" })).await.refused(404, "not_found");
}

/// A record may have a megabyte: annotations that would not fit are refused, not half stored.
#[actix_web::test]
async fn annotations_end_where_the_record_is_full() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    house.episode(&session, 0, EpisodeState::Stored);
    let uri = format!("/api/v1/sessions/{session}/episodes/0/annotations");
    let long = json!({ "instruction": "x".repeat(64 << 10) });
    let mut stored = 0;
    loop {
        let answer = house.post(&uri, &long).await;
        if answer.status != StatusCode::OK {
            let message = answer.refused(422, "invalid");
            assert!(message.contains("1048576"), "{message}");
            break;
        }
        stored += 1;
        assert!(stored <= 16);
    }
    let record: EpisodeRecord =
        serde_json::from_slice(&house.get(uri.trim_end_matches("/annotations")).await.bytes).unwrap();
    assert_eq!(record.annotations.len(), stored);
}

#[actix_web::test]
async fn frames_are_asked_for_with_their_page() {
    let house = House::new();
    let session = house.session(&json!({})).await;
    house.episode(&session, 0, EpisodeState::Stored);
    let uri = format!("/api/v1/sessions/{session}/episodes/0/frames");
    assert_eq!(house.get(&format!("{uri}?feature=action&from=7&limit=3")).await.json()["feature"], "action");
    assert_eq!(house.get(&uri).await.status, StatusCode::OK);
    assert_eq!(house.asked(), ["frames 0 Some(\"action\") 7 3", "frames 0 None 0 100"]);
    for query in ["from=-1", "from=x", "limit=0", "to=3"] {
        house.get(&format!("{uri}?{query}")).await.refused(400, "unreadable");
    }
    house.get(&uri.replace("/0/", "/1/")).await.refused(404, "not_found");
    assert_eq!(house.asked(), Vec::<String>::new());
}
