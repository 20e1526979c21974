//! Ways to load a server. Each module is one command, from its arguments to its report.

pub mod check;
pub mod flaky;
pub mod idle;
pub mod kills;
pub mod produce;
pub mod stream;
mod warm;

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tendon_protocol::id::{ProducerId, SessionId, StreamId};
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
use tokio::task::JoinSet;

use crate::link::{Link, STATE, Target, Totals};
use crate::rest::Rest;
use crate::values::{WIDTH, mixed};

/// Handshakes and REST calls at once.
const AT_ONCE: usize = 16;

/// The seed that was asked for, or one from the clock.
pub fn seed_of(asked: Option<u64>) -> u64 {
    asked.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // Short enough to type.
        mixed(now.as_nanos() as u64) % 1_000_000_000
    })
}

/// A runtime of one thread, so that all links share their counters.
pub fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // Sockets are looked at often, so that an acknowledgement does not wait behind what is still to be sent.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(4).build();
    let runtime = runtime.context("no runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// What a load session's streams carry: joints, and cameras of 640 x 480.
pub fn declarations(rate_hz: f64, cameras: u32) -> Vec<StreamDeclaration> {
    let state = StreamDeclaration {
        stream: STATE,
        feature: "observation.state".into(),
        names: (0..WIDTH).map(|joint| format!("joint_{joint}")).collect(),
        unit: "rad".into(),
        dtype: Dtype::F32,
        shape: vec![WIDTH as u32],
        rate_mhz: (rate_hz * 1000.0).clamp(0.0, f64::from(u32::MAX)) as u32,
        required: true,
        role: Role::Measured,
        content: Content::Values,
    };
    let camera = |number: u32| StreamDeclaration {
        stream: StreamId(2 + number),
        feature: format!("observation.images.camera_{number}"),
        names: Vec::new(),
        unit: String::new(),
        dtype: Dtype::U8,
        shape: vec![480, 640, 3],
        rate_mhz: 30_000,
        required: false,
        role: Role::Measured,
        content: Content::Jpeg,
    };
    std::iter::once(state).chain((0..cameras).map(camera)).collect()
}

/// New sessions, several calls at once.
pub async fn create_sessions(rest: &Rest, count: u32, name: &str) -> Result<Vec<SessionId>> {
    let mut sessions = Vec::new();
    let mut calls = JoinSet::new();
    for number in 0..count {
        if calls.len() >= AT_ONCE {
            sessions.push(calls.join_next().await.context("no call")???);
        }
        let (rest, robot) = (rest.clone(), format!("{name}-{number}"));
        calls.spawn(async move { rest.create_session(&robot).await });
    }
    while let Some(session) = calls.join_next().await {
        sessions.push(session??);
    }
    Ok(sessions)
}

/// A connection for each session, its streams declared.
pub async fn connect_all(
    rest: &Rest,
    sessions: &[SessionId],
    totals: &Rc<Totals>,
    rate_hz: f64,
    cameras: u32,
) -> Result<Vec<Link>> {
    let mut links = Vec::with_capacity(sessions.len());
    let declarations = Rc::new(declarations(rate_hz, cameras));
    for group in sessions.chunks(AT_ONCE) {
        let mut tasks = Vec::new();
        for session in group {
            let (url, token, session, totals) = (rest.url.clone(), rest.token.clone(), *session, Rc::clone(totals));
            let declarations = Rc::clone(&declarations);
            tasks.push(tokio::task::spawn_local(async move {
                let target = Target { url: &url, token: &token, session, producer: ProducerId(session.0) };
                let link = Link::connect(&target, totals).await?;
                for declaration in declarations.iter() {
                    link.tell(&Message::Declare(declaration.clone())).await?;
                }
                anyhow::Ok(link)
            }));
        }
        for task in tasks {
            links.push(task.await??);
        }
    }
    Ok(links)
}

/// How a session ended on the server's side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Samples that the server does not have although they were sent.
    pub lost: u64,
    /// Samples that it left out because they came twice.
    pub duplicates: u64,
}

/// Compares what was sent with what the server has. `sent` is by feature.
pub async fn compare(rest: &Rest, session: SessionId, sent: &[(String, u64)]) -> Result<Kept> {
    let record = rest.session(session).await?;
    let live = record["live"]["streams"].as_array().cloned().unwrap_or_default();
    let mut kept = Kept { lost: 0, duplicates: record["duplicates_removed"].as_u64().unwrap_or(0) };
    for (feature, count) in sent {
        let stream = live.iter().find(|stream| stream["feature"] == feature.as_str());
        let has = stream.and_then(|stream| stream["next"].as_u64()).unwrap_or(0);
        if has > *count {
            bail!("session {session} has {has} samples of {feature}, only {count} were sent");
        }
        let declared = stream.and_then(|stream| stream["lost"].as_u64()).unwrap_or(0);
        kept.lost += count - has + declared;
    }
    Ok(kept)
}

/// Waits until every link has its acknowledgements, or one fails.
pub async fn drained(links: &[Rc<Link>], streams: &[StreamId], totals: &Totals, wait: Duration) -> Result<()> {
    let asked = std::time::Instant::now();
    loop {
        if let Some(error) = totals.error.borrow().clone() {
            bail!("{error}");
        }
        let waiting: u64 = links.iter().flat_map(|link| streams.iter().map(|stream| link.waiting(*stream))).sum();
        if waiting == 0 {
            return Ok(());
        }
        if asked.elapsed() > wait {
            bail!("{waiting} samples are not acknowledged after {} s", wait.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
