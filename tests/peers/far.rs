//! What a case needs of a peer, whichever it is.

use crate::lab::uml::Guest;
use crate::tunnel::Tunnel;

/// An IKE daemon in the guest.
pub(crate) trait Far {
    /// Its name, for its reader.
    fn name(&self) -> &'static str;

    /// Starts it with what it is told; it answers when this returns.
    fn start(&self, guest: &Guest<'_>, tunnel: &Tunnel);

    /// Begins, and waits for the outcome; what it says if that fails.
    fn begin(&self, guest: &Guest<'_>) -> Result<(), String>;

    /// Rekeys the IKE SA, or the CHILD_SA.
    fn rekey(&self, guest: &Guest<'_>, ike: bool);

    /// Deletes the IKE SA, or the CHILD_SA alone.
    fn delete(&self, guest: &Guest<'_>, ike: bool);

    /// Ends it at once, telling nobody; what it left in the kernel is removed.
    fn kill(&self, guest: &Guest<'_>);

    /// What it logged since it was started.
    fn log(&self, guest: &Guest<'_>) -> String;
}
