//! [`Protection`]: what an SA does to a packet, with the keys of the SA in it.

use super::ah::{self, Ah, Align};
use super::esp::{Common, Esp};
use super::{AhSuite, Encap, SaParams, Spi, Suite};
use crate::crypto::Secret;

/// ESP or AH.
#[derive(Debug)]
pub(super) enum Protection {
    Esp(Esp),
    Ah(Box<Ah>),
}

impl Protection {
    /// ESP of the common form.
    #[inline]
    pub(super) fn common(&self, spi: Spi, esn: bool) -> Option<Common<'_>> {
        match self {
            Self::Esp(esp) => esp.common(spi, esn),
            Self::Ah(_) => None,
        }
    }

    /// Takes the keys out of `params`; no copy of them stays. `None` if the suite, or a key of that length, is not one
    /// that we have, or for AH in UDP, which there is not (RFC 3948 §1).
    pub(super) fn take(params: &mut SaParams) -> Option<Self> {
        let protection = match params.suite {
            Suite::Esp(suite) => Self::Esp(Esp::new(suite, &params.encr_key, &params.integ_key)?),
            Suite::Ah(suite) => {
                if !params.encr_key.is_empty() || params.path.encap == Encap::Udp {
                    return None;
                }
                let align = Align::of(params.ah_align)?;
                Self::Ah(Box::new(Ah::new(suite.integ, params.integ_key.expose(), align)?))
            }
        };
        params.encr_key = Secret::empty();
        params.integ_key = Secret::empty();
        Some(protection)
    }
}

/// Length of AH with its ICV and padding; `None` for a suite that the datapath does not have.
pub(super) fn ah_len(suite: AhSuite, ah_align: u8, v6: bool) -> Option<usize> {
    ah::header_len(suite.integ, Align::of(ah_align)?, v6)
}
