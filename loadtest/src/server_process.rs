//! The server under test: a child process on a folder of its own, or one that runs already.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::options::ServerArgs;
use crate::rest::Rest;

/// Longest wait for a server that starts; it may read gigabytes of log.
const START_WAIT: Duration = Duration::from_secs(120);
/// Longest wait for a server that stops.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// More than a minute of everything that a fast disk takes.
const LOG_BYTES_MAX: u64 = 32 << 30;
/// Limits so high that the load test never meets them, and a log that does not fill.
const CONFIG: &str = "\
# Written by the load test: admission out of the way, everything else as a server has it by default.
[admission]
connection_messages_per_s = 100000000
connection_messages_burst = 100000000
connection_bytes_per_s = 4000000000
connection_bytes_burst = 4000000000
operator_messages_per_s = 100000000
operator_messages_burst = 100000000
operator_bytes_per_s = 4000000000
operator_bytes_burst = 4000000000
handshakes_per_s = 100000
handshakes_burst = 100000
";

/// A folder that is removed when it is dropped, unless it is kept.
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A new folder inside `parent`, or inside the system's folder for temporary files.
    pub fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("tendon-load-{}", std::process::id()));
        fs::create_dir_all(&path)
            .with_context(|| format!("{} cannot be made; choose another disk with --data", path.display()))?;
        let folder = Self { path, keep: false };
        let machine = Machine::here(&folder.path);
        if machine.is_in_memory() {
            bail!(
                "{} lies in memory ({}); choose a folder on a disk with --data",
                parent.display(),
                machine.file_system
            );
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it on the disk.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // Best effort: what is left lies in a folder for temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A server, started here or found running.
pub struct Server {
    child: Option<Child>,
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
    segment_bytes: u64,
    /// Its REST interface.
    pub rest: Rest,
}

impl Server {
    /// Uses the server of `--url`, or starts one in `folder`.
    pub async fn open(args: &ServerArgs, folder: &Folder) -> Result<Self> {
        if let (Some(url), Some(token)) = (&args.url, &args.token) {
            let rest = Rest::new(url, token)?;
            rest.wait_alive(Duration::from_secs(10)).await?;
            return Ok(Self {
                child: None,
                program: PathBuf::new(),
                data: PathBuf::new(),
                log: PathBuf::new(),
                segment_bytes: 0,
                rest,
            });
        }
        let program = match &args.server {
            Some(program) => program.clone(),
            None => find_program()?,
        };
        let data = folder.path().join("data");
        let segment_bytes = u64::from(args.segment_mib) << 20;
        let log = format!("[log]\nframes_bytes_max = {LOG_BYTES_MAX}\nsegment_bytes = {segment_bytes}\n");
        fs::write(folder.path().join("server.toml"), format!("{CONFIG}{log}"))
            .context("cannot write the server's configuration")?;
        let token = make_token(&program, &data)?;
        let log = folder.path().join("server.log");
        let rest = Rest::new("http://127.0.0.1:0", &token)?;
        let mut server = Self { child: None, program, data, log, segment_bytes, rest };
        server.start("127.0.0.1:0").await?;
        Ok(server)
    }

    async fn start(&mut self, listen: &str) -> Result<()> {
        let log =
            fs::File::options().create(true).append(true).open(&self.log).context("cannot write the server's log")?;
        let config = self.log.with_file_name("server.toml");
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(config).arg("--data").arg(&self.data).args(["--listen", listen]);
        command.args(["--json", "--stop-with-stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", self.program.display()))?;
        let url = read_url(&mut child);
        self.child = Some(child);
        let url = url.with_context(|| format!("the server did not start; its last words:\n{}", self.last_words()))?;
        self.rest.url = url;
        self.rest.wait_alive(START_WAIT).await
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Its process, if it was started here.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its data folder, if it was started here.
    pub fn data(&self) -> Option<&Path> {
        self.child.as_ref().map(|_| self.data.as_path())
    }

    /// Length of one file of its log; 0 for a server elsewhere.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whether it ended by itself.
    pub fn has_died(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("this server was not started here")?;
        child.kill().context("the server cannot be killed")?;
        child.wait().context("the server does not end")?;
        Ok(())
    }

    /// Starts it again at the same address on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        let address: SocketAddr =
            self.rest.url.trim_start_matches("http://").parse().context("the server's address")?;
        self.start(&address.to_string()).await
    }

    /// Files of the log and their bytes; `None` for a server elsewhere.
    pub fn log_files(&self) -> Option<LogFiles> {
        let entries = fs::read_dir(self.data()?.join("log")).ok()?.flatten();
        let sizes = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "log"));
        let mut files = LogFiles::default();
        for size in sizes.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()) {
            files.count += 1;
            files.bytes += size;
        }
        Some(files)
    }
}

