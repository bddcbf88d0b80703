//! Capture files: [`CaptureReader`] reads pcap and pcapng as a stream, [`PcapngWriter`] writes pcapng.
//!
//! The formats are `pcap-parser`'s to know; here stand the bounds, the time stamps and the link type of each packet.

use std::io::{self, Read, Write};

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, InterfaceDescriptionBlock, OptionCode, PcapBlockOwned, PcapError};
use thiserror::Error;

use super::link::LinkType;

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Nanoseconds since 1970, as the capture says.
    pub time: u64,
    /// What its first header is.
    pub link: LinkType,
    /// The bytes that were captured.
    pub data: Vec<u8>,
    /// How long it was; more than `data` where the capture cut it.
    pub original_len: u32,
}

/// Why a capture could not be read (any further).
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Another format, or damaged.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Reads a capture packet by packet, in constant memory.
pub struct CaptureReader<'a> {
    blocks: Box<dyn PcapReaderIterator + Send + 'a>,
    /// Of a pcap file; for pcapng see `section`.
    legacy: Option<Legacy>,
    section: Section,
    ended: bool,
}

/// The section of a pcapng file.
#[derive(Default)]
struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Legacy {
    link: LinkType,
    nanoseconds: bool,
}

#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    snaplen: u32,
    /// Time stamps to nanoseconds: units a second, and seconds to add.
    resolution: Resolution,
    offset: i64,
}

#[derive(Clone, Copy)]
enum Resolution {
    /// 10^-n seconds.
    Decimal(u8),
    /// 2^-n seconds.
    Binary(u8),
}

impl<'a> CaptureReader<'a> {
    /// Longest block of a file that is taken; a packet can be nearly as long.
    pub const MAX_BLOCK: usize = 1 << 20;
    /// Where the buffer begins; it grows to `MAX_BLOCK` when it must.
    const FIRST_BLOCK: usize = 1 << 16;
    /// Most interfaces of a section that are taken.
    const MAX_INTERFACES: usize = 4096;

    /// Looks at the beginning of `source` and decides which format it is.
    ///
    /// # Errors
    /// It is neither pcap nor pcapng, or cannot be read.
    pub fn new(source: impl Read + Send + 'a) -> Result<Self, CaptureError> {
        let mut source = Whole(source);
        let mut magic = [0; 4];
        let len = source.read(&mut magic)?;
        let magic = magic.get(..len).unwrap_or_default().to_vec();
        if COMPRESSED.iter().any(|beginning| magic.starts_with(beginning)) {
            return Err(CaptureError::Malformed(
                "is compressed: unpack it first, such as `zcat FILE | ipsecd decrypt -`",
            ));
        }
        let source = Whole(io::Cursor::new(magic).chain(source));
        match pcap_parser::create_reader(Self::FIRST_BLOCK, source) {
            Ok(blocks) => {
                Ok(Self { blocks, legacy: None, section: Section::default(), ended: false })
            }
            Err(PcapError::Eof) => Err(CaptureError::Malformed("is empty")),
            Err(PcapError::ReadError) => Err(io::Error::from(io::ErrorKind::Other).into()),
            Err(_) => Err(CaptureError::Malformed("is neither pcap nor pcapng")),
        }
    }

