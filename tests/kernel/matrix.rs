//! Everything that a manual SA pair can be: protocol, mode, IP versions, encapsulation, transform, sequence numbers.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// A security protocol of RFC 4301.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ah,
    Esp,
}

/// An SA's mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Transport,
    Tunnel,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// All of a cell but its transform and its sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) outer: Version,
    /// In transport mode the same as `outer`: there is one header.
    pub(crate) inner: Version,
    /// In UDP, port 4500 (RFC 3948): ESP alone.
    pub(crate) udp: bool,
}

/// Every form that the RFCs allow.
pub(crate) const FORMS: &[Form] = &[
    esp(Mode::Tunnel, Version::V4, Version::V4, false),
    esp(Mode::Tunnel, Version::V4, Version::V6, false),
    esp(Mode::Tunnel, Version::V6, Version::V6, false),
    esp(Mode::Tunnel, Version::V6, Version::V4, false),
    esp(Mode::Transport, Version::V4, Version::V4, false),
    esp(Mode::Transport, Version::V6, Version::V6, false),
    esp(Mode::Tunnel, Version::V4, Version::V4, true),
    esp(Mode::Tunnel, Version::V4, Version::V6, true),
    esp(Mode::Tunnel, Version::V6, Version::V6, true),
    esp(Mode::Tunnel, Version::V6, Version::V4, true),
    esp(Mode::Transport, Version::V4, Version::V4, true),
    esp(Mode::Transport, Version::V6, Version::V6, true),
    ah(Mode::Tunnel, Version::V4, Version::V4),
    ah(Mode::Tunnel, Version::V4, Version::V6),
    ah(Mode::Tunnel, Version::V6, Version::V6),
    ah(Mode::Tunnel, Version::V6, Version::V4),
    ah(Mode::Transport, Version::V4, Version::V4),
    ah(Mode::Transport, Version::V6, Version::V6),
];

const fn esp(mode: Mode, outer: Version, inner: Version, udp: bool) -> Form {
    Form { protocol: Protocol::Esp, mode, outer, inner, udp }
}

const fn ah(mode: Mode, outer: Version, inner: Version) -> Form {
    Form { protocol: Protocol::Ah, mode, outer, inner, udp: false }
}

/// An algorithm as the Linux kernel knows it, and how much key it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Algorithm {
    /// The kernel's name; `None`: it has none.
    pub(crate) linux: Option<&'static str>,
    /// Bytes, with the salt at the end.
    pub(crate) key: usize,
    /// Bits; zero for what has no ICV.
    pub(crate) icv: u16,
}

/// What protects: one algorithm that does both, a cipher with an integrity algorithm, or the latter alone (AH).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) protocol: Protocol,
    /// In strongSwan's keywords, as the configuration has them.
    pub(crate) proposal: String,
    pub(crate) encr: Option<Algorithm>,
    pub(crate) integ: Option<Algorithm>,
    /// To be had with `allow-legacy` only (RFC 8221).
    pub(crate) legacy: bool,
}

impl Transform {
    /// Whether the Linux kernel has it.
    pub(crate) fn linux(&self) -> bool {
        [self.encr, self.integ].into_iter().flatten().all(|algorithm| algorithm.linux.is_some())
    }

    /// Every transform of a protocol.
    pub(crate) fn all(protocol: Protocol) -> Vec<Self> {
        match protocol {
            Protocol::Ah => ah_transforms(),
            Protocol::Esp => esp_transforms(),
        }
    }
}

const KEY_BITS: [usize; 3] = [128, 192, 256];

/// Keyword, name, key, ICV.
const INTEG: [(&str, &str, usize, u16); 6] = [
    ("sha256", "hmac(sha256)", 32, 128),
    ("sha384", "hmac(sha384)", 48, 192),
    ("sha512", "hmac(sha512)", 64, 256),
    ("sha1", "hmac(sha1)", 20, 96),
    ("aesxcbc", "xcbc(aes)", 16, 96),
    ("aescmac", "cmac(aes)", 16, 96),
];