/// Files of the log on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LogFiles {
    /// How many.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // The server stops when its stdin ends.
        drop(child.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < STOP_WAIT {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits for the line that tells the address, and goes on emptying stdout.
fn read_url(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().context("the server has no stdout")?;
    let (found, url) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(url) = url_in(&line) {
                let _ = found.try_send(url);
            }
        }
    });
    match url.recv_timeout(START_WAIT) {
        Ok(url) => Ok(url),
        Err(RecvTimeoutError::Timeout) => bail!("it told no address within {} s", START_WAIT.as_secs()),
        Err(RecvTimeoutError::Disconnected) => bail!("it ended before it told its address"),
    }
}

fn url_in(line: &str) -> Option<String> {
    let at = line.find("http://")?;
    let is_part = |character: char| !character.is_whitespace() && !matches!(character, '"' | ',' | '\'');
    let url: String = line[at..].chars().take_while(|character| is_part(*character)).collect();
    Some(url)
}

/// A token with all rights, made in the data folder before the server starts.
fn make_token(program: &Path, data: &Path) -> Result<String> {
    let output = Command::new(program)
        .args(["token", "create", "--role", "admin", "--data"])
        .arg(data)
        .output()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let token = text.lines().last().unwrap_or_default().trim();
    if !output.status.success() || token.is_empty() {
        bail!("`token create` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(token.to_owned())
}

/// The server of the same build, beside this program. Run by cargo, it is brought up to date first.
fn find_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the system does not tell where this program is")?;
    let folder = own.parent().context("this program lies in no folder")?;
    let program = folder.join("tendon");
    let by_cargo = std::env::var_os("CARGO").filter(|_| std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    if program.exists() && by_cargo.is_none() {
        return Ok(program);
    }
    let mut build = Command::new(by_cargo.unwrap_or_else(|| "cargo".into()));
    build.args(["build", "-p", "tendon"]);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => drop(build.args(["--profile", profile])),
    }
    eprintln!("building the server ...");
    let built =
        build.stdout(Stdio::null()).status().context("cargo cannot be started; name the program with --server")?;
    if !built.success() || !program.exists() {
        bail!("the server did not build; build it with `cargo build --release -p tendon`, or name it with --server");
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_line_for_people_and_in_one_for_machines() {
        let line = "tendon 0.1.0 listens on http://127.0.0.1:40123, data in /srv";
        assert_eq!(url_in(line).as_deref(), Some("http://127.0.0.1:40123"));
        assert_eq!(url_in(r#"  "url": "http://127.0.0.1:7400","#).as_deref(), Some("http://127.0.0.1:7400"));
        assert_eq!(url_in("stop it with Ctrl-C"), None);
    }

    #[test]
    fn a_folder_is_removed_unless_it_is_kept() {
        let parent = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut folder = Folder::new(Some(parent.path())).unwrap();
        let path = folder.path().to_owned();
        folder.keep();
        drop(folder);
        assert!(path.exists());
        drop(Folder::new(Some(parent.path())).unwrap());
        assert!(!path.exists());
    }
}
