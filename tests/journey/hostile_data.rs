//! Whole messages with data that should not be: refused by name or kept with a flag, never lost in silence.

use serde_json::{Value, json};
use tendon_protocol::batch::{Batch, flag};
use tendon_protocol::control::{ErrorCode, MarkAction};
use tendon_protocol::id::{SessionId, StreamId};
use tendon_protocol::limit;
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Dtype, StreamDeclaration};

use super::scene::*;
use super::server::{Home, QUICK, Server};
use super::wire::Wire;

/// A session with state and action declared and four states acknowledged.
async fn begun(server: &Server) -> (SessionId, Wire) {
    let session = server.session().await;
    let mut wire = Wire::connect(server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&mark(0, MarkAction::Start, START)).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
    (session, wire)
}

/// The rest of an episode of 11 samples, with all of them read back.
async fn goes_on(server: &Server, session: SessionId, mut wire: Wire, journal: u64) -> Value {
    wire.send_durable(&samples(STATE, 4, 11)).await;
    wire.send_durable(&samples(ACTION, wire.position(ACTION), 11)).await;
    wire.send_durable(&mark(journal, MarkAction::StopSuccess, time_of(10))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, 0..11);
    assert_frames(&server.frames(session, 0, "action").await, ACTION, 0..11);
    episode
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_other_than_declared_are_refused_and_the_connection_goes_on() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let (session, mut wire) = begun(&server).await;
    let wider = Batch { width: 3, values: vec![0; 4 * 3 * 4], ..batch(STATE, 4, 8) };
    let doubles = Batch { dtype: Dtype::F64, values: vec![0; 4 * 2 * 8], ..batch(STATE, 4, 8) };
    for other in [Message::Batch(wider), Message::Batch(doubles)] {
        wire.send(&other).await;
        let error = wire.expect_error(ErrorCode::WidthMismatch).await;
        assert_eq!((error.stream, error.sequence), (STATE, 4));
        assert!(
            error.text.contains("observation.state") && error.text.contains("send what was declared"),
            "{}",
            error.text
        );
    }
    let mut on_values = picture(4, jpeg(0, 64, 48));
    if let Message::Media(media) = &mut on_values {
        media.stream = STATE;
    }
    wire.send(&on_values).await;
    wire.expect_error(ErrorCode::WidthMismatch).await;
    goes_on(&server, session, wire, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_declared_or_declared_otherwise_are_refused() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let (session, mut wire) = begun(&server).await;
    wire.send(&samples(StreamId(9), 0, 4)).await;
    let error = wire.expect_error(ErrorCode::StreamNotDeclared).await;
    assert!(error.stream == StreamId(9) && error.text.contains("send its declaration"), "{}", error.text);
    wire.send(&lost(1, StreamId(9), 0, 3)).await;
    wire.expect_error(ErrorCode::StreamNotDeclared).await;
    // The same again is no conflict.
    wire.send(&Message::Declare(state())).await;
    wire.send(&Message::Declare(StreamDeclaration { unit: "deg".into(), ..state() })).await;
    let error = wire.expect_error(ErrorCode::DeclarationConflict).await;
    assert!(error.text.contains("never changes") && error.text.contains("deg"), "{}", error.text);
    wire.send(&Message::Declare(StreamDeclaration { stream: StreamId(5), ..state() })).await;
    let error = wire.expect_error(ErrorCode::DeclarationConflict).await;
    assert!(error.text.contains("already carried by stream 1"), "{}", error.text);
    goes_on(&server, session, wire, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declarations_that_break_a_rule_are_refused_with_the_rule() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let cases: [(StreamDeclaration, &str); 7] = [
        (StreamDeclaration { names: names(&["elbow", "elbow"]), ..state() }, "\"elbow\" is there twice"),
        (StreamDeclaration { names: names(&["elbow"]), ..state() }, "1 names for 2 elements"),
        (StreamDeclaration { feature: "../state".into(), ..state() }, "feature name"),
        (StreamDeclaration { feature: "timestamp".into(), ..state() }, "choose another"),
        (StreamDeclaration { stream: StreamId::JOURNAL, ..state() }, "number streams from 1"),
        (StreamDeclaration { shape: vec![limit::WIDTH_MAX + 1], names: vec![], ..state() }, "at most 4096"),
        (StreamDeclaration { shape: vec![0], names: vec![], ..state() }, "at least 1"),
    ];
    for (declaration, rule) in cases {
        let mut wire = Wire::connect(&server, session, 1).await;
        wire.send(&Message::Declare(declaration)).await;
        let error = wire.expect_error(ErrorCode::BadMessage).await;
        assert!(error.text.contains(rule), "{rule}: {}", error.text);
        wire.expect_close().await;
    }
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send_durable(&samples(STATE, 0, 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_comes_again_with_other_bytes_is_a_conflict_and_the_first_stays() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let (session, mut wire) = begun(&server).await;
    let mut other = batch(STATE, 0, 4);
    other.values[2 * 8] ^= 1;
    wire.send(&Message::Batch(other)).await;
    let error = wire.expect_error(ErrorCode::SequenceConflict).await;
    assert_eq!((error.stream, error.sequence), (STATE, 2));
    assert!(error.text.contains("use new numbers"), "{}", error.text);
    // Another time of capture is another sample too; so is another mark.
    let mut later = batch(STATE, 1, 3);
    later.times_ns[0] += 1;
    wire.send(&Message::Batch(later)).await;
    assert_eq!(wire.expect_error(ErrorCode::SequenceConflict).await.sequence, 1);
    wire.send(&mark(0, MarkAction::Discard, START)).await;
    assert_eq!(wire.expect_error(ErrorCode::SequenceConflict).await.stream, StreamId::JOURNAL);
    goes_on(&server, session, wire, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_refused_until_it_is_mended_or_declared_lost() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let (session, mut wire) = begun(&server).await;
    // Mended.
    wire.send(&samples(STATE, 6, 8)).await;
    let error = wire.expect_error(ErrorCode::SequenceGap).await;
    assert_eq!((error.stream, error.sequence), (STATE, 4));
    assert!(error.text.contains("samples 4 to 5") && error.text.contains("declare them lost"), "{}", error.text);
    wire.send_durable(&samples(STATE, 4, 6)).await;
    // Declared, but not what is missing.
    wire.send(&lost(1, STATE, 7, 8)).await;
    let error = wire.expect_error(ErrorCode::SequenceGap).await;
    assert!(error.text.contains("declare exactly what is missing"), "{}", error.text);
    // Declared as it is.
    wire.send_durable(&lost(1, STATE, 6, 8)).await;
    wire.wait_for(STATE, 9).await;
    wire.send_durable(&samples(STATE, 9, 11)).await;
    wire.send_durable(&samples(ACTION, 0, 11)).await;
    // The journal has no gaps either.
    wire.send(&mark(5, MarkAction::StopSuccess, time_of(10))).await;
    let error = wire.expect_error(ErrorCode::SequenceGap).await;
    assert!(error.stream == StreamId::JOURNAL && error.sequence == 2, "{error:?}");
    wire.send_durable(&mark(2, MarkAction::StopSuccess, time_of(10))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    let report = stream_report(&episode, "observation.state");
    assert_eq!((report["samples"].as_u64(), report["lost"].as_u64()), (Some(8), Some(3)), "{report}");
    assert_eq!(report["gaps"], 1, "{report}");
    assert_frames(&server.frames(session, 0, "observation.state").await, STATE, (0..6).chain(9..11));
    let exported = server.exported(session, "v3.0").await;
    assert_eq!(exported.episode(0).rows, 11);
    assert!(exported.warnings().contains("observation.state"), "{}", exported.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_are_not_finite_are_kept_with_a_flag_and_exported_only_on_purpose() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, START)).await;
    let mut odd = batch(STATE, 0, 11);
    odd.values[3 * 8..3 * 8 + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    odd.values[5 * 8 + 4..6 * 8].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    let sent = odd.values.clone();
    wire.send(&Message::Batch(odd)).await;
    wire.send(&samples(ACTION, 0, 11)).await;
    wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(10))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    assert_eq!(stream_report(&episode, "observation.state")["not_finite"], 2);
    let frames = server.frames(session, 0, "observation.state").await;
    assert_eq!(frames[3]["values"], json!([null, -1.0]));
    let flags: Vec<u64> = frames.iter().map(|frame| frame["flags"].as_u64().unwrap()).collect();
    let not_finite = u64::from(flag::NOT_FINITE);
    assert_eq!(flags, [0, 0, 0, not_finite, 0, not_finite, 0, 0, 0, 0, 0]);

    let refused = server.export(json!({ "session": session })).await;
    assert_eq!(refused["state"], "failed");
    let text = refused["error"].as_str().unwrap();
    assert!(
        text.contains("observation.state") && text.contains("sequence 3") && text.contains("leave the episode out"),
        "{text}"
    );
    let allowed = server.export(json!({ "session": session, "allow_not_finite": true })).await;
    let exported = Exported::of(&server, allowed, false).await;
    assert_eq!(column(&exported.episode(0), "observation.state"), sent, "bit for bit");
    assert!(exported.warnings().contains("2 rows hold NaN or infinity"), "{}", exported.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_that_goes_backwards_is_kept_and_counted() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark(0, MarkAction::Start, START)).await;
    // Sample 5 was captured before sample 4, by its own word.
    let mut odd = batch(STATE, 0, 8);
    odd.times_ns[5] = time_of(3) + 1;
    wire.send_durable(&Message::Batch(odd)).await;
    // And a whole batch is older than the one before it.
    let mut older = batch(STATE, 8, 10);
    older.times_ns = vec![time_of(1) + 1, time_of(1) + 2];
    wire.send_durable(&Message::Batch(older)).await;
    wire.send_durable(&samples(STATE, 10, 11)).await;
    wire.send(&samples(ACTION, 0, 11)).await;
    wire.send_durable(&mark(1, MarkAction::StopSuccess, time_of(10))).await;
    let episode = server.episode_in(session, 0, "stored").await;
    let report = stream_report(&episode, "observation.state");
    assert_eq!(report["samples"], 11, "all of them are kept: {report}");
    assert_eq!(report["time_backwards"], 2, "steps back in time are counted: {report}");
    assert_eq!(server.frames(session, 0, "observation.state").await.len(), 11);
    let exported = server.exported(session, "v3.0").await;
    assert!(exported.warnings().contains("backwards"), "{}", exported.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_that_do_not_decode_are_kept_flagged_filled_and_reported() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&Message::Declare(camera())).await;
    let whole = |sequence| jpeg(sequence, 64, 48);
    for sequence in 0..11 {
        let data = match sequence {
            // Nothing to show before the first good one: black.
            0 => b"this is no picture".to_vec(),
            4 => whole(4)[..whole(4).len() / 2].to_vec(),
            _ => whole(sequence),
        };
        wire.send(&picture(sequence, data)).await;
    }
    record(&mut wire, 1, 0, 0, 11).await;
    let episode = server.episode_in(session, 0, "stored").await;
    let report = stream_report(&episode, "observation.images.front");
    assert_eq!((report["samples"].as_u64(), report["undecodable"].as_u64()), (Some(11), Some(2)), "{report}");
    let frames = server.frames(session, 0, "observation.images.front").await;
    assert_eq!(frames[0]["bytes"], 18, "kept as it came");
    assert_eq!(frames.iter().filter(|frame| frame["flags"] == u64::from(flag::UNDECODABLE)).count(), 2, "{frames:?}");
    let exported = server.exported(session, "v3.0").await;
    let read = exported.episode(0);
    let shown: Vec<&[u8]> = read.cameras[0].units.iter().map(|unit| &unit.data[..]).collect();
    assert_eq!(shown.len(), 11);
    assert_eq!(shown[4], whole(3), "the picture before it stands in for the broken one");
    assert_eq!(shown[5], whole(5));
    tendon_dataset::jpeg::decode_rgb(shown[0]).expect("what fills the first row is a picture");
    assert!(
        exported.warnings().contains("2 rows are filled") && exported.warnings().contains("2 pictures do not decode"),
        "{}",
        exported.warnings()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_changes_its_size_is_filled_and_reported() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&Message::Declare(camera())).await;
    for sequence in 0..11 {
        let (width, height) = if sequence < 6 { (64, 48) } else { (32, 24) };
        wire.send(&picture(sequence, jpeg(sequence, width, height))).await;
    }
    record(&mut wire, 1, 0, 0, 11).await;
    server.episode_in(session, 0, "stored").await;
    assert_eq!(server.frames(session, 0, "observation.images.front").await.len(), 11, "all are kept");
    let exported = server.exported(session, "v3.0").await;
    let read = exported.episode(0);
    assert!(
        read.cameras[0].units[6..].iter().all(|unit| unit.data[..] == jpeg(5, 64, 48)),
        "the last picture of the declared size stands in"
    );
    assert!(exported.warnings().contains("5 pictures have another size"), "{}", exported.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn episodes_of_no_and_of_one_frame_harm_nothing() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    // Stopped between two samples, so that none lies inside.
    wire.send(&samples(STATE, 0, 3)).await;
    wire.send(&samples(ACTION, 0, 3)).await;
    wire.send(&mark_of(1, 0, MarkAction::Start, time_of(0) + 1, "nothing")).await;
    wire.send_durable(&mark_of(1, 1, MarkAction::StopSuccess, time_of(1) - 1, "")).await;
    // One sample of each stream.
    wire.send(&mark_of(2, 2, MarkAction::Start, time_of(2), "one")).await;
    wire.send_durable(&mark_of(2, 3, MarkAction::StopSuccess, time_of(2), "")).await;
    record(&mut wire, 3, 4, 3, 11).await;
    let empty = server.episode_in(session, 0, "stored").await;
    assert_eq!(stream_report(&empty, "action")["samples"], 0);
    assert!(server.frames(session, 0, "action").await.is_empty());
    let single = server.episode_in(session, 1, "stored").await;
    assert_eq!(stream_report(&single, "action")["samples"], 1);
    assert_frames(&server.frames(session, 1, "action").await, ACTION, 2..3);
    server.episode_in(session, 2, "stored").await;
    for format in ["v3.0", "v2.1"] {
        let record = server.export(json!({ "session": session, "format": format })).await;
        let exported = Exported::of(&server, record, false).await;
        assert_eq!(exported.record["episodes_done"], 2, "{format}: an episode without a row is none");
        assert!(exported.warnings().contains("left out"), "{format}: {}", exported.warnings());
        assert_eq!((exported.episode(0).rows, exported.episode(1).rows), (1, 11), "{format}");
        let errors: Vec<&Value> =
            exported.findings.as_array().unwrap().iter().filter(|finding| finding["severity"] == "error").collect();
        assert!(errors.is_empty(), "{format}: {errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_texts_in_any_script_and_of_64_kb_come_back_as_they_were() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    let long = "把杯子放进洗碗机 🤖 ".repeat(limit::INSTRUCTION_BYTES_MAX / 30);
    let long = format!("{long}{}", "x".repeat(limit::INSTRUCTION_BYTES_MAX - long.len()));
    assert_eq!(long.len(), limit::INSTRUCTION_BYTES_MAX);
    let texts = ["Øl på bordet, \"quoted\"\nzweite Zeile\t\u{202e}rtl", &long];
    for (number, text) in texts.iter().enumerate() {
        let (number, first) = (number as u64, number as u64 * 11);
        wire.send(&mark_of(number, number * 2, MarkAction::Start, time_of(first), text)).await;
        wire.send(&samples(STATE, first, first + 11)).await;
        wire.send(&samples(ACTION, first, first + 11)).await;
        wire.send_durable(&mark_of(number, number * 2 + 1, MarkAction::StopSuccess, time_of(first + 10), "")).await;
        let episode = server.episode_in(session, u32::try_from(number).unwrap(), "stored").await;
        assert_eq!(episode["instruction"], **text);
    }
    for format in ["v3.0", "v2.1"] {
        let exported = server.exported(session, format).await;
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(exported.episode(number).tasks, [*text], "{format}");
        }
    }
    let longer = json!({ "instruction": format!("{long}!") });
    let refused =
        server.post(&format!("/sessions/{session}/episodes/0/annotations"), longer).await.refused(422, "invalid");
    assert!(refused.contains("65537") && refused.contains("shorten it"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_datasets_that_cannot_be_are_refused_with_what_to_do() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    for name in ["..", "../escape", "a/b", "a\\b", ".hidden", "a..b", "", "x\u{0}", &"n".repeat(129)] {
        let refused = server.post("/sessions", new_session(name)).await.refused(422, "invalid");
        assert!(refused.contains("dataset name") && refused.contains("use 1 to 128 bytes"), "{name:?}: {refused}");
        let refused = server.post("/datasets", json!({ "name": name })).await.refused(422, "invalid");
        assert!(refused.contains("dataset name"), "{name:?}: {refused}");
    }
    for dataset in ["..", "..%2F..%2Fetc"] {
        let answer = server.get(&format!("/datasets/{dataset}")).await;
        assert!(answer.status >= 400 && answer.body["error"]["message"].is_string(), "{dataset}: {answer:?}");
    }
    let with = |field: &str, value: Value| {
        let mut session = new_session("kitchen");
        session[field] = value;
        session
    };
    for (wrong, says) in [
        (with("fps", json!(0)), "fps"),
        (with("fps", json!(1001)), "1000"),
        (with("fps", json!(-1)), "-1"),
        (with("fps", json!(29.97)), "29.97"),
        (with("type", json!("telepathy")), "gamepad"),
        (with("row_clock", json!("sundial")), "grid"),
        (with("operator", json!("")), "operator"),
        (with("robot", json!("r".repeat(129))), "robot"),
        (with("wings", json!(2)), "wings"),
    ] {
        let refused = server.post("/sessions", wrong).await.refused(422, "invalid");
        assert!(refused.contains(says), "{says}: {refused}");
    }
    assert_eq!(server.get("/sessions").await.ok()["sessions"], json!([]), "nothing half-made is left");
    let refused = server
        .post("/exports", json!({ "dataset": "kitchen", "session": SessionId::default() }))
        .await
        .refused(422, "invalid");
    assert!(refused.contains("either"), "{refused}");
    server.post("/exports", json!({ "session": SessionId::default() })).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_make_no_sense_are_refused_and_harm_nothing() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    let mut journal = 0..;
    let mut next = || journal.next().unwrap();
    let cases = [
        (mark_of(1, next(), MarkAction::StopSuccess, START, ""), "start one first"),
        (mark_of(1, next(), MarkAction::Resume, START, ""), "start one first"),
    ];
    for (mark, says) in cases {
        wire.send(&mark).await;
        let error = wire.expect_error(ErrorCode::BadMark).await;
        assert!(error.text.contains(says), "{}", error.text);
    }
    wire.send_durable(&mark_of(1, next(), MarkAction::Start, START, "pick up the cube")).await;
    for (mark, says) in [
        (mark_of(1, next(), MarkAction::Start, START, ""), "started before"),
        (mark_of(2, next(), MarkAction::StopSuccess, time_of(1), ""), "episode 1 is being recorded"),
        (mark_of(1, next(), MarkAction::Resume, time_of(1), ""), "not paused"),
        (mark_of(1, next(), MarkAction::StopSuccess, START - 1, ""), "before the start"),
    ] {
        wire.send(&mark).await;
        let error = wire.expect_error(ErrorCode::BadMark).await;
        assert!(error.text.contains(says), "{says}: {}", error.text);
    }
    wire.send_durable(&samples(STATE, 0, 4)).await;
    let journal = next();
    let episode = goes_on(&server, session, wire, journal).await;
    assert_eq!(episode["outcome"], "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_episode_that_nobody_stopped_ends_where_the_next_one_starts() {
    let mut home = Home::new(QUICK);
    let server = home.start().await;
    let session = server.session().await;
    let mut wire = Wire::connect(&server, session, 1).await;
    declare(&mut wire).await;
    wire.send(&mark_of(1, 0, MarkAction::Start, time_of(0), "one")).await;
    wire.send(&samples(STATE, 0, 11)).await;
    wire.send(&samples(ACTION, 0, 11)).await;
    wire.send(&mark_of(2, 1, MarkAction::Start, time_of(11), "two")).await;
    let error = wire.expect_error(ErrorCode::BadMark).await;
    assert!(error.text.contains("ends where this one starts"), "{}", error.text);
    wire.send(&samples(STATE, 11, 22)).await;
    wire.send(&samples(ACTION, 11, 22)).await;
    wire.send_durable(&mark_of(2, 2, MarkAction::StopSuccess, time_of(21), "")).await;
    let first = server.episode_in(session, 0, "stored").await;
    assert_eq!(first["outcome"], json!(null), "nobody said how it ended");
    server.episode_in(session, 1, "stored").await;
    assert_frames(&server.frames(session, 1, "action").await, ACTION, 11..22);
}