fn ah_transforms() -> Vec<Transform> {
    let keyed = INTEG.iter().map(|&(keyword, linux, key, icv)| Transform {
        protocol: Protocol::Ah,
        proposal: keyword.to_owned(),
        encr: None,
        integ: Some(Algorithm { linux: Some(linux), key, icv }),
        legacy: keyword == "sha1",
    });
    // RFC 4543 §5: the kernel has GMAC for ESP alone.
    let gmac = KEY_BITS.iter().map(|bits| Transform {
        protocol: Protocol::Ah,
        proposal: format!("aes{bits}gmac"),
        encr: None,
        integ: Some(Algorithm { linux: None, key: bits / 8 + 4, icv: 128 }),
        legacy: false,
    });
    keyed.chain(gmac).collect()
}

fn esp_transforms() -> Vec<Transform> {
    let mut all = Vec::new();
    let mut aead = |proposal: String, linux, key, icv| {
        all.push(Transform {
            protocol: Protocol::Esp,
            proposal,
            encr: Some(Algorithm { linux, key, icv }),
            integ: None,
            legacy: false,
        });
    };
    for (keyword, linux, salt) in [("gcm", "rfc4106(gcm(aes))", 4), ("ccm", "rfc4309(ccm(aes))", 3)]
    {
        for bits in KEY_BITS {
            for icv in [16, 12, 8] {
                let key = bits / 8 + salt;
                aead(format!("aes{bits}{keyword}{icv}"), Some(linux), key, icv * 8);
            }
        }
    }
    aead("chacha20poly1305".to_owned(), Some("rfc7539esp(chacha20,poly1305)"), 36, 128);
    for bits in KEY_BITS {
        aead(format!("aes{bits}gmac"), Some("rfc4543(gcm(aes))"), bits / 8 + 4, 128);
    }
    // RFC 8750, which the kernel does not have.
    for bits in KEY_BITS {
        aead(format!("aes{bits}gcm16iiv"), None, bits / 8 + 4, 128);
    }
    for bits in KEY_BITS {
        aead(format!("aes{bits}ccm8iiv"), None, bits / 8 + 3, 64);
    }
    aead("chacha20poly1305iiv".to_owned(), None, 36, 128);

    let ctr = KEY_BITS.map(|bits| (format!("aes{bits}ctr"), "rfc3686(ctr(aes))", bits / 8 + 4));
    let cbc = KEY_BITS.map(|bits| (format!("aes{bits}"), "cbc(aes)", bits / 8));
    let null = [("null".to_owned(), "ecb(cipher_null)", 0)];
    for (cipher, linux, key) in ctr.into_iter().chain(cbc).chain(null) {
        for (keyword, name, integ_key, icv) in INTEG {
            all.push(Transform {
                protocol: Protocol::Esp,
                proposal: format!("{cipher}-{keyword}"),
                encr: Some(Algorithm { linux: Some(linux), key, icv: 0 }),
                integ: Some(Algorithm { linux: Some(name), key: integ_key, icv }),
                legacy: keyword == "sha1",
            });
        }
    }
    all
}

/// One SA pair of the matrix, between the near end (ours) and the far one.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its own in the matrix: addresses, SPIs and keys follow from it.
    pub(crate) number: u16,
    pub(crate) form: Form,
    pub(crate) transform: Transform,
    pub(crate) esn: bool,
    pub(crate) tuning: Tuning,
}

/// What is not a dimension of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) replay_window: u32,
    /// The sequence number that is taken for sent, and for received, at the beginning.
    pub(crate) start: u64,
    /// AH over IPv4: to which number of bytes the header is padded (RFC 4302 §3.3.3.2.1: 4; Linux by default: 8).
    pub(crate) ah_align: u8,
    /// ESP in tunnel mode: to how many bytes shorter packets are padded (RFC 4303 §2.7).
    pub(crate) tfc: u16,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { replay_window: 128, start: 0, ah_align: 4, tfc: 0 }
    }
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Near,
    Far,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

