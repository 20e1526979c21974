//! The demo's robot: two arms and two cameras, sampled in real time and sent by an agent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tendon_agent::Agent;
use tendon_protocol::batch::flag;
use tendon_protocol::id::StreamId;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arm::{Follower, JOINTS, NAMES, Pose, command};
use super::picture::{HEIGHT, View, WIDTH, picture};
use crate::cli::error::CliError;
use crate::cli::stream::agent_failed;

/// What is sent to the follower.
pub const ACTION: StreamId = StreamId(1);
/// What the follower's encoders say.
pub const STATE: StreamId = StreamId(2);
/// The cameras.
pub const CAMERAS: [(StreamId, &str, View); 2] =
    [(StreamId(3), "observation.images.front", View::Front), (StreamId(4), "observation.images.wrist", View::Wrist)];
/// Streams of the robot, numbered from 1.
pub const STREAMS: usize = 4;
/// Rate of the arms' loop in hertz.
const ARM_HZ: u32 = 50;
/// Rate of the cameras in hertz.
pub const CAMERA_HZ: u32 = 30;

/// What the streams carry.
#[must_use]
pub fn declarations() -> Vec<StreamDeclaration> {
    let arm = |stream, feature: &str, role| StreamDeclaration {
        stream,
        feature: feature.to_owned(),
        names: NAMES.map(str::to_owned).to_vec(),
        unit: "deg".to_owned(),
        dtype: Dtype::F32,
        shape: vec![JOINTS as u32],
        rate_mhz: ARM_HZ * 1000,
        required: true,
        role,
        content: Content::Values,
    };
    let camera = |(stream, feature, _): (StreamId, &str, View)| StreamDeclaration {
        stream,
        feature: feature.to_owned(),
        names: Vec::new(),
        unit: String::new(),
        dtype: Dtype::U8,
        shape: vec![HEIGHT, WIDTH, 3],
        rate_mhz: CAMERA_HZ * 1000,
        required: true,
        role: Role::Measured,
        content: Content::Jpeg,
    };
    let arms = [arm(ACTION, "action", Role::Commanded), arm(STATE, "observation.state", Role::Measured)];
    arms.into_iter().chain(CAMERAS.map(camera)).collect()
}

/// Capture times of everything that was sent, per stream; stream 1 first.
pub type Sent = [Vec<i64>; STREAMS];

/// A robot that runs.
pub struct Robot {
    tasks: JoinSet<Result<(), CliError>>,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
}

struct Shared {
    agent: Agent,
    start: Instant,
    pose: Mutex<Pose>,
    sent: Mutex<Sent>,
}

impl Shared {
    fn note(&self, stream: StreamId, time_ns: i64) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = (stream.0 as usize).checked_sub(1).and_then(|place| sent.get_mut(place)) {
            times.push(time_ns);
        }
    }
}

impl Robot {
    /// Declares the streams and begins to sample.
    ///
    /// # Errors
    /// When the agent refuses a declaration.
    pub async fn start(agent: Agent) -> Result<Self, CliError> {
        for declaration in declarations() {
            agent.declare(declaration).await.map_err(|error| agent_failed(&error))?;
        }
        let (stop, stopping) = watch::channel(false);
        let shared =
            Arc::new(Shared { agent, start: Instant::now(), pose: Mutex::new(command(0.0).0), sent: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(arms(Arc::clone(&shared), Ticker::new(shared.start, ARM_HZ, stopping.clone())));
        for (stream, _, view) in CAMERAS {
            tasks.spawn(camera(
                Arc::clone(&shared),
                Ticker::new(shared.start, CAMERA_HZ, stopping.clone()),
                stream,
                view,
            ));
        }
        Ok(Self { tasks, stop, shared })
    }

    /// Stops sampling; gives the capture times of all that was sent.
    ///
    /// # Errors
    /// When a sample could not be sent.
    pub async fn stop(mut self) -> Result<Sent, CliError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| CliError::failed(format!("the simulated robot failed ({error})")))??;
        }
        Ok(std::mem::take(&mut *self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Moments at a fixed rate. A moment that was missed is left out: a sensor does not catch up.
struct Ticker {
    start: Instant,
    hertz: u32,
    tick: u32,
    stop: watch::Receiver<bool>,
}

impl Ticker {
    fn new(start: Instant, hertz: u32, stop: watch::Receiver<bool>) -> Self {
        Self { start, hertz, tick: 0, stop }
    }

    /// Seconds from the start, at the next moment; `None` when it is time to stop.
    async fn next(&mut self) -> Option<f64> {
        self.tick = next_tick(self.tick, self.start.elapsed(), self.hertz);
        let seconds = f64::from(self.tick) / f64::from(self.hertz);
        tokio::select! {
            () = tokio::time::sleep_until(self.start + Duration::from_secs_f64(seconds)) => Some(seconds),
            _ = self.stop.wait_for(|stop| *stop) => None,
        }
    }
}

/// The tick after this one that is not over yet.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion of floats saturates; a demo lasts minutes"
)]
fn next_tick(tick: u32, elapsed: Duration, hertz: u32) -> u32 {
    let begun = (elapsed.as_secs_f64() * f64::from(hertz)).floor() as u32;
    (tick + 1).max(begun)
}

async fn arms(shared: Arc<Shared>, mut ticker: Ticker) -> Result<(), CliError> {
    let mut follower = Follower::new();
    let (mut target, _) = command(0.0);
    while let Some(time_s) = ticker.next().await {
        // As in lerobot's own loop: what is seen comes first, the command that answers it after.
        let measured = follower.follow(&target, time_s);
        send(&shared, STATE, &measured, 0).await?;
        let (sent, flags) = command(time_s);
        target = sent;
        send(&shared, ACTION, &target, flags).await?;
        *shared.pose.lock().unwrap_or_else(PoisonError::into_inner) = measured;
    }
    Ok(())
}

async fn send(shared: &Shared, stream: StreamId, pose: &Pose, flags: u8) -> Result<(), CliError> {
    let time_ns = shared.agent.clock().now_ns();
    shared.agent.send_f32(stream, time_ns, pose, flags).await.map_err(|error| agent_failed(&error))?;
    shared.note(stream, time_ns);
    Ok(())
}

async fn camera(shared: Arc<Shared>, mut ticker: Ticker, stream: StreamId, view: View) -> Result<(), CliError> {
    while ticker.next().await.is_some() {
        let pose = *shared.pose.lock().unwrap_or_else(PoisonError::into_inner);
        let time_ns = shared.agent.clock().now_ns();
        // A camera codes by itself; here it must not hold up the arms.
        let taken = tokio::task::spawn_blocking(move || picture(view, &pose)).await;
        let taken = taken.map_err(|error| CliError::failed(format!("a simulated camera failed ({error})")))?;
        let taken = taken.map_err(|error| CliError::failed(error.to_string()))?;
        shared.agent.send_media(stream, time_ns, &taken, flag::KEY).await.map_err(|error| agent_failed(&error))?;
        shared.note(stream, time_ns);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_what_the_protocol_allows_and_numbered_from_one() {
        for (place, declaration) in declarations().iter().enumerate() {
            declaration.check().unwrap();
            assert_eq!(declaration.stream.0 as usize, place + 1);
        }
        assert_eq!(declarations().len(), STREAMS);
    }

    #[test]
    fn a_moment_that_was_missed_is_left_out() {
        assert_eq!(next_tick(0, Duration::ZERO, 50), 1);
        assert_eq!(next_tick(7, Duration::from_millis(141), 50), 8);
        assert_eq!(next_tick(7, Duration::from_millis(1001), 50), 50);
    }
}
