//! Waiting until a server has stored what was sent to it.

use std::time::{Duration, Instant};

use tendon_protocol::id::SessionId;
use tendon_storage::records::{EpisodeRecord, EpisodeState};

use super::client::Client;
use super::error::CliError;
use super::output::Output;

/// Pause between two looks at the server.
const POLL: Duration = Duration::from_millis(200);
/// A server that changes nothing for so long has a fault.
const STORE_WAIT: Duration = Duration::from_secs(180);

/// Whether nothing more happens to an episode in this state once its producer has gone.
#[must_use]
pub const fn is_settled(state: EpisodeState) -> bool {
    match state {
        EpisodeState::Recording | EpisodeState::Paused | EpisodeState::Stopped | EpisodeState::Flushing => false,
        EpisodeState::Stored | EpisodeState::Incomplete | EpisodeState::Discarded | EpisodeState::Failed => true,
    }
}

/// Waits for so many episodes, from number `first` on; gives their records.
///
/// # Errors
/// When the server stays away, or changes nothing for minutes.
pub async fn settled(
    client: &Client,
    session: SessionId,
    first: u32,
    episodes: usize,
    output: &Output,
) -> Result<Vec<EpisodeRecord>, CliError> {
    let waiting = output.spinner("waiting for the server to store the episodes");
    let (mut last, mut since) = (Vec::new(), Instant::now());
    loop {
        let states = match client.episodes(session).await {
            Ok(mut found) => {
                found.retain(|record| record.number >= first);
                let states: Vec<EpisodeState> = found.iter().map(|record| record.state).collect();
                if states.len() >= episodes && states.iter().all(|state| is_settled(*state)) {
                    waiting.finish_and_clear();
                    return Ok(found);
                }
                states
            }
            Err(error) if error.code == "unreachable" && since.elapsed() < STORE_WAIT => last.clone(),
            Err(error) => return Err(error),
        };
        if states != last {
            (last, since) = (states, Instant::now());
        }
        if since.elapsed() > STORE_WAIT {
            let done = last.iter().filter(|state| is_settled(**state)).count();
            let waited = STORE_WAIT.as_secs();
            return Err(CliError::failed(format!(
                "the server has stored {done} of {episodes} episodes of session {session} and changed nothing for {waited} s; look at its log"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}
