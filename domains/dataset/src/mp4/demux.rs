//! Reads the video track of an MP4 file that may come from anyone. Start with [`Mp4::open`].
//!
//! Plain and fragmented files; audio and other tracks are skipped. Every length is checked against
//! the file before memory is asked for, so a hostile file costs at most about forty times its own
//! size. A file that was cut still gives the samples that are whole; [`Mp4::fault`] says what is not.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;

use super::boxes::{Cursor, Kind, kind_text};
use super::fragment::Fragments;
use super::{Codec, Mp4Error, table};

/// Most samples of a track: nine hours at 120 a second.
pub const SAMPLES_MAX: u64 = 1 << 22;
/// Longest moov or moof box in bytes; tables of [`SAMPLES_MAX`] samples take less.
pub const INDEX_BYTES_MAX: u64 = 128 << 20;
/// Longest sample in bytes; an uncompressed 4096 x 4096 picture is 48 MiB.
pub const SAMPLE_BYTES_MAX: u64 = 64 << 20;
/// Most boxes at the top of a file; a fragment of one frame takes two.
const TOP_BOXES_MAX: u64 = 1 << 23;
/// Most edits of a list; ordinary files have one or two.
const EDITS_MAX: usize = 64;

/// One coded picture of the track, in decoding order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u32,
    /// Decoding time in ticks, as stored.
    pub dts: i64,
    /// Presentation time in ticks, after composition offset and edit list: what a reader sees.
    pub pts: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// Whether the edit list shows this sample; readers leave the others out.
    pub shown: bool,
}

/// One entry of the edit list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Length in ticks of the *movie's* time scale; 0 means to the end.
    pub duration: u64,
    /// First tick of the media that is shown, -1 for a pause.
    pub media_time: i64,
}

/// What the index says of the video track.
#[derive(Clone, Debug)]
pub struct Track {
    /// How pictures are coded.
    pub codec: Codec,
    /// Width in pixels as the sample entry says.
    pub width: u32,
    /// Height in pixels as the sample entry says.
    pub height: u32,
    /// Ticks per second.
    pub timescale: u32,
    /// Content of avcC, hvcC, av1C, vpcC or esds, without box headers; empty when there is none.
    pub config: Bytes,
    /// The edit list, empty when there is none.
    pub edits: Vec<Edit>,
    /// Sum of the durations of all samples in ticks.
    pub ticks: u64,
    /// Whether samples are in moof boxes.
    pub fragmented: bool,
    /// Whether there is an audio track beside it.
    pub audio: bool,
    pub(super) number: u32,
    pub(super) movie_timescale: u32,
}

/// An open file.
#[derive(Debug)]
pub struct Mp4<R> {
    reader: R,
    bytes: u64,
    track: Track,
    samples: Vec<Sample>,
    whole: usize,
    fault: Option<Mp4Error>,
}

impl Mp4<File> {
    /// Opens a file and reads its index.
    ///
    /// # Errors
    /// When it is no MP4 file, has no video track or its index cannot be understood.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Mp4Error> {
        Self::from_reader(File::open(path)?)
    }
}

impl<R: Read + Seek> Mp4<R> {
    /// Reads the index from anything that can be read and sought.
    ///
    /// # Errors
    /// When it is no MP4 file, has no video track or its index cannot be understood.
    pub fn from_reader(mut reader: R) -> Result<Self, Mp4Error> {
        let bytes = reader.seek(SeekFrom::End(0))?;
        let (track, mut samples, mut fault) = Scan::new(&mut reader, bytes).run()?;
        apply_edits(&track, &mut samples);
        let cut = samples
            .iter()
            .position(|sample| sample.offset.checked_add(u64::from(sample.size)).is_none_or(|end| end > bytes));
        if let Some(first) = cut {
            let Sample { offset, size, .. } = samples[first];
            let end = offset.saturating_add(u64::from(size));
            fault = Some(Mp4Error::Cut { sample: first, samples: samples.len(), offset, end, bytes });
        }
        let whole = cut.unwrap_or(samples.len());
        Ok(Self { reader, bytes, track, samples, whole, fault })
    }

