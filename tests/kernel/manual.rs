//! A cell as a configuration file: what makes ipsecd an end of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::matrix::{Cell, End, Mode, Protocol};

/// Writes a file for each cell into `dir`, for ipsecd at `end`, and nothing else is in it.
pub(crate) fn write(dir: &Path, cells: &[Cell], end: End) {
    let _none = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).expect("directory is made");
    for cell in cells {
        // There are keys in it.
        File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(dir.join(format!("{}.conf", cell.name())))
            .and_then(|mut file| file.write_all(cell.conf(end).as_bytes()))
            .expect("file is written");
    }
}

impl Cell {
    /// Its name as a peer.
    pub(crate) fn name(&self) -> String {
        format!("cell{}", self.number)
    }

    fn conf(&self, end: End) -> String {
        let (us, peer) = (end, end.other());
        let protocol = match self.form.protocol {
            Protocol::Ah => "ah",
            Protocol::Esp => "esp",
        };
        let mode = match self.form.mode {
            Mode::Transport => "transport",
            Mode::Tunnel => "tunnel",
        };
        let esn = if self.esn { "-esn" } else { "" };
        let mut conf = format!(
            "[local]\naddress = \"{}\"\n[peer]\naddress = \"{}\"\n[[manual]]\n\
             protocol = \"{protocol}\"\nmode = \"{mode}\"\nproposal = \"{}{esn}\"\n\
             spi-in = \"{:#x}\"\nspi-out = \"{:#x}\"\nreplay-window = {}\n",
            self.outer(us),
            self.outer(peer),
            self.transform.proposal,
            self.spi(us),
            self.spi(peer),
            self.tuning.replay_window,
        );
        if self.form.udp {
            conf += "encap = \"udp\"\n";
        }
        if self.form.mode == Mode::Tunnel {
            conf +=
                &format!("local = [\"{}\"]\npeer = [\"{}\"]\n", self.inner(us), self.inner(peer));
        }
        let keys = [
            ("key", self.encr_key(us), self.encr_key(peer)),
            ("auth-key", self.integ_key(us), self.integ_key(peer)),
        ];
        for (key, inbound, outbound) in keys {
            if !inbound.is_empty() {
                conf += &format!("{key}-in = \"{inbound}\"\n{key}-out = \"{outbound}\"\n");
            }
        }
        if self.form.protocol == Protocol::Ah {
            conf += &format!("ah-align = {}\n", self.tuning.ah_align);
        }
        if self.tuning.start > 0 {
            conf += &format!("seq-in = {0}\nseq-out = {0}\n", self.tuning.start);
        }
        if self.transform.legacy {
            conf += "allow-legacy = true\n";
        }
        conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ipsecd::BINARY;
    use crate::lab::process;

    #[test]
    fn every_cell_has_a_configuration_that_check_accepts() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("peers");
        for part in Cell::all().chunks(200) {
            write(&dir, part, End::Near);
            let files = part.iter().map(|cell| dir.join(format!("{}.conf", cell.name())));
            process::run(std::process::Command::new(BINARY).arg("check").args(files));
        }
    }
}
