//! A simulated SO-101 pair: a leader that a person moves, a follower that tries to.
//!
//! What is commanded and what is measured differ, as on a real arm: the follower lags, and its
//! gripper stops at the cube that it holds. A command beyond a joint's limit is cut before it is
//! sent, and flagged. Everything is a function of time alone, so that every run is the same.

use tendon_protocol::batch::flag;

/// Joints of the arm.
pub const JOINTS: usize = 6;
/// Names of the elements, as lerobot's class for this arm writes them.
pub const NAMES: [&str; JOINTS] =
    ["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos"];
/// Limits of the joints in degrees: the arm's URDF in its new calibration (TheRobotStudio/SO-ARM100).
const LIMITS_DEG: [(f64, f64); JOINTS] =
    [(-110.0, 110.0), (-100.0, 100.0), (-96.8, 96.8), (-95.0, 95.0), (-157.2, 162.8), (-10.0, 100.0)];
/// Middle, swing, period in seconds and phase of each joint of the leader. The elbow swings beyond its limit.
const MOTION: [(f64, f64, f64, f64); JOINTS] = [
    (0.0, 55.0, 6.0, 0.0),
    (-20.0, 40.0, 3.7, 1.1),
    (45.0, 60.0, 4.3, 2.3),
    (10.0, 50.0, 2.9, 0.4),
    (0.0, 80.0, 5.1, 1.9),
    (30.0, 32.0, 3.0, 0.0),
];
/// Time in which the follower makes 63 % of a step, in seconds.
const LAG_S: f64 = 0.08;
/// The gripper closes no further than the cube is wide, in degrees.
const CUBE_DEG: f64 = 12.0;
/// Place of the gripper among the joints.
const GRIPPER: usize = 5;

/// One position of all joints in degrees.
pub type Pose = [f32; JOINTS];

/// What is sent to the follower at a time, and the flags of that sample.
#[must_use]
pub fn command(time_s: f64) -> (Pose, u8) {
    let mut pose = [0.0; JOINTS];
    let mut flags = 0;
    for (joint, target) in pose.iter_mut().enumerate() {
        let (middle, swing, period_s, phase) = MOTION[joint];
        let wanted = middle + swing * (time_s / period_s * std::f64::consts::TAU + phase).sin();
        let (low, high) = LIMITS_DEG[joint];
        let sent = wanted.clamp(low, high);
        if sent != wanted {
            flags = flag::CLIPPED;
        }
        *target = narrow(sent);
    }
    (pose, flags)
}

/// The follower's joints.
#[derive(Clone, Debug)]
pub struct Follower {
    position: [f64; JOINTS],
    time_s: f64,
}

impl Follower {
    /// At rest where the leader is at time 0.
    #[must_use]
    pub fn new() -> Self {
        let (pose, _) = command(0.0);
        Self { position: pose.map(f64::from), time_s: 0.0 }
    }

    /// Moves towards `target` until `time_s`, and gives what its encoders say.
    pub fn follow(&mut self, target: &Pose, time_s: f64) -> Pose {
        let share = 1.0 - (-(time_s - self.time_s).max(0.0) / LAG_S).exp();
        self.time_s = self.time_s.max(time_s);
        for (joint, position) in self.position.iter_mut().enumerate() {
            *position += (f64::from(target[joint]) - *position) * share;
            let (low, high) = LIMITS_DEG[joint];
            let low = if joint == GRIPPER { CUBE_DEG } else { low };
            *position = position.clamp(low, high);
        }
        self.position.map(narrow)
    }
}

impl Default for Follower {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an encoder has 12 bits")]
fn narrow(degrees: f64) -> f32 {
    degrees as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: usize) -> Vec<(Pose, u8, Pose)> {
        let mut follower = Follower::new();
        (0..steps)
            .map(|step| {
                let time_s = step as f64 * 0.02;
                let (sent, flags) = command(time_s);
                (sent, flags, follower.follow(&sent, time_s))
            })
            .collect()
    }

    #[test]
    fn every_run_is_the_same() {
        assert_eq!(run(500), run(500));
    }

    #[test]
    fn a_command_never_leaves_the_limits_and_says_when_it_was_cut() {
        let samples = run(500);
        for (sent, ..) in &samples {
            for (value, (low, high)) in sent.iter().zip(LIMITS_DEG) {
                assert!((narrow(low)..=narrow(high)).contains(value), "{value} in {low}..{high}");
            }
        }
        let cut = samples.iter().filter(|(_, flags, _)| *flags == flag::CLIPPED).count();
        assert!(cut > 20 && cut < 250, "{cut} of 500 cut");
    }

    #[test]
    fn the_follower_lags_and_its_gripper_stops_at_the_cube() {
        let samples = run(500);
        let late = samples.iter().filter(|(sent, _, measured)| (sent[0] - measured[0]).abs() > 1.0).count();
        assert!(late > 300, "{late} of 500 lag by a degree");
        let narrowest = samples.iter().map(|(.., measured)| measured[GRIPPER]).fold(f32::MAX, f32::min);
        let asked = samples.iter().map(|(sent, ..)| sent[GRIPPER]).fold(f32::MAX, f32::min);
        assert!(narrowest >= narrow(CUBE_DEG) && asked < 0.0, "narrowest {narrowest}, asked {asked}");
    }

    #[test]
    fn a_step_reaches_63_percent_after_the_lag_and_time_that_stands_still_moves_nothing() {
        let mut follower = Follower { position: [20.0; JOINTS], time_s: 1.0 };
        assert_eq!(follower.follow(&[30.0; JOINTS], 1.0), [20.0; JOINTS]);
        let after = follower.follow(&[30.0; JOINTS], 1.0 + LAG_S);
        assert!((after[0] - 26.321).abs() < 0.01, "{}", after[0]);
    }
}