    /// The next packet; `None` after the last.
    ///
    /// # Errors
    /// The file is cut or damaged here. Nothing comes after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        while !self.ended {
            match self.step() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// One block.
    fn step(&mut self) -> Result<Option<Frame>, CaptureError> {
        let malformed = |text| Err(CaptureError::Malformed(text));
        let (len, frame) = match self.blocks.next() {
            Ok((len, block)) => {
                let frame = match block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        let nanoseconds = header.is_nanosecond_precision();
                        // The upper bits say how long a frame check sequence is.
                        let link = LinkType(header.network.0.cast_unsigned() & 0xffff);
                        self.legacy = Some(Legacy { link, nanoseconds });
                        None
                    }
                    PcapBlockOwned::Legacy(block) => {
                        let Some(Legacy { link, nanoseconds }) = self.legacy else {
                            return malformed("has a packet before its header");
                        };
                        let unit = if nanoseconds { 1 } else { 1000 };
                        let fraction = u64::from(block.ts_usec).saturating_mul(unit);
                        let time = u64::from(block.ts_sec) * SECOND + fraction;
                        let data = block.data.to_vec();
                        Some(Frame { time, link, data, original_len: block.origlen })
                    }
                    PcapBlockOwned::NG(block) => self.section.block(&block)?,
                };
                (len, frame)
            }
            Err(PcapError::Eof) => {
                self.ended = true;
                return Ok(None);
            }
            Err(PcapError::Incomplete(_)) => {
                let (had, at_end) = (self.blocks.data().len(), self.blocks.reader_exhausted());
                if self.blocks.refill().is_err() {
                    return Err(io::Error::from(io::ErrorKind::Other).into());
                }
                // The reader tells the end by itself; should it ever not, this is one.
                if at_end && self.blocks.data().len() == had {
                    return malformed("ends in the middle of a packet");
                }
                return Ok(None);
            }
            Err(PcapError::UnexpectedEof) => return malformed("ends in the middle of a packet"),
            Err(PcapError::BufferTooSmall) => {
                // It grows once, and then no more.
                if self.blocks.grow(Self::MAX_BLOCK) {
                    return Ok(None);
                }
                return malformed("has a packet that is too long");
            }
            Err(PcapError::ReadError) => {
                return Err(io::Error::from(io::ErrorKind::Other).into());
            }
            Err(_) => return malformed("is damaged"),
        };
        self.blocks.consume(len);
        Ok(frame)
    }
}

impl Section {
    const UNKNOWN: CaptureError =
        CaptureError::Malformed("has a packet of an interface that it does not describe");

    /// A block of pcapng: a packet, or something that later packets need.
    fn block(&mut self, block: &Block<'_>) -> Result<Option<Frame>, CaptureError> {
        match block {
            Block::SectionHeader(header) => {
                *self = Self { big_endian: header.big_endian(), interfaces: Vec::new() };
            }
            Block::InterfaceDescription(description) => self.describe(description)?,
            Block::EnhancedPacket(packet) => {
                let (link, time) = self.of(packet.if_id, packet.ts_high, packet.ts_low)?;
                let data = packet.packet_data().to_vec();
                return Ok(Some(Frame { time, link, data, original_len: packet.origlen }));
            }
            Block::SimplePacket(packet) => {
                let Some(interface) = self.interfaces.first() else { return Err(Self::UNKNOWN) };
                let mut data = packet.packet_data();
                if interface.snaplen != 0 {
                    data = &data[..data.len().min(interface.snaplen as usize)];
                }
                let (link, data) = (interface.link, data.to_vec());
                return Ok(Some(Frame { time: 0, link, data, original_len: packet.origlen }));
            }
            Block::Unknown(block) if self.is_obsolete_packet(block.block_type) => {
                return self.obsolete_packet(block.data).map(Some);
            }
            Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::DecryptionSecrets(_)
            | Block::ProcessInformation(_)
            | Block::Custom(_)
            | Block::Unknown(_) => {}
        }
        Ok(None)
    }

