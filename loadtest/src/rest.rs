//! The few REST calls of a load test.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tendon_protocol::id::SessionId;

/// Name of the dataset that all sessions belong to.
const DATASET: &str = "load";

/// A server's REST interface.
#[derive(Clone)]
pub struct Rest {
    client: reqwest::Client,
    /// Address, such as `http://127.0.0.1:7400`.
    pub url: String,
    /// API token.
    pub token: String,
}

impl Rest {
    /// For a server at `url`.
    pub fn new(url: &str, token: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            // Well below the server's own limit, or a request may meet a connection that is being closed.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .context("no HTTP client")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    async fn answer(&self, request: reqwest::RequestBuilder, what: &str) -> Result<String> {
        let response = request
            .bearer_auth(&self.token)
            .send()
            .await
            .with_context(|| format!("{what}: {} does not answer", self.url))?;
        let status = response.status();
        let text = response.text().await.with_context(|| format!("{what}: answer was cut"))?;
        if !status.is_success() {
            bail!("{what}: {status} {text}");
        }
        Ok(text)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let text = self.answer(self.client.get(format!("{}{path}", self.url)), path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: answer is no JSON"))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_string());
        let text = self.answer(request, path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: answer is no JSON"))
    }

    /// Waits until the server says that it is alive.
    pub async fn wait_alive(&self, wait: Duration) -> Result<()> {
        let asked = std::time::Instant::now();
        loop {
            match self.client.get(format!("{}/healthz", self.url)).timeout(Duration::from_secs(2)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if asked.elapsed() > wait => bail!("{} is not alive after {} s", self.url, wait.as_secs()),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Makes a session. Each `robot` has an operator of its own, so that limits per operator do not join them.
    pub async fn create_session(&self, robot: &str) -> Result<SessionId> {
        let body = json!({
            "operator": format!("operator-{robot}"), "robot": robot, "embodiment": "load", "type": "leader_arm",
            "fps": 50, "row_clock": "grid", "dataset": DATASET, "metadata": {},
        });
        let answer = self.post("/api/v1/sessions", &body).await?;
        let id = answer["id"].as_str().with_context(|| format!("a new session without id: {answer}"))?;
        Ok(id.parse()?)
    }

    /// A session's record, with how it stands in `live`.
    pub async fn session(&self, id: SessionId) -> Result<Value> {
        self.get(&format!("/api/v1/sessions/{id}")).await
    }

    /// Ends a session, so that the log may forget it.
    pub async fn complete(&self, id: SessionId) -> Result<()> {
        self.post(&format!("/api/v1/sessions/{id}/complete"), &json!({})).await.map(drop)
    }

    /// All episodes of a session.
    pub async fn episodes(&self, id: SessionId) -> Result<Vec<Value>> {
        let mut episodes = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/api/v1/sessions/{id}/episodes?limit=100{cursor}")).await?;
            episodes.extend(page["episodes"].as_array().context("a page without episodes")?.iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(episodes),
            }
        }
    }

    /// One counter or gauge, all its labels added up; `None` if the server has no such metric yet.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = self.answer(self.client.get(format!("{}/metrics", self.url)), "/metrics").await?;
        Ok(sum_of(&text, name))
    }
}

fn sum_of(metrics: &str, name: &str) -> Option<f64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels_and_not_of_longer_names() {
        let text = "# TYPE a_total counter\na_total{code=\"x\"} 2\na_total{code=\"y\"} 3\na_total_more 100\nb 7.5\n";
        assert_eq!(sum_of(text, "a_total"), Some(5.0));
        assert_eq!(sum_of(text, "b"), Some(7.5));
        assert_eq!(sum_of(text, "c"), None);
    }
}
