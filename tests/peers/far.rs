//! What a case needs of a peer, whichever it is.

use crate::cases::Case;
use crate::lab::uml::Guest;
use crate::tunnel::Tunnel;

/// An IKE daemon in the guest.
pub(crate) trait Far {
    /// Its name, for its reader.
    fn name(&self) -> &'static str;

    /// What it can do of `tunnel`: the same, but for what its kernel or it itself does not know.
    fn within_reach(&self, tunnel: &Tunnel) -> Tunnel {
        tunnel.clone()
    }

    /// Starts it with what it is told; it answers when this returns.
    fn start(&self, guest: &Guest<'_>, tunnel: &Tunnel);

    /// Begins CHILD_SAs of these names, and waits for the outcome; what it says if that fails.
    fn begin(&self, guest: &Guest<'_>, children: &[String]) -> Result<(), String>;

    /// Rekeys the IKE SA, or the CHILD_SA.
    fn rekey(&self, guest: &Guest<'_>, ike: bool);

    /// Whether it rekeys an IKE SA at a command; if not, it does at its lifetime.
    fn rekeys_ike_when_told(&self) -> bool {
        true
    }

    /// Deletes the IKE SA, or the CHILD_SA alone.
    fn delete(&self, guest: &Guest<'_>, ike: bool);

    /// Ends it at once, telling nobody; its SAs stay in the kernel.
    fn kill(&self, guest: &Guest<'_>);

    /// Whether it uses a new CHILD_SA as soon as it has sent its answer, which RFC 7296 §2.8 allows: what overtakes the
    /// answer is lost.
    fn may_send_early(&self) -> bool;

    /// Whether it demands cookies only while there are half-open IKE SAs, though told to.
    fn wants_half_open_for_a_cookie(&self) -> bool;

    /// Cases that it cannot meet, and why.
    fn lacks(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Cases that are for it alone.
    fn more(&self) -> &'static [(&'static str, Case)] {
        &[]
    }

    /// What it logged since it was started.
    fn log(&self, guest: &Guest<'_>) -> String;
}
