//! The demo's server: this very program as a child process, killed and started again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::serve;
use crate::config::Config;

/// Longest time for a server to come up; it reads its log first.
const START_WAIT: Duration = Duration::from_secs(60);
/// Longest time for a server to stop by itself.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);
/// How much of the server's own words is shown when it does not come up.
const TAIL_BYTES: u64 = 2000;

/// A server process. It dies with this one, and when it is dropped.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    child: Child,
}

/// The usual address, or any free port when somebody listens there.
///
/// # Errors
/// When this machine has no free port.
pub fn free_address() -> Result<SocketAddr, CliError> {
    let usual = Config::default().listen;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = TcpListener::bind(usual).or_else(|_| TcpListener::bind(any)).and_then(|listener| listener.local_addr());
    bound.map_err(|error| CliError::failed(format!("no free port ({error})")))
}

impl Server {
    /// Starts a server; it comes up meanwhile, see [`Server::ready`].
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(data: &Path, log: &Path, address: SocketAddr) -> Result<Self, CliError> {
        let child = spawn(data, log, address)?;
        Ok(Self { data: data.to_owned(), log: log.to_owned(), address, child })
    }

    /// Waits until it can store samples.
    ///
    /// # Errors
    /// When it ends before, or takes too long; with its own last words.
    pub async fn ready(&mut self, client: &Client) -> Result<(), CliError> {
        let until = Instant::now() + START_WAIT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(CliError::failed(format!(
                    "the server ended with {status} while it started:\n{}",
                    self.last_words()
                )));
            }
            if client.is_ready().await {
                return Ok(());
            }
            if Instant::now() > until {
                let waited = START_WAIT.as_secs();
                return Err(CliError::failed(format!(
                    "the server is not ready after {waited} s:\n{}",
                    self.last_words()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGKILL: no chance to write anything more.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, CliError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_err(|error| CliError::failed(format!("the server cannot be killed ({error})")))
    }

    /// Starts it again with the same data on the same port.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_again(&mut self) -> Result<(), CliError> {
        self.child = spawn(&self.data, &self.log, self.address)?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it ended with a fault, or had to be killed.
    pub async fn stop(mut self) -> Result<(), CliError> {
        // The end of its stdin tells it; see `serve --stop-with-stdin`.
        drop(self.child.stdin.take());
        let until = Instant::now() + STOP_WAIT;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(CliError::failed(format!("the server ended with {status}:\n{}", self.last_words())));
                }
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(error) => return Err(CliError::failed(format!("the server's end cannot be seen ({error})"))),
            }
        }
        Err(CliError::failed(format!("the server did not stop within {} s and was killed", STOP_WAIT.as_secs())))
    }

    fn last_words(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("{} cannot be read ({error})", self.log.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already in every way but an early return.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data: &Path, log: &Path, address: SocketAddr) -> Result<Child, CliError> {
    let open = || OpenOptions::new().create(true).append(true).open(log);
    let failed = |error: std::io::Error| CliError::path("write", log, &error, "choose another folder with --out");
    let (out, err) = (open().map_err(failed)?, open().map_err(failed)?);
    let child = serve::child(data, address)?.stdin(Stdio::piped()).stdout(out).stderr(err).spawn();
    child.map_err(|error| CliError::failed(format!("the server cannot be started ({error})")))
}
