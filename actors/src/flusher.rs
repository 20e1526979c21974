//! From a finished episode in the log to objects: raw messages first, the manifest last.
//!
//! Called by [`crate::session`] once every stream is durable past the stop mark, or its time is up.
//! Until the manifest is there the episode does not exist, and a flush that was cut off is simply
//! done again under the next attempt's name.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tendon_dataset::rows;
use tendon_dataset::samples::cut::{Window, cut};
use tendon_dataset::samples::{Gatherer, StreamSamples};
use tendon_protocol::envelope::{Opener, crc32c_append};
use tendon_protocol::id::StreamId;
use tendon_storage::frames::LogError;
use tendon_storage::objects::ObjectError;
use tendon_storage::records::{ClockRecord, EpisodeRecord, EpisodeReport, EpisodeState, RowClock, SessionRecord};
use thiserror::Error;

use crate::house::{House, blocking};
use crate::session::machine::FlushOrder;
use crate::stored::{MANIFEST, Manifest, ManifestObject, ManifestStream, prefix, read_whole_entries, times};

/// Sequences of numbers read from the log at once: about a minute of one stream at 200 Hz.
const READ_SEQUENCES: u64 = 8192;
/// Pictures read from the log at once: 32 MiB of the largest ones.
const READ_PICTURES: u64 = 32;

