//! The floors of the house hold: a crate imports only from floors below its own.
//!
//! ARCHITECTURE.md says why. These tests read `cargo metadata` and `cargo tree`, offline.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail it like the test itself")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace with the crates of the workspace that it may import. A domain
/// imports no other domain; what runs on a robot imports `tendon-protocol` alone.
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("tendon-protocol", 0, &[]),
    ("tendon-storage", 1, &["tendon-protocol"]),
    ("tendon-dataset", 2, &["tendon-protocol", "tendon-storage"]),
    ("tendon-actors", 3, &["tendon-protocol", "tendon-storage", "tendon-dataset"]),
    ("tendon", 4, &["tendon-protocol", "tendon-storage", "tendon-dataset", "tendon-actors", "tendon-agent"]),
    ("tendon-agent", 5, &["tendon-protocol"]),
    ("tendon-loadtest", 5, &["tendon-protocol", "tendon-agent"]),
];

/// What a robot's program must not carry: databases, object stores and file formats.
const NOT_ON_A_ROBOT: [&str; 7] =
    ["fjall", "object_store", "parquet", "arrow-array", "actix-web", "actix", "tendon-storage"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).arg("--offline").current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("cargo cannot be started ({error}); install Rust by rustup"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {} failed; run it by hand:\n{errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// Crates of the workspace, each with the crates of the workspace that it names, for whatever kind
/// of build: tests too may only look down.
fn imports(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let members: Vec<String> = packages.iter().map(name).collect();
    let imports_of = |package: &Value| {
        let named = package["dependencies"].as_array().unwrap().iter().map(name);
        named.filter(|dependency| members.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), imports_of(package))).collect()
}

/// One line for each import that the floors forbid, and for each crate that has no floor.
fn faults(imports: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (importer, imported) in imports {
        let Some((_, floor, allowed)) = FLOORS.iter().find(|(name, _, _)| name == importer) else {
            faults.push(format!("{importer} has no floor; add it to FLOORS in tests/floors.rs and to ARCHITECTURE.md"));
            continue;
        };
        for name in imported.iter().filter(|name| !allowed.contains(&name.as_str())) {
            let theirs = FLOORS.iter().find(|(known, _, _)| known == name).map_or(0, |(_, floor, _)| *floor);
            faults.push(format!(
                "{importer} (floor {floor}) imports {name} (floor {theirs}) and may import only {allowed:?}; \
                 move what it needs to a floor below both, or let the floor above bring the two together"
            ));
        }
    }
    faults
}

#[test]
fn every_crate_imports_only_from_floors_below_it() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let imports = imports(&metadata);
    assert_eq!(imports.len(), FLOORS.len(), "crates of the workspace: {:?}", imports.keys());
    assert!(imports["tendon-storage"].contains(&"tendon-protocol".to_owned()), "imports are not read: {imports:?}");
    let faults = faults(&imports);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_import_of_the_same_or_a_higher_floor_is_a_fault() {
    for (importer, imported, part) in [
        ("tendon-storage", "tendon-dataset", "tendon-storage (floor 1) imports tendon-dataset (floor 2)"),
        ("tendon-agent", "tendon-storage", "may import only [\"tendon-protocol\"]"),
        ("tendon-agent", "tendon-loadtest", "floor 5"),
        ("tendon-new", "tendon-protocol", "has no floor"),
    ] {
        let found = faults(&BTreeMap::from([(importer.to_owned(), vec![imported.to_owned()])]));
        assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
    }
}

/// The story: aws-lc wants cmake and minutes of a C compiler, and a newcomer has neither.
#[test]
fn no_crate_brings_aws_lc() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"ring\""), "Cargo.lock is not read, or TLS has another provider than ring");
    let brought: Vec<&str> = lock.lines().filter(|line| line.starts_with("name = \"aws-lc")).collect();
    assert!(
        brought.is_empty(),
        "{brought:?} in Cargo.lock; find who brings it with `cargo tree -i aws-lc-rs` and choose its feature ring"
    );
}

#[test]
fn the_program_of_a_robot_links_no_database_and_no_server() {
    let tree = cargo(&["tree", "-p", "tendon-agent", "-e", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"tendon-protocol"), "the tree is not read:\n{tree}");
    for name in NOT_ON_A_ROBOT {
        assert!(
            !names.contains(&name),
            "tendon-agent links {name}; see who brings it with `cargo tree -p tendon-agent -i {name}` and take it out"
        );
    }
}
