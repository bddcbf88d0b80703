//! Numbers that bound what IKE does.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::rate::Rate;

// Values the RFCs fix.

/// Longest COOKIE in bytes (RFC 7296 §2.6).
pub(super) const MAX_COOKIE: usize = 64;

/// Length in bytes of a token (RFC 6290 §5).
pub(super) const QCD_TOKEN: RangeInclusive<usize> = 16..=128;
/// Size of an IP datagram that every link of IPv6 carries (RFC 7383 §2.5.1).
pub(super) const FRAGMENTED_DATAGRAM_V6: u16 = 1280;
/// Size of an IP datagram that almost every path of IPv4 carries (RFC 7383 §2.5.1).
pub(super) const SMALLEST_FRAGMENTED_DATAGRAM: u16 = 576;

// Values we chose.

/// Bytes of our nonces: half the key size of the largest PRF, as RFC 7296 §2.10 asks.
pub(super) const NONCE_LEN: usize = 32;
/// Longest IKE message taken, whole or in fragments, in bytes: several times the 3,000 that RFC 7296 §2 asks for.
pub(super) const MAX_MESSAGE: usize = 16_384;
/// Fragments of one message (RFC 7383); at the smallest size that is sensible [`MAX_MESSAGE`] is 33.
pub(super) const MAX_FRAGMENTS: u16 = 255;
/// Bytes of fragments that wait for the rest of their messages, of all IKE SAs together; beyond, the oldest are dropped. Their senders
/// have the keys, but need not be authenticated yet.
pub(super) const MAX_REASSEMBLY: usize = 4 << 20;
/// What a fragment takes besides its bytes, for [`MAX_REASSEMBLY`].
pub(super) const FRAGMENT_OVERHEAD: usize = 64;
/// Fragments wait so long for the rest: a peer with defaults like ours repeats a request for a little longer (RFC 7383 §2.6).
pub(super) const REASSEMBLY_TIME: Duration = Duration::from_secs(120);
/// After so many retransmissions a request is split into smaller fragments, and again after as many more (RFC 7383 §2.5.2).
pub(super) const REFRAGMENT_AFTER: u32 = 3;
/// Attempts at finding additional key exchanges of which none is there twice, in one proposal (RFC 9370 §2.2.1).
pub(super) const MAX_ADDKE_STEPS: u32 = 1000;
/// Series of IKE_FOLLOWUP_KE of the peer that one IKE SA remembers; the oldest goes first. With a window of one there is one, and
/// perhaps one that the peer has given up.
pub(super) const MAX_PENDING: usize = 4;
/// A series is forgotten when its next request does not come in this time (RFC 9370 §2.2.4: 5 to 20 s).
pub(super) const PENDING_TIME: Duration = Duration::from_secs(20);
/// Series one after another that the peer has forgotten (STATE_NOT_FOUND); after the next, the IKE SA is deleted (RFC 9370 §2.2.4).
pub(super) const MAX_SERIES_FAILURES: u32 = 3;
/// Longest IKE_SA_INIT request taken, in bytes: it cannot be fragmented by IKE, and the longest key exchange has 1,568.
pub(super) const MAX_INIT_REQUEST: usize = 4096;
/// Payloads that are looked through for Ni where a COOKIE is asked for.
pub(super) const MAX_INIT_PAYLOADS: usize = 64;
/// Half-open IKE SAs as responder, in all: those whose initiator is not authenticated. For another, the oldest goes.
pub(super) const MAX_HALF_OPEN: usize = 2048;
/// What the IKE_SA_INIT messages of all of these have in bytes.
pub(super) const MAX_HALF_OPEN_BYTES: usize = 4 << 20;
/// Bits of an IPv4 address that one owner's have in common; what is counted by prefix is counted by these.
pub(super) const PREFIX_V4: u32 = 24;
/// The same of IPv6.
pub(super) const PREFIX_V6: u32 = 64;
/// Half-open IKE SAs as responder from one prefix.
pub(super) const MAX_HALF_OPEN_PER_PREFIX: usize = 64;
/// From this many half-open IKE SAs on, a COOKIE is asked for (RFC 7296 §2.6).
pub(super) const COOKIE_THRESHOLD: usize = 32;
/// From this many of one prefix on, a COOKIE is asked for there.
pub(super) const COOKIE_THRESHOLD_PER_PREFIX: usize = 16;
/// IKE_SA_INIT requests of one prefix that are answered while COOKIEs are asked for; configured addresses are exempt.
pub(super) const BEGINNINGS_PER_PREFIX: Rate = Rate { per_second: 2, burst: 16 };
/// Work with keys for initiators that are not authenticated, in microseconds of a slow core: a quarter of its time. Configured
/// addresses whose COOKIE came back have as much again. With less than half of the burst left, COOKIEs are asked for.
pub(super) const KEY_WORK: Rate = Rate { per_second: 250_000, burst: 250_000 };
/// The most of it that goes to strangers of one network: what a /16 or a /48 can do leaves half of it to others.
pub(super) const KEY_WORK_OF_NETWORK: Rate = Rate { per_second: 125_000, burst: 125_000 };
/// Bits of an IPv4 address that those of one network have in common.
pub(super) const WIDE_PREFIX_V4: u32 = 16;
/// The same of IPv6.
pub(super) const WIDE_PREFIX_V6: u32 = 48;
/// From this many half-open IKE SAs on, a puzzle goes with each COOKIE (RFC 8019 §7.1.1); the more there are the harder it is.
pub(super) const PUZZLE_THRESHOLD: usize = 512;
/// Zero bits of the easiest and of the hardest puzzle given. RFC 8019 §4.4 has 18 as a reasonable choice; but with four keys to find and a
/// rest between two slices that took an initiator up to fifteen seconds, and it is to connect within three. Who solves none gets nowhere
/// at 14 either.
pub(super) const PUZZLE_BITS: [u8; 2] = [8, 14];
/// Zero bits of the hardest puzzle that is solved: as RFC 8019 §4.4 has it, acceptable.
pub(super) const MAX_PUZZLE_DIFFICULTY: u8 = 20;
/// Zero bits that are found for a puzzle which leaves their number to us (RFC 8019 §7.1.1.1).
pub(super) const FREE_PUZZLE_BITS: u8 = 14;
/// Bytes of one key of a solution.
pub(super) const MAX_PUZZLE_KEY: usize = 64;
/// Keys that are tried before anything else gets its turn: about a millisecond.
pub(super) const PUZZLE_SLICE: u32 = 1024;
/// The rest between two slices.
pub(super) const PUZZLE_REST: Duration = Duration::from_millis(1);
/// Buckets of what is limited by prefix; prefixes that fall together share one.
pub(super) const PREFIX_BUCKETS: usize = 4096;
/// Work with keys that an authenticated peer may ask for under one IKE SA, in microseconds of a slow core: a twentieth of its time.
/// Beyond, it is put off with TEMPORARY_FAILURE.
pub(super) const KEY_WORK_OF_PEER: Rate = Rate { per_second: 50_000, burst: 1_000_000 };
/// Established IKE SAs of one identity; for another, the oldest goes. One is enough, and two while it authenticates anew.
pub(super) const MAX_IKE_SAS_OF_PEER: usize = 16;
/// The same where the configuration says that many share the identity (`unique = "never"`).
pub(super) const MAX_IKE_SAS_OF_MANY: usize = 1024;
/// IKE SAs in all.
pub(super) const MAX_IKE_SAS: usize = 65_536;
/// CHILD_SAs under one IKE SA; a policy needs one, and two while it is rekeyed.
pub(super) const MAX_CHILD_SAS: usize = 64;
/// CHILD_SAs beside the first that are taken of a peer, for each that we would make: both sides may make theirs at once, and those
/// that are replaced are there for a while (RFC 9611 §6 has two at least).
pub(super) const RESOURCES_TAKEN_FOR_EACH_MADE: usize = 2;
/// Peers whose key is tried on one AUTH payload, where the identities fit several.
pub(super) const MAX_AUTH_CANDIDATES: usize = 8;
/// CERT payloads of a peer: its own certificate, and those of the CAs between. Each of them may multiply the paths that there are.
pub(super) const MAX_CERTS: usize = 6;
/// Tokens of one unprotected message that are looked at (RFC 6290 §4.5: four at least).
pub(super) const MAX_QCD_TOKENS: usize = 8;
/// PPKs that an initiator names in IKE_INTERMEDIATE and that are looked for (RFC 9867 §3.1).
pub(super) const MAX_PPKS_NAMED: usize = 8;
/// OCSP responses of a peer that are looked at (RFC 4806).
pub(super) const MAX_OCSP: usize = 2;
/// Raw public keys of peers that are tried on one signature which comes without a CERT payload.
pub(super) const MAX_RAW_KEYS: usize = 4;
/// EAP messages of a peer in one IKE_AUTH: several times the ten exchanges of RFC 7296 §2.16, for certificates in fragments.
pub(super) const MAX_EAP_ROUNDS: usize = 64;
/// Bytes of TLS messages that a peer may send in one run of EAP-TLS.
pub(super) const MAX_EAP_TLS: usize = 65_536;
/// Bytes of a TLS message in one EAP-TLS message of ours: what goes into a packet of the smallest MTU that IPv6 has, in IKE and UDP.
pub(super) const EAP_TLS_FRAGMENT: usize = 1024;
/// Ways in which one AUTH payload may be a signature: by the keys without a PPK, and by those with the one that is named.
pub(super) const MAX_PROOFS: usize = 2;
/// Sets of CAs that one certificate is tried with, where the identities fit several peers with different ones.
pub(super) const MAX_AUTHORITIES: usize = 4;
/// CAs named in a CERTREQ payload. As responder it goes to an address that is not validated, so that it must be short.
pub(super) const MAX_CERTREQ_CAS: usize = 8;
/// Announcements that are read in SUPPORTED_AUTH_METHODS (RFC 9593); we make eleven at most.
pub(super) const MAX_ANNOUNCED: usize = 64;
/// Hash algorithms that are read in SIGNATURE_HASH_ALGORITHMS; five have numbers.
pub(super) const MAX_HASHES: usize = 32;
/// Further addresses of a peer that are noted (RFC 4555 §3.4).
pub(super) const MAX_PEER_ADDRESSES: usize = 16;
/// Addresses of our pools that one IKE SA may have.
pub(super) const MAX_LEASES: usize = 4;
/// Addresses of our pools that nobody has, kept for who had them; the oldest is forgotten first.
pub(super) const MAX_IDLE_LEASES: usize = 4096;
/// DNS servers that are taken from a peer.
pub(super) const MAX_DNS_SERVERS: usize = 8;
/// Domains of RFC 8598 that are taken from a peer.
pub(super) const MAX_DNS_DOMAINS: usize = 64;
/// Tasks waiting under one IKE SA.
pub(super) const MAX_TASKS: usize = 64;
/// Traffic selectors that narrowing may result in.
pub(super) const MAX_SELECTORS: usize = 64;
/// A responder's half-open IKE SA is dropped after this time.
pub(super) const HALF_OPEN_TIME: Duration = Duration::from_secs(30);
/// An IKE SA that was rekeyed waits so long for its DELETE: longer than the initiator of the rekey sends its request again.
pub(super) const REPLACED_TIME: Duration = Duration::from_secs(60);
/// COOKIE and INVALID_KE_PAYLOAD answers that an initiator follows, together.
pub(super) const MAX_INIT_RETRIES: u32 = 6;
/// An inbound SA outlives its deletion by this time, for packets that are under way.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// A closed IKE SA answers retransmissions for this time.
pub(super) const CLOSED_LINGER: Duration = Duration::from_secs(10);
/// The responder of a CREATE_CHILD_SA asks after this time whether the peer has the answer, should neither a request nor a packet on
/// the CHILD_SA have come (RFC 7296 §2.8). That of IKE_AUTH does if an older CHILD_SA serves until the peer has it.
pub(super) const CONFIRM_AFTER: Duration = Duration::from_millis(50);
/// The same for a CHILD_SA that replaces another, which serves as long. A peer that still repeats its CREATE_CHILD_SA answers the
/// question too, so that it comes when no peer repeats any longer; the DELETE of what was replaced mostly comes at once.
pub(super) const CONFIRM_REKEYED_AFTER: Duration = Duration::from_secs(180);
/// After reauthentication, or where one IKE SA takes the place of another, the old one serves so long yet, for packets under way.
pub(super) const REAUTH_OVERLAP: Duration = Duration::from_secs(5);
/// A reauthentication that came to nothing is tried again after this time.
pub(super) const REAUTH_RETRY: Duration = Duration::from_secs(60);
/// Shortest AUTH_LIFETIME (RFC 4478) that is followed.
pub(super) const MIN_AUTH_LIFETIME: Duration = Duration::from_secs(30);
/// An IKE SA that the peer seems to have authenticated anew is deleted after this time, should the peer not do it.
pub(super) const SUPERSEDED_AFTER: Duration = Duration::from_secs(60);
/// The answer to an IKE_AUTH that is not sent any more is waited for so long, to delete what it made.
pub(super) const STALE_AUTH: Duration = Duration::from_secs(30);
/// The secret of COOKIEs changes in this time; the one before it stays valid as long again.
pub(super) const COOKIE_SECRET_TIME: Duration = Duration::from_secs(60);
/// NAT keepalives (RFC 3948 §4 has 20 s as its default).
pub(super) const KEEPALIVE: Duration = Duration::from_secs(20);
/// First wait after TEMPORARY_FAILURE; the peer's wait differs by jitter.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);
/// An IKE SA whose requests meet nothing but TEMPORARY_FAILURE for this time is closed (RFC 7296 §2.25: several minutes).
pub(super) const PUT_OFF_TIME: Duration = Duration::from_secs(300);
/// One TEMPORARY_FAILURE so long after another has nothing to do with it: more than a request and its repetitions take.
pub(super) const PUT_OFF_GAP: Duration = Duration::from_secs(120);
/// Errors told without protection, outside of any IKE SA: to strangers, and as many to configured addresses.
pub(super) const ERRORS: Rate = Rate { per_second: 50, burst: 50 };
/// The same to one prefix.
pub(super) const ERRORS_PER_PREFIX: Rate = Rate { per_second: 5, burst: 10 };
/// INVALID_SPI messages that follow packets of unknown SAs, to strangers and to configured addresses.
pub(super) const HINTS: Rate = Rate { per_second: 5, burst: 5 };
/// The same to one prefix.
pub(super) const HINTS_PER_PREFIX: Rate = Rate { per_second: 1, burst: 1 };
/// INVALID_SPI messages that are looked at, of strangers and of configured addresses.
pub(super) const STRAYS: Rate = Rate { per_second: 50, burst: 50 };
/// The same of one prefix.
pub(super) const STRAYS_PER_PREFIX: Rate = Rate { per_second: 5, burst: 10 };
/// DELETEs remembered that overtook the answer which makes their CHILD_SA.
pub(super) const MAX_EARLY_DELETES: usize = 16;
/// Hints of unprotected messages (INVALID_SPI, INVALID_IKE_SPI) to one IKE SA are followed at most once in this time.
pub(super) const HINT_INTERVAL: Duration = Duration::from_secs(10);
/// Of two IKE SAs that both ends began at once, the redundant one is deleted after this time.
pub(super) const REDUNDANT_AFTER: Duration = Duration::from_secs(1);
