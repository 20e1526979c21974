//! The program as scripts use it: exit codes, what stands on stdout, the JSON of every command, and
//! that a real dataset that was streamed comes back as it was.
//!
//! Everything runs in processes of the real program, on temporary folders. Nothing sleeps for a
//! fixed time.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like the tests themselves")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tendon_dataset::lerobot::reader::{Dataset, SourceEpisode};

/// A running `tendon serve`; it ends with the test.
struct Server {
    child: Child,
    data: PathBuf,
    ready: Value,
    token: String,
    _folder: TempDir,
}

fn tendon(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
    command.env_remove("TENDON_URL").env_remove("TENDON_TOKEN").stdin(Stdio::null());
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn last_line(output: &Output) -> String {
    text(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// The one document on stdout.
fn document(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{}", text(&output.stderr)))
}

/// What must have worked.
fn done(output: Output) -> Output {
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    output
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let log = std::fs::File::create(folder.path().join("server.log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tendon"))
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--stop-with-stdin", "--data"])
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("{error}: {line:?}\n{}", std::fs::read_to_string(folder.path().join("server.log")).unwrap())
        });
        let mut server = Self { child, data, ready, token: String::new(), _folder: folder };
        server.token = server.new_token("admin");
        server
    }

    fn new_token(&self, role: &str) -> String {
        let made = done(tendon(&["token", "create", "--role", role, "--data", self.data.to_str().unwrap()]));
        last_line(&made)
    }

    fn url(&self) -> &str {
        self.ready["url"].as_str().unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let server = ["--to", self.url(), "--token", &self.token];
        tendon(&[arguments, server.as_slice()].concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    assert!(path.is_dir(), "{} is not there; put the shared folder beside the checkout", path.display());
    path
}

/// The block that `docs/cli.md` shows for a command.
fn documented(command: &str) -> Value {
    let docs = include_str!("../docs/cli.md");
    let begin = format!("<!-- schema: {command} -->\n```json\n");
    let block = docs.split_once(&begin).unwrap_or_else(|| panic!("docs/cli.md has no block for {command}")).1;
    serde_json::from_str(block.split_once("\n```").unwrap().0).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// Holds real output to what is documented: the same keys everywhere, the same kinds of values.
fn assert_like(documented: &Value, real: &Value, place: &str) {
    match (documented, real) {
        (Value::Object(wanted), Value::Object(_)) if wanted.is_empty() => {}
        (Value::Object(wanted), Value::Object(got)) => {
            let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(got), keys(wanted), "keys of {place}");
            for (key, value) in wanted {
                assert_like(value, &got[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(wanted), Value::Array(got)) => {
            for (one, like) in got.iter().zip(wanted.iter().cycle()) {
                assert_like(like, one, &format!("{place}[]"));
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (wanted, got) => {
            assert_eq!(
                std::mem::discriminant(wanted),
                std::mem::discriminant(got),
                "kind of {place}: {wanted} and {got}"
            );
        }
    }
}

fn assert_documented(command: &str, real: &Value) {
    assert_like(&documented(command), real, command);
}

/// Streams, exports, and gives the source's episodes with the exported ones.
fn round_trip(server: &Server, name: &str, more: &[&str]) -> (Value, TempDir, Vec<(SourceEpisode, SourceEpisode)>) {
    let source = data(name);
    let sent = server.ask(&[&["stream", source.to_str().unwrap(), "--speed", "max", "--json"], more].concat());
    let summary = document(&done(sent));
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("dataset");
    let session = summary["session"].as_str().unwrap();
    done(server.ask(&["export", session, "--out", folder.to_str().unwrap()]));
    let (theirs, ours) = (Dataset::open(&source).unwrap(), Dataset::open(&folder).unwrap());
    let indices = summary["episodes"].as_array().unwrap().iter().map(|episode| episode["source"].as_u64().unwrap());
    let read = |(number, index): (usize, u64)| {
        let position = theirs.episodes.iter().position(|episode| episode.index == index).unwrap();
        (theirs.read_episode(position).unwrap(), ours.read_episode(number).unwrap())
    };
    let pairs = indices.enumerate().map(read).collect();
    (summary, out, pairs)
}

/// Numbers bit for bit, tasks as texts, capture times to the microsecond.
fn assert_same(name: &str, theirs: &SourceEpisode, ours: &SourceEpisode) {
    let place = format!("{name}, episode {}", theirs.index);
    assert_eq!(ours.rows, theirs.rows, "{place}");
    assert_eq!(ours.tasks.first(), theirs.tasks.first(), "{place}");
    for column in &theirs.columns {
        let key = &column.spec.key;
        let own =
            ours.columns.iter().find(|own| own.spec.key == *key).unwrap_or_else(|| panic!("{place}: {key} is missing"));
        assert_eq!((own.spec.dtype, &own.spec.shape), (column.spec.dtype, &column.spec.shape), "{place}: {key}");
        assert!(own.values == column.values, "{place}: values of {key} differ");
        if !column.spec.names.is_empty() {
            assert_eq!(own.spec.names, column.spec.names, "{place}: {key}");
        }
    }
    let times = ours.columns.iter().find(|column| column.spec.key == "capture_time_ns").unwrap();
    let place_of_state = times.spec.names.iter().position(|name| name == "observation.state").unwrap();
    let captured: Vec<i64> =
        times.values.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
    let captured: Vec<i64> = captured.chunks_exact(times.spec.width()).map(|row| row[place_of_state]).collect();
    for (row, (captured_ns, seconds)) in captured.iter().zip(&theirs.timestamps).enumerate() {
        let since_first = (captured_ns - captured[0]) as f64 / 1e9;
        let off = (since_first - (seconds - theirs.timestamps[0])).abs();
        assert!(off < 1e-6, "{place}, row {row}: capture time is off by {off} s");
    }
}

/// Every packet as it was, shown by the same row.
fn assert_same_pictures(name: &str, theirs: &SourceEpisode, ours: &SourceEpisode) {
    assert!(!theirs.cameras.is_empty());
    for camera in &theirs.cameras {
        let key = &camera.spec.key;
        let own =
            ours.cameras.iter().find(|own| own.spec.key == *key).unwrap_or_else(|| panic!("{name}: {key} is missing"));
        assert_eq!(own.units.len(), camera.units.len(), "{name}: {key}");
        for (theirs, ours) in camera.units.iter().zip(&own.units) {
            assert!(theirs.data == ours.data, "{name}: a packet of {key} was changed");
            assert_eq!((theirs.row, theirs.key), (ours.row, ours.key), "{name}: {key}");
        }
    }
}

#[test]
fn real_recordings_come_back_bit_for_bit_with_their_pictures() {
    let server = Server::start();
    for (name, episodes) in [
        ("dobot-cr5-v2", "0-2"),
        ("unitree-g1-v2", "1,2"),
        ("gr1-picknplace-v2", "0,3"),
        ("lerobot-reference-v3", "0-2"),
    ] {
        let (summary, _out, pairs) = round_trip(&server, name, &["--episodes", episodes]);
        assert_documented("stream", &summary);
        assert_eq!(summary["samples_sent"], summary["samples_acknowledged"], "{name}");
        for (theirs, ours) in &pairs {
            assert_same(name, theirs, ours);
            assert_same_pictures(name, theirs, ours);
        }
    }
}

#[test]
fn all_real_gaps_of_a_recording_are_reported_and_its_rows_stay() {
    let server = Server::start();
    let (summary, _out, pairs) = round_trip(&server, "dobot-cr5-v2", &[]);
    assert_eq!((summary["rows"].as_u64(), pairs.len()), (Some(18_039), 81));
    let episodes = summary["episodes"].as_array().unwrap();
    let gaps: u64 = episodes.iter().map(|episode| episode["gaps"].as_u64().unwrap()).sum();
    assert_eq!(gaps, 271);
    for (theirs, ours) in &pairs {
        assert_same("dobot-cr5-v2", theirs, ours);
    }
}

#[test]
fn a_script_gets_what_the_documentation_says() {
    let server = Server::start();
    assert_documented("serve", &server.ready);
    let folder = server.data.to_str().unwrap();
    let created = document(&done(tendon(&["token", "create", "--role", "viewer", "--data", folder, "--json"])));
    assert_documented("token create", &created);
    let listed = document(&done(server.ask(&["token", "list", "--json"])));
    assert_documented("token list", &listed);
    let id = created["id"].as_str().unwrap();
    // It counts once it was shown to the server; a list shows it as well.
    assert!(listed["tokens"].as_array().unwrap().iter().any(|token| token["id"] == id), "{listed}");
    assert_documented("token revoke", &document(&done(server.ask(&["token", "revoke", id, "--json"]))));

    let source = data("lerobot-reference-v3");
    let played = server.ask(&["stream", source.to_str().unwrap(), "--speed", "max", "--episodes", "0"]);
    let session = last_line(&done(played));
    let sessions = document(&done(server.ask(&["sessions", "--json"])));
    assert_documented("sessions", &sessions);
    assert_eq!(
        sessions["sessions"][0]["id"].as_str(),
        Some(session.as_str()),
        "the last line of stdout is the session"
    );
    assert_eq!(sessions["sessions"][0]["state"], "completed");

    let out = tempfile::tempdir().unwrap();
    let dataset = out.path().join("dataset");
    let exported = document(&done(server.ask(&["export", &session, "--out", dataset.to_str().unwrap(), "--json"])));
    assert_documented("export", &exported);
    assert_eq!((exported["episodes"].as_u64(), exported["rows"].as_u64()), (Some(1), Some(100)));
    let checked = tendon(&["verify", dataset.to_str().unwrap(), "--json"]);
    assert_documented("verify", &document(&checked));
    assert_eq!(code(&checked), Some(0), "{}", text(&checked.stdout));

    std::fs::write(dataset.join("data/chunk-000/stray.parquet"), "PAR1").unwrap();
    let checked = tendon(&["verify", dataset.to_str().unwrap(), "--json"]);
    assert_eq!(code(&checked), Some(1));
    assert!(!document(&checked)["findings"].as_array().unwrap().is_empty());
    assert_documented("verify", &document(&checked));
    assert_documented("doctor", &document(&tendon(&["doctor", "--data", out.path().to_str().unwrap(), "--json"])));
}

#[test]
fn an_export_replaces_an_earlier_one_and_nothing_else() {
    let server = Server::start();
    let source = data("lerobot-reference-v3");
    let stream = |episodes: &str| {
        done(server.ask(&[
            "stream",
            source.to_str().unwrap(),
            "--speed",
            "max",
            "--episodes",
            episodes,
            "--dataset",
            "growing",
        ]))
    };
    let out = tempfile::tempdir().unwrap();
    let export = |more: &[&str]| {
        let arguments = ["export", "growing", "--out", out.path().to_str().unwrap(), "--json"];
        server.ask(&[arguments.as_slice(), more].concat())
    };
    stream("0");
    assert_eq!(document(&done(export(&[])))["episodes"], 1);
    let session = last_line(&stream("1-2"));
    assert_eq!(document(&done(export(&[])))["episodes"], 3);
    assert_eq!(code(&tendon(&["verify", out.path().to_str().unwrap()])), Some(0));
    let less = export(&["--exclude", &format!("{session}/1"), "--format", "v2.1"]);
    assert_eq!(document(&done(less))["episodes"], 2);
    let checked = tendon(&["verify", out.path().to_str().unwrap(), "--json"]);
    assert_eq!(
        (code(&checked), document(&checked)["version"].as_str()),
        (Some(0), Some("v2.1")),
        "{}",
        text(&checked.stdout)
    );

    let nothing = server.ask(&["export", "no-such-dataset", "--out", out.path().to_str().unwrap(), "--json"]);
    assert_eq!(code(&nothing), Some(1), "there is no episode to export");
    assert_documented("error", &document(&nothing));
    assert_eq!(document(&nothing)["error"]["code"], "wrong_state");
    assert_eq!(code(&tendon(&["verify", out.path().to_str().unwrap()])), Some(0), "the earlier export is untouched");

    let mine = tempfile::tempdir().unwrap();
    std::fs::write(mine.path().join("thesis.txt"), "mine").unwrap();
    let refused = server.ask(&["export", "growing", "--out", mine.path().to_str().unwrap()]);
    assert_eq!(code(&refused), Some(2));
    assert_eq!(std::fs::read_dir(mine.path()).unwrap().count(), 1);
}

/// A session that somebody else made, through the REST interface.
fn new_session(server: &Server, session: &Value) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::new().post(format!("{}/api/v1/sessions", server.url())).bearer_auth(&server.token);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made: Value = runtime.block_on(async { request.json(session).send().await.unwrap().json().await.unwrap() });
    made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

#[test]
fn recordings_go_one_after_another_into_a_session_that_stays_open() {
    let server = Server::start();
    let source = data("lerobot-reference-v3");
    let session = new_session(
        &server,
        &serde_json::json!({
            "operator": "ada", "robot": "arm-1", "embodiment": "so101_follower", "type": "leader_arm", "fps": 30,
            "row_clock": "stream:observation.state", "dataset": "joined",
        }),
    );
    let into = |session: &str, episodes: &str| {
        server.ask(&[
            "stream",
            source.to_str().unwrap(),
            "--speed",
            "max",
            "--json",
            "--session",
            session,
            "--episodes",
            episodes,
        ])
    };
    let first = document(&done(into(&session, "0")));
    let second = document(&done(into(&session, "2")));
    assert_eq!((first["session"].as_str(), second["dataset"].as_str()), (Some(session.as_str()), Some("joined")));
    assert_eq!((first["episodes"][0]["number"].as_u64(), second["episodes"][0]["number"].as_u64()), (Some(0), Some(1)));
    let open = document(&done(server.ask(&["sessions", "--dataset", "joined", "--json"])));
    assert_eq!(
        (open["sessions"][0]["state"].as_str(), open["sessions"][0]["episodes"].as_u64()),
        (Some("recording"), Some(2))
    );

    let out = tempfile::tempdir().unwrap();
    done(server.ask(&["export", &session, "--out", out.path().to_str().unwrap()]));
    let (theirs, ours) = (Dataset::open(&source).unwrap(), Dataset::open(out.path()).unwrap());
    for (from, to) in [(0, 0), (2, 1)] {
        assert_same("joined", &theirs.read_episode(from).unwrap(), &ours.read_episode(to).unwrap());
    }

    let ended = document(&done(server.ask(&[
        "stream",
        source.to_str().unwrap(),
        "--speed",
        "max",
        "--episodes",
        "0",
        "--json",
    ])));
    let refused = into(ended["session"].as_str().unwrap(), "1");
    assert_eq!(code(&refused), Some(2), "a completed session takes nothing more");
    assert_documented("error", &document(&refused));
}

/// Not done: exit code 2, the documented error with this code (any if empty) and these words, and no secret shown.
fn assert_refused(token: &str, arguments: &[&str], wanted: &str, words: &str) {
    let output = tendon(&[arguments, &["--json"]].concat());
    assert_eq!(code(&output), Some(2), "{arguments:?}: {}", text(&output.stderr));
    let refused = document(&output);
    assert_documented("error", &refused);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{arguments:?}: {message}");
    assert!(wanted.is_empty() || refused["error"]["code"] == wanted, "{arguments:?}: {refused}");
    let secret = token.rsplit('_').next().unwrap();
    assert!(!text(&output.stderr).contains(secret) && !message.contains(secret), "{arguments:?} shows the token");
}

#[test]
fn a_server_that_is_not_there_or_a_token_that_is_not_good_is_told_apart() {
    let server = Server::start();
    let token = server.token.as_str();
    let unknown = format!("tendon_{}_{}", "0".repeat(16), "0".repeat(64));
    let viewer = server.new_token("viewer");
    let source = data("lerobot-reference-v3");
    // A port that was free a moment ago: nobody listens.
    let deserted = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let sessions =
        |to, token, code, words| assert_refused(token, &["sessions", "--to", to, "--token", token], code, words);
    sessions(&deserted, token, "unreachable", "tendon serve");
    sessions(server.url(), "hunter2", "usage", "tendon token create");
    sessions(server.url(), &unknown, "", "tendon token create");
    sessions("ftp://robot", token, "usage", "http://");
    let stream = ["stream", source.to_str().unwrap(), "--to", server.url(), "--token", &viewer];
    assert_refused(&viewer, &stream, "", "viewer");
}

#[test]
fn what_cannot_be_done_says_what_to_do_and_exits_with_2() {
    let server = Server::start();
    let source = data("lerobot-reference-v3");
    let nowhere = tempfile::tempdir().unwrap();
    let (source, nowhere) = (source.to_str().unwrap(), nowhere.path().to_str().unwrap());
    let ask = ["--to", server.url(), "--token", &server.token];
    let refused = |arguments: &[&str], code, words| assert_refused(&server.token, arguments, code, words);
    let asked = |arguments: &[&str], code, words| refused(&[arguments, &ask].concat(), code, words);
    asked(&["stream", nowhere], "usage", "meta/info.json");
    asked(&["stream", source, "--episodes", "7"], "usage", "no episode 7");
    asked(&["export", "0197f3a0-0000-7000-8000-000000000001", "--out", nowhere], "not_found", "does not exist");
    refused(&["token", "list", "--data", nowhere], "usage", "--data");
    refused(&["token", "list", "--data", server.data.to_str().unwrap()], "failed", "--to");
    let checked = tendon(&["verify", nowhere, "--json"]);
    assert_eq!(code(&checked), Some(2));
    assert_documented("verify", &document(&checked));
}

#[test]
fn the_demo_loses_nothing_in_one_episode_with_both_troubles() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().join("demo"), folder.path().join("report.json"));
    let output = tendon(&[
        "demo",
        "--episodes",
        "1",
        "--exit",
        "--out",
        out.to_str().unwrap(),
        "--json",
        file.to_str().unwrap(),
    ]);
    let said = || format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(code(&output), Some(0), "{}", said());
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_documented("demo", &report);
    assert_eq!((report["connections_cut"].as_u64(), report["server_kills"].as_u64()), (Some(1), Some(1)));
    assert_eq!(report["samples_sent"], report["samples_stored"], "{report}");
    assert_eq!((report["acknowledged_lost"].as_u64(), report["episodes"].as_u64()), (Some(0), Some(1)));
    assert_eq!(report["streams"].as_array().unwrap().len(), 4);
    assert_eq!(code(&tendon(&["verify", report["dataset"].as_str().unwrap()])), Some(0));
}