/// Why an episode could not be stored. It is tried again.
#[derive(Debug, Error)]
pub enum FlushError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The manifest.
    #[error("manifest does not become JSON: {0}")]
    Manifest(#[from] serde_json::Error),
    /// The scratch folder.
    #[error("scratch file {path}: {source}; make room or give this user write permission")]
    Scratch {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Everything read from the log, lying in scratch files.
struct Gathered {
    streams: Vec<(ManifestStream, Option<PathBuf>)>,
    journal: Option<(ManifestObject, PathBuf)>,
    report: Option<EpisodeReport>,
    trouble: Option<String>,
}

/// Stores an episode.
///
/// # Errors
/// When the log cannot be read or the store cannot be written; try again later.
pub async fn flush(
    house: &Arc<House>,
    session: &SessionRecord,
    order: FlushOrder,
    clocks: Vec<ClockRecord>,
) -> Result<EpisodeRecord, FlushError> {
    // Closed only when the house is gone, and then nobody waits for the answer.
    let _permit = house.flush_permits.acquire().await;
    let key = order.record.key();
    let window = Window {
        clock: order.record.clock,
        start_ns: order.record.start_ns,
        // A window ends before its stop; the stop mark's own moment belongs to the episode.
        stop_ns: order.record.stop_ns.unwrap_or(order.record.start_ns).saturating_add(1),
        pauses: order.record.pauses.clone(),
    };
    let attempt = house.clock.now_ns();
    let folder = house.settings.scratch.join(format!("flush-{}-{}-{attempt}", key.session, key.number));
    let work = {
        let (house, session, order, window, clocks, folder) =
            (Arc::clone(house), session.clone(), order.clone(), window.clone(), clocks.clone(), folder.clone());
        blocking(move || gather(&house, &session, &order, &window, &clocks, &folder, attempt)).await
    };
    let stored = match work {
        Ok(gathered) => put(house, session, order, window, clocks, gathered).await,
        Err(error) => Err(error),
    };
    let _ = tokio::fs::remove_dir_all(&folder).await;
    stored
}

async fn put(
    house: &Arc<House>,
    session: &SessionRecord,
    order: FlushOrder,
    window: Window,
    clocks: Vec<ClockRecord>,
    gathered: Gathered,
) -> Result<EpisodeRecord, FlushError> {
    let key = order.record.key();
    let mut bytes = 0;
    for (stream, file) in &gathered.streams {
        if let (Some(object), Some(file)) = (&stream.object, file) {
            bytes += house.objects.put_file(&object.path, file).await?;
        }
    }
    if let Some((object, file)) = &gathered.journal {
        bytes += house.objects.put_file(&object.path, file).await?;
    }
    let manifest = Manifest {
        version: 1,
        episode: EpisodeRecord { annotations: Vec::new(), report: None, manifest: None, ..order.record.clone() },
        embodiment: session.embodiment.clone(),
        fps: session.fps,
        row_clock: session.row_clock.clone(),
        window,
        streams: gathered.streams.into_iter().map(|(stream, _)| stream).collect(),
        journal: gathered.journal.map(|(object, _)| object),
        clocks,
        report: gathered.report.clone(),
    };
    let path = format!("{}/{MANIFEST}", prefix(key));
    let text = serde_json::to_vec_pretty(&manifest)?;
    house.objects.put(&path, Bytes::from(text)).await?;
    drop_older_attempts(house, &manifest, &path).await;
    let state = if order.missing.is_empty() { EpisodeState::Stored } else { EpisodeState::Incomplete };
    Ok(EpisodeRecord {
        state,
        missing: order.missing,
        report: gathered.report,
        manifest: Some(path),
        bytes,
        error: gathered.trouble,
        ..order.record
    })
}

/// Objects of attempts that no manifest names any more. Failing to delete them only costs space.
async fn drop_older_attempts(house: &House, manifest: &Manifest, path: &str) {
    let objects = manifest.streams.iter().filter_map(|stream| stream.object.as_ref()).chain(&manifest.journal);
    let named: Vec<&str> = objects.map(|object| object.path.as_str()).chain([path]).collect();
    let Ok(found) = house.objects.list(&prefix(manifest.episode.key())).await else {
        return;
    };
    for object in found {
        if !named.contains(&object.path.as_str())
            && let Err(error) = house.objects.delete(&object.path).await
        {
            tracing::warn!("object of an older flush stays: {error}");
        }
    }
}

fn gather(
    house: &House,
    session: &SessionRecord,
    order: &FlushOrder,
    window: &Window,
    clocks: &[ClockRecord],
    folder: &Path,
    attempt: i64,
) -> Result<Gathered, FlushError> {
    let scratch = |source| FlushError::Scratch { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(scratch)?;
    let place = format!("{}/{attempt}", prefix(order.record.key()));
    let mut gatherer = Gatherer::for_measuring(session.streams.iter().cloned()).map_err(|error| error.to_string());
    let mut trouble = None;
    let mut streams = Vec::new();
    let numbers = session.streams.iter().map(|declaration| (declaration.stream, declaration.content.is_camera()));
    let mut damage = Vec::new();
    let mut files = Vec::new();
    for (stream, is_camera) in numbers.chain([(StreamId::JOURNAL, false)]) {
        let file = folder.join(format!("{stream}.tdn"));
        let name = if stream == StreamId::JOURNAL { "journal".to_owned() } else { format!("stream-{stream}") };
        let mut spooled = Spooled::create(file.clone(), format!("{place}/{name}.tdn"))?;
        read_stream(house, order, window, (stream, is_camera), &mut damage, |message| {
            spooled.add(&message)?;
            if let Ok(gatherer) = &mut gatherer
                && let Err(error) = gatherer.add(&message)
            {
                trouble.get_or_insert_with(|| error.to_string());
            }
            Ok(())
        })?;
        files.push((stream, spooled.finish()?, file));
    }
    for damage in damage {
        tracing::error!(episode = %order.record.key(), "stored without a part that cannot be read: {damage}");
        trouble.get_or_insert(damage);
    }
    let journal = files.pop().and_then(|(_, object, file)| object.map(|object| (object, file)));
    for (declaration, (_, object, file)) in session.streams.iter().zip(files) {
        let has_file = object.is_some();
        streams.push((ManifestStream { declaration: declaration.clone(), object }, has_file.then_some(file)));
    }
    let report = match gatherer {
        Ok(gatherer) => measure(gatherer.finish(), window, clocks, session)
            .map_err(|error| trouble.get_or_insert(error).clone())
            .ok(),
        Err(error) => {
            trouble.get_or_insert(error);
            None
        }
    };
    Ok(Gathered { streams, journal, report, trouble })
}

fn measure(
    samples: Vec<StreamSamples>,
    window: &Window,
    clocks: &[ClockRecord],
    session: &SessionRecord,
) -> Result<EpisodeReport, String> {
    let map = tendon_dataset::report::clock_map(clocks);
    let row_clock = match &session.row_clock {
        RowClock::Grid => rows::RowClock::Grid,
        RowClock::Stream(feature) => rows::RowClock::Stream(feature),
    };
    let cut = cut(samples, window.clone(), &map).map_err(|error| error.to_string())?;
    tendon_dataset::report::report(&cut, session.fps, row_clock, &map).map_err(|error| error.to_string())
}

/// Passes on every message of a stream that may belong to the episode.
fn read_stream(
    house: &House,
    order: &FlushOrder,
    window: &Window,
    (stream, is_camera): (StreamId, bool),
    trouble: &mut Vec<String>,
    mut take: impl FnMut(Bytes) -> Result<(), FlushError>,
) -> Result<(), FlushError> {
    let session = order.record.session;
    let step = if is_camera { READ_PICTURES } else { READ_SEQUENCES };
    let mut opener = Opener::new();
    let mut from = order.from.get(&stream).copied().unwrap_or(0);
    let to = order.to.get(&stream).copied().unwrap_or(0);
    while from < to {
        let until = to.min(from.saturating_add(step));
        let (entries, damage) = read_whole_entries(&house.log, session, stream, from, until)?;
        trouble.extend(damage);
        for entry in entries {
            // An entry that reaches over the edge was passed on with the part before.
            if entry.first < from && from != order.from.get(&stream).copied().unwrap_or(0) {
                continue;
            }
            let is_later = times(&entry.payload, &mut opener)
                .is_some_and(|(clock, first_ns, _)| clock == window.clock && first_ns >= window.stop_ns);
            if !is_later {
                take(entry.payload)?;
            }
        }
        from = until;
    }
    Ok(())
}

/// A scratch file that becomes an object.
struct Spooled {
    file: std::io::BufWriter<std::fs::File>,
    path: PathBuf,
    object: ManifestObject,
}

impl Spooled {
    fn create(path: PathBuf, object_path: String) -> Result<Self, FlushError> {
        let file = std::fs::File::create(&path).map_err(|source| FlushError::Scratch { path: path.clone(), source })?;
        Ok(Self {
            file: std::io::BufWriter::new(file),
            path,
            object: ManifestObject { path: object_path, bytes: 0, crc32c: 0, messages: 0 },
        })
    }

    fn add(&mut self, message: &Bytes) -> Result<(), FlushError> {
        self.file.write_all(message).map_err(|source| FlushError::Scratch { path: self.path.clone(), source })?;
        self.object.bytes += message.len() as u64;
        self.object.messages += 1;
        self.object.crc32c = crc32c_append(self.object.crc32c, message);
        Ok(())
    }

    fn finish(mut self) -> Result<Option<ManifestObject>, FlushError> {
        self.file.flush().map_err(|source| FlushError::Scratch { path: self.path.clone(), source })?;
        Ok((self.object.messages > 0).then_some(self.object))
    }
}