    /// The bytes of sample `number`, counted from 0 in decoding order.
    ///
    /// # Errors
    /// When there is no such sample, when it is not whole or the file cannot be read.
    pub fn read_sample(&mut self, number: usize) -> Result<Bytes, Mp4Error> {
        let samples = self.samples.len();
        let Some(sample) = self.samples.get(number) else {
            return Err(Mp4Error::NoSample { sample: number, samples });
        };
        let size = u64::from(sample.size);
        let end = sample.offset.saturating_add(size);
        if end > self.bytes {
            return Err(Mp4Error::Cut { sample: number, samples, offset: sample.offset, end, bytes: self.bytes });
        }
        if size > SAMPLE_BYTES_MAX {
            return Err(Mp4Error::TooLarge { what: "sample size in bytes", got: size, limit: SAMPLE_BYTES_MAX });
        }
        self.reader.seek(SeekFrom::Start(sample.offset))?;
        let mut data = vec![0; sample.size as usize];
        self.reader.read_exact(&mut data)?;
        Ok(data.into())
    }
}

impl<R> Mp4<R> {
    /// What the index says of the track.
    #[must_use]
    pub fn track(&self) -> &Track {
        &self.track
    }

    /// All samples that the index names, in decoding order, also those that are not whole.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// How many samples from the first on lie wholly inside the file.
    #[must_use]
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// What is wrong with the file although it could be opened: cut, or tables that disagree.
    #[must_use]
    pub fn fault(&self) -> Option<&Mp4Error> {
        self.fault.as_ref()
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Numbers of the samples that are shown, by presentation time. Entry k is the k-th picture.
    #[must_use]
    pub fn presentation_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples.len()).filter(|number| self.samples[*number].shown).collect();
        order.sort_by_key(|number| self.samples[*number].pts);
        order
    }

    /// Mean pictures per second as the header says it: what players take for the frame rate.
    #[must_use]
    pub fn average_fps(&self) -> Option<f64> {
        let seconds = self.track.ticks as f64 / f64::from(self.track.timescale.max(1));
        (seconds > 0.0).then(|| self.samples.len() as f64 / seconds)
    }
}

/// The walk over the boxes at the top of the file.
struct Scan<'a, R> {
    reader: &'a mut R,
    bytes: u64,
    found: Option<(Track, Vec<Sample>)>,
    fragments: Fragments,
    fault: Option<Mp4Error>,
}

/// A box header at the top of the file.
struct Top {
    kind: Kind,
    at: u64,
    header: u64,
    /// Header included; may reach past the end of a cut file.
    size: u64,
}

impl<'a, R: Read + Seek> Scan<'a, R> {
    fn new(reader: &'a mut R, bytes: u64) -> Self {
        Self { reader, bytes, found: None, fragments: Fragments::default(), fault: None }
    }

    fn run(mut self) -> Result<(Track, Vec<Sample>, Option<Mp4Error>), Mp4Error> {
        let (mut at, mut count, mut last) = (0, 0, *b"none");
        while let Some(top) = self.header(at)? {
            if at == 0
                && !matches!(
                    &top.kind,
                    b"ftyp" | b"styp" | b"moov" | b"moof" | b"mdat" | b"free" | b"skip" | b"wide" | b"pdin" | b"sidx"
                )
            {
                return Err(self.not_mp4()?);
            }
            last = top.kind;
            count += 1;
            if count > TOP_BOXES_MAX {
                return Err(Mp4Error::TooLarge { what: "number of boxes", got: count, limit: TOP_BOXES_MAX });
            }
            if let Err(error) = self.top(&top) {
                // What lies behind the index can be damaged without making the rest unreadable.
                if self.found.is_none() {
                    return Err(error);
                }
                self.fault.get_or_insert(error);
                break;
            }
            at = at.saturating_add(top.size);
        }
        if count == 0 {
            return Err(self.not_mp4()?);
        }
        let Some((mut track, mut samples)) = self.found else {
            return Err(Mp4Error::NoMovie { bytes: self.bytes, last: kind_text(last) });
        };
        track.ticks += self.fragments.ticks;
        samples.append(&mut self.fragments.samples);
        Ok((track, samples, self.fault))
    }

    fn not_mp4(&mut self) -> Result<Mp4Error, Mp4Error> {
        let mut begin = Vec::new();
        self.reader.seek(SeekFrom::Start(0))?;
        self.reader.by_ref().take(12).read_to_end(&mut begin)?;
        Ok(Mp4Error::NotMp4 { begin: begin.escape_ascii().to_string() })
    }

