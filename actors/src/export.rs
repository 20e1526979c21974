//! Exports: stored episodes become a LeRobot dataset in object storage, one episode at a time.
//!
//! [`start`] checks and queues, a task then runs the job. Each episode is committed with its
//! `info.json` last, so that whoever reads the dataset meanwhile sees a whole one. A later export
//! of the same dataset goes on where the last one ended if nothing before has changed.

use std::path::Path;
use std::sync::Arc;

use tendon_dataset::episode::Episode;
use tendon_dataset::lerobot::spec::{DatasetSpec, NotFinite};
use tendon_dataset::lerobot::writer::{Writer, v21};
use tendon_dataset::rows::{self, RowsReport};
use tendon_storage::meta::{EpisodeFilter, MetaError};
use tendon_storage::records::{
    DatasetName, EpisodeKey, EpisodeRecord, EpisodeState, ExportFile, ExportFormat, ExportRecord, JobState, VideoChoice,
};

use crate::api::{NewExport, Refusal, RefusalCode};
use crate::house::{House, blocking};
use crate::stored::{is_exportable, manifest, object};

mod convert;
mod files;

use convert::{RowsTrouble, StudioOf, convert, to_rows};

/// Episodes read per page.
const PAGE: usize = 500;
/// Exports looked through for one to go on with.
const EARLIER: usize = 50;

/// How the warning ends about an episode that is not stored yet; it is not taken over by a later export.
const NOT_IN: &str = ": not in this export";

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::Invalid, text)
}

fn storage(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Storage, error.to_string())
}

/// Checks a request, writes its record and starts the job.
///
/// # Errors
/// When the request contradicts itself or there is nothing to export.
pub async fn start(house: &Arc<House>, new: NewExport) -> Result<ExportRecord, Refusal> {
    let dataset = new
        .dataset
        .as_deref()
        .map(str::parse::<DatasetName>)
        .transpose()
        .map_err(|error| invalid(error.to_string()))?;
    if dataset.is_some() == new.session.is_some() {
        return Err(invalid("give either a dataset or a session to export"));
    }
    let exclude = new.exclude.iter().map(|text| text.parse::<EpisodeKey>()).collect::<Result<Vec<_>, _>>();
    let exclude = exclude.map_err(|error| invalid(error.to_string()))?;
    let video = new.video.unwrap_or(house.settings.video);
    if video != VideoChoice::Keep && house.settings.ffmpeg.is_none() {
        return Err(invalid(format!(
            "video {} needs ffmpeg on the server; install it (apt-get install ffmpeg) or export with video keep",
            video
        )));
    }
    let id = uuid::Uuid::now_v7().to_string();
    let record = ExportRecord {
        prefix: format!("exports/{id}"),
        id,
        dataset,
        session: new.session,
        format: new.format,
        exclude,
        allow_not_finite: new.allow_not_finite,
        video,
        state: JobState::Queued,
        progress: 0.0,
        step: "waits for its turn".to_owned(),
        episodes_done: 0,
        episodes_total: 0,
        rows: 0,
        error: None,
        files: Vec::new(),
        created_ns: house.clock.now_ns(),
        finished_ns: None,
        warnings: Vec::new(),
    };
    let (shared, wanted) = (Arc::clone(house), record.clone());
    let (episodes, record) = blocking(move || {
        let (episodes, warnings) = select(&shared, &wanted)?;
        let wanted = ExportRecord { warnings, ..wanted };
        shared.meta.exports.create(&wanted)?;
        Ok::<_, Refusal>((episodes, wanted))
    })
    .await?;
    let (house, job) = (Arc::clone(house), record.clone());
    tokio::spawn(async move { run(house, job, episodes).await });
    Ok(record)
}

