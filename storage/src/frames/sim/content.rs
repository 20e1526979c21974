//! The bytes of one simulated file: what reads show, what the disk has, and what lies in between.

use std::collections::BTreeSet;

use super::{Dice, SECTOR_BYTES};

struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Content {
    /// What reads show.
    pub view: Vec<u8>,
    /// What is on the disk for certain.
    pub disk: Vec<u8>,
    /// Writes since the last sync.
    dirty: Vec<Write>,
}

impl Content {
    /// Changes what reads show.
    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.view.len() < end {
            self.view.resize(end, 0);
        }
        self.view[offset..end].copy_from_slice(bytes);
        self.dirty.push(Write { offset, bytes: bytes.to_vec() });
    }

    /// Stores what was written.
    pub fn sync(&mut self) {
        self.disk.resize(self.view.len(), 0);
        for write in self.dirty.drain(..) {
            let end = (write.offset + write.bytes.len()).min(self.disk.len());
            if let Some(target) = self.disk.get_mut(write.offset..end) {
                target.copy_from_slice(&write.bytes[..target.len()]);
            }
        }
    }

    /// Stores an arbitrary part of what was not synced.
    pub fn settle(&mut self, dice: &mut Dice, odds: Odds) {
        let dirty = std::mem::take(&mut self.dirty);
        if self.view.len() != self.disk.len() && dice.chance(odds.keep) {
            self.disk.resize(self.view.len(), 0);
        }
        let sectors: BTreeSet<usize> = dirty
            .iter()
            .flat_map(|write| write.offset / SECTOR_BYTES..(write.offset + write.bytes.len()).div_ceil(SECTOR_BYTES))
            .collect();
        for sector in sectors {
            let start = sector * SECTOR_BYTES;
            let Some(old) = self.disk.get(start..).filter(|rest| !rest.is_empty()) else { break };
            let old = old[..old.len().min(SECTOR_BYTES)].to_vec();
            let new = sector_after(&dirty, start, old.clone(), dice, odds.keep);
            let new = if dice.chance(odds.tear) { torn(&old, &new, dice) } else { new };
            self.disk[start..start + new.len()].copy_from_slice(&new);
        }
    }

    /// Reads show the disk, and on it what was written and not tried to sync.
    pub fn drop_cache(&mut self) {
        let length = self.view.len();
        self.view.clear();
        self.view.extend_from_slice(&self.disk);
        self.view.resize(length, 0);
        for write in &self.dirty {
            let end = (write.offset + write.bytes.len()).min(length);
            if let Some(target) = self.view.get_mut(write.offset..end) {
                target.copy_from_slice(&write.bytes[..target.len()]);
            }
        }
    }
}

/// The sector after some of the writes: all, none, or those up to some moment.
fn sector_after(dirty: &[Write], start: usize, mut sector: Vec<u8>, dice: &mut Dice, keep: u64) -> Vec<u8> {
    for write in dirty {
        let (from, to) = (write.offset.max(start), (write.offset + write.bytes.len()).min(start + sector.len()));
        if from >= to {
            continue;
        }
        if !dice.chance(keep) {
            break;
        }
        sector[from - start..to - start].copy_from_slice(&write.bytes[from - write.offset..to - write.offset]);
    }
    sector
}

fn torn(old: &[u8], new: &[u8], dice: &mut Dice) -> Vec<u8> {
    let cut = dice.below(new.len() as u64 + 1) as usize;
    let mut sector = new[..cut].to_vec();
    match dice.below(3) {
        0 => sector.extend_from_slice(&old[cut..]),
        1 => sector.resize(old.len(), 0),
        _ => sector.extend(old[cut..].iter().map(|_| dice.any() as u8)),
    }
    // A sector that was not written is not torn either.
    if new == old { old.to_vec() } else { sector }
}

/// Percentages of one crash.
#[derive(Clone, Copy)]
pub(super) struct Odds {
    /// Of writes that reach the disk.
    pub keep: u64,
    /// Of sectors that are torn.
    tear: u64,
}

impl Odds {
    /// Those of one crash.
    pub fn roll(dice: &mut Dice) -> Self {
        let pick = |dice: &mut Dice, from: [u64; 4]| from[dice.below(4) as usize];
        Self { keep: pick(dice, [0, 50, 90, 100]), tear: pick(dice, [0, 0, 10, 50]) }
    }
}
