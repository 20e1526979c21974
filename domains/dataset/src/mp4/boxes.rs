//! Bytes of boxes: a bounded reader and a small writer. Used by the muxer and the demuxer only.

use super::Mp4Error;

/// Four-character code.
pub(super) type Kind = [u8; 4];

/// A readable form of a code that may be any bytes.
pub(super) fn kind_text(kind: Kind) -> String {
    kind.escape_ascii().to_string()
}

/// The content of one box in memory, read from the front. Every read is checked.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    kind: Kind,
    begin: u64,
    next: u64,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// `rest` is the content after a header of `header` bytes; the box begins at byte `begin` of the file.
    pub(super) fn new(kind: Kind, begin: u64, header: u64, rest: &'a [u8]) -> Self {
        Self { kind, begin, next: begin + header, rest }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn error(&self, what: impl Into<String>) -> Mp4Error {
        Mp4Error::Box { kind: kind_text(self.kind), at: self.begin, what: what.into() }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Mp4Error> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(format!("needs {count} more bytes, {} are left", self.rest.len())));
        };
        self.rest = rest;
        self.next += count as u64;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Mp4Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Mp4Error> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Mp4Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Mp4Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Mp4Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Mp4Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn kind_value(&mut self) -> Result<Kind, Mp4Error> {
        self.array()
    }

    /// Version and flags of a full box.
    pub(super) fn version(&mut self) -> Result<(u8, u32), Mp4Error> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// Reads an entry count and checks that the box is long enough to hold so many.
    pub(super) fn count(&mut self, entry_bytes: usize) -> Result<usize, Mp4Error> {
        let count = self.u32()? as usize;
        if count.checked_mul(entry_bytes).is_none_or(|bytes| bytes > self.rest.len()) {
            return Err(self.error(format!(
                "says {count} entries of {entry_bytes} bytes, but {} bytes are left",
                self.rest.len()
            )));
        }
        Ok(count)
    }

    /// The next child box, or `None` at the end. Fewer than eight bytes at the end are padding.
    pub(super) fn child(&mut self) -> Result<Option<Cursor<'a>>, Mp4Error> {
        if self.rest.len() < 8 {
            return Ok(None);
        }
        let whole = self.rest;
        let mut head = *self;
        let (mut size, kind) = (u64::from(head.u32()?), head.kind_value()?);
        let mut header = 8;
        if size == 1 {
            size = head.u64()?;
            header = 16;
        } else if size == 0 {
            size = whole.len() as u64;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size < header || size > whole.len() {
            let what = format!("child {} says {size} bytes, {} are left", kind_text(kind), whole.len());
            return Err(self.error(what));
        }
        let begin = self.next;
        self.take(size)?;
        Ok(Some(Cursor { kind, begin, next: begin + header as u64, rest: &whole[header..size] }))
    }

    /// The first child of this kind.
    pub(super) fn find(mut self, kind: &Kind) -> Result<Option<Cursor<'a>>, Mp4Error> {
        while let Some(child) = self.child()? {
            if child.kind == *kind {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// The first child of this kind, which must be there.
    pub(super) fn need(self, kind: &Kind) -> Result<Cursor<'a>, Mp4Error> {
        self.find(kind)?.ok_or_else(|| self.error(format!("has no {} inside", kind_text(*kind))))
    }
}

/// Appends a box whose content `fill` writes.
pub(super) fn put(out: &mut Vec<u8>, kind: &Kind, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    fill(out);
    // Boxes other than mdat hold tables of at most SAMPLES_MAX entries: far below 4 GiB.
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a full box: version and flags first.
pub(super) fn put_full(out: &mut Vec<u8>, kind: &Kind, version: u8, flags: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put(out, kind, |out| {
        put_u32(out, u32::from(version) << 24 | flags);
        fill(out);
    });
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}
