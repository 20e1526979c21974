//! The server as a process, and its REST interface.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// Longest wait for anything. Far above what is needed, because test machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(40);
/// Pause between two looks at something that is expected to change.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of the server's log that a failing test shows.
const LOG_LINES: usize = 40;

/// Settings under which a test takes no longer than it must.
pub const QUICK: &str = "workers = 2\nflush_wait_s = 5\n[log]\nsegment_bytes = 4194304\nframes_bytes_max = 67108864\n";

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_or(what, ask).await.unwrap_or_else(|vain| panic!("{vain}"))
}

/// As [`until`], with the words for a panic when there is none.
pub async fn until_or<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T, String> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if started.elapsed() >= DEADLINE {
            return Err(format!("waited {DEADLINE:?} in vain: {what}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A data folder with its configuration, over several runs of the server.
pub struct Home {
    folder: TempDir,
    runs: u32,
    token: Option<String>,
    listen: SocketAddr,
}

impl Home {
    /// A new folder with this configuration.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("server.toml"), config).unwrap();
        Self { folder, runs: 0, token: None, listen: "127.0.0.1:0".parse().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Other settings for the next run.
    pub fn configure(&self, config: &str) {
        std::fs::write(self.folder.path().join("server.toml"), config).unwrap();
    }

    fn command(&mut self) -> (Command, PathBuf) {
        self.runs += 1;
        let log = self.folder.path().join(format!("server-{}.log", self.runs));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
        command.args(["serve", "--json", "--listen", &self.listen.to_string()]).arg("--data").arg(self.data());
        command.arg("--config").arg(self.folder.path().join("server.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap()).kill_on_drop(true);
        (command, log)
    }

    /// Starts the server and waits until it is ready. A second run has the address of the first.
    pub async fn start(&mut self) -> Server {
        // reqwest takes whatever crypto back end is installed; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (mut command, log) = self.command();
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let ready = tokio::time::timeout(DEADLINE, read_document(&mut stdout)).await;
        let Ok(Some(ready)) = ready else {
            panic!("server does not start: {}", std::fs::read_to_string(&log).unwrap())
        };
        let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
        self.listen = address;
        if self.token.is_none() {
            self.token = Some(token_beside_server(&self.data(), "admin").await);
        }
        let token = self.token.clone().unwrap();
        let url = ready["url"].as_str().unwrap().to_owned();
        let http = reqwest::Client::builder().timeout(DEADLINE).tls_danger_accept_invalid_certs(true).build().unwrap();
        Server { child, _stdout: stdout, address, url, token, http, log }
    }

    /// Starts a server that cannot run, and gives what it said on stderr and its exit code.
    pub async fn start_in_vain(&mut self) -> (String, Option<i32>) {
        let (mut command, _) = self.command();
        let output = tokio::time::timeout(DEADLINE, command.output())
            .await
            .expect("the server runs although it should not")
            .unwrap();
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    }
}

/// Reads lines until together they are one JSON document.
async fn read_document(stdout: &mut BufReader<ChildStdout>) -> Option<Value> {
    let mut text = String::new();
    loop {
        if stdout.read_line(&mut text).await.ok()? == 0 {
            return None;
        }
        if let Ok(document) = serde_json::from_str(&text) {
            return Some(document);
        }
    }
}

/// Runs the program to its end.
pub async fn tendon(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(DEADLINE, command.output()).await.expect("tendon ends").unwrap()
}

/// `tendon token create`: the last line of stdout is the token.
pub async fn token_beside_server(data: &Path, role: &str) -> String {
    let output = tendon(&["token", "create", "--role", role, "--data", data.to_str().unwrap()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().to_owned()
}

/// An answer of the REST interface.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The document of a request that went well.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    /// The text of a refusal with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, self.body["error"]["code"].as_str()), (status, Some(code)), "{}", self.body);
        self.body["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// A running server.
pub struct Server {
    child: Child,
    /// Open as long as the server runs: a closed pipe would be another test.
    _stdout: BufReader<ChildStdout>,
    pub address: SocketAddr,
    pub url: String,
    pub token: String,
    pub http: reqwest::Client,
    log: PathBuf,
}

impl Server {
    pub async fn request(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    /// GET below `/api/v1`, as admin.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, &format!("/api/v1{path}"), Some(&self.token), None).await
    }

    /// POST below `/api/v1`, as admin.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, &format!("/api/v1{path}"), Some(&self.token), Some(&body)).await
    }

    /// A token of another role.
    pub async fn token_for(&self, role: &str, name: &str) -> String {
        let made = self.post("/tokens", json!({ "name": name, "role": role })).await.ok();
        made["token"].as_str().unwrap().to_owned()
    }

    /// The bytes of a file.
    pub async fn download(&self, path: &str) -> Vec<u8> {
        let response =
            self.http.get(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.bytes().await.unwrap().to_vec()
    }

    /// SIGKILL: nothing is said, nothing is saved.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and how the process ended.
    pub async fn terminate(mut self) -> ExitStatus {
        // It may have been asked before, and be gone.
        if self.runs() {
            self.ask_to_stop();
        }
        self.wait().await
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        let pid = i32::try_from(self.child.id().expect("the server runs")).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM)
            .unwrap();
    }

    /// Waits for the end of the process.
    pub async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("the server ends").unwrap()
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("--- end of {}", self.log.display());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                println!("{line}");
            }
        }
    }
}