    fn describe(
        &mut self,
        description: &InterfaceDescriptionBlock<'_>,
    ) -> Result<(), CaptureError> {
        if self.interfaces.len() >= CaptureReader::MAX_INTERFACES {
            return Err(CaptureError::Malformed("describes too many interfaces"));
        }
        let resolution = match description.if_tsresol {
            n if n & 0x80 != 0 => Resolution::Binary(n & 0x7f),
            n => Resolution::Decimal(n),
        };
        // The parser takes it for little-endian, whatever the section is.
        let offset =
            description.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|option| option.value.first_chunk::<8>());
        let offset = offset.map_or(0, |&bytes| {
            if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) }
        });
        self.interfaces.push(Interface {
            link: LinkType(description.linktype.0.cast_unsigned()),
            snaplen: description.snaplen,
            resolution,
            offset,
        });
        Ok(())
    }

    /// Link type and time of a packet.
    fn of(&self, interface: u32, high: u32, low: u32) -> Result<(LinkType, u64), CaptureError> {
        let index = usize::try_from(interface).map_err(|_| Self::UNKNOWN)?;
        let interface = self.interfaces.get(index).ok_or(Self::UNKNOWN)?;
        let ticks = u64::from(high) << 32 | u64::from(low);
        Ok((interface.link, interface.nanoseconds(ticks)))
    }

    /// The parser tells a type that it does not know in little-endian.
    const fn is_obsolete_packet(&self, block_type: u32) -> bool {
        OBSOLETE_PACKET == if self.big_endian { block_type.swap_bytes() } else { block_type }
    }

    /// draft-ietf-opsawg-pcapng, appendix A: what packets were before there were enhanced ones.
    fn obsolete_packet(&self, block: &[u8]) -> Result<Frame, CaptureError> {
        let cut = || CaptureError::Malformed("is damaged");
        let (fixed, data) = block.split_first_chunk::<20>().ok_or_else(cut)?;
        let (words, _) = fixed.as_chunks::<4>();
        let mut numbers = words.iter().map(|&word| {
            if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        });
        let mut next = || numbers.next().ok_or_else(cut);
        let (first, high, low, len, original_len) = (next()?, next()?, next()?, next()?, next()?);
        // The interface, and how many packets were dropped: 16 bits each.
        let interface = if self.big_endian { first >> 16 } else { first & 0xffff };
        let (link, time) = self.of(interface, high, low)?;
        let len = usize::try_from(len).map_err(|_| cut())?;
        Ok(Frame { time, link, data: data.get(..len).ok_or_else(cut)?.to_vec(), original_len })
    }
}

/// Block type of a packet before there were enhanced ones.
const OBSOLETE_PACKET: u32 = 2;

impl Interface {
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks);
        let nanoseconds = match self.resolution {
            Resolution::Decimal(n @ 0..=9) => ticks * 10_u128.pow(9 - u32::from(n)),
            Resolution::Decimal(n) => {
                10_u128.checked_pow(u32::from(n) - 9).map_or(0, |unit| ticks / unit)
            }
            Resolution::Binary(n) => {
                (ticks * u128::from(SECOND)).checked_shr(n.into()).unwrap_or(0)
            }
        };
        let offset = i128::from(self.offset) * i128::from(SECOND);
        let sum = i128::try_from(nanoseconds).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(sum.max(0)).unwrap_or(u64::MAX)
    }
}

/// A source whose reads fill what they are given, unless it ends: a pipe gives less.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Writes a pcapng file of one section; time stamps in nanoseconds.
pub struct PcapngWriter<W> {
    out: W,
}

impl<W: Write> PcapngWriter<W> {
    /// Writes the beginning: packets of this link type.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(out: W, link: LinkType) -> io::Result<Self> {
        Self::of(out, link, "")
    }

    /// As [`new`](Self::new), with a name for the first interface.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn of(mut out: W, link: LinkType, name: &str) -> io::Result<Self> {
        // draft-ietf-opsawg-pcapng §4.1: byte-order magic, version 1.0, section of unknown length.
        let mut header = Vec::new();
        header.extend(0x1a2b_3c4d_u32.to_le_bytes());
        header.extend(1_u16.to_le_bytes());
        header.extend(0_u16.to_le_bytes());
        header.extend(u64::MAX.to_le_bytes());
        option(
            &mut header,
            OPT_SHB_USERAPPL,
            concat!("ipsecd ", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        header.extend(END_OF_OPTIONS);
        write_block(&mut out, 0x0a0d_0d0a, &header)?;
        let mut writer = Self { out };
        writer.interface(link, name)?;
        Ok(writer)
    }

    /// Writes one more interface, which is numbered from 1 on: the first is 0.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn interface(&mut self, link: LinkType, name: &str) -> io::Result<()> {
        // §4.2: link type, reserved, no limit of length.
        let mut interface = Vec::new();
        interface.extend(u16::try_from(link.0).unwrap_or(u16::MAX).to_le_bytes());
        interface.extend([0; 6]);
        if !name.is_empty() {
            option(&mut interface, OPT_IF_NAME, name.as_bytes());
        }
        option(&mut interface, OPT_IF_TSRESOL, &[9]);
        interface.extend(END_OF_OPTIONS);
        write_block(&mut self.out, 1, &interface)
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn packet(&mut self, time: u64, data: &[u8], comment: &str) -> io::Result<()> {
        self.packet_of(0, time, data, comment)
    }

    /// Writes a packet of one of several interfaces.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn packet_of(
        &mut self,
        interface: u32,
        time: u64,
        data: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        // §4.3: interface, time in two halves, captured and original length.
        let [t0, t1, t2, t3, t4, t5, t6, t7] = time.to_be_bytes();
        let len = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut block = Vec::with_capacity(64 + data.len());
        block.extend(interface.to_le_bytes());
        block.extend([t3, t2, t1, t0, t7, t6, t5, t4]);
        block.extend(len.to_le_bytes());
        block.extend(len.to_le_bytes());
        block.extend(data);
        pad(&mut block);
        if !comment.is_empty() {
            option(&mut block, OPT_COMMENT, comment.as_bytes());
            block.extend(END_OF_OPTIONS);
        }
        write_block(&mut self.out, 6, &block)
    }

    /// Writes what is left in buffers.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// As [`flush`](Self::flush), at the end.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What files of gzip, zstd, xz, bzip2 and lz4 begin with.
