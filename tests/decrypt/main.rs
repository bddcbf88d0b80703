//! `ipsecd decrypt`: captures in other forms than those that `tests/vectors` runs, keys in other forms, and the command.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

mod command;
mod forms;
mod old;
mod robustness;
mod tables;

use std::path::{Path, PathBuf};

use ipsecd::capture::{CaptureReader, Frame, KeyRing, LinkType, Opener, PcapngWriter, Record};

/// A capture with its keys and what is in it.
struct Case {
    name: String,
    json: PathBuf,
    wire: PathBuf,
    plain: PathBuf,
}

impl Case {
    fn named(set: &str, name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/captures").join(set);
        let file = |ending: &str| dir.join(format!("{name}{ending}"));
        let (json, wire, plain) = (file(".json"), file(".wire.pcap"), file(".plain.pcap"));
        Self { name: name.to_owned(), json, wire, plain }
    }

    /// Those of the Linux kernel whose name begins so.
    fn of_kernel(beginning: &str) -> Vec<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/captures/kernel");
        let mut names: Vec<String> = dir
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .filter(|name| name.starts_with(beginning))
            .collect();
        names.sort();
        assert!(!names.is_empty(), "{beginning}");
        names.iter().map(|name| Self::named("kernel", name)).collect()
    }

    fn ring(&self) -> KeyRing {
        KeyRing::read(&self.name, &std::fs::read_to_string(&self.json).unwrap()).unwrap()
    }

    fn wire(&self) -> Vec<Frame> {
        frames(&std::fs::read(&self.wire).unwrap())
    }

    fn plain(&self) -> Vec<Vec<u8>> {
        let packets = frames(&std::fs::read(&self.plain).unwrap());
        packets.into_iter().map(|frame| frame.data).collect()
    }
}

fn frames(file: &[u8]) -> Vec<Frame> {
    let mut reader = CaptureReader::new(file).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(frame);
    }
    frames
}

fn records(opener: &mut Opener, frames: &[Frame]) -> Vec<Record> {
    frames.iter().map(|frame| opener.frame(frame)).collect()
}

/// What was in the frames.
fn opened(ring: KeyRing, frames: &[Frame]) -> Vec<Vec<u8>> {
    let records = records(&mut Opener::new(ring), frames);
    records.into_iter().filter_map(|record| record.inner).collect()
}

/// The verdicts of the frames, each once, in order.
fn verdicts(records: &[Record]) -> Vec<&'static str> {
    let mut names: Vec<_> = records.iter().map(|record| record.verdict.name()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A pcapng file of these frames, which have one link type.
fn pcapng(frames: &[Frame]) -> Vec<u8> {
    let mut file = Vec::new();
    let link = frames.first().map_or(LinkType::RAW, |frame| frame.link);
    let mut writer = PcapngWriter::new(&mut file, link).unwrap();
    for frame in frames {
        assert_eq!(frame.link, link);
        writer.packet(frame.time, &frame.data, "").unwrap();
    }
    writer.finish().unwrap();
    file
}
