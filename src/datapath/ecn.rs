//! ECN and DSCP across the tunnel (RFC 6040, RFC 4301 §5.1.2, RFC 2983).

use crate::ipsec::{DropReason, DscpPolicy};

/// The ECN field of an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// 00: the transport does not know ECN.
    #[default]
    NotEct,
    /// 01.
    Ect1,
    /// 10.
    Ect0,
    /// 11: congestion experienced.
    Ce,
}

impl Ecn {
    /// The field of a TOS or Traffic Class byte; its upper six bits are the DSCP.
    #[must_use]
    #[inline]
    pub const fn of(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }
}

/// TOS or Traffic Class of the outer header: the inner ECN field always (RFC 6040 §4.1, normal mode; IKEv2 peers
/// decapsulate ECN, RFC 7296 §2.24), the DSCP as the policy has it.
#[must_use]
#[inline]
pub const fn encapsulate(inner: u8, dscp: DscpPolicy) -> u8 {
    match dscp {
        DscpPolicy::Copy => inner,
        DscpPolicy::Set(dscp) => dscp << 2 | inner & 3,
    }
}

/// The ECN field with which a packet leaves the tunnel (RFC 6040 §4.2, figure 4).
///
/// # Errors
/// [`DropReason::EcnCongestion`]: the packet must be dropped, since its transport knows no other sign of congestion.
#[inline]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, DropReason> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(DropReason::EcnCongestion),
        (Ecn::NotEct, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ok(Ecn::NotEct),
        // Otherwise the more severe of the two: CE, ECT(1), ECT(0).
        (Ecn::Ce, _) | (_, Ecn::Ce) => Ok(Ecn::Ce),
        (Ecn::Ect1, _) | (_, Ecn::Ect1) => Ok(Ecn::Ect1),
        (Ecn::Ect0, Ecn::NotEct | Ecn::Ect0) => Ok(Ecn::Ect0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive() {
        for bits in 0..4 {
            assert_eq!(Ecn::of(bits | 0xb8).bits(), bits);
        }
    }

    #[test]
    fn figure_4_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let outer = [NotEct, Ect0, Ect1, Ce];
        let drop = Err(DropReason::EcnCongestion);
        let rows = [
            (NotEct, [Ok(NotEct), Ok(NotEct), Ok(NotEct), drop]),
            (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
            (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
            (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
        ];
        for (inner, row) in rows {
            assert_eq!(outer.map(|outer| decapsulate(inner, outer)), row, "inner {inner:?}");
        }
    }

    #[test]
    fn dscp_is_copied_or_set_and_ecn_always_copied() {
        assert_eq!(encapsulate(0xb9, DscpPolicy::Copy), 0xb9);
        assert_eq!(encapsulate(0xb9, DscpPolicy::Set(10)), 10 << 2 | 1);
        assert_eq!(encapsulate(0xbb, DscpPolicy::Set(0)), 3);
    }
}
