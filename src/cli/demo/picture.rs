//! Pictures of the simulated arm, drawn for each camera and coded as JPEG.

use bytes::Bytes;
use tendon_dataset::jpeg::{JpegError, encode_rgb};

use super::arm::Pose;

/// Pixels in a row.
pub const WIDTH: u32 = 320;
/// Rows of pixels.
pub const HEIGHT: u32 = 240;
/// Quality of the JPEGs: about 8 kB each.
const QUALITY: u8 = 80;
/// Lengths of the arm's three links in pixels.
const LINKS: [f32; 3] = [70.0, 60.0, 36.0];

type Colour = [u8; 3];
const ARM: Colour = [235, 160, 40];
const JOINT: Colour = [40, 44, 52];
const CUBE: Colour = [70, 160, 90];

/// Which camera looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// From the side, onto the whole arm.
    Front,
    /// From the hand, onto the fingers.
    Wrist,
}

/// The picture that a camera takes of the arm in a pose.
///
/// # Errors
/// Never at this size; passed on from the encoder.
pub fn picture(view: View, pose: &Pose) -> Result<Bytes, JpegError> {
    let mut canvas = Canvas::new(view);
    match view {
        View::Front => canvas.front(pose),
        View::Wrist => canvas.wrist(pose),
    }
    encode_rgb(WIDTH, HEIGHT, &canvas.pixels, QUALITY)
}

struct Canvas {
    pixels: Vec<u8>,
}

impl Canvas {
    /// A wall that fades into a table.
    fn new(view: View) -> Self {
        let mut pixels = Vec::with_capacity((WIDTH * HEIGHT * 3) as usize);
        let (top, bottom): (Colour, Colour) = match view {
            View::Front => ([208, 222, 236], [148, 136, 122]),
            View::Wrist => ([150, 138, 124], [186, 172, 154]),
        };
        for y in 0..HEIGHT {
            let fade = |from: u8, to: u8| {
                let mixed = (u32::from(from) * (HEIGHT - y) + u32::from(to) * y) / HEIGHT;
                u8::try_from(mixed).unwrap_or(u8::MAX)
            };
            let line = [fade(top[0], bottom[0]), fade(top[1], bottom[1]), fade(top[2], bottom[2])];
            (0..WIDTH).for_each(|_| pixels.extend_from_slice(&line));
        }
        Self { pixels }
    }

    /// Three links seen from the side; turning the shoulder shortens what is seen of them.
    fn front(&mut self, pose: &Pose) {
        let (mut x, mut y) = (WIDTH as f32 / 2.0, HEIGHT as f32 - 30.0);
        self.disc(x, y + 8.0, 22.0, JOINT);
        let seen = pose[0].to_radians().cos();
        let mut angle = 90.0f32;
        for (length, turn) in LINKS.into_iter().zip([pose[1], -pose[2], -pose[3]]) {
            angle -= turn;
            let (to_x, to_y) = (x + length * seen * angle.to_radians().cos(), y - length * angle.to_radians().sin());
            self.line((x, y), (to_x, to_y), 7.0, ARM);
            self.disc(x, y, 8.0, JOINT);
            (x, y) = (to_x, to_y);
        }
        self.disc(x, y, 10.0, CUBE);
    }

    /// Two fingers around a cube, turned by the wrist; the table moves under them.
    fn wrist(&mut self, pose: &Pose) {
        for stripe in 0..6 {
            let shift = (pose[0] * 1.5 + stripe as f32 * 64.0).rem_euclid(384.0) - 32.0;
            self.line((shift, 0.0), (shift, HEIGHT as f32), 3.0, [120, 112, 104]);
        }
        let (centre_x, centre_y) = (WIDTH as f32 / 2.0, HEIGHT as f32 / 2.0);
        let (sin, cos) = pose[4].to_radians().sin_cos();
        let turned =
            |along: f32, across: f32| (centre_x + across * cos - along * sin, centre_y + across * sin + along * cos);
        self.disc(centre_x, centre_y - 20.0, 20.0, CUBE);
        let open = 20.0 + pose[5].clamp(0.0, 100.0) * 0.6;
        for side in [-1.0, 1.0] {
            self.line(turned(110.0, side * 30.0), turned(-30.0, side * open), 9.0, ARM);
        }
    }

    fn line(&mut self, from: (f32, f32), to: (f32, f32), thickness: f32, colour: Colour) {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        // Discs two pixels apart look like a line of this thickness.
        let steps = (length / 2.0).ceil().clamp(1.0, 400.0);
        for step in 0..=pixel(steps) {
            let share = step as f32 / steps;
            self.disc(from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share, thickness / 2.0, colour);
        }
    }

    fn disc(&mut self, x: f32, y: f32, radius: f32, colour: Colour) {
        for row in pixel(y - radius).max(0)..=pixel(y + radius).min(HEIGHT.cast_signed() - 1) {
            let half = (radius * radius - (row as f32 - y).powi(2)).max(0.0).sqrt();
            for column in pixel(x - half).max(0)..=pixel(x + half).min(WIDTH.cast_signed() - 1) {
                let at = ((row * WIDTH.cast_signed() + column) * 3).unsigned_abs() as usize;
                if let Some(target) = self.pixels.get_mut(at..at + 3) {
                    target.copy_from_slice(&colour);
                }
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a conversion of floats saturates, and what is outside is not drawn"
)]
fn pixel(value: f32) -> i32 {
    value.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::arm::command;
    use tendon_dataset::jpeg::{decode_rgb, probe};

    #[test]
    fn every_picture_has_its_size_and_shows_the_pose() {
        for view in [View::Front, View::Wrist] {
            let (first, second) = (picture(view, &command(0.0).0).unwrap(), picture(view, &command(1.0).0).unwrap());
            assert_eq!(probe(&first), Ok((WIDTH, HEIGHT)));
            assert_eq!(picture(view, &command(0.0).0).unwrap(), first, "the same pose gives the same bytes");
            let (a, b) = (decode_rgb(&first).unwrap(), decode_rgb(&second).unwrap());
            let moved = a.pixels.iter().zip(&b.pixels).filter(|(a, b)| a.abs_diff(**b) > 40).count();
            assert!(moved > 1000, "{view:?}: only {moved} values differ");
        }
    }

    #[test]
    fn a_pose_that_no_arm_has_is_drawn_without_a_panic() {
        for value in [f32::NAN, f32::INFINITY, -1e30] {
            picture(View::Front, &[value; 6]).unwrap();
            picture(View::Wrist, &[value; 6]).unwrap();
        }
    }
}