/// The episodes of an export, in order of their making.
fn select(house: &House, export: &ExportRecord) -> Result<(Vec<EpisodeRecord>, Vec<String>), Refusal> {
    if let Some(session) = export.session
        && house.meta.sessions.get(session)?.is_none()
    {
        return Err(Refusal::new(
            RefusalCode::NotFound,
            format!("session {session} does not exist; list them with GET /api/v1/sessions"),
        ));
    }
    let filter = EpisodeFilter { session: export.session, dataset: export.dataset.clone(), ..EpisodeFilter::default() };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = house.meta.episodes.list(&filter, after.as_ref(), PAGE)?;
        found.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let all = found.len();
    if let Some(unknown) = export.exclude.iter().find(|key| !found.iter().any(|episode| episode.key() == **key)) {
        return Err(invalid(format!(
            "episode {unknown} is to be left out but is not there; list the episodes to see their names"
        )));
    }
    found.retain(|episode| !export.exclude.contains(&episode.key()) && episode.state != EpisodeState::Discarded);
    let (found, waiting): (Vec<_>, Vec<_>) = found.into_iter().partition(|episode| is_exportable(episode.state));
    let warnings = waiting.iter().map(|episode| format!("episode {} is {}{NOT_IN}", episode.key(), episode.state));
    let warnings: Vec<String> = warnings.collect();
    if found.is_empty() {
        let what = export.dataset.as_ref().map_or_else(
            || format!("session {}", export.session.unwrap_or_default()),
            |name| format!("dataset {name}"),
        );
        let text = format!(
            "{what} has {all} episodes, none of them stored and not left out; record one, or wait until it is stored"
        );
        return Err(Refusal::new(RefusalCode::WrongState, text));
    }
    Ok((found, warnings))
}

/// Marks exports that a stopped server left behind as failed.
///
/// # Errors
/// When the store cannot be read or written.
pub fn fail_interrupted(house: &House) -> Result<(), Refusal> {
    for state in [JobState::Queued, JobState::Running] {
        let page = house.meta.exports.list(Some(state), None, PAGE)?;
        for export in page.records {
            house.meta.exports.update(&export.id, |record| {
                record.state = JobState::Failed;
                record.error = Some("the server stopped while it ran; export again".to_owned());
            })?;
        }
    }
    Ok(())
}

async fn update(house: &Arc<House>, id: &str, change: impl Fn(&mut ExportRecord) + Send + 'static) {
    let (shared, id) = (Arc::clone(house), id.to_owned());
    let updated: Result<_, MetaError> =
        blocking(move || shared.meta.exports.update(&id, |record| change(record))).await;
    if let Err(error) = updated {
        tracing::error!("export's progress not saved: {error}");
    }
}

async fn run(house: Arc<House>, export: ExportRecord, episodes: Vec<EpisodeRecord>) {
    // Closed only with the house.
    let _permit = house.export_permits.acquire().await;
    let folder = house.settings.scratch.join(format!("export-{}", export.id));
    let total = u32::try_from(episodes.len()).unwrap_or(u32::MAX);
    update(&house, &export.id, move |record| {
        record.state = JobState::Running;
        record.episodes_total = total;
        record.step = "reads the first episode".to_owned();
    })
    .await;
    let id = export.id.clone();
    let outcome = match tokio::fs::create_dir_all(&folder).await {
        Ok(()) => {
            Job {
                house: &house,
                folder: &folder,
                warnings: export.warnings.clone(),
                prefix: export.prefix.clone(),
                export,
            }
            .run(episodes)
            .await
        }
        Err(error) => Err(storage(format!("scratch folder {}: {error}", folder.display()))),
    };
    let _ = tokio::fs::remove_dir_all(&folder).await;
    let finished_ns = house.clock.now_ns();
    match outcome {
        Ok(done) => {
            metrics::counter!("tendon_exports_total", "state" => "done").increment(1);
            update(&house, &id, move |record| {
                record.state = JobState::Done;
                record.progress = 1.0;
                record.step = "done".to_owned();
                record.rows = done.rows;
                record.episodes_done = done.episodes;
                record.prefix.clone_from(&done.prefix);
                record.files.clone_from(&done.files);
                record.warnings.clone_from(&done.warnings);
                record.finished_ns = Some(finished_ns);
            })
            .await;
        }
        Err(refusal) => {
            tracing::error!(export = id, "export failed: {refusal}");
            metrics::counter!("tendon_exports_total", "state" => "failed").increment(1);
            update(&house, &id, move |record| {
                record.state = JobState::Failed;
                record.error = Some(refusal.message.clone());
                record.finished_ns = Some(finished_ns);
            })
            .await;
        }
    }
}

