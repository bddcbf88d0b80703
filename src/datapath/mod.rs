//! The way of a packet: SPD, SAD, ESP, encapsulation; batch in, batch out, `&self`, never waiting for IKE.