const COMPRESSED: [&[u8]; 5] = [
    &[0x1f, 0x8b],
    &[0x28, 0xb5, 0x2f, 0xfd],
    &[0xfd, b'7', b'z', b'X'],
    b"BZh",
    &[4, 0x22, 0x4d, 0x18],
];
const SECOND: u64 = 1_000_000_000;
const OPT_COMMENT: u16 = 1;
const OPT_SHB_USERAPPL: u16 = 4;
const OPT_IF_NAME: u16 = 2;
const OPT_IF_TSRESOL: u16 = 9;
const END_OF_OPTIONS: [u8; 4] = [0; 4];

fn write_block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len() + 12).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(body)?;
    out.write_all(&len.to_le_bytes())
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(1024)];
    block.extend(code.to_le_bytes());
    block.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    block.extend(value);
    pad(block);
}

fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(file: &[u8]) -> (Vec<Frame>, Option<String>) {
        let mut reader = match CaptureReader::new(file) {
            Ok(reader) => reader,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let mut frames = Vec::new();
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }

    fn written(packets: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = PcapngWriter::new(&mut file, LinkType::RAW).unwrap();
        for (time, data) in packets {
            writer.packet(*time, data, "a comment").unwrap();
        }
        writer.finish().unwrap();
        file
    }

    /// A pcap file of one packet, in the given byte order.
    fn pcap(magic: u32, big: bool, fraction: u32) -> Vec<u8> {
        let four = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let two = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut file = four(magic).to_vec();
        file.extend([two(2), two(4)].concat());
        file.extend([four(0), four(0), four(65_535), four(1)].concat());
        file.extend([four(7), four(fraction), four(3), four(5)].concat());
        file.extend([1, 2, 3]);
        file
    }

    #[test]
    fn what_was_written_is_read_back() {
        let time = 0x1234_5678_9abc_def0;
        let (read, error) = frames(&written(&[(time, &[1, 2, 3]), (0, &[]), (5, &[9; 4])]));
        assert_eq!(error, None);
        let frame = |time, data: &[u8]| Frame {
            time,
            link: LinkType::RAW,
            data: data.to_vec(),
            original_len: u32::try_from(data.len()).unwrap(),
        };
        assert_eq!(read, [frame(time, &[1, 2, 3]), frame(0, &[]), frame(5, &[9; 4])]);
    }

    #[test]
    fn both_byte_orders_and_both_precisions_of_pcap_are_read() {
        for big in [false, true] {
            for (magic, time) in [(0xa1b2_c3d4, 7_000_009_000), (0xa1b2_3c4d, 7_000_000_009)] {
                let (read, error) = frames(&pcap(magic, big, 9));
                assert_eq!(error, None);
                assert_eq!((read[0].time, &*read[0].data), (time, &[1, 2, 3][..]), "{big}");
                assert_eq!((read[0].link, read[0].original_len), (LinkType::ETHERNET, 5));
            }
        }
    }

    #[test]
    fn a_cut_file_gives_its_whole_packets_and_then_an_error() {
        let whole = written(&[(1, &[1; 20]), (2, &[2; 20])]);
        let (all, _) = frames(&whole);
        for len in 1..whole.len() {
            let (read, error) = frames(&whole[..len]);
            assert!(all.starts_with(&read));
            assert!(read.len() < 2 && (error.is_some() || read.len() == 1 || len < 100), "{len}");
        }
        assert_eq!(frames(&[]).1.as_deref(), Some("is empty"));
        for magic in [
            &[0x1f, 0x8b, 8, 0][..],
            &[0x28, 0xb5, 0x2f, 0xfd],
            b"\xfd7zXZ",
            b"BZh9",
            b"\x04\x22\x4d\x18",
        ] {
            let error = frames(&[magic, &[0; 40]].concat()).1.unwrap();
            assert!(error.starts_with("is compressed: unpack it first"), "{error}");
        }
        assert_eq!(
            frames(b"no capture at all, this").1.as_deref(),
            Some("is neither pcap nor pcapng")
        );
    }

    #[test]
    fn a_changed_byte_is_no_panic_and_no_endless_loop() {
        let files =
            [written(&[(1, &[1; 20]), (2, &[2; 20])]), pcap(0xa1b2_c3d4, false, 0), pcapng(true)];
        for file in files {
            for at in 0..file.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = file.clone();
                    changed[at] = value;
                    let (read, _) = frames(&changed);
                    assert!(read.len() <= 2);
                }
            }
        }
    }

    /// A pcapng file by hand: an interface with an offset, a packet of each kind but the simple one.
    fn pcapng(big: bool) -> Vec<u8> {
        let four = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let two = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let eight = |n: i64| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let block = |kind: u32, body: Vec<u8>| {
            let len = u32::try_from(body.len() + 12).unwrap();
            [&four(kind)[..], &four(len), &body, &four(len)].concat()
        };
        let packet = [&four(0)[..], &four(2_000_001), &four(4), &four(9), &[1, 2, 3, 4]].concat();
        let section = [&four(0x1a2b_3c4d)[..], &two(1), &two(0), &eight(-1)].concat();
        let offset = [&two(14)[..], &two(8), &eight(-1)].concat();
        let interface = [&two(101)[..], &two(0), &four(0), &offset, &four(0)].concat();
        let blocks = [
            block(0x0a0d_0d0a, section),
            block(1, interface.clone()),
            block(1, interface),
            block(OBSOLETE_PACKET, [&two(1)[..], &two(7), &packet].concat()),
            block(6, [&four(1)[..], &packet].concat()),
        ];
        blocks.concat()
    }

    #[test]
    fn packets_old_and_new_of_either_byte_order_have_their_time_and_bytes() {
        for big in [false, true] {
            let (read, error) = frames(&pcapng(big));
            assert_eq!(error, None);
            let frame = Frame {
                time: 1_000_001_000,
                link: LinkType::RAW,
                data: vec![1, 2, 3, 4],
                original_len: 9,
            };
            assert_eq!(read, [frame.clone(), frame], "{big}");
        }
    }

    #[test]
    fn time_stamps_of_any_resolution_are_nanoseconds() {
        let at =
            |resolution, offset| Interface { link: LinkType::RAW, snaplen: 0, resolution, offset };
        assert_eq!(at(Resolution::Decimal(6), 0).nanoseconds(1_500_000), 1_500_000_000);
        assert_eq!(at(Resolution::Decimal(0), 1).nanoseconds(2), 3_000_000_000);
        assert_eq!(at(Resolution::Decimal(12), 0).nanoseconds(1_000_000), 1_000);
        assert_eq!(at(Resolution::Binary(10), 0).nanoseconds(1536), 1_500_000_000);
        assert_eq!(at(Resolution::Binary(127), -1).nanoseconds(u64::MAX), 0);
        assert_eq!(at(Resolution::Decimal(127), i64::MAX).nanoseconds(u64::MAX), u64::MAX);
        assert_eq!(at(Resolution::Decimal(0), i64::MAX).nanoseconds(u64::MAX), u64::MAX);
    }
}
