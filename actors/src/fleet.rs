//! Finds the actor of a session, or brings it back to life from the store and the log.
//!
//! Read [`FleetHandle`] first. It is cheap to clone and is all that the front door knows of actors.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use actix_rt::ArbiterHandle;
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::{SessionId, StreamId};
use tendon_storage::meta::{EpisodeFilter, MetaError};
use tendon_storage::records::{EpisodeRecord, ExportRecord, SessionRecord};
use tokio::sync::OnceCell;

use crate::api::{End, FramesPage, Live, NewExport, Refusal, RefusalCode};
use crate::export;
use crate::house::{House, blocking};
use crate::session::machine::{Effect, JournalEntry, Machine, Recovered};
use crate::session::{AskLive, Clocks, Drain, EndSession, RequestMark, Session};
use crate::stored;

/// Episodes that are read per call while a session is recovered.
const PAGE: usize = 500;

type Slot = Arc<OnceCell<Addr<Session>>>;

/// The way to every session's actor.
#[derive(Clone)]
pub struct FleetHandle {
    house: Arc<House>,
    sessions: Arc<Mutex<HashMap<SessionId, Slot>>>,
    home: ArbiterHandle,
}

impl From<MetaError> for Refusal {
    fn from(error: MetaError) -> Self {
        let code = match &error {
            MetaError::NotFound { .. } => RefusalCode::NotFound,
            MetaError::Exists { .. } => RefusalCode::WrongState,
            MetaError::Contended { .. } => RefusalCode::Busy,
            MetaError::Record(_) | MetaError::Cursor(_) => RefusalCode::Invalid,
            MetaError::Unreadable { .. } | MetaError::Identity { .. } | MetaError::Store(_) => RefusalCode::Storage,
        };
        Self::new(code, error.to_string())
    }
}

impl FleetHandle {
    /// A fleet over a house. `home` is the arbiter of sessions that no connection asked for.
    #[must_use]
    pub fn new(house: Arc<House>, home: ArbiterHandle) -> Self {
        Self { house, sessions: Arc::default(), home }
    }

    /// What the actors share.
    #[must_use]
    pub fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// Brings back every session that has something in the log: pending flushes go on, and the
    /// log learns what it may forget. Call once at start.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recover(&self) -> Result<usize, Refusal> {
        let sessions = self.house.log.sessions();
        for session in &sessions {
            match self.session(*session, &self.home).await {
                Ok(_) => {}
                Err(refusal) if refusal.code == RefusalCode::NotFound => {
                    // Samples without a record: the metadata was deleted or is of another log.
                    tracing::error!(%session, "the log holds samples of a session without a record; they are kept, restore the metadata or remove the log");
                }
                // One session that cannot be read must not keep the others from recording.
                Err(refusal) => tracing::error!(%session, "session not recovered: {refusal}"),
            }
        }
        let interrupted = self.house.clone();
        blocking(move || export::fail_interrupted(&interrupted)).await?;
        Ok(sessions.len())
    }

    /// The actor of a session; started in `arbiter` when there is none.
    ///
    /// # Errors
    /// When there is no such session, or the store cannot be read.
    pub async fn session(&self, id: SessionId, arbiter: &ArbiterHandle) -> Result<Addr<Session>, Refusal> {
        let slot = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = sessions.entry(id).or_default();
            if slot.get().is_some_and(|addr| !addr.connected()) {
                *slot = Slot::default();
            }
            Arc::clone(slot)
        };
        let started = slot.get_or_try_init(|| async {
            let house = Arc::clone(&self.house);
            let (machine, effects, positions, clocks) = blocking(move || recover(&house, id)).await?;
            let house = Arc::clone(&self.house);
            Ok(Session::start_in_arbiter(arbiter, move |_| Session::new(house, machine, effects, positions, clocks)))
        });
        match started.await {
            Ok(addr) => Ok(addr.clone()),
            Err(refusal) => {
                let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                if sessions.get(&id).is_some_and(|slot| slot.get().is_none()) {
                    sessions.remove(&id);
                }
                Err(refusal)
            }
        }
    }

    fn running(&self, id: SessionId) -> Option<Addr<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&id).and_then(|slot| slot.get().cloned())
    }

    /// Forgets sessions whose actor has stopped.
    pub fn forget_stopped(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, slot| slot.get().is_none_or(Addr::connected));
    }

    /// Sessions whose actor runs.
    #[must_use]
    pub fn awake(&self) -> Vec<SessionId> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Asks the producer of a session for a mark.
    ///
    /// # Errors
    /// When the session or episode is in no state for it, or no producer is connected.
    pub async fn request_mark(
        &self,
        session: SessionId,
        action: MarkAction,
        instruction: String,
    ) -> Result<(), Refusal> {
        let addr = self.session(session, &self.home).await?;
        addr.send(RequestMark { action, instruction }).await.map_err(gone)?
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When it has ended, or is completed while an episode is being recorded.
    pub async fn end(&self, session: SessionId, end: End) -> Result<SessionRecord, Refusal> {
        let addr = self.session(session, &self.home).await?;
        addr.send(EndSession(end)).await.map_err(gone)?
    }

    /// Starts an export.
    ///
    /// # Errors
    /// When there is nothing to export or the request contradicts itself.
    pub async fn export(&self, new: NewExport) -> Result<ExportRecord, Refusal> {
        export::start(&self.house, new).await
    }

    /// Samples of an episode as recorded.
    ///
    /// # Errors
    /// When the episode or feature does not exist, or the store cannot be read.
    pub async fn frames(
        &self,
        session: SessionId,
        episode: u32,
        feature: Option<String>,
        from: u64,
        limit: usize,
    ) -> Result<FramesPage, Refusal> {
        stored::frames(&self.house, session, episode, feature, from, limit).await
    }

    /// How a session stands, if its actor runs.
    pub async fn live(&self, session: SessionId) -> Option<Live> {
        self.running(session)?.send(AskLive).await.ok().flatten()
    }

    /// Whether samples can be stored at present.
    ///
    /// # Errors
    /// The reason, in words for a person.
    pub async fn readiness(&self) -> Result<(), String> {
        self.house.log.readiness()
    }

    /// The server stops: every session says goodbye to its producer, waits until all it took is
    /// durable, and saves what it knows.
    pub async fn drain(&self) {
        let slots: Vec<Slot> = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let drains = slots.iter().filter_map(|slot| slot.get()).map(|addr| addr.send(Drain));
        futures::future::join_all(drains).await;
    }
}

