//! What a session writes down, one thing after the other: records, releases, flushes, clocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tendon_protocol::id::{ClockId, SessionId, StreamId};
use tendon_storage::meta::MetaError;
use tendon_storage::records::{ClockRecord, EpisodeKey, EpisodeRecord, EpisodeState, SessionRecord, StoredProbe};
use tokio::sync::oneshot;

use super::machine::FlushOrder;
use super::{ClockNews, Session, merge_episode};
use crate::flusher;
use crate::house::{House, blocking};

/// Wait before a failed write or flush is tried again. Stores come back in seconds or not at all.
const RETRY: Duration = Duration::from_secs(2);
/// Shortest time between two savings of a clock's measurements, in nanoseconds. Lost ones only widen the uncertainty.
const CLOCKS_EVERY_NS: i64 = 30_000_000_000;

/// Most clocks of a session: a producer that is started again hundreds of times has another trouble.
const CLOCKS_MAX: usize = 256;

/// One thing to write down.
pub(super) enum Work {
    SaveSession(Box<SessionRecord>, Vec<oneshot::Sender<()>>),
    SaveEpisode(Box<EpisodeRecord>),
    Release(Vec<(StreamId, u64)>),
    ReleaseAll,
    Flush(Box<FlushOrder>),
}

impl Session {
    /// Does the next thing that waits, if none is being done.
    pub(super) fn work_on(&mut self, ctx: &mut Context<Self>) {
        while !self.working {
            let Some(work) = self.work.pop_front() else { return };
            let id = self.machine.record().id;
            match work {
                Work::Release(below) => self.house.log.release(id, &below),
                Work::ReleaseAll => self.house.log.release_all(id),
                Work::Flush(order) => self.flush(order, ctx),
                Work::SaveSession(record, waiters) => {
                    let (house, copy) = (Arc::clone(&self.house), record.clone());
                    let saving = blocking(move || save_session(&house, *copy));
                    self.save(saving, Work::SaveSession(record, waiters), ctx);
                }
                Work::SaveEpisode(record) => {
                    let (house, copy) = (Arc::clone(&self.house), record.clone());
                    let saving = blocking(move || save_episode(&house, *copy));
                    self.save(saving, Work::SaveEpisode(record), ctx);
                }
            }
        }
    }

    fn save(
        &mut self,
        saving: impl Future<Output = Result<(), MetaError>> + 'static,
        work: Work,
        ctx: &mut Context<Self>,
    ) {
        self.working = true;
        ctx.spawn(saving.into_actor(self).map(move |outcome, this, ctx| {
            if let Err(error) = outcome {
                tracing::error!(session = %this.machine.record().id, "record not saved, trying again in {} s: {error}", RETRY.as_secs());
                this.last_error = Some(error.to_string());
                this.work.push_front(work);
                ctx.run_later(RETRY, |this, ctx| {
                    this.working = false;
                    this.work_on(ctx);
                });
                return;
            }
            this.working = false;
            if let Work::SaveSession(record, waiters) = work {
                this.streams_saved = this.streams_saved.max(record.streams.len());
                this.append_stalled();
                for waiter in waiters {
                    let _ = waiter.send(());
                }
            }
            this.work_on(ctx);
        }));
    }

    fn flush(&mut self, order: Box<FlushOrder>, ctx: &mut Context<Self>) {
        let house = Arc::clone(&self.house);
        let session = self.machine.record().clone();
        let clocks = self.clocks.records();
        let number = order.record.number;
        let flushing = async move { flusher::flush(&house, &session, *order, clocks).await };
        ctx.spawn(flushing.into_actor(self).map(move |outcome, this, ctx| {
            let now_ns = this.now_ns();
            match outcome {
                Ok(record) => {
                    let state = record.state;
                    metrics::counter!("tendon_episodes_flushed_total", "state" => state.to_string()).increment(1);
                    let mut effects = this.machine.flushed(record, now_ns);
                    if state == EpisodeState::Failed {
                        tracing::error!(session = %this.machine.record().id, episode = number, "episode failed");
                    }
                    effects.extend(this.machine.tick(now_ns));
                    this.act(effects, ctx);
                }
                Err(error) => {
                    tracing::error!(session = %this.machine.record().id, episode = number, "flush failed, trying again: {error}");
                    this.last_error = Some(format!("episode {number} is not stored yet: {error}"));
                    let wait_ns = i64::try_from(RETRY.as_nanos()).unwrap_or(i64::MAX);
                    this.machine.flush_again(number, now_ns.saturating_add(wait_ns));
                }
            }
        }));
    }

