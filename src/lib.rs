//! The server of Tendon and its command line: sockets, HTTP, configuration, start and stop.
//!
//! The only floor that picks drivers. Read [`server`] first, then [`ingest`] for the way of a
//! sample and [`http`] for the interface of people and scripts. What a session decides is in
//! `tendon-actors`, what data means in `tendon-dataset`.

pub mod admission;
pub mod auth;
pub mod cli;
pub mod config;
pub mod console;
pub mod http;
pub mod ingest;
pub mod server;
pub mod telemetry;
