//! Where the bytes of kept messages are: memory, spool files, or both.

use std::sync::Arc;

use bytes::Bytes;

use tendon_protocol::id::StreamId;

use crate::config::{SpoolConfig, SpoolMode};
use crate::ledger::Deltas;
use crate::spool::files::{Head, Place, Reading, SpoolFiles};

/// Where one message is; at least one of `memory` and `place`.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub memory: Option<Bytes>,
    pub place: Option<Place>,
    /// The numbers on disk are provisional; these are added when it is read.
    pub shift: Option<Arc<Deltas>>,
}

/// A message on its way out.
#[derive(Debug)]
pub(crate) enum Source {
    /// Ready.
    Memory(Bytes),
    /// To be read first.
    File { reading: Reading, shift: Option<Arc<Deltas>> },
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Whether a message may be kept beyond the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Samples: only where there is room.
    Bounded,
    /// Declarations of loss and answers to the server: tiny, at most one per hole or request, never refused.
    Forced,
}

/// Memory and files together.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub files: Option<SpoolFiles>,
    mode: SpoolMode,
    memory_bytes_max: usize,
    pub memory_bytes: usize,
    /// Last refusal of the file system, until a write succeeds.
    pub error: Option<String>,
}

impl Shelf {
    pub fn new(config: &SpoolConfig, files: Option<SpoolFiles>) -> Self {
        Self { files, mode: config.mode, memory_bytes_max: config.memory_bytes_max, memory_bytes: 0, error: None }
    }

    /// Whether every kept message is on disk.
    pub fn writes_through(&self) -> bool {
        self.files.is_some() && self.mode == SpoolMode::WriteThrough
    }

    /// Whether so many bytes more may be taken while `open_bytes` wait in filling batches.
    pub fn has_room(&self, open_bytes: usize, bytes: usize) -> bool {
        let coming = open_bytes + bytes;
        match (&self.files, self.mode) {
            (Some(files), SpoolMode::WriteThrough) => files.has_room(coming) && coming <= self.memory_bytes_max,
            (Some(files), SpoolMode::Overflow) => {
                self.fits_memory(coming) || (files.has_room(coming) && coming <= self.memory_bytes_max)
            }
            (None, SpoolMode::WriteThrough | SpoolMode::Overflow) => self.fits_memory(coming),
        }
    }

    fn fits_memory(&self, bytes: usize) -> bool {
        self.memory_bytes + bytes <= self.memory_bytes_max
    }

    /// Keeps a message.
    pub fn put(&mut self, head: Head, message: Vec<u8>, pressure: Pressure) -> Result<Stored, Full> {
        let fits_memory = self.fits_memory(message.len());
        // The journal is small and holds the rest together: where there are files, it always goes to them.
        let write = self.mode == SpoolMode::WriteThrough || !fits_memory || head.stream == StreamId::JOURNAL;
        let place = if write && self.files.is_some() { self.write(head, &message) } else { None };
        let must_hold = match (pressure, self.mode, &self.files) {
            (Pressure::Forced, ..) => place.is_none(),
            // Without files the room was asked for before the samples were taken.
            (Pressure::Bounded, _, None) => true,
            (Pressure::Bounded, SpoolMode::Overflow, Some(_)) => place.is_none() && fits_memory,
            (Pressure::Bounded, SpoolMode::WriteThrough, Some(_)) => false,
        };
        if place.is_none() && !must_hold {
            return Err(Full);
        }
        let memory = (fits_memory || must_hold).then(|| Bytes::from(message));
        self.memory_bytes += memory.as_ref().map_or(0, Bytes::len);
        Ok(Stored { memory, place, shift: None })
    }

    fn write(&mut self, head: Head, message: &[u8]) -> Option<Place> {
        match self.files.as_mut()?.append(head, message) {
            Ok(place) => {
                self.error = None;
                Some(place)
            }
            Err(error) => {
                if self.error.is_none() {
                    tracing::warn!(%error, "cannot write to the spool files");
                }
                self.error = Some(error.to_string());
                None
            }
        }
    }

    /// Writes a message down that is in memory alone.
    pub fn spill(&mut self, head: Head, stored: &mut Stored) {
        if let (None, Some(bytes)) = (stored.place, stored.memory.clone()) {
            stored.place = self.write(head, &bytes);
        }
    }

    /// The message is no longer needed.
    pub fn release(&mut self, stored: &Stored) {
        self.memory_bytes -= stored.memory.as_ref().map_or(0, Bytes::len);
        if let (Some(place), Some(files)) = (stored.place, &mut self.files) {
            files.forget(place);
        }
    }

    /// How to get at the bytes.
    pub fn source(&self, stored: &Stored) -> Option<Source> {
        if let Some(bytes) = &stored.memory {
            return Some(Source::Memory(bytes.clone()));
        }
        let reading = self.files.as_ref()?.reading(stored.place?)?;
        Some(Source::File { reading, shift: stored.shift.clone() })
    }
}
