//! The raw door: WebSocket upgrades of producers, taken from the HTTP server and served by hand.
//!
//! [`listener`] checks the handshake and the token; [`connection`] reads messages and feeds the
//! session's actor. One origin, one port, plain TCP or TLS alike.

pub mod connection;
pub mod listener;
mod reader;
mod writer;
