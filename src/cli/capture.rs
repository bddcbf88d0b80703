//! `ipsecd capture`: packets into pcapng files, bounded and their owner's alone.

use core::ops::ControlFlow;
use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use clap::{Args, ValueHint};

use super::{CliError, Global, complain};
use crate::capture::{LinkType, PcapngWriter};
use crate::control::capture::{Frame, Wanted};
use crate::control::client::Client;
use crate::control::protocol::{Ask, Body};
use crate::datapath::filter::Filter;

/// Interfaces of a file.
const INNER: u32 = 0;
const OUTER: u32 = 1;

/// Arguments of `capture`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd capture -w site-b.pcapng tunnel site-b
  ipsecd capture --outer -w drops.pcapng verdict drop --count 100
  ipsecd capture --ring /var/lib/ipsecd/ring --files 8 --size 64000000

The filter is that of `ipsecd trace`. With a daemon that was started with --keylog DIR, Wireshark decrypts the outer packets, too:
  WIRESHARK_CONFIG_DIR=DIR tshark -r FILE -o esp.enable_encryption_decode:TRUE")]
pub struct CaptureArgs {
    /// Which packets; without it, all
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Into this new file
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present = "ring")]
    pub write: Option<PathBuf>,
    /// Into files of this directory, of which the oldest goes when there are too many
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "write")]
    pub ring: Option<PathBuf>,
    /// With --ring: so many files are kept
    #[arg(long, value_name = "N", default_value_t = 8, requires = "ring")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub files: u32,
    /// With --ring: bytes after which a new file begins
    #[arg(long, value_name = "BYTES", default_value_t = 64_000_000, requires = "ring")]
    pub size: u64,
    /// Inner packets only
    #[arg(long, conflicts_with_all = ["outer", "both"])]
    pub inner: bool,
    /// Outer packets only
    #[arg(long, conflicts_with = "both")]
    pub outer: bool,
    /// Inner and outer packets, which is what happens without any of the three
    #[arg(long)]
    pub both: bool,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Runs it, until interrupted.
