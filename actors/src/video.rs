//! Pictures that must be decoded or encoded anew, by the system's ffmpeg at the lowest priority.
//!
//! Called by [`crate::export`] on a blocking thread. JPEGs and coded units that fit their rows are
//! never touched here.

mod encoders;
mod running;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use bytes::Bytes;
use tendon_dataset::episode::{Camera, Picture};
use tendon_dataset::jpeg;
use tendon_dataset::lerobot::stats::picture::Histogram;
use tendon_dataset::mp4::Codec;
use tendon_dataset::mp4::demux::Mp4;
use tendon_dataset::mp4::mux::{Format, Unit, write};
use tendon_dataset::rows::Reencode;
use tendon_protocol::stream::Content;
use thiserror::Error;

pub use encoders::{AV1_ENCODER, H264_ENCODER, encoder_of, encoders_of};
use running::Running;

/// Quality and distance of key frames are lerobot's own defaults (lerobot 0.6, `VideoEncodingConfig`).
const KEY_EVERY: &str = "2";
const CRF: &str = "30";

/// Why pictures could not be converted.
#[derive(Debug, Error)]
pub enum VideoError {
    /// There is no ffmpeg.
    #[error(
        "camera {feature} needs ffmpeg ({why}); install it (apt-get install ffmpeg) or set video.ffmpeg, then export again"
    )]
    NoFfmpeg {
        /// The camera.
        feature: String,
        /// What for.
        why: String,
    },
    /// It could not be run, or a file could not be written.
    #[error("camera {feature}: {what}: {source}")]
    Io {
        /// The camera.
        feature: String,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("camera {feature}: ffmpeg failed while {what}: {message}")]
    Failed {
        /// The camera.
        feature: String,
        /// What was being done.
        what: &'static str,
        /// The end of what it printed.
        message: String,
    },
    /// What it made does not fit.
    #[error("camera {feature}: {what}")]
    Unfit {
        /// The camera.
        feature: String,
        /// What does not fit, with numbers.
        what: String,
    },
}

/// Where to find ffmpeg and room.
pub struct Studio<'a> {
    /// The program.
    pub ffmpeg: Option<&'a Path>,
    /// A folder for files that are being built.
    pub scratch: &'a Path,
    /// Frames per second.
    pub fps: u32,
}

struct Job<'a> {
    feature: &'a str,
    what: &'static str,
}

impl Job<'_> {
    fn io(&self, source: std::io::Error) -> VideoError {
        VideoError::Io { feature: self.feature.to_owned(), what: self.what, source }
    }
    fn unfit(&self, what: String) -> VideoError {
        VideoError::Unfit { feature: self.feature.to_owned(), what }
    }
    /// Starts ffmpeg; what it complains of goes to `complaints`.
    fn start(&self, command: &mut Command, complaints: PathBuf) -> Result<Running, VideoError> {
        Running::start(command, complaints).map_err(|source| self.io(source))
    }
    /// Waits for ffmpeg and turns its complaint into an error. Its output must have been read to the end or dropped.
    fn finish(&self, mut running: Running) -> Result<(), VideoError> {
        let is_success = running.wait().map_err(|source| self.io(source))?;
        if is_success {
            return Ok(());
        }
        Err(VideoError::Failed { feature: self.feature.to_owned(), what: self.what, message: running.complaint() })
    }
}

/// Height and width in pixels.
fn size_of(camera: &Camera) -> (u32, u32) {
    (camera.spec.shape.first().copied().unwrap_or(0), camera.spec.shape.get(1).copied().unwrap_or(0))
}

fn codec_of(content: Content) -> Option<Codec> {
    match content {
        Content::Values => None,
        Content::Jpeg => Some(Codec::Mjpeg),
        Content::H264 => Some(Codec::H264),
        Content::Av1 => Some(Codec::Av1),
    }
}

