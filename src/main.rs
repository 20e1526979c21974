//! The program `tendon`: a server and the tools around it. Everything is in [`tendon::cli`].

use std::process::ExitCode;

/// Many small buffers live and die here at a high rate; the system's allocator keeps more of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tendon::cli::main()
}