    /// The header at `at`; `None` when fewer than eight bytes are left.
    fn header(&mut self, at: u64) -> Result<Option<Top>, Mp4Error> {
        if at.checked_add(8).is_none_or(|end| end > self.bytes) {
            return Ok(None);
        }
        self.reader.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        self.reader.read_exact(&mut head)?;
        let [a, b, c, d, kind @ ..] = head;
        let (mut size, mut header) = (u64::from(u32::from_be_bytes([a, b, c, d])), 8);
        if size == 1 && at + 16 <= self.bytes {
            let mut large = [0; 8];
            self.reader.read_exact(&mut large)?;
            (size, header) = (u64::from_be_bytes(large), 16);
        } else if size == 0 {
            size = self.bytes - at;
        }
        if size < header {
            let what = format!("says {size} bytes, its header alone has {header}");
            let error = Mp4Error::Box { kind: kind_text(kind), at, what };
            if at == 0 {
                return Err(self.not_mp4()?);
            }
            if self.found.is_none() {
                return Err(error);
            }
            self.fault.get_or_insert(error);
            return Ok(None);
        }
        Ok(Some(Top { kind, at, header, size }))
    }

    fn top(&mut self, top: &Top) -> Result<(), Mp4Error> {
        match &top.kind {
            b"moov" if self.found.is_none() => {
                let content = self.content(top)?;
                let movie = Cursor::new(top.kind, top.at, top.header, &content);
                self.found = Some(read_movie(movie, self.bytes, &mut self.fragments, &mut self.fault)?);
            }
            b"moof" => {
                if let Some((track, _)) = &self.found {
                    let number = track.number;
                    let content = self.content(top)?;
                    let fragment = Cursor::new(top.kind, top.at, top.header, &content);
                    self.fragments.read(fragment, top.at, number, self.bytes)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn content(&mut self, top: &Top) -> Result<Vec<u8>, Mp4Error> {
        let end = top.at.saturating_add(top.size);
        if end > self.bytes {
            let what = format!("ends at byte {end}, but the file at {}; it was cut, copy it again", self.bytes);
            return Err(Mp4Error::Box { kind: kind_text(top.kind), at: top.at, what });
        }
        if top.size > INDEX_BYTES_MAX {
            return Err(Mp4Error::TooLarge { what: "index size in bytes", got: top.size, limit: INDEX_BYTES_MAX });
        }
        self.reader.seek(SeekFrom::Start(top.at + top.header))?;
        let mut content = vec![0; usize::try_from(top.size - top.header).unwrap_or(0)];
        self.reader.read_exact(&mut content)?;
        Ok(content)
    }
}

fn read_movie(
    movie: Cursor<'_>,
    bytes: u64,
    fragments: &mut Fragments,
    fault: &mut Option<Mp4Error>,
) -> Result<(Track, Vec<Sample>), Mp4Error> {
    let mut mvhd = movie.need(b"mvhd")?;
    let long = mvhd.version()?.0 == 1;
    mvhd.take(if long { 16 } else { 8 })?;
    let movie_timescale = mvhd.u32()?;
    let (mut children, mut tracks, mut audio, mut video) = (movie, 0, false, None);
    while let Some(child) = children.child()? {
        if &child.kind() != b"trak" {
            continue;
        }
        tracks += 1;
        let mut handler = child.need(b"mdia")?.need(b"hdlr")?;
        handler.take(8)?;
        match &handler.kind_value()? {
            b"vide" if video.is_none() => video = Some(child),
            b"soun" => audio = true,
            _ => {}
        }
    }
    let Some(trak) = video else {
        return Err(Mp4Error::NoVideo { tracks });
    };
    let extends = movie.find(b"mvex")?;
    let mut track = read_track(trak, movie_timescale)?;
    track.audio = audio;
    track.fragmented = extends.is_some();
    if let Some(extends) = extends {
        fragments.read_defaults(extends, track.number)?;
    }
    let tables = trak.need(b"mdia")?.need(b"minf")?.need(b"stbl")?;
    let (samples, ticks, problem) = table::read(tables, bytes)?;
    track.ticks = ticks;
    if fault.is_none() {
        *fault = problem;
    }
    Ok((track, samples))
}

fn read_track(trak: Cursor<'_>, movie_timescale: u32) -> Result<Track, Mp4Error> {
    let mut tkhd = trak.need(b"tkhd")?;
    let long = tkhd.version()?.0 == 1;
    tkhd.take(if long { 16 } else { 8 })?;
    let number = tkhd.u32()?;
    let media = trak.need(b"mdia")?;
    let mut mdhd = media.need(b"mdhd")?;
    let long = mdhd.version()?.0 == 1;
    mdhd.take(if long { 16 } else { 8 })?;
    let timescale = mdhd.u32()?;
    if timescale == 0 {
        return Err(mdhd.error("time scale is 0"));
    }
    let mut edits = Vec::new();
    if let Some(mut list) = trak.find(b"edts")?.map(|edts| edts.find(b"elst")).transpose()?.flatten() {
        let long = list.version()?.0 == 1;
        let count = list.count(if long { 20 } else { 12 })?;
        if count > EDITS_MAX {
            return Err(Mp4Error::TooLarge { what: "number of edits", got: count as u64, limit: EDITS_MAX as u64 });
        }
        for _ in 0..count {
            let (duration, media_time) = if long {
                (list.u64()?, list.u64()?.cast_signed())
            } else {
                (u64::from(list.u32()?), i64::from(list.i32()?))
            };
            list.take(4)?;
            edits.push(Edit { duration, media_time });
        }
    }
    let entry = table::read_entry(media.need(b"minf")?.need(b"stbl")?.need(b"stsd")?)?;
    Ok(Track {
        codec: entry.codec,
        width: entry.width,
        height: entry.height,
        timescale,
        config: entry.config,
        edits,
        ticks: 0,
        fragmented: false,
        audio: false,
        number,
        movie_timescale,
    })
}

/// Moves every pts to where the edit list shows it. A sample outside every edit keeps its place
/// relative to the first one and is marked as not shown.
fn apply_edits(track: &Track, samples: &mut [Sample]) {
    struct Window {
        from: i128,
        to: i128,
        shift: i128,
    }
    let ticks = |movie: u64| i128::from(movie) * i128::from(track.timescale) / i128::from(track.movie_timescale.max(1));
    let (mut windows, mut start) = (Vec::new(), 0);
    for edit in &track.edits {
        if edit.media_time >= 0 {
            let from = i128::from(edit.media_time);
            let to = if edit.duration == 0 { i128::MAX } else { from + ticks(edit.duration).max(1) };
            windows.push(Window { from, to, shift: start - from });
        }
        start += ticks(edit.duration);
    }
    let Some(first) = windows.first() else { return };
    for sample in samples {
        let time = i128::from(sample.pts);
        let window = windows.iter().find(|window| (window.from..window.to).contains(&time));
        sample.shown = window.is_some();
        let moved = time + window.unwrap_or(first).shift;
        sample.pts = i64::try_from(moved).unwrap_or(if moved < 0 { i64::MIN } else { i64::MAX });
    }
}

/// Reads `bytes` as an MP4 file and checks what must hold of any file; the body of the fuzz target.
///
/// # Panics
/// When a promise of this module is broken.
pub fn fuzz_demux(bytes: &[u8]) {
    let Ok(mut mp4) = Mp4::from_reader(std::io::Cursor::new(bytes)) else {
        return;
    };
    assert!(mp4.whole() <= mp4.samples().len(), "more whole samples than samples");
    assert_eq!(mp4.whole() < mp4.samples().len(), matches!(mp4.fault(), Some(Mp4Error::Cut { .. })));
    assert!(mp4.presentation_order().len() <= mp4.samples().len());
    assert!(mp4.average_fps().is_none_or(f64::is_finite));
    for number in 0..mp4.samples().len().min(64) {
        let size = mp4.samples()[number].size as usize;
        match mp4.read_sample(number) {
            Ok(data) => assert_eq!(data.len(), size),
            Err(error) => assert!(number >= mp4.whole() || matches!(error, Mp4Error::TooLarge { .. }), "{error}"),
        }
    }
    assert!(mp4.read_sample(mp4.samples().len()).is_err());
}