    /// Saves clock measurements that have waited long enough.
    pub(super) fn save_clocks(&mut self, ctx: &mut Context<Self>) {
        let now_ns = self.house.clock.now_ns();
        let Some(records) = self.clocks.due(now_ns) else { return };
        let house = Arc::clone(&self.house);
        let saving = blocking(move || records.into_iter().try_for_each(|record| save_clock(&house, &record)));
        ctx.spawn(saving.into_actor(self).map(|outcome, this, _| {
            if let Err(error) = outcome {
                tracing::error!(session = %this.machine.record().id, "clock measurements not saved: {error}");
                this.clocks.touch();
            }
        }));
    }
}

fn save_session(house: &House, record: SessionRecord) -> Result<(), MetaError> {
    let id = record.id;
    house.meta.sessions.update(id, |stored| *stored = record.clone()).map(drop)
}

fn save_episode(house: &House, record: EpisodeRecord) -> Result<(), MetaError> {
    let key: EpisodeKey = record.key();
    let updated = house.meta.episodes.update(key, |stored| merge_episode(stored, record.clone()));
    match updated {
        Err(MetaError::NotFound { .. }) => house.meta.episodes.create(&record),
        other => other.map(drop),
    }
}

fn save_clock(house: &House, record: &ClockRecord) -> Result<(), MetaError> {
    house.meta.clocks.upsert(record.session, record.clock, &record.kind, |stored| stored.clone_from(record)).map(drop)
}

/// Measurements of a producer's clocks.
#[derive(Default)]
pub struct Clocks {
    records: BTreeMap<ClockId, ClockRecord>,
    changed: bool,
    saved_ns: i64,
}

impl Clocks {
    /// Clocks as the store knows them.
    #[must_use]
    pub fn recovered(records: Vec<ClockRecord>) -> Self {
        Self {
            records: records.into_iter().map(|record| (record.clock, record)).collect(),
            changed: false,
            saved_ns: 0,
        }
    }

    pub(super) fn records(&self) -> Vec<ClockRecord> {
        self.records.values().cloned().collect()
    }

    pub(super) fn learn(&mut self, session: SessionId, news: &ClockNews) {
        if !self.records.contains_key(&news.clock) && self.records.len() >= CLOCKS_MAX {
            return;
        }
        let record = self.records.entry(news.clock).or_insert_with(|| ClockRecord {
            session,
            clock: news.clock,
            kind: news.kind.clone(),
            probes: Vec::new(),
            anchors: Vec::new(),
        });
        if let Some((server_ns, clock_ns, round_trip_ns)) = news.probe {
            record.add_probe(StoredProbe { server_ns, clock_ns, round_trip_ns });
        }
        if let Some((clock_ns, wall_ns)) = news.anchor {
            record.add_anchor(clock_ns, wall_ns);
        }
        self.changed = true;
    }

    /// Saves with the next tick, however recently something was saved.
    pub(super) fn touch(&mut self) {
        self.saved_ns = i64::MIN / 2;
    }

    fn due(&mut self, now_ns: i64) -> Option<Vec<ClockRecord>> {
        if !self.changed || now_ns - self.saved_ns < CLOCKS_EVERY_NS {
            return None;
        }
        self.changed = false;
        self.saved_ns = now_ns;
        Some(self.records())
    }
}
