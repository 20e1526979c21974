//! Samples of fragmented files: the defaults in `mvex` and the runs in each `moof`.

use super::Mp4Error;
use super::boxes::Cursor;
use super::demux::{SAMPLES_MAX, Sample};

/// Flags of a sample that is not a key picture: "depends on others" or "is not a sync sample".
const NOT_KEY: u32 = 0x0101_0000;
/// Largest decoding time in ticks; leaves room for offsets in 64 bits.
const TIME_MAX: u64 = 1 << 60;

/// What samples inherit, first from `trex`, then from `tfhd`.
#[derive(Clone, Copy, Default)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// Samples gathered so far.
#[derive(Default)]
pub(super) struct Fragments {
    defaults: Defaults,
    dts: u64,
    pub(super) ticks: u64,
    pub(super) samples: Vec<Sample>,
}

impl Fragments {
    /// Reads `mvex` for the track `number`.
    pub(super) fn read_defaults(&mut self, mut extends: Cursor<'_>, number: u32) -> Result<(), Mp4Error> {
        while let Some(mut child) = extends.child()? {
            if &child.kind() != b"trex" {
                continue;
            }
            child.version()?;
            if child.u32()? == number {
                child.u32()?;
                self.defaults = Defaults { duration: child.u32()?, size: child.u32()?, flags: child.u32()? };
            }
        }
        Ok(())
    }

    /// Reads one `moof` that begins at byte `at`.
    pub(super) fn read(
        &mut self,
        mut fragment: Cursor<'_>,
        at: u64,
        number: u32,
        file_bytes: u64,
    ) -> Result<(), Mp4Error> {
        let mut base = at;
        while let Some(child) = fragment.child()? {
            if &child.kind() == b"traf" {
                base = self.read_track(child, at, base, number, file_bytes)?;
            }
        }
        Ok(())
    }

    /// Returns where the data of this track fragment ends: the base of the next without one of its own.
    fn read_track(
        &mut self,
        traf: Cursor<'_>,
        at: u64,
        previous: u64,
        number: u32,
        file_bytes: u64,
    ) -> Result<u64, Mp4Error> {
        let mut head = traf.need(b"tfhd")?;
        let flags = head.version()?.1;
        let ours = head.u32()? == number;
        let base = if flags & 0x01 != 0 {
            head.u64()?
        } else if flags & 0x02_0000 != 0 {
            at
        } else {
            previous
        };
        if flags & 0x02 != 0 {
            head.u32()?;
        }
        let mut defaults = self.defaults;
        for (bit, field) in [(0x08, &mut defaults.duration), (0x10, &mut defaults.size), (0x20, &mut defaults.flags)] {
            if flags & bit != 0 {
                *field = head.u32()?;
            }
        }
        if !ours {
            return Ok(base);
        }
        if let Some(mut time) = traf.find(b"tfdt")? {
            self.dts = if time.version()?.0 == 1 { time.u64()? } else { u64::from(time.u32()?) };
            if self.dts > TIME_MAX {
                return Err(time.error(format!("decoding time {} is over {TIME_MAX} ticks", self.dts)));
            }
        }
        let (mut children, mut offset) = (traf, base);
        while let Some(child) = children.child()? {
            if &child.kind() == b"trun" {
                offset = self.read_run(child, base, offset, defaults, file_bytes)?;
            }
        }
        Ok(offset)
    }

    fn read_run(
        &mut self,
        mut run: Cursor<'_>,
        base: u64,
        follow: u64,
        defaults: Defaults,
        file_bytes: u64,
    ) -> Result<u64, Mp4Error> {
        let (_, flags) = run.version()?;
        let count = u64::from(run.u32()?);
        let mut offset = if flags & 0x01 != 0 { base.saturating_add_signed(i64::from(run.i32()?)) } else { follow };
        let mut first_flags = if flags & 0x04 != 0 { Some(run.u32()?) } else { None };
        let fields = (flags & 0xf00).count_ones() as usize;
        let total = count + self.samples.len() as u64;
        if total > SAMPLES_MAX {
            return Err(Mp4Error::TooLarge { what: "number of samples", got: total, limit: SAMPLES_MAX });
        }
        // Samples without fields of their own cost the file nothing here, but each has at least one byte.
        if (fields == 0 && total > file_bytes) || count as usize * fields * 4 > run.len() {
            return Err(run.error(format!("says {count} samples of {fields} fields; {} bytes are left", run.len())));
        }
        for _ in 0..count {
            let mut field = |bit: u32, default: u32| if flags & bit != 0 { run.u32() } else { Ok(default) };
            let duration = field(0x100, defaults.duration)?;
            let size = field(0x200, defaults.size)?;
            let own = field(0x400, first_flags.unwrap_or(defaults.flags))?;
            let composition = i64::from(field(0x800, 0)?.cast_signed());
            let own = first_flags.take().unwrap_or(own);
            let dts = self.dts.cast_signed();
            self.samples.push(Sample {
                offset,
                size,
                dts,
                pts: dts + composition,
                key: own & NOT_KEY == 0,
                shown: true,
            });
            offset = offset.saturating_add(u64::from(size));
            // At most SAMPLES_MAX (2^22) times 2^32 over TIME_MAX: no overflow.
            self.dts += u64::from(duration);
            self.ticks += u64::from(duration);
        }
        Ok(offset)
    }
}
