//! What the wire format promises to every client, in whatever language it is written.
//!
//! `golden` holds the format to files, `layout` holds `docs/wire.md` to those files, `kinds` has the
//! property of each kind, `rules` the refusals by name, `bodies` the bodies of the fuzz targets.

mod bodies;
mod golden;
mod kinds;
mod layout;
mod rules;
mod samples;
