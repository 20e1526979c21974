use std::collections::BTreeMap;

use super::*;

const FILE: &str = include_str!("../../configs/server.toml");

fn leaves(prefix: &str, value: &toml::Value, found: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&path, value, found);
            }
        }
        other => {
            found.insert(prefix.to_owned(), other.clone());
        }
    }
}

fn keys_of(value: &toml::Value) -> BTreeMap<String, toml::Value> {
    let mut found = BTreeMap::new();
    leaves("", value, &mut found);
    found
}

fn problems_of(change: impl FnOnce(&mut Config)) -> Vec<String> {
    let mut config = Config::default();
    change(&mut config);
    check::problems(&config)
}

#[test]
fn the_listed_configuration_is_the_default_one() {
    let listed = Config::parse(FILE, "configs/server.toml").unwrap();
    assert_eq!(listed, Config::default());
    assert_eq!(check::problems(&listed), Vec::<String>::new());
}

#[test]
fn the_listed_configuration_lists_every_key() {
    let listed = keys_of(&FILE.parse::<toml::Table>().unwrap().into());
    let with_tls = Config { tls: Some(Tls { cert: "cert.pem".into(), key: "key.pem".into() }), ..Config::default() };
    for key in keys_of(&toml::Value::try_from(&with_tls).unwrap()).keys() {
        let commented = key.strip_prefix("tls.").is_some_and(|key| FILE.contains(&format!("\n# {key} = ")));
        assert!(commented || listed.contains_key(key), "{key} is not in configs/server.toml");
    }
}

/// A key without its reason is a key that nobody dares to change.
#[test]
fn each_listed_key_has_a_unit_its_default_and_a_reason() {
    let keys = FILE.lines().enumerate().filter(|(_, line)| {
        let line = line.trim_start_matches("# ");
        line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    });
    let lines: Vec<&str> = FILE.lines().collect();
    let mut seen = 0;
    for (at, line) in keys {
        let (key, value) = line.trim_start_matches("# ").split_once(" = ").unwrap();
        let first = (0..at).rev().find(|above| !lines[*above].starts_with("# ")).map_or(0, |above| above + 1);
        let comment = lines[first..at].join("\n");
        assert!(comment.contains("Unit: ") && comment.contains("Reason: "), "{key}: {comment}");
        let default = if line.starts_with('#') { "none" } else { value };
        assert!(comment.contains(&format!("Default: {default}.")), "{key} = {value}: {comment}");
        seen += 1;
    }
    assert_eq!(seen, 27, "keys in configs/server.toml");
}

#[test]
fn a_key_that_is_not_known_stops_the_start_and_is_named_with_its_line() {
    for (text, name) in [
        ("listne = \"127.0.0.1:1\"", "listne"),
        ("\n[log]\nsegment_byte = 1", "segment_byte"),
        ("[tls]\ncert = \"a\"\nkey = \"b\"\nchain = \"c\"", "chain"),
        ("[federation]\nrounds = 1", "federation"),
    ] {
        let error = Config::parse(text, "robot.toml").unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("robot.toml") && error.contains("line"), "{error}");
    }
}

#[test]
fn a_file_that_sets_one_key_leaves_the_others_at_their_defaults() {
    let config = Config::parse("[log]\nqueue_entries = 64", "a").unwrap();
    let expected = Log { queue_entries: 64, ..Log::default() };
    assert_eq!(config, Config { log: expected, ..Config::default() });
}

#[test]
fn the_command_line_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "data = \"from-file\"\nlisten = \"127.0.0.1:1\"\nworkers = 3").unwrap();
    let overrides = Overrides { data: Some("from-line".into()), listen: Some("127.0.0.1:2".parse().unwrap()) };
    let config = Config::load(Some(&file), overrides).unwrap();
    assert_eq!((config.data, config.listen.port(), config.workers), (PathBuf::from("from-line"), 2, 3));
    let config = Config::load(Some(&file), Overrides::default()).unwrap();
    assert_eq!((config.data, config.listen.port()), (PathBuf::from("from-file"), 1));
}

#[test]
fn all_problems_are_told_at_once_with_key_value_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "flush_wait_s = 0\n[memory]\nsession_bytes = 10\n[public]\nallowed_origins = [\"null\"]")
        .unwrap();
    let error = Config::load(Some(&file), Overrides::default()).unwrap_err().to_string();
    for part in [
        "flush_wait_s is 0, allowed are 1 to 86400",
        "memory.session_bytes is 10",
        "\"null\" is no origin",
        "server.toml",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn limits_that_depend_on_others_are_held() {
    assert_eq!(problems_of(|_| {}), Vec::<String>::new());
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 9] = [
        (|config| config.idle_timeout_s = 9, "idle_timeout_s"),
        (|config| config.log.segment_bytes = 2 << 30, "log.segment_bytes"),
        (|config| config.log.frames_bytes_max = 255 << 20, "log.frames_bytes_max"),
        (|config| config.memory.process_bytes = config.memory.session_bytes - 1, "memory.process_bytes"),
        (|config| config.admission.connection_bytes_burst = 1 << 20, "admission.connection_bytes_burst"),
        (|config| config.admission.operator_messages_per_s = 0, "admission.operator_messages_per_s"),
        (|config| config.workers = 257, "workers"),
        (|config| config.data = PathBuf::new(), "data"),
        (|config| config.video.ffmpeg = PathBuf::new(), "video.ffmpeg"),
    ];
    for (change, key) in cases {
        let problems = problems_of(change);
        assert!(problems.len() == 1 && problems[0].starts_with(key), "{key}: {problems:?}");
    }
}

#[test]
fn a_file_that_is_missing_is_named() {
    let error = Config::load(Some(Path::new("no/such.toml")), Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("no/such.toml") && error.contains("--config"), "{error}");
}

#[test]
fn no_configured_workers_means_at_least_one_thread() {
    assert!(Config::default().worker_threads() >= 1);
    let config = Config { workers: 3, ..Config::default() };
    assert_eq!(config.worker_threads(), 3);
}
