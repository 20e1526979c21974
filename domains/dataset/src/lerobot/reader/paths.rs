//! The path templates of `info.json`, filled in.

use thiserror::Error;

/// The templates that lerobot writes.
pub const DATA_V3: &str = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet";
/// Videos of v3.0.
pub const VIDEO_V3: &str = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4";
/// Data of v2.x.
pub const DATA_V2: &str = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet";
/// Videos of v2.x.
pub const VIDEO_V2: &str = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4";

/// Widest zero padding that is filled in.
const PADDING_MAX: usize = 20;

/// Why a template cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathFault {
    /// A field that this version does not have.
    #[error("\"{template}\" asks for {{{field}}}, which this version does not have")]
    UnknownField {
        /// The template.
        template: String,
        /// The field.
        field: String,
    },
    /// Braces that do not close, or padding that is no number.
    #[error("\"{template}\" is no template")]
    Malformed {
        /// The template.
        template: String,
    },
    /// It would leave the dataset.
    #[error("\"{path}\" leads out of the dataset")]
    Outside {
        /// The path.
        path: String,
    },
    /// Two files of the dataset would have one path.
    #[error("\"{template}\" lacks {{{field}}}: all files would have one name")]
    LacksField {
        /// The template.
        template: String,
        /// The field that tells files apart.
        field: &'static str,
    },
}

/// A value for a field of a template.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    /// A number, padded with zeros as the template says.
    Number(u64),
    /// A feature key.
    Text(&'a str),
}

/// Fill in a template such as [`DATA_V3`].
///
/// # Errors
/// [`PathFault`]: unknown fields, malformed braces, paths that leave the dataset.
pub fn fill(template: &str, fields: &[(&str, Field)]) -> Result<String, PathFault> {
    let malformed = || PathFault::Malformed { template: template.to_owned() };
    let mut path = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        path.push_str(&rest[..open]);
        let close = rest[open..].find('}').ok_or_else(malformed)? + open;
        let (name, format) = rest[open + 1..close].split_once(':').unwrap_or((&rest[open + 1..close], ""));
        let Some((_, field)) = fields.iter().find(|(known, _)| *known == name) else {
            return Err(PathFault::UnknownField { template: template.to_owned(), field: name.to_owned() });
        };
        match field {
            Field::Text(text) if format.is_empty() => path.push_str(text),
            Field::Number(number) => {
                let padding = format.strip_suffix('d').unwrap_or(format).trim_start_matches('0');
                let padding: usize = if padding.is_empty() { 0 } else { padding.parse().map_err(|_| malformed())? };
                if padding > PADDING_MAX {
                    return Err(malformed());
                }
                path.push_str(&format!("{number:0padding$}"));
            }
            Field::Text(_) => return Err(malformed()),
        }
        rest = &rest[close + 1..];
    }
    if rest.contains('}') {
        return Err(malformed());
    }
    path.push_str(rest);
    inside(path)
}

fn inside(path: String) -> Result<String, PathFault> {
    let out = path.starts_with('/') || path.contains(['\\', '\0']) || path.split('/').any(|part| part == "..");
    if out || path.is_empty() { Err(PathFault::Outside { path }) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_writes_the_paths_of_both_versions() {
        let v3 = [
            ("chunk_index", Field::Number(0)),
            ("file_index", Field::Number(12)),
            ("video_key", Field::Text("observation.images.front")),
        ];
        assert_eq!(fill(VIDEO_V3, &v3).unwrap(), "videos/observation.images.front/chunk-000/file-012.mp4");
        let v2 = [("episode_chunk", Field::Number(1)), ("episode_index", Field::Number(1234))];
        assert_eq!(fill(DATA_V2, &v2).unwrap(), "data/chunk-001/episode_001234.parquet");
    }

    #[test]
    fn fill_refuses_foreign_fields_bad_braces_and_paths_that_leave() {
        let fields = [("file_index", Field::Number(1)), ("video_key", Field::Text("../../etc"))];
        assert!(matches!(fill("data/{episode_index}.parquet", &fields), Err(PathFault::UnknownField { .. })));
        for bad in
            ["data/{file_index", "data/file_index}", "{file_index:9999999d}", "{file_index:xd}", "{video_key:03d}"]
        {
            assert!(matches!(fill(bad, &fields), Err(PathFault::Malformed { .. })), "{bad}");
        }
        for out in ["../x", "/etc/passwd", "videos/{video_key}/x", ""] {
            assert!(matches!(fill(out, &fields), Err(PathFault::Outside { .. })), "{out}");
        }
    }
}
