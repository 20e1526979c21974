//! The command against a server that answers from a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};
use tendon_storage::records::ExportFile;

use super::*;

const ID: &str = "0197f3a0-0000-7000-8000-000000000001";
const INFO: &str = "meta/info.json";
const DATA: &str = "data/chunk-000/file-000.parquet";

#[test]
fn an_id_is_a_session_and_everything_else_a_dataset() {
    assert_eq!(ID.parse(), Ok(Source::Session(ID.parse().unwrap())));
    assert_eq!("cups".parse(), Ok(Source::Dataset("cups".parse().unwrap())));
    assert!("../cups".parse::<Source>().is_err());
}

/// An answer: status, the length that is announced, the body.
type Answer = (u16, usize, String);
/// Gives the answer to a request line, and how often the same was asked before.
type Script = dyn Fn(&str, usize) -> Answer + Send + Sync;

fn text(status: u16, body: impl Into<String>) -> Answer {
    let body = body.into();
    (status, body.len(), body)
}

fn refusal(status: u16, code: &str) -> Answer {
    text(status, json!({ "error": { "code": code, "message": format!("refused with {code}") } }).to_string())
}

fn record(id: &str, state: &str, files: &[(&str, usize)]) -> Value {
    let files: Vec<Value> = files.iter().map(|(path, bytes)| json!({ "path": path, "bytes": bytes })).collect();
    json!({
        "id": id, "dataset": "cups", "session": null, "format": "v3.0", "exclude": [], "allow_not_finite": false,
        "video": "keep", "prefix": format!("exports/{id}"), "state": state, "progress": 1.0, "step": "done", "episodes_done": 1, "episodes_total": 1,
        "rows": 1, "error": null, "files": files, "created_ns": 1, "finished_ns": 2, "warnings": [],
    })
}

fn serve(mut stream: TcpStream, asked: &mut Vec<String>, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let line = first.trim().trim_end_matches(" HTTP/1.1").replace("/api/v1", "");
    let before = asked.iter().filter(|other| **other == line).count();
    let (status, length, body) = script(&line, before);
    asked.push(line);
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).unwrap();
}

/// A client of a scripted server; the server's thread ends with the process.
fn scripted(script: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("http://{}", listener.local_addr().unwrap());
    let script: Arc<Script> = Arc::new(script);
    std::thread::spawn(move || {
        let mut asked = Vec::new();
        for stream in listener.incoming() {
            serve(stream.unwrap(), &mut asked, &*script);
        }
    });
    let token = format!("tendon_{}_{}", "0".repeat(16), "0".repeat(64));
    Client::new(&ServerArgs { to, token }).unwrap()
}

fn wanted() -> NewExport {
    serde_json::from_value(json!({ "dataset": "cups" })).unwrap()
}

fn run(client: &Client, out: &Path) -> Result<Exported, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(export(client, &wanted(), out, &Output::new(true)))
}

fn read(folder: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(path)).ok()
}

#[test]
fn a_refusal_because_of_the_data_exits_with_1_and_another_with_2() {
    for (status, code, exit) in [
        (409, "wrong_state", 1),
        (422, "invalid", 1),
        (404, "not_found", 2),
        (403, "forbidden", 2),
        (503, "storage", 2),
    ] {
        let out = tempfile::tempdir().unwrap();
        let error = run(&scripted(move |_, _| refusal(status, code)), out.path()).unwrap_err();
        assert_eq!((error.code.as_str(), error.exit), (code, exit));
    }
}

#[test]
fn a_job_that_failed_exits_with_1_and_one_that_its_server_left_behind_with_2() {
    for (finished_ns, exit) in [(json!(2), 1), (Value::Null, 2)] {
        let mut failed = record("a", "failed", &[]);
        failed["finished_ns"] = finished_ns;
        let out = tempfile::tempdir().unwrap();
        let error = run(&scripted(move |_, _| text(202, failed.to_string())), out.path()).unwrap_err();
        assert_eq!((error.code.as_str(), error.exit), ("export_failed", exit));
    }
}