///
/// # Errors
/// No daemon runs, it ended, the filter is none, or a file cannot be written.
pub fn run(global: &Global, args: &CaptureArgs) -> Result<(), CliError> {
    let filter = args.filter.join(" ");
    filter.parse::<Filter>().map_err(|error| CliError::Usage(error.to_string()))?;
    let client = Client::connect(&global.socket)?;
    let mut files = match (&args.write, &args.ring) {
        (Some(file), _) => Files::one(file)?,
        (None, Some(dir)) => Files::ring(dir, args.files, args.size)?,
        (None, None) => return Err(CliError::Usage("either -w or --ring is needed".to_owned())),
    };
    let (inner, outer) = (!args.outer, !args.inner);
    let wanted = Wanted { filter, inner, outer, count: args.count };
    let mut failed = None;
    let mut began = false;
    client.follow(Ask::Capture(wanted), |body| {
        let Body::Captured(line) = body else { return ControlFlow::Continue(()) };
        if !began {
            began = true;
            begin(inner, outer, files.name(), line.keylog.as_deref());
        }
        if line.left_out > 0 {
            complain(format_args!("{} packets left out", line.left_out));
        }
        match files.put(&line.frames) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// What is to be known before the first packet.
fn begin(inner: bool, outer: bool, file: &Path, keylog: Option<&Path>) {
    complain(format_args!("capturing into {}; end it with Ctrl-C", file.display()));
    if inner {
        complain("WARNING: it holds packets in clear; whoever reads it reads all traffic");
    }
    match keylog {
        Some(dir) if outer => complain(format_args!(
            "outer packets decrypted: WIRESHARK_CONFIG_DIR={} tshark -r {} -o \
             esp.enable_encryption_decode:TRUE",
            dir.display(),
            file.display()
        )),
        None if outer => {
            complain("outer packets stay encrypted: the daemon runs without --keylog");
        }
        Some(_) | None => {}
    }
}

/// The file that is written, and those before it.
struct Files {
    writer: PcapngWriter<BufWriter<File>>,
    path: PathBuf,
    written: u64,
    ring: Option<Ring>,
}

struct Ring {
    dir: PathBuf,
    most: usize,
    size: u64,
    next: u64,
    /// The oldest first, the one that is written among them.
    kept: VecDeque<PathBuf>,
}

impl Files {
    fn one(path: &Path) -> Result<Self, CliError> {
        let writer = create(path)?;
        Ok(Self { writer, path: path.to_owned(), written: 0, ring: None })
    }

    fn ring(dir: &Path, most: u32, size: u64) -> Result<Self, CliError> {
        let named = |error| CliError::Io(dir.display().to_string(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(named)?;
        // Files of an earlier capture count, too.
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(named)? {
            let name = entry.map_err(named)?.file_name();
            numbers.extend(name.to_str().and_then(number_of));
        }
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let path = dir.join(name_of(next));
        let mut kept: VecDeque<_> =
            numbers.into_iter().map(|number| dir.join(name_of(number))).collect();
        kept.push_back(path.clone());
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut ring = Ring { dir: dir.to_owned(), most, size, next: next + 1, kept };
        ring.drop_oldest()?;
        Ok(Self { writer: create(&path)?, path, written: 0, ring: Some(ring) })
    }

    /// The file that is written now.
    fn name(&self) -> &Path {
        &self.path
    }

    fn put(&mut self, frames: &[Frame]) -> Result<(), CliError> {
        for frame in frames {
            let named = |error| CliError::Io(self.path.display().to_string(), error);
            let data = Base64::decode_vec(&frame.data)
                .map_err(|error| named(io::Error::other(error.to_string())))?;
            let interface = if frame.outer { OUTER } else { INNER };
            let time = frame.time_us.saturating_mul(1000);
            self.writer.packet_of(interface, time, &data, &frame.comment).map_err(named)?;
            self.written += (data.len() + frame.comment.len()) as u64 + 64;
            self.turn()?;
        }
        // Whoever interrupts us has what there was.
        self.writer.flush().map_err(|error| CliError::Io(self.path.display().to_string(), error))
    }

    /// The next file of the ring, if this one is full.
    fn turn(&mut self) -> Result<(), CliError> {
        let Some(ring) = self.ring.as_mut().filter(|ring| self.written >= ring.size) else {
            return Ok(());
        };
        let path = ring.dir.join(name_of(ring.next));
        ring.next += 1;
        ring.kept.push_back(path.clone());
        ring.drop_oldest()?;
        self.writer
            .flush()
            .map_err(|error| CliError::Io(self.path.display().to_string(), error))?;
        self.writer = create(&path)?;
        self.path = path;
        self.written = 0;
        Ok(())
    }
}

impl Ring {
    fn drop_oldest(&mut self) -> Result<(), CliError> {
        while self.kept.len() > self.most {
            let Some(oldest) = self.kept.pop_front() else { return Ok(()) };
            match std::fs::remove_file(&oldest) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CliError::Io(oldest.display().to_string(), error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn name_of(number: u64) -> String {
    format!("ipsecd-{number:06}.pcapng")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("ipsecd-")?.strip_suffix(".pcapng")?.parse().ok()
}

/// A file that was not there before, with both interfaces.
fn create(path: &Path) -> Result<PcapngWriter<BufWriter<File>>, CliError> {
    let named = |error| CliError::Io(path.display().to_string(), error);
    let file = File::options().create_new(true).write(true).mode(0o600).open(path);
    let out = BufWriter::new(file.map_err(named)?);
    let mut writer = PcapngWriter::of(out, LinkType::RAW, "inner").map_err(named)?;
    writer.interface(LinkType::RAW, "outer").map_err(named)?;
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::capture::CaptureReader;

    fn frame(outer: bool, byte: u8) -> Frame {
        let data = Base64::encode_string(&[byte; 200]);
        Frame { time_us: 1_000_001, outer, comment: "outbound protect b".into(), data }
    }

    fn packets(path: &Path) -> usize {
        let mut reader = CaptureReader::new(File::open(path).unwrap()).unwrap();
        let mut count = 0;
        while reader.next_frame().unwrap().is_some() {
            count += 1;
        }
        count
    }

    #[test]
    fn a_ring_keeps_so_many_files_and_the_newest_packets() {
        let dir = tempfile::tempdir().unwrap();
        let ring = dir.path().join("ring");
        for _again in 0..2 {
            // Three packets a file.
            let mut files = Files::ring(&ring, 3, 700).unwrap();
            for byte in 0..20 {
                files.put(&[frame(byte % 2 == 0, byte)]).unwrap();
            }
        }
        let mut names: Vec<_> =
            std::fs::read_dir(&ring).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names.iter().map(|name| packets(name)).collect::<Vec<_>>(), [3, 3, 2]);
        for name in &names {
            assert_eq!(name.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(ring.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcapng");
        Files::one(&path).unwrap().put(&[frame(true, 1), frame(false, 2)]).unwrap();
        assert_eq!(packets(&path), 2);
        let error = Files::one(&path).err().unwrap().to_string();
        assert!(error.contains("x.pcapng") && error.contains("exists"), "{error}");
    }
}