impl Cell {
    /// Every cell, in the order of the document.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for protocol in [Protocol::Esp, Protocol::Ah] {
            for transform in Transform::all(protocol) {
                for form in FORMS.iter().filter(|form| form.protocol == protocol) {
                    for esn in [false, true] {
                        let number = u16::try_from(all.len() + 1).expect("the matrix is small");
                        let (transform, tuning) = (transform.clone(), Tuning::default());
                        all.push(Self { number, form: *form, transform, esn, tuning });
                    }
                }
            }
        }
        all
    }

    /// Those that the Linux kernel has.
    pub(crate) fn live() -> Vec<Self> {
        Self::all().into_iter().filter(|cell| cell.transform.linux()).collect()
    }

    /// The address of an end's IPsec header.
    pub(crate) fn outer(&self, end: End) -> IpAddr {
        self.address(self.form.outer, 64, end)
    }

    /// The address of an end's traffic.
    pub(crate) fn inner(&self, end: End) -> IpAddr {
        match self.form.mode {
            Mode::Transport => self.outer(end),
            Mode::Tunnel => self.address(self.form.inner, 128, end),
        }
    }

    /// The SPI of the SA that leads to `end`.
    pub(crate) fn spi(&self, end: End) -> u32 {
        let base = match end {
            End::Near => 0x1000_0000,
            End::Far => 0x2000_0000,
        };
        let protocol = match self.form.protocol {
            Protocol::Ah => 0x0100_0000,
            Protocol::Esp => 0,
        };
        base + protocol + u32::from(self.number)
    }

    /// The encryption key, in hex, of the SA that leads to `end`.
    pub(crate) fn encr_key(&self, end: End) -> String {
        self.key("encr", self.transform.encr, end)
    }

    /// The integrity key, in hex, of the SA that leads to `end`.
    pub(crate) fn integ_key(&self, end: End) -> String {
        self.key("integ", self.transform.integ, end)
    }

    /// Keys that repeat from run to run, and in no other SA.
    fn key(&self, what: &str, algorithm: Option<Algorithm>, end: End) -> String {
        let len = algorithm.map_or(0, |algorithm| algorithm.key);
        let bytes = (0u8..).flat_map(|block| {
            Sha256::digest(format!("{what} {} {end:?} {block}", self.number)).to_vec()
        });
        bytes.take(len).map(|byte| format!("{byte:02x}")).collect()
    }

    /// `10.64.0.0/16` and `fd40::/16` are the near end's outer addresses, `10.65` and `fd41` the far end's; `10.128`,
    /// `fd80`, `10.129` and `fd81` the inner ones.
    fn address(&self, version: Version, base: u8, end: End) -> IpAddr {
        let net = base + u8::from(end == End::Far);
        let [high, low] = self.number.to_be_bytes();
        match version {
            Version::V4 => Ipv4Addr::new(10, net, high, low).into(),
            Version::V6 => {
                Ipv6Addr::new(0xfd00 + u16::from(net), 0, 0, 0, 0, 0, 0, self.number).into()
            }
        }
    }
}

/// All of a cell but the transform, in words.
impl Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match (self.protocol, self.udp) {
            (Protocol::Ah, _) => "AH",
            (Protocol::Esp, false) => "ESP",
            (Protocol::Esp, true) => "ESP in UDP",
        };
        match self.mode {
            Mode::Transport => write!(f, "{protocol} transport {}", self.outer),
            Mode::Tunnel => write!(f, "{protocol} tunnel {} in {}", self.inner, self.outer),
        }
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let esn = if self.esn { "-esn" } else { "" };
        write!(f, "{}: {} {}{esn}", self.number, self.form, self.transform.proposal)
    }
}
