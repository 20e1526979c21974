//! The wire format between a producer of samples and the server.
//!
//! A [`message::Message`] is an envelope of 32 bytes and a payload archived by rkyv. This crate turns
//! messages into bytes and back. It has no socket, clock or database, so that a robot, a browser
//! and a test read the same bytes alike. It refuses whatever it does not know, by name.
//!
//! ```
//! use tendon_protocol::control::{Acknowledge, Position};
//! use tendon_protocol::id::StreamId;
//! use tendon_protocol::message::Message;
//!
//! let message = Message::Acknowledge(Acknowledge {
//!     positions: vec![Position { stream: StreamId(1), next: 7 }],
//! });
//! assert_eq!(Message::decode(&message.encode())?, message);
//! # Ok::<(), tendon_protocol::message::MessageError>(())
//! ```

pub mod batch;
pub mod clock;
pub mod control;
pub mod envelope;
pub mod id;
pub mod limit;
pub mod message;
pub mod stream;
