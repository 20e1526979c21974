//! One frame's way without trouble: sent, acknowledged, cut into episodes, stored, read back, exported.

use serde_json::{Value, json};
use tendon_protocol::control::MarkAction;
use tendon_protocol::message::Message;

use super::scene::*;
use super::server::{Home, QUICK, Server};
use super::wire::Wire;

/// Samples of each stream of [`three_streams`].
const COUNT: u64 = 21;

/// Streams and one whole episode of two seconds, a camera among them.
async fn three_streams(server: &Server) -> (tendon_protocol::id::SessionId, Wire) {
    let session = server.session().await;
    let mut wire = Wire::connect(server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&Message::Declare(camera())).await;
    for sequence in 0..COUNT {
        wire.send(&picture(sequence, jpeg(sequence, 64, 48))).await;
    }
    record(&mut wire, 1, 0, 0, COUNT).await;
    wire.wait_for(CAMERA, COUNT).await;
    (session, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_stored_reported_and_exported_in_both_formats_bit_for_bit() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let (session, wire) = three_streams(&server).await;
    let welcome = wire.welcome.as_ref().unwrap();
    assert_eq!((welcome.session, welcome.epoch, welcome.payload_bytes_max), (session, 1, 1 << 20));

    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!(episode["outcome"], "success");
    assert_eq!((episode["start_ns"].as_i64(), episode["stop_ns"].as_i64()), (Some(START), Some(time_of(COUNT - 1))));
    assert_eq!(episode["instruction"], "pick up the cube");
    for feature in ["observation.state", "action", "observation.images.front"] {
        let report = stream_report(&episode, feature);
        assert_eq!(
            (report["samples"].as_u64(), report["lost"].as_u64(), report["gaps"].as_u64()),
            (Some(COUNT), Some(0), Some(0)),
            "{report}"
        );
        assert!((report["measured_hz"].as_f64().unwrap() - 10.0).abs() < 1e-6, "{report}");
        assert!((report["longest_gap_ms"].as_f64().unwrap() - 100.0).abs() < 1e-6, "{report}");
        assert_eq!((report["declared_hz"].as_f64(), report["keeps_rate"].as_bool()), (Some(10.0), Some(true)));
    }
    assert!((episode["report"]["duration_s"].as_f64().unwrap() - 2.0).abs() < 1e-6, "{episode}");

    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..COUNT);
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..COUNT);
    let pictures = server.frames(session, 0, "observation.images.front").await;
    assert_eq!(pictures.len() as u64, COUNT);
    assert_eq!(pictures[3]["bytes"].as_u64(), Some(jpeg(3, 64, 48).len() as u64));

    for format in ["v3.0", "v2.1"] {
        let exported = server.exported(session, format).await;
        let read = exported.episode(0);
        assert_eq!((exported.dataset.fps_whole, read.rows as u64), (Some(10), COUNT), "{format}");
        assert_eq!(read.tasks, ["pick up the cube"], "{format}");
        for (stream, key) in [(STATE, "observation.state"), (ACTION, "action")] {
            let sent: Vec<u8> = (0..COUNT).flat_map(|sequence| bytes_of(&sample(stream, sequence))).collect();
            assert_eq!(column(&read, key), sent, "{format} {key}");
        }
        let front = read.cameras.iter().find(|camera| camera.spec.key == "observation.images.front").unwrap();
        let shown: Vec<Vec<u8>> = front.units.iter().map(|unit| unit.data.to_vec()).collect();
        let sent: Vec<Vec<u8>> = (0..COUNT).map(|sequence| jpeg(sequence, 64, 48)).collect();
        assert_eq!(shown, sent, "{format}");
        let times: Vec<i64> = column(&read, "capture_time_ns")
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes))
            .collect();
        let expected: Vec<i64> = (0..COUNT).flat_map(|sequence| [time_of(sequence); 3]).collect();
        assert_eq!(times, expected, "{format}");
    }

    let ended = server.post(&format!("/sessions/{session}/complete"), json!({})).await.ok();
    assert_eq!(ended["state"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_can_be_read_before_its_episode_is_stored() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    // The first episode's samples make the second one begin at a high sequence.
    record(&mut wire, 1, 0, 0, 600).await;
    server.episode_in(session, 0, "stored").await;
    wire.send_durable(&mark_of(2, 2, MarkAction::Start, time_of(600), "again")).await;
    for (from, to) in [(600, 616), (616, 620)] {
        wire.send_durable(&samples(STATE, from, to)).await;
    }
    server.episode_in(session, 1, "recording").await;
    assert_frames(&server.frames(session, 1, "observation.state").await, STATE, 600..620);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instruction_that_is_given_later_is_the_task_of_the_next_export() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    record(&mut wire, 1, 0, 0, 11).await;
    server.episode_in(session, 0, "stored").await;
    assert_eq!(server.exported(session, "v3.0").await.episode(0).tasks, ["pick up the cube"]);

    let path = format!("/sessions/{session}/episodes/0/annotations");
    let annotated =
        server.post(&path, json!({ "instruction": "put the cube into the bowl", "outcome": "failure" })).await.ok();
    assert_eq!(annotated["annotations"].as_array().unwrap().len(), 1);
    assert_eq!(annotated["instruction"], "pick up the cube", "what was recorded stays");
    for format in ["v3.0", "v2.1"] {
        assert_eq!(server.exported(session, format).await.episode(0).tasks, ["put the cube into the bowl"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_discarded_is_in_no_export_and_leaves_nothing_in_storage() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark_of(1, 0, MarkAction::Start, time_of(0), "never mind")).await;
    wire.send(&samples(STATE, 0, 11)).await;
    wire.send(&samples(ACTION, 0, 11)).await;
    wire.send_durable(&mark_of(1, 1, MarkAction::Discard, time_of(10), "")).await;
    server.episode_in(session, 0, "discarded").await;
    let refused = server.post("/exports", json!({ "session": session })).await;
    assert!(refused.refused(409, "wrong_state").contains("1 episodes"), "{refused:?}");

    record(&mut wire, 2, 2, 11, 11).await;
    server.episode_in(session, 1, "stored").await;
    let exported = server.exported(session, "v3.0").await;
    assert_eq!(exported.record["episodes_done"], 1);
    let sent: Vec<u8> = (11..22).flat_map(|sequence| bytes_of(&sample(STATE, sequence))).collect();
    assert_eq!(column(&exported.episode(0), "observation.state"), sent);
    let discarded = home.data().join(format!("objects/episodes/{session}/000000"));
    assert!(!discarded.exists(), "{}", discarded.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_a_pause_has_no_rows() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, time_of(0))).await;
    wire.send(&samples(STATE, 0, 31)).await;
    wire.send(&samples(ACTION, 0, 31)).await;
    wire.send_durable(&mark(1, MarkAction::Pause, time_of(10))).await;
    let paused = server.episode_in(session, 0, "paused").await;
    assert_eq!(paused["paused_since_ns"].as_i64(), Some(time_of(10)));
    assert_eq!(server.session_record(session).await["state"], "paused");
    wire.send(&mark(2, MarkAction::Resume, time_of(20))).await;
    wire.send_durable(&mark(3, MarkAction::StopSuccess, time_of(30))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!(episode["pauses"], json!([[time_of(10), time_of(20)]]));
    assert!((episode["report"]["duration_s"].as_f64().unwrap() - 2.0).abs() < 1e-6, "{episode}");
    let kept: Vec<u8> = (0..10).chain(20..31).flat_map(|sequence| bytes_of(&sample(STATE, sequence))).collect();
    let exported = server.exported(session, "v3.0").await;
    assert_eq!(column(&exported.episode(0), "observation.state"), kept);
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, (0..10).chain(20..31));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_episode_without_a_required_stream_says_which_and_is_completed_by_what_comes_later() {
    let mut home = Home::new(&QUICK.replace("flush_wait_s = 5", "flush_wait_s = 1"));
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, time_of(0))).await;
    wire.send(&samples(STATE, 0, 11)).await;
    wire.send(&samples(ACTION, 0, 6)).await;
    wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(10))).await;
    let incomplete = server.episode_in(session, 0, "incomplete").await;
    assert_eq!(incomplete["missing"], json!(["action"]));
    assert_eq!(stream_report(&incomplete, "action")["samples"], 6);
    // It can be exported as it is, and the export says so.
    let partial = server.export(json!({ "session": session })).await;
    assert!(partial["state"] == "done" && partial["warnings"].to_string().contains("incomplete"), "{partial}");

    wire.send_durable(&samples(ACTION, 6, 11)).await;
    let whole = server.episode_in(session, 0, "stored").await;
    assert_eq!((&whole["missing"], stream_report(&whole, "action")["samples"].as_u64()), (&json!([]), Some(11)));
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_stream_as_row_clock_each_of_its_samples_is_a_row() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let mut wanted = new_session("kitchen");
    wanted["row_clock"] = json!("stream:observation.state");
    let session = id_of(&server.post("/sessions", wanted).await.ok());
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, START)).await;
    // Uneven times, a long gap among them: no row is dropped, none is held.
    let times: Vec<i64> = [0, 90, 210, 290, 700, 810, 900].map(|ms| START + ms * MS).to_vec();
    for stream in [STATE, ACTION] {
        wire.send(&Message::Batch(tendon_protocol::batch::Batch { times_ns: times.clone(), ..batch(stream, 0, 7) }))
            .await;
    }
    wire.send_durable(&mark(1, MarkAction::StopSuccess, START + 900 * MS)).await;
    let episode = server.episode_in(session, 0, "stored").await;
    let report = stream_report(&episode, "observation.state");
    assert!((report["longest_gap_ms"].as_f64().unwrap() - 410.0).abs() < 1e-6, "{report}");
    assert_eq!(report["keeps_rate"], false, "a stream that cannot keep its rate says so: {report}");
    let exported = server.exported(session, "v3.0").await;
    let read = exported.episode(0);
    assert_eq!(read.rows, 7);
    let got: Vec<i64> =
        column(&read, "capture_time_ns").as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    assert_eq!(got.iter().step_by(2).copied().collect::<Vec<_>>(), times);
    assert!(exported.warnings().contains("measured"), "{}", exported.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_and_paged() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let mut made = Vec::new();
    for number in 0..5 {
        let mut wanted = new_session(if number < 3 { "kitchen" } else { "garage" });
        wanted["robot"] = json!(format!("arm-{}", number % 2));
        made.push(server.post("/sessions", wanted).await.ok()["id"].as_str().unwrap().to_owned());
    }
    let mut listed: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/sessions?limit=2{cursor}")).await.ok();
        listed.extend(page["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    listed.sort_by_key(ToString::to_string);
    made.sort();
    assert_eq!(listed, made, "each session is listed once");
    let garage = server.get("/sessions?dataset=garage&robot=arm-1").await.ok();
    assert_eq!(garage["sessions"].as_array().unwrap().len(), 1);
    let datasets = server.get("/datasets").await.ok();
    let names: Vec<&str> =
        datasets["datasets"].as_array().unwrap().iter().map(|dataset| dataset["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["garage", "kitchen"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_says_goodbye_and_its_episodes_outlive_a_restart() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    record(&mut wire, 1, 0, 0, 11).await;
    server.episode_in(session, 0, "stored").await;
    server.post(&format!("/sessions/{session}/complete"), json!({})).await.ok();
    wire.expect_goodbye(tendon_protocol::control::GoodbyeReason::SessionEnded).await;
    drop(wire);
    server.terminate().await;
    let server = home.start().await;
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..11);
}

/// The manifest of a dataset reached object storage and `info.json` did not: the next export took the
/// manifest's word for what was written, and an episode was missing without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_on_where_info_json_says_and_keeps_what_was_there() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let dataset = server.session_record(session).await["dataset"].as_str().unwrap().to_owned();
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    record(&mut wire, 1, 0, 0, COUNT).await;
    server.episode_in(session, 0, "stored").await;
    let first = server.export(json!({ "dataset": dataset })).await;
    let prefix = first["prefix"].as_str().unwrap().to_owned();
    let place = home.data().join("objects").join(&prefix).join("meta");
    let left = ["info.json", "tendon/statistics-000001.json"]
        .map(|file| (place.join(file), std::fs::read(place.join(file)).unwrap()));

    record(&mut wire, 2, 2, COUNT, COUNT).await;
    server.episode_in(session, 1, "stored").await;
    let second = server.export(json!({ "dataset": dataset })).await;
    assert_eq!((second["prefix"].as_str(), second["rows"].as_u64()), (Some(&*prefix), Some(2 * COUNT)), "{second}");
    // As if the server had died between the two.
    for (file, content) in left {
        std::fs::write(file, content).unwrap();
    }

    record(&mut wire, 3, 4, 2 * COUNT, COUNT).await;
    server.episode_in(session, 2, "stored").await;
    let third = server.export(json!({ "dataset": dataset })).await;
    assert_eq!((third["prefix"].as_str(), third["rows"].as_u64()), (Some(&*prefix), Some(3 * COUNT)), "{third}");
    let exported = Exported::of(&server, third, true).await;
    for (number, from) in [(0, 0), (1, COUNT), (2, 2 * COUNT)] {
        let sent: Vec<u8> = (from..from + COUNT).flat_map(|sequence| bytes_of(&sample(STATE, sequence))).collect();
        assert_eq!(column(&exported.episode(number), "observation.state"), sent, "episode {number}");
    }
}
