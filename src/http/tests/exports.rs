use super::*;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn export(house: &House, state: &str, files: &[&str]) {
    let files: Vec<Value> = files.iter().map(|path| json!({ "path": path, "bytes": 5 })).collect();
    let record = json!({
        "id": ID, "dataset": "cups", "format": "v3.0", "video": "keep", "state": state, "progress": 0.5,
        "prefix": "exports/one", "created_ns": 5, "files": files, "error": "no encoder",
    });
    let record: ExportRecord = serde_json::from_value(record).unwrap();
    house.state.meta.exports.create(&record).unwrap();
}

fn uri(rest: &str) -> String {
    format!("/api/v1/exports/{ID}{rest}")
}

#[actix_web::test]
async fn files_of_a_finished_export_are_listed_and_fetched_whole() {
    let house = House::new();
    let objects = &house.state.objects;
    objects.put("exports/one/meta/info.json", web::Bytes::from_static(b"{ \"\"}")).await.unwrap();
    objects.put("exports/one/data/ä b.bin", web::Bytes::from(vec![7; 3 << 20])).await.unwrap();
    export(&house, "done", &["meta/info.json", "data/ä b.bin", "gone"]);
    let listed = house.get(&uri("/files")).await.json();
    assert_eq!(listed["files"][0], json!({ "path": "meta/info.json", "bytes": 5 }));
    let fetched = house.get(&uri("/files/meta/info.json")).await;
    assert_eq!((fetched.status, fetched.bytes.as_slice()), (StatusCode::OK, &b"{ \"\"}"[..]));
    assert_eq!(fetched.header("content-type"), "application/octet-stream");
    let long = house.get(&uri("/files/data/%C3%A4%20b.bin")).await;
    assert_eq!(long.bytes, vec![7; 3 << 20]);
    house.get(&uri("/files/gone")).await.refused(404, "not_found");
}

#[actix_web::test]
async fn no_path_leads_out_of_the_files_that_are_listed() {
    let house = House::new();
    house.state.objects.put("exports/two/secret", web::Bytes::from_static(b"secret")).await.unwrap();
    house.state.objects.put("exports/one/unlisted", web::Bytes::from_static(b"secret")).await.unwrap();
    export(&house, "done", &["meta/info.json"]);
    for path in [
        "unlisted",
        "../two/secret",
        "..%2Ftwo%2Fsecret",
        "%2e%2e/two/secret",
        "meta/../unlisted",
        "/etc/passwd",
        "meta/info.json/",
    ] {
        let answer = house.get(&uri(&format!("/files/{path}"))).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(!answer.text().contains("\"secret\""), "{path}");
    }
}

#[actix_web::test]
async fn files_of_an_export_that_runs_or_failed_are_refused_with_the_reason() {
    for (state, part) in [("queued", "50 %"), ("running", "50 %"), ("failed", "no encoder")] {
        let house = House::new();
        export(&house, state, &[]);
        assert_eq!(house.get(&uri("")).await.json()["state"], state);
        for rest in ["/files", "/files/a"] {
            let message = house.get(&uri(rest)).await.refused(409, "wrong_state");
            assert!(message.contains(part), "{message}");
        }
    }
}

#[actix_web::test]
async fn exports_are_listed_by_state_and_started_by_the_actors() {
    let house = House::new();
    export(&house, "done", &[]);
    assert_eq!(house.get("/api/v1/exports").await.json()["exports"][0]["id"], ID);
    assert_eq!(house.get("/api/v1/exports?state=failed").await.json()["exports"], json!([]));
    house.get("/api/v1/exports?state=lost").await.refused(400, "unreadable");
    house.get("/api/v1/exports/none").await.refused(404, "not_found");
    house.post("/api/v1/exports", &json!({ "dataset": "cups", "format": "v4" })).await.refused(422, "invalid");
    assert_eq!(house.asked(), Vec::<String>::new());
    house.post("/api/v1/exports", &json!({ "dataset": "cups" })).await.refused(404, "not_found");
    assert_eq!(house.asked().len(), 1);
}
