use proptest::prelude::*;
use tendon_protocol::id::{ClockId, SessionId};

use super::*;

fn clock() -> ClockRecord {
    ClockRecord {
        session: SessionId::from_u128(1),
        clock: ClockId::from_u128(2),
        kind: "boot".to_owned(),
        probes: Vec::new(),
        anchors: Vec::new(),
    }
}

fn is_word<T>(all: &[T], expected: &[&str])
where
    T: Copy + PartialEq + std::fmt::Debug + std::fmt::Display + std::str::FromStr<Err = UnknownWord>,
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(words, expected);
    for (value, word) in all.iter().zip(expected) {
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(json, format!("{word:?}"));
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
        assert_eq!(word.parse::<T>().unwrap(), *value);
        assert!(word.to_uppercase().parse::<T>().is_err(), "{word} in capitals");
    }
    let error = "nonsense".parse::<T>().unwrap_err().to_string();
    assert!(error.starts_with("\"nonsense\" is no ") && error.contains(expected[0]), "{error}");
}

/// These words are in the interface: scripts and stored records hold them.
#[test]
fn words_are_written_as_documented() {
    is_word(
        SessionType::ALL,
        &[
            "vr_quest",
            "vr_vision_pro",
            "bilateral_aloha",
            "kinesthetic",
            "keyboard_mouse",
            "gamepad",
            "leader_arm",
            "policy",
        ],
    );
    is_word(SessionState::ALL, &["created", "recording", "paused", "completed", "failed"]);
    is_word(
        EpisodeState::ALL,
        &["recording", "paused", "stopped", "flushing", "stored", "incomplete", "discarded", "failed"],
    );
    is_word(Outcome::ALL, &["success", "failure"]);
    is_word(ExportFormat::ALL, &["v3.0", "v2.1"]);
    is_word(VideoChoice::ALL, &["keep", "h264", "av1"]);
    is_word(JobState::ALL, &["queued", "running", "done", "failed"]);
    is_word(Role::ALL, &["viewer", "operator", "robot", "admin"]);
}

#[test]
fn each_role_has_its_rights_and_no_other() {
    use Right::{Admin, Export, Operate, Read, ReadOwn, Stream};
    let rights = [Read, ReadOwn, Operate, Stream, Export, Admin];
    for (role, allowed) in [
        (Role::Viewer, vec![Read, ReadOwn]),
        (Role::Operator, vec![Read, ReadOwn, Operate, Stream, Export]),
        (Role::Robot, vec![ReadOwn, Stream]),
        (Role::Admin, rights.to_vec()),
    ] {
        for right in rights {
            assert_eq!(role.allows(right), allowed.contains(&right), "{role} {right:?}");
        }
    }
}

#[test]
fn dataset_names_that_lead_elsewhere_are_refused_with_what_is_allowed() {
    for (name, why) in [
        ("", "is empty"),
        (&*"x".repeat(129), "has 129 bytes"),
        (".hidden", "starts with a dot"),
        ("..", "starts with a dot"),
        ("a..b", "holds '..'"),
        ("a/b", "holds '/'"),
        ("a\\b", "holds '\\\\'"),
        ("a b", "holds ' '"),
        ("a\nb", "holds '\\n'"),
        ("a\u{202e}b", "holds '\\u{202e}'"),
        // An accent that stands alone: the same name would have two spellings.
        ("cafe\u{301}", "holds '\\u{301}'"),
    ] {
        let error = name.parse::<DatasetName>().unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("letters and digits of any script"), "{error}");
        let json = serde_json::to_string(name).unwrap();
        assert!(serde_json::from_str::<DatasetName>(&json).is_err(), "{name:?} comes in through JSON");
    }
    for name in ["a", "pick-and-place_v1.2", "café", "データ", "Ω", &"漢".repeat(42)] {
        assert_eq!(name.parse::<DatasetName>().unwrap().as_str(), name);
    }
}

proptest! {
    #[test]
    fn a_dataset_name_is_taken_as_it_is_and_is_a_plain_file_name(text in any::<String>()) {
        if let Ok(name) = text.parse::<DatasetName>() {
            prop_assert_eq!(name.as_str(), &text);
            let path = std::path::Path::new(&text);
            prop_assert_eq!(path.components().count(), 1);
            prop_assert_eq!(path.file_name(), Some(std::ffi::OsStr::new(&text)));
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<DatasetName>(&json).unwrap(), name);
        }
    }

    #[test]
    fn allowed_characters_in_any_order_make_a_dataset_name(text in "[a-zA-Zäλ0-9_-][a-zA-Zäλ0-9_-]{0,20}(\\.[a-z]{1,4}){0,3}") {
        prop_assert!(text.parse::<DatasetName>().is_ok());
    }

    #[test]
    fn a_row_clock_comes_back_from_its_text(feature in "[^\\p{Cc}]{1,30}") {
        for clock in [RowClock::Grid, RowClock::Stream(feature)] {
            prop_assert_eq!(clock.to_string().parse::<RowClock>(), Ok(clock.clone()));
            let json = serde_json::to_string(&clock).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&clock.to_string()).unwrap());
            prop_assert_eq!(serde_json::from_str::<RowClock>(&json).unwrap(), clock);
        }
    }

    #[test]
    fn a_text_that_is_a_row_clock_is_the_text_of_that_clock(text in "(grid|stream:|Grid| )?.{0,140}") {
        if let Ok(clock) = text.parse::<RowClock>() {
            prop_assert_eq!(clock.to_string(), text);
        }
    }

    #[test]
    fn an_episode_key_comes_back_from_its_text(session in any::<u128>(), number in any::<u32>()) {
        let key = EpisodeKey { session: SessionId::from_u128(session), number };
        prop_assert_eq!(key.to_string().parse::<EpisodeKey>(), Ok(key));
    }

    #[test]
    fn any_text_is_parsed_as_an_episode_key_without_a_panic(text in "[0-9a-f/+ -]{0,50}") {
        let _ = text.parse::<EpisodeKey>();
    }

    /// Random probes, more than fit: the bound holds, order and both ends in time stay.
    #[test]
    fn a_clock_keeps_a_bounded_number_of_probes_over_its_whole_span(
        times in proptest::collection::vec(0i64..1_000_000_000, PROBES_MAX..PROBES_MAX + 200),
    ) {
        let mut record = clock();
        for (index, server_ns) in times.iter().enumerate() {
            let round_trip_ns = 100 + (index as i64 * 37) % 1000;
            record.add_probe(StoredProbe { server_ns: *server_ns, clock_ns: *server_ns, round_trip_ns });
            record.add_anchor(*server_ns, index as i64);
            prop_assert!(record.probes.len() <= PROBES_MAX && record.anchors.len() <= ANCHORS_MAX);
        }
        prop_assert!(record.probes.is_sorted_by_key(|probe| probe.server_ns));
        prop_assert!(record.anchors.is_sorted_by_key(|anchor| anchor.0));
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        let span = last - first;
        // An end goes only for a better neighbour that is nearer than any other two.
        let near = span / 50;
        prop_assert!(record.probes[0].server_ns - first <= near);
        prop_assert!(last - record.probes.last().unwrap().server_ns <= near);
    }
}

