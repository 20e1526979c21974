//! Statistics of pictures: which frames and pixels are looked at, and the histograms they fill.

use super::Runs;

/// Pictures with a side of this length or more are thinned out.
const THIN_FROM_PIXELS: u32 = 300;
/// The longer side keeps about this many pixels.
const THIN_TO_PIXELS: u32 = 150;
/// Most frames of an episode that are looked at.
const FRAMES_MAX: f64 = 10_000.0;
/// Fewest frames, where the episode has so many.
const FRAMES_MIN: f64 = 100.0;

/// The rows of an episode whose pictures LeRobot looks at: `round(linspace(0, rows - 1, m))` with m
/// from 100 up to rows^0.75, never more than there are.
#[must_use]
pub fn sampled_rows(rows: usize) -> Vec<u32> {
    let rows = rows as f64;
    let count = FRAMES_MIN.min(rows).max(rows.powf(0.75).floor().min(FRAMES_MAX)) as u64;
    let step = if count > 1 { (rows - 1.0) / (count - 1) as f64 } else { 0.0 };
    (0..count).map(|number| (number as f64 * step).round_ties_even() as u32).collect()
}

/// How often each value 0 to 255 occurs in each of three channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[[u64; 256]; 3]>,
    frames: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([[0; 256]; 3]), frames: 0 }
    }
}

impl Histogram {
    /// Looks at one decoded picture, `height x width x 3` bytes. In large ones only every f-th pixel
    /// in both directions counts, f being the longer side over 150, as in LeRobot.
    pub fn add_rgb(&mut self, width: u32, height: u32, pixels: &[u8]) {
        let longer = width.max(height);
        let step = if longer < THIN_FROM_PIXELS { 1 } else { (longer / THIN_TO_PIXELS) as usize };
        for line in pixels.chunks_exact((width as usize * 3).max(1)).take(height as usize).step_by(step) {
            for pixel in line.chunks_exact(3).step_by(step) {
                for (channel, value) in self.counts.iter_mut().zip(pixel) {
                    channel[usize::from(*value)] += 1;
                }
            }
        }
        self.frames += 1;
    }

    /// Pictures looked at.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Values from 0 to 1 per channel.
    #[must_use]
    pub fn runs(&self) -> [Runs; 3] {
        std::array::from_fn(|channel| {
            let counts = self.counts[channel].iter().enumerate().filter(|(_, count)| **count > 0);
            counts.map(|(value, count)| (value as f64 / 255.0, *count)).collect()
        })
    }
}