impl Studio<'_> {
    fn command(&self, feature: &str, why: &str) -> Result<Command, VideoError> {
        let ffmpeg =
            self.ffmpeg.ok_or_else(|| VideoError::NoFfmpeg { feature: feature.to_owned(), why: why.to_owned() })?;
        // Recording goes first: encoding takes what is left of the machine.
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(ffmpeg).args(["-hide_banner", "-loglevel", "error", "-nostdin"]);
        Ok(command)
    }

    fn decoder(&self, job: &Job<'_>, file: &Path) -> Result<Running, VideoError> {
        let mut command = self.command(job.feature, job.what)?;
        command.arg("-i").arg(file).args(["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
        job.start(command.stdin(Stdio::null()).stdout(Stdio::piped()), self.file("decoder.log"))
    }

    fn encoder(
        &self,
        job: &Job<'_>,
        target: Content,
        height: u32,
        width: u32,
        out: &Path,
    ) -> Result<Running, VideoError> {
        // ffmpeg 5.1 reads pictures from its standard input although `-nostdin` forbids it to read commands from there.
        let mut command = self.command(job.feature, job.what)?;
        let rate = self.fps.to_string();
        command.args([
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            &format!("{width}x{height}"),
            "-framerate",
            &rate,
            "-i",
            "-",
        ]);
        match target {
            Content::Av1 => command.args(["-c:v", AV1_ENCODER, "-preset", "12"]),
            Content::Values | Content::Jpeg | Content::H264 => command.args(["-c:v", H264_ENCODER, "-bf", "0"]),
        };
        command.args(["-g", KEY_EVERY, "-crf", CRF, "-pix_fmt", "yuv420p", "-f", "mp4", "-y"]).arg(out);
        job.start(command.stdin(Stdio::piped()).stdout(Stdio::null()), self.file("encoder.log"))
    }

    /// Histogram of the pictures that these rows show, for a camera whose units this program cannot decode.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails.
    pub fn histogram(&self, camera: &Camera, rows: &[u32]) -> Result<Histogram, VideoError> {
        let job = Job { feature: &camera.spec.key, what: "decoding pictures for statistics" };
        let (height, width) = size_of(camera);
        let file = self.file("statistics.mp4");
        write_units(&job, camera, self.fps, &file)?;
        let mut child = self.decoder(&job, &file)?;
        let mut frames = Frames::of(&job, &mut child, height, width)?;
        let mut histogram = Histogram::default();
        for row in 0..u32::try_from(camera.pictures.len()).unwrap_or(u32::MAX) {
            let Some(pixels) = frames.next(&job)? else {
                job.finish(child)?;
                return Err(job.unfit(format!("{} units give only {row} pictures", camera.pictures.len())));
            };
            if rows.binary_search(&row).is_ok() {
                histogram.add_rgb(width, height, pixels);
            }
        }
        drop(frames);
        job.finish(child)?;
        let _ = std::fs::remove_file(file);
        Ok(histogram)
    }

    /// Encodes a JPEG camera as H.264 or AV1.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails, or a picture does not decode.
    pub fn encode_jpegs(&self, camera: &mut Camera, target: Content) -> Result<(), VideoError> {
        let feature = camera.spec.key.clone();
        let job = Job { feature: &feature, what: "encoding pictures" };
        let (height, width) = size_of(camera);
        let out = self.file("encoded.mp4");
        let mut child = self.encoder(&job, target, height, width, &out)?;
        let mut order: Vec<&Picture> = camera.pictures.iter().collect();
        order.sort_by_key(|picture| picture.row);
        for picture in order {
            let decoded =
                jpeg::decode_rgb(&picture.data).map_err(|error| job.unfit(format!("row {}: {error}", picture.row)))?;
            if !feed(&job, &mut child, &decoded.pixels)? {
                break;
            }
        }
        job.finish(child)?;
        let rows = camera.pictures.len();
        take_encoded(&job, camera, target, &out, rows)
    }

    /// Decodes units that do not fit their rows and encodes what the rows show.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails, or the units cannot be decoded.
    pub fn reencode(&self, camera: &mut Camera, source: &Reencode, target: Content) -> Result<(), VideoError> {
        let feature = camera.spec.key.clone();
        let job = Job { feature: &feature, what: "encoding pictures anew" };
        let [config] = &source.configs[..] else {
            return Err(job.unfit(format!(
                "its coding changed {} times within the episode; record with one setting",
                source.configs.len()
            )));
        };
        let (height, width) = size_of(camera);
        // Pictures leave the decoder in the order of their capture times.
        let mut order: Vec<usize> = (0..source.units.len()).collect();
        order.sort_by_key(|unit| source.units[*unit].capture_ns);
        let mut place = vec![0u32; order.len()];
        for (shown, unit) in order.iter().enumerate() {
            place[*unit] = u32::try_from(shown).unwrap_or(u32::MAX);
        }
        let pictures = source.units.iter().zip(&place);
        let decoding = Camera {
            spec: camera.spec.clone(),
            config: config.clone(),
            pictures: pictures
                .map(|(unit, row)| Picture { data: unit.data.clone(), key: unit.key, row: *row })
                .collect(),
        };
        let (file, out) = (self.file("source.mp4"), self.file("encoded.mp4"));
        write_units(&job, &decoding, self.fps, &file)?;
        let mut decoder = self.decoder(&job, &file)?;
        let mut frames = Frames::of(&job, &mut decoder, height, width)?;
        let mut encoder = self.encoder(&job, target, height, width, &out)?;
        let black = vec![0u8; height as usize * width as usize * 3];
        for (row, unit) in source.rows.iter().enumerate() {
            let pixels = match unit {
                Some(unit) => {
                    let wanted = place.get(*unit as usize).copied();
                    let wanted = wanted
                        .ok_or_else(|| job.unfit(format!("row {row} shows unit {unit} of {}", source.units.len())))?;
                    show(&job, &mut frames, row, *unit, wanted)?
                }
                None => &black[..],
            };
            if !feed(&job, &mut encoder, pixels)? {
                break;
            }
        }
        job.finish(encoder)?;
        // Pictures behind the last row are of no use, so the decoder need not come to its end.
        drop((frames, decoder));
        take_encoded(&job, camera, target, &out, source.rows.len())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }
}

/// The picture of a unit that leaves the decoder as number `wanted`. Pictures come once and in order.
fn show<'a>(job: &Job<'_>, frames: &'a mut Frames, row: usize, unit: u32, wanted: u32) -> Result<&'a [u8], VideoError> {
    if frames.read > wanted.saturating_add(1) {
        return Err(job.unfit(format!(
            "row {row} shows unit {unit}, which was captured before the picture of an earlier row: \
             time runs backwards; take the grid or another stream as the row clock"
        )));
    }
    while frames.read <= wanted {
        if frames.next(job)?.is_none() {
            return Err(job.unfit(format!("row {row} shows unit {unit}, but only {} pictures decode", frames.read)));
        }
    }
    Ok(frames.current())
}

/// Writes pixels to ffmpeg. False when it has stopped reading: its error comes with [`Job::finish`].
fn feed(job: &Job<'_>, child: &mut Running, pixels: &[u8]) -> Result<bool, VideoError> {
    let Some(stdin) = child.stdin() else {
        return Ok(false);
    };
    match stdin.write_all(pixels) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(job.io(error)),
    }
}