struct Done {
    rows: u64,
    episodes: u32,
    prefix: String,
    files: Vec<ExportFile>,
    warnings: Vec<String>,
}

struct Job<'a> {
    house: &'a Arc<House>,
    export: ExportRecord,
    folder: &'a Path,
    prefix: String,
    warnings: Vec<String>,
}

/// Either format's writer.
enum AnyWriter {
    V30(Box<Writer>),
    V21(Box<v21::Writer>),
}

impl Job<'_> {
    async fn run(mut self, episodes: Vec<EpisodeRecord>) -> Result<Done, Refusal> {
        let mut writer: Option<AnyWriter> = None;
        let mut spec: Option<(DatasetSpec, String)> = None;
        let mut skip = 0;
        let (mut rows, mut written) = (0u64, 0u32);
        let earlier = self.earlier(&episodes).await?;
        for (number, record) in episodes.iter().enumerate() {
            if number > 0 && number < skip {
                continue;
            }
            let Some((episode, embodiment)) = self.load(record).await? else {
                continue;
            };
            let own = DatasetSpec { not_finite: self.not_finite(), ..DatasetSpec::of(&episode, Some(embodiment)) };
            if let Some((first, origin)) = &spec {
                let differences = first.differences(&own);
                if !differences.is_empty() {
                    let named: Vec<String> = differences.iter().map(ToString::to_string).collect();
                    return Err(invalid(format!(
                        "episode {} cannot join episode {origin}: {}; export its session alone, or exclude it",
                        episode.origin,
                        named.join("; ")
                    )));
                }
            } else {
                spec = Some((own.clone(), episode.origin.clone()));
            }
            if writer.is_none() {
                let (opened, done) = self.open(own, earlier.as_ref()).await?;
                writer = Some(opened);
                skip = done;
                if done > 0 {
                    written = u32::try_from(done).unwrap_or(u32::MAX);
                    continue;
                }
            }
            let Some(open) = writer.take() else { break };
            rows += episode.rows as u64;
            written += 1;
            writer = Some(self.append(open, episode).await?);
            self.tell(number + 1, episodes.len(), rows).await;
        }
        let Some(writer) = writer else {
            return Err(invalid(format!("no episode could be written: {}", self.warnings.join("; "))));
        };
        let total = self.finish(writer).await?;
        let files = files::listing(self.house, &self.prefix).await?;
        self.refresh_earlier(&files).await;
        Ok(Done { rows: total, episodes: written, prefix: self.prefix, files, warnings: self.warnings })
    }

    /// Exports that this one went on with lie under the same prefix: their files are these now.
    async fn refresh_earlier(&self, files: &[ExportFile]) {
        let (shared, prefix, files) = (Arc::clone(self.house), self.prefix.clone(), files.to_vec());
        let refreshed = blocking(move || {
            let page = shared.meta.exports.list(Some(JobState::Done), None, EARLIER)?;
            for other in page.records.iter().filter(|other| other.prefix == prefix) {
                shared.meta.exports.update(&other.id, |record| record.files.clone_from(&files))?;
            }
            Ok::<_, MetaError>(())
        });
        if let Err(error) = refreshed.await {
            tracing::error!("files of earlier exports of this dataset not refreshed: {error}");
        }
    }

    fn not_finite(&self) -> NotFinite {
        if self.export.allow_not_finite { NotFinite::Keep } else { NotFinite::Refuse }
    }

    async fn tell(&self, done: usize, of: usize, rows: u64) {
        let progress = done as f64 / of as f64 * 0.99;
        update(self.house, &self.export.id, move |record| {
            record.progress = progress;
            record.episodes_done = u32::try_from(done).unwrap_or(u32::MAX);
            record.rows = rows;
            record.step = format!("wrote episode {done} of {of}");
        })
        .await;
    }

    /// An earlier export of the same dataset whose episodes are the first of these, unchanged.
    async fn earlier(&self, episodes: &[EpisodeRecord]) -> Result<Option<(ExportRecord, usize)>, Refusal> {
        let export = &self.export;
        if export.dataset.is_none() || export.format != ExportFormat::V30 || !export.exclude.is_empty() {
            return Ok(None);
        }
        let shared = Arc::clone(self.house);
        let page = blocking(move || shared.meta.exports.list(Some(JobState::Done), None, EARLIER)).await?;
        let alike = page.records.into_iter().find(|other| {
            other.dataset == export.dataset
                && other.format == export.format
                && other.exclude.is_empty()
                && other.video == export.video
                && other.allow_not_finite == export.allow_not_finite
        });
        let Some(other) = alike else { return Ok(None) };
        let Some(origins) = files::origins(self.house, &other.prefix).await else {
            return Ok(None);
        };
        let keys: Vec<String> = episodes.iter().map(origin).collect();
        Ok((origins.len() <= keys.len() && keys.starts_with(&origins)).then_some((other, origins.len())))
    }

    async fn open(
        &mut self,
        spec: DatasetSpec,
        earlier: Option<&(ExportRecord, usize)>,
    ) -> Result<(AnyWriter, usize), Refusal> {
        let folder = self.folder.join("dataset");
        let studio =
            StudioOf { ffmpeg: self.house.settings.ffmpeg.clone(), scratch: self.folder.to_owned(), fps: spec.fps };
        if let Some((other, done)) = earlier {
            files::fetch_meta(self.house, &other.prefix, &folder).await?;
            let (place, wanted) = (folder.clone(), spec.clone());
            match blocking(move || Writer::append_to(place, wanted)).await {
                Ok(writer) => {
                    // What info.json counts, not what the manifest lists: a commit that was cut may have left one more there.
                    let done = usize::try_from(writer.totals().episodes).unwrap_or(usize::MAX).min(*done);
                    self.warnings
                        .splice(0..0, other.warnings.iter().filter(|warning| !warning.ends_with(NOT_IN)).cloned());
                    let mut said = std::collections::HashSet::new();
                    self.warnings.retain(|warning| said.insert(warning.clone()));
                    self.prefix.clone_from(&other.prefix);
                    return Ok((AnyWriter::V30(Box::new(writer.with_image_statistics(studio.hook()))), done));
                }
                Err(error) => {
                    tracing::info!("export begins anew: {error}");
                    tokio::fs::remove_dir_all(&folder).await.map_err(storage)?;
                }
            }
        }
        let format = self.export.format;
        let writer = blocking(move || match format {
            ExportFormat::V30 => Writer::create(&folder, spec)
                .map(|writer| AnyWriter::V30(Box::new(writer.with_image_statistics(studio.hook())))),
            ExportFormat::V21 => v21::Writer::create(&folder, spec)
                .map(|writer| AnyWriter::V21(Box::new(writer.with_image_statistics(studio.hook())))),
        });
        Ok((writer.await.map_err(storage)?, 0))
    }

    /// Reads an episode and makes its rows. `None` if it cannot have rows, which is a warning.
    async fn load(&mut self, record: &EpisodeRecord) -> Result<Option<(Episode, String)>, Refusal> {
        let manifest = manifest(self.house, record).await?;
        let mut messages = Vec::new();
        for place in manifest.streams.iter().filter_map(|stream| stream.object.as_ref()).chain(&manifest.journal) {
            messages.extend(object(self.house, place).await?);
        }
        let embodiment = manifest.embodiment.clone();
        let not_finite = if self.export.allow_not_finite { rows::NotFinite::Keep } else { rows::NotFinite::Refuse };
        let (instruction, origin, video) = (record.instruction_now().to_owned(), origin(record), self.export.video);
        let studio =
            StudioOf { ffmpeg: self.house.settings.ffmpeg.clone(), scratch: self.folder.to_owned(), fps: manifest.fps };
        let work = blocking(move || {
            let (mut episode, report) = to_rows(&manifest, &messages, instruction, origin, not_finite)?;
            convert(&mut episode, &report, video, &studio.studio())?;
            Ok::<_, RowsTrouble>((episode, report))
        });
        match work.await {
            Ok((episode, report)) => {
                self.warn(record, &report);
                Ok(Some((episode, embodiment)))
            }
            Err(RowsTrouble::Skip(why)) => {
                self.warnings.push(format!("episode {} is left out: {why}", record.key()));
                Ok(None)
            }
            Err(RowsTrouble::Refuse(refusal)) => Err(refusal),
        }
    }

    fn warn(&mut self, record: &EpisodeRecord, report: &RowsReport) {
        let key = record.key();
        if !record.missing.is_empty() {
            self.warnings
                .push(format!("episode {key} is incomplete: {} did not reach its end", record.missing.join(", ")));
        }
        for feature in &report.features {
            let counts = [
                (feature.held, "rows hold an older value"),
                (feature.filled, "rows are filled"),
                (feature.not_finite, "rows hold NaN or infinity"),
                (feature.undecodable, "pictures do not decode"),
                (feature.resized, "pictures have another size"),
            ];
            let said: Vec<String> =
                counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
            if !said.is_empty() {
                self.warnings.push(format!("episode {key}, {}: {}", feature.feature, said.join(", ")));
            }
        }
        let streams = || record.report.iter().flat_map(|report| &report.streams);
        for stream in streams().filter(|stream| stream.time_backwards > 0) {
            let (feature, steps) = (&stream.feature, stream.time_backwards);
            self.warnings
                .push(format!("episode {key}, {feature}: {steps} steps back in time (capture time goes backwards)"));
        }
        for stream in streams().filter(|stream| !stream.keeps_rate) {
            let declared = stream.declared_hz.map_or_else(String::new, |hz| format!(" of {hz:.1} Hz declared"));
            self.warnings
                .push(format!("episode {key}, {}: measured {:.2} Hz{declared}", stream.feature, stream.measured_hz));
        }
    }

    async fn append(&self, writer: AnyWriter, episode: Episode) -> Result<AnyWriter, Refusal> {
        match writer {
            AnyWriter::V30(mut writer) => {
                let (writer, commit) = blocking(move || {
                    let commit = writer.append(&episode);
                    (writer, commit)
                })
                .await;
                let commit = commit.map_err(|error| invalid(error.to_string()))?;
                files::publish(self.house, &self.prefix, &self.folder.join("dataset"), &commit).await?;
                Ok(AnyWriter::V30(writer))
            }
            AnyWriter::V21(mut writer) => {
                let (writer, appended) = blocking(move || {
                    let appended = writer.append(&episode);
                    (writer, appended)
                })
                .await;
                appended.map_err(|error| invalid(error.to_string()))?;
                Ok(AnyWriter::V21(writer))
            }
        }
    }

    async fn finish(&self, writer: AnyWriter) -> Result<u64, Refusal> {
        let is_v21 = matches!(writer, AnyWriter::V21(_));
        let totals = blocking(move || match writer {
            AnyWriter::V30(writer) => writer.finish(),
            AnyWriter::V21(writer) => writer.finish(),
        });
        let totals = totals.await.map_err(|error| invalid(error.to_string()))?;
        if is_v21 {
            files::publish_all(self.house, &self.prefix, &self.folder.join("dataset")).await?;
        }
        Ok(totals.rows)
    }
}

/// Names an episode and what of it may change after it was stored: another instruction or a later flush is another origin.
fn origin(record: &EpisodeRecord) -> String {
    let mark =
        crate::stored::crc32c(format!("{}|{:?}|{}", record.instruction_now(), record.missing, record.bytes).as_bytes());
    format!("{}#{mark:08x}", record.key())
}