#[test]
fn a_file_that_came_on_the_second_try_counts_once() {
    let out = tempfile::tempdir().unwrap();
    let client = scripted(|_, before| if before == 0 { (200, 6, "abc".to_owned()) } else { text(200, "abcdef") });
    let bar = Output::new(true).bar_bytes(16, "fetching");
    let (target, file) = (Target::open(out.path()).unwrap(), ExportFile { path: DATA.to_owned(), bytes: 6 });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(target.fetch_one(&client, "a", &file, &bar, 10)).unwrap();
    assert_eq!(bar.position(), 16);
}

#[test]
fn files_that_a_newer_export_changed_are_listed_again() {
    let out = tempfile::tempdir().unwrap();
    let client = scripted(|line, before| match (line, before) {
        ("POST /exports", 0) => text(202, record("a", "done", &[("data/gone.parquet", 3), (INFO, 3)]).to_string()),
        ("GET /exports/a", 0) => text(200, record("a", "done", &[(DATA, 5), (INFO, 3)]).to_string()),
        ("GET /exports/a", 1) => text(200, record("a", "done", &[(DATA, 3), (INFO, 3)]).to_string()),
        ("GET /exports/a/files/data/gone.parquet", _) => refusal(404, "not_found"),
        (line, _) if line.starts_with("GET /exports/a/files/") => text(200, "new"),
        _ => refusal(500, "internal"),
    });
    let exported = run(&client, out.path()).unwrap();
    assert_eq!((exported.bytes, exported.files), (6, 2));
    assert_eq!((read(out.path(), DATA).as_deref(), read(out.path(), INFO).as_deref()), (Some("new"), Some("new")));
    assert!(!out.path().join("data/gone.parquet").exists());
}

#[test]
fn an_export_whose_list_stays_old_is_asked_for_again() {
    let out = tempfile::tempdir().unwrap();
    let client = scripted(|line, before| match (line, before) {
        ("POST /exports", 0) | ("GET /exports/a", _) => {
            text(202, record("a", "done", &[("data/gone.parquet", 3), (INFO, 3)]).to_string())
        }
        ("POST /exports", 1) => text(202, record("b", "running", &[]).to_string()),
        ("GET /exports/b", _) => text(200, record("b", "done", &[(DATA, 3), (INFO, 3)]).to_string()),
        (line, _) if line.starts_with("GET /exports/b/files/") => text(200, "new"),
        (line, _) if line.starts_with("GET /exports/a/files/") => refusal(404, "not_found"),
        _ => refusal(500, "internal"),
    });
    assert_eq!(run(&client, out.path()).unwrap().export, "b");
    assert_eq!(read(out.path(), DATA).as_deref(), Some("new"));
}

#[test]
fn files_that_change_again_and_again_end_with_a_hint_and_leave_the_old_dataset_whole() {
    let out = tempfile::tempdir().unwrap();
    for path in [INFO, "meta/tendon.json", DATA] {
        std::fs::create_dir_all(out.path().join(path).parent().unwrap()).unwrap();
        std::fs::write(out.path().join(path), "old").unwrap();
    }
    let client = scripted(|line, before| match (line, before) {
        // Asked for once, and again after each of the two lists that stayed old.
        ("POST /exports", 0..=2) | ("GET /exports/a", _) => {
            text(202, record("a", "done", &[(DATA, 4), (INFO, 3)]).to_string())
        }
        (line, _) if line.starts_with("GET /exports/a/files/") => text(200, "new"),
        _ => refusal(500, "internal"),
    });
    let error = run(&client, out.path()).unwrap_err();
    assert_eq!((error.code.as_str(), error.exit), (download::CHANGED, 2));
    assert!(error.message.contains("run the command again") && error.message.contains("3 bytes"), "{error}");
    assert_eq!((read(out.path(), INFO).as_deref(), read(out.path(), DATA).as_deref()), (Some("old"), Some("old")));
}