#[test]
fn the_fastest_probe_of_a_full_clock_is_never_dropped() {
    let mut record = clock();
    for index in 0..2000i64 {
        let round_trip_ns = if index == 700 { 1 } else { 1000 + index % 7 };
        record.add_probe(StoredProbe { server_ns: index * 1000, clock_ns: index, round_trip_ns });
    }
    assert_eq!(record.probes.len(), PROBES_MAX);
    assert!(record.probes.iter().any(|probe| probe.round_trip_ns == 1));
}

#[test]
fn an_episode_key_has_one_spelling() {
    let id = SessionId::from_u128(7);
    for text in [
        format!("{id}/+3"),
        format!("{id}/"),
        format!("{id}"),
        format!("{id}/3/4"),
        format!("{id}/-1"),
        format!("{id}/4294967296"),
    ] {
        assert!(text.parse::<EpisodeKey>().is_err(), "{text}");
    }
}

#[test]
fn the_newest_annotation_that_sets_a_field_wins() {
    let mut episode: EpisodeRecord = serde_json::from_value(serde_json::json!({
        "session": SessionId::from_u128(1), "number": 0, "mark": 1, "state": "stored", "outcome": "failure",
        "instruction": "first", "clock": ClockId::from_u128(1), "start_ns": 0, "dataset": "d", "operator": "o",
        "robot": "r", "created_ns": 0,
    }))
    .unwrap();
    assert_eq!((episode.instruction_now(), episode.outcome_now()), ("first", Some(Outcome::Failure)));
    let said = |instruction: Option<&str>, outcome| Annotation {
        at_ns: 1,
        by: "ada".to_owned(),
        instruction: instruction.map(str::to_owned),
        outcome,
        note: None,
    };
    episode.annotations =
        vec![said(Some("second"), Some(Outcome::Success)), said(None, None), said(Some("third"), None)];
    assert_eq!((episode.instruction_now(), episode.outcome_now()), ("third", Some(Outcome::Success)));
}

#[test]
fn sessions_with_a_rate_or_name_that_cannot_be_are_refused() {
    let good: SessionRecord = serde_json::from_value(serde_json::json!({
        "id": SessionId::from_u128(1), "operator": "Ada L.", "robot": "arm", "embodiment": "so101", "type": "policy",
        "fps": 50, "row_clock": "stream:observation.state", "dataset": "d", "state": "created", "created_ns": 5,
    }))
    .unwrap();
    assert_eq!(good.check(), Ok(()));
    for fps in [0, FPS_MAX + 1, u32::MAX] {
        assert_eq!(SessionRecord { fps, ..good.clone() }.check(), Err(RecordError::Fps { got: fps }));
    }
    for name in ["", " arm", "arm ", "a\nb", "\u{7}", &"x".repeat(PERSON_BYTES_MAX + 1)] {
        for record in [
            SessionRecord { robot: name.to_owned(), ..good.clone() },
            SessionRecord { operator: name.to_owned(), ..good.clone() },
            SessionRecord { embodiment: name.to_owned(), ..good.clone() },
        ] {
            assert!(matches!(record.check(), Err(RecordError::Name { .. })), "{name:?}");
        }
    }
}

#[test]
fn a_robot_reads_the_sessions_of_its_own_name_only() {
    let session: SessionRecord = serde_json::from_value(serde_json::json!({
        "id": SessionId::from_u128(1), "operator": "ada", "robot": "arm-1", "embodiment": "so101", "type": "policy",
        "fps": 50, "dataset": "d", "state": "created", "created_ns": 5,
    }))
    .unwrap();
    let token = |name: &str, role| TokenRecord {
        id: "1".to_owned(),
        name: name.to_owned(),
        role,
        hash: String::new(),
        created_ns: 0,
        revoked_ns: None,
    };
    assert!(token("arm-1", Role::Robot).may_read(&session));
    assert!(!token("arm-2", Role::Robot).may_read(&session));
    assert!(token("anyone", Role::Viewer).may_read(&session));
}
