//! A cell as a configuration file: what makes ipsecd an end of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::matrix::{Cell, End, Mode, Protocol};

/// Writes a file for each cell into `dir`, for ipsecd at `end`, and nothing else is in it.
pub(crate) fn write(dir: &Path, cells: &[Cell], end: End) {
    write_confs(dir, cells.iter().map(|cell| (cell.name(), cell.conf(end))));
}

/// Writes files, by name, into `dir`, and nothing else is in it.
pub(crate) fn write_confs(dir: &Path, confs: impl Iterator<Item = (String, String)>) {
    let _none = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).expect("directory is made");
    for (name, conf) in confs {
        // There are keys in it.
        File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(dir.join(format!("{name}.conf")))
            .and_then(|mut file| file.write_all(conf.as_bytes()))
            .expect("file is written");
    }
}

impl Cell {
    /// Its name as a peer.
    pub(crate) fn name(&self) -> String {
        format!("cell{}", self.number)
    }

    pub(crate) fn conf(&self, end: End) -> String {
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
        if self.tuning.tfc > 0 {
            conf += &format!("tfc = {}\n", self.tuning.tfc);
        }
        if self.tuning.start > 0 {
            conf += &format!("seq-in = {0}\nseq-out = {0}\n", self.tuning.start);
        }
        if self.transform.legacy {
            conf += "allow-legacy = true\n";
        }
        conf
    }

    /// What makes an AH cell stand around the one whose file it is put behind.
    pub(crate) fn conf_around(&self, end: End) -> String {
        let (us, peer) = (end, end.other());
        format!(
            "[manual.ah]\nproposal = \"{}\"\nspi-in = \"{:#x}\"\nspi-out = \"{:#x}\"\n\
             auth-key-in = \"{}\"\nauth-key-out = \"{}\"\n",
            self.transform.proposal,
            self.spi(us),
            self.spi(peer),
            self.integ_key(us),
            self.integ_key(peer),
        )
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
