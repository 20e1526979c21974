//! Records the samples of one producer to a Tendon server, over broken networks and killed processes.
//!
//! An [`Agent`] numbers samples, joins them into messages, keeps every message until the server acknowledged it as durable,
//! and sends what is missing again after any loss. It is a library for robots and tools; it reads no sensor and knows
//! nothing of the server's insides beyond `tendon-protocol`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tendon_agent::{Agent, AgentConfig, Clock};
//! use tendon_protocol::control::MarkAction;
//! use tendon_protocol::id::{ProducerId, StreamId};
//! use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
//!
//! let session = "0197f3a0-0000-7000-8000-000000000001".parse()?;
//! let producer = ProducerId::from_u128(7);
//! let config = AgentConfig::new("http://127.0.0.1:7420", "token", session, producer, Clock::boot()?);
//! let agent = Agent::connect(config).await?;
//! let state = StreamId(1);
//! agent
//!     .declare(StreamDeclaration {
//!         stream: state,
//!         feature: "observation.state".into(),
//!         names: vec!["shoulder".into(), "elbow".into()],
//!         unit: "rad".into(),
//!         dtype: Dtype::F32,
//!         shape: vec![2],
//!         rate_mhz: 50_000,
//!         required: true,
//!         role: Role::Measured,
//!         content: Content::Values,
//!     })
//!     .await?;
//! agent.mark(MarkAction::Start, 1, agent.clock().now_ns(), "pick up the cube").await?;
//! agent.send_f32(state, agent.clock().now_ns(), &[0.1, 0.2], 0).await?;
//! agent.mark(MarkAction::StopSuccess, 1, agent.clock().now_ns(), "").await?;
//! agent.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What survives what
//!
//! | | connection lost, server killed | this process killed | power cut |
//! |---|---|---|---|
//! | memory alone | nothing lost | what was not acknowledged | the same |
//! | folder, `Overflow` | nothing lost | what was in memory | the same, and what the system had not written |
//! | folder, `WriteThrough` | nothing lost | samples of a batch that was still filling | and what the system had not written; nothing with `fsync` |
//!
//! A restarted process that cannot know how many samples it lost declares exactly one placeholder number of each stream
//! that had data before as lost (`Restart`): the hole is never silent, its size is unknown.

mod agent;
mod clock;
mod config;
mod core;
mod error;
mod ledger;
mod spool;
mod stats;
mod uplink;

pub use agent::Agent;
pub use clock::Clock;
pub use config::{AgentConfig, Backoff, INGEST_PATH, Roots, SpoolConfig, SpoolMode, WhenFull, ingest_url};
pub use core::{MarkRequest, Status};
pub use error::AgentError;
pub use stats::{AckMs, Latencies, Stats};
