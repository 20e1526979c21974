//! The loopback without a server: threads, a copy of every byte, an acknowledgement for each read.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::cpu_s;

/// Connections, as many as the machine that sets the pace has cores.
const CONNECTIONS: usize = 2;
/// Read at once, and copied.
const READ_BYTES: usize = 64 << 10;
/// Bytes of an acknowledgement.
const ACKNOWLEDGEMENT: [u8; 16] = [0; 16];

/// What the loopback does.
#[derive(Clone, Copy, Debug)]
pub struct Loopback {
    /// Samples a second.
    pub frames_per_s: f64,
    /// CPU time of both ends for a sample.
    pub cpu_us_per_frame: f64,
}

/// Sends messages of `message_bytes` with `frames` samples each for a while, `messages_per_write` in one system call.
pub fn measure(message_bytes: usize, frames: u64, messages_per_write: usize, lasts: Duration) -> Result<Loopback> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port on the loopback")?;
    let address = listener.local_addr()?;
    let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut threads = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut sender = TcpStream::connect(address)?;
        let (receiver, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        receiver.set_nodelay(true)?;
        let acknowledged = sender.try_clone()?;
        let counted = Arc::clone(&received);
        threads.push(std::thread::spawn(move || receive(receiver, &counted)));
        threads.push(std::thread::spawn(move || drain(acknowledged)));
        let stop = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || {
            let block = vec![0x5a; message_bytes * messages_per_write];
            while !stop.load(Ordering::Relaxed) && sender.write_all(&block).is_ok() {}
            let _ = sender.shutdown(std::net::Shutdown::Write);
        }));
    }
    let own = std::process::id();
    let (started, cpu) = (Instant::now(), cpu_s(own)?);
    std::thread::sleep(lasts);
    let bytes = received.load(Ordering::Relaxed);
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_s(own)? - cpu);
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
    let frames = bytes as f64 / message_bytes as f64 * frames as f64;
    Ok(Loopback { frames_per_s: frames / elapsed, cpu_us_per_frame: cpu * 1e6 / frames.max(1.0) })
}

fn receive(mut stream: TcpStream, received: &AtomicU64) {
    let (mut buffer, mut copy) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                copy[..bytes].copy_from_slice(&buffer[..bytes]);
                std::hint::black_box(&copy);
                received.fetch_add(bytes as u64, Ordering::Relaxed);
                if stream.write_all(&ACKNOWLEDGEMENT).is_err() {
                    return;
                }
            }
        }
    }
}

fn drain(mut stream: TcpStream) {
    let mut buffer = vec![0; 4096];
    while stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_and_are_counted_as_samples() {
        let found = measure(2012, 16, 8, Duration::from_millis(50)).unwrap();
        assert!(found.frames_per_s > 0.0 && found.cpu_us_per_frame >= 0.0);
    }
}