fn write_units(job: &Job<'_>, camera: &Camera, fps: u32, file: &Path) -> Result<(), VideoError> {
    let Some(codec) = codec_of(camera.spec.content) else {
        return Err(job.unfit("holds numbers, not pictures".to_owned()));
    };
    let (height, width) = size_of(camera);
    let units: Vec<Unit<'_>> = camera
        .pictures
        .iter()
        .map(|picture| Unit { data: &picture.data, key: picture.key, presentation: picture.row })
        .collect();
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).map_err(|source| job.io(source))?);
    let format = Format { codec, width, height, fps, config: &camera.config };
    write(&mut out, format, &units).map_err(|error| job.unfit(error.to_string()))?;
    out.flush().map_err(|source| job.io(source))
}

/// Puts what ffmpeg made into the camera.
fn take_encoded(
    job: &Job<'_>,
    camera: &mut Camera,
    target: Content,
    out: &Path,
    rows: usize,
) -> Result<(), VideoError> {
    let mut mp4 = Mp4::open(out).map_err(|error| job.unfit(error.to_string()))?;
    if mp4.samples().len() != rows {
        return Err(job.unfit(format!("ffmpeg made {} pictures of {rows}", mp4.samples().len())));
    }
    let mut row_of = vec![0u32; rows];
    for (row, sample) in mp4.presentation_order().into_iter().enumerate() {
        if let Some(place) = row_of.get_mut(sample) {
            *place = u32::try_from(row).unwrap_or(u32::MAX);
        }
    }
    let keys: Vec<bool> = mp4.samples().iter().map(|sample| sample.key).collect();
    let mut pictures = Vec::with_capacity(rows);
    for (number, (key, row)) in keys.into_iter().zip(row_of).enumerate() {
        let data = mp4.read_sample(number).map_err(|error| job.unfit(error.to_string()))?;
        pictures.push(Picture { data, key, row });
    }
    camera.config = Bytes::copy_from_slice(&mp4.track().config);
    camera.spec.content = target;
    camera.pictures = pictures;
    let _ = std::fs::remove_file(out);
    Ok(())
}

/// Raw pictures from ffmpeg, one after the other.
struct Frames {
    stdout: ChildStdout,
    pixels: Vec<u8>,
    /// Pictures that were read; the current one is the last of them.
    read: u32,
}

impl Frames {
    fn of(job: &Job<'_>, child: &mut Running, height: u32, width: u32) -> Result<Self, VideoError> {
        let stdout = child.take_stdout().ok_or_else(|| job.unfit("ffmpeg has no output".to_owned()))?;
        Ok(Self { stdout, pixels: vec![0; height as usize * width as usize * 3], read: 0 })
    }

    fn current(&self) -> &[u8] {
        &self.pixels
    }

    fn next(&mut self, job: &Job<'_>) -> Result<Option<&[u8]>, VideoError> {
        match self.stdout.read_exact(&mut self.pixels) {
            Ok(()) => {
                self.read = self.read.saturating_add(1);
                Ok(Some(&self.pixels))
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(job.io(error)),
        }
    }
}
