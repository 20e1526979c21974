//! Who is alive and who talks to whom: one actor per session, a fleet that finds them, a flusher
//! that turns finished episodes into objects, and jobs that export them.
//!
//! Read [`fleet`] first: its [`fleet::FleetHandle`] is what the front door holds. A session's
//! decisions are in [`session::machine`], which knows no actor, socket or clock; [`session`] is
//! the thin shell around it. Nothing here parses bytes from a socket or answers HTTP.

pub mod api;
pub mod board;
pub mod export;
pub mod fleet;
pub mod flusher;
pub mod house;
pub mod session;
pub mod stored;
pub mod video;
