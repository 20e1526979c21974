//! The actors as the REST interface sees them: a trait, so that handlers are tested without actors.

use futures::future::LocalBoxFuture;
use tendon_actors::api::{End, FramesPage, Live, NewExport, Refusal};
use tendon_actors::fleet::FleetHandle;
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::SessionId;
use tendon_storage::records::{ExportRecord, SessionRecord};

/// An answer that is on its way.
pub type Answer<'a, T> = LocalBoxFuture<'a, T>;

/// What handlers ask of the actors. [`FleetHandle`] says what each one does.
pub trait Fleet: Send + Sync {
    /// Asks the producer for a mark.
    fn request_mark(
        &self,
        session: SessionId,
        action: MarkAction,
        instruction: String,
    ) -> Answer<'_, Result<(), Refusal>>;
    /// Ends a session.
    fn end(&self, session: SessionId, end: End) -> Answer<'_, Result<SessionRecord, Refusal>>;
    /// Starts an export.
    fn export(&self, new: NewExport) -> Answer<'_, Result<ExportRecord, Refusal>>;
    /// Samples of an episode as recorded.
    fn frames(
        &self,
        session: SessionId,
        episode: u32,
        feature: Option<String>,
        from: u64,
        limit: usize,
    ) -> Answer<'_, Result<FramesPage, Refusal>>;
    /// How a session stands, if its actor runs.
    fn live(&self, session: SessionId) -> Answer<'_, Option<Live>>;
    /// Whether samples can be stored at present.
    fn readiness(&self) -> Answer<'_, Result<(), String>>;
}

impl Fleet for FleetHandle {
    fn request_mark(
        &self,
        session: SessionId,
        action: MarkAction,
        instruction: String,
    ) -> Answer<'_, Result<(), Refusal>> {
        Box::pin(self.request_mark(session, action, instruction))
    }

    fn end(&self, session: SessionId, end: End) -> Answer<'_, Result<SessionRecord, Refusal>> {
        Box::pin(self.end(session, end))
    }

    fn export(&self, new: NewExport) -> Answer<'_, Result<ExportRecord, Refusal>> {
        Box::pin(self.export(new))
    }

    fn frames(
        &self,
        session: SessionId,
        episode: u32,
        feature: Option<String>,
        from: u64,
        limit: usize,
    ) -> Answer<'_, Result<FramesPage, Refusal>> {
        Box::pin(self.frames(session, episode, feature, from, limit))
    }

    fn live(&self, session: SessionId) -> Answer<'_, Option<Live>> {
        Box::pin(self.live(session))
    }

    fn readiness(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(self.readiness())
    }
}
