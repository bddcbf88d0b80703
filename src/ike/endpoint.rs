//! [`Endpoint`]: every IKE SA of this host.

use std::time::Instant;

use super::event::{Command, CommandError, Event, SaStatus, TimerKind, Transmit};
use crate::crypto::SecureRandom;
use crate::ipsec::{Notice, Path};

/// Limits and switches of an [`Endpoint`] that hold for all peers.
#[derive(Clone, Debug, Default)]
pub struct EndpointConfig {}

/// What an [`Endpoint`] takes from its surroundings.
pub struct Env {
    /// Randomness for keys, nonces, SPIs and jitter.
    pub rng: Box<dyn SecureRandom>,
}

/// Every IKE SA of this host.
///
/// After any `handle_*`, drain `poll_transmit` and `poll_event` until `None`, then read `poll_timeout`, before the next
/// `handle_*`. Calling `handle_timeout` early is harmless.
pub struct Endpoint {}

#[expect(
    unused_variables,
    clippy::needless_pass_by_ref_mut,
    missing_docs,
    clippy::todo,
    reason = "being written"
)]
impl Endpoint {
    #[must_use]
    pub fn new(config: EndpointConfig, env: Env) -> Self {
        todo!()
    }
    /// `datagram` is the IKE message, without non-ESP marker.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        todo!()
    }
    pub fn handle_notice(&mut self, now: Instant, notice: Notice) {
        todo!()
    }
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        todo!()
    }
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        todo!()
    }
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        todo!()
    }
    /// Every IKE SA, sorted by peer, for status.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<SaStatus> {
        todo!()
    }
}