fn gone(error: MailboxError) -> Refusal {
    Refusal::new(RefusalCode::Busy, format!("the session's actor is gone ({error}); try again"))
}

type Start = (Machine, Vec<Effect>, BTreeMap<StreamId, u64>, Clocks);

/// Reads what the store and the log know of a session. Blocks.
fn recover(house: &House, id: SessionId) -> Result<Start, Refusal> {
    let Some(record) = house.meta.sessions.get(id)? else {
        return Err(Refusal::new(
            RefusalCode::NotFound,
            format!("session {id} does not exist; list them with GET /api/v1/sessions"),
        ));
    };
    house.log.release(id, &record.released.iter().map(|(stream, next)| (*stream, *next)).collect::<Vec<_>>());
    let episodes = episodes_of(house, id)?;
    let mut positions = house.log.positions(id);
    for (stream, next) in &record.positions {
        let position = positions.entry(*stream).or_default();
        *position = (*position).max(*next);
    }
    let failed = |error: tendon_storage::frames::LogError| Refusal::new(RefusalCode::Storage, error.to_string());
    let mut latest = BTreeMap::new();
    for (stream, next) in &positions {
        if *stream != StreamId::JOURNAL && *next > 0 {
            let (last, _) = stored::read_whole_entries(&house.log, id, *stream, next - 1, *next).map_err(failed)?;
            latest.extend(last.last().and_then(|entry| stored::last_time(&entry.payload)).map(|time| (*stream, time)));
        }
    }
    let journal_from = record.released.get(&StreamId::JOURNAL).copied().unwrap_or(0);
    let journal_to = positions.get(&StreamId::JOURNAL).copied().unwrap_or(0);
    let (entries, damage) =
        stored::read_whole_entries(&house.log, id, StreamId::JOURNAL, journal_from, journal_to).map_err(failed)?;
    for damage in damage {
        tracing::error!(session = %id, "a mark or lost message cannot be read: {damage}");
    }
    let journal: Vec<JournalEntry> = entries.iter().filter_map(|entry| stored::journal_entry(&entry.payload)).collect();
    for entry in &journal {
        if let JournalEntry::Lost(lost) = entry {
            let position = positions.entry(lost.stream).or_default();
            *position = (*position).max(lost.last + 1);
        }
    }
    let clocks = Clocks::recovered(house.meta.clocks.list(id)?);
    let recovered = Recovered { record, episodes, positions: positions.clone(), latest, journal };
    let (machine, effects) = Machine::recover(recovered, house.settings.machine, house.clock.now_ns());
    if machine.is_finished() {
        house.log.release_all(id);
    }
    Ok((machine, effects, positions, clocks))
}

fn episodes_of(house: &House, id: SessionId) -> Result<Vec<EpisodeRecord>, Refusal> {
    let filter = EpisodeFilter { session: Some(id), ..EpisodeFilter::default() };
    let mut episodes = Vec::new();
    let mut after = None;
    loop {
        let page = house.meta.episodes.list(&filter, after.as_ref(), PAGE)?;
        episodes.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(episodes),
        }
    }
}
