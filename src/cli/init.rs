//! `ipsecd init`: five questions, and the files of both ends.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, ValueEnum, ValueHint};
use zeroize::Zeroizing;

use super::export::ProgramArg;
use super::import::write_all;
use super::{CliError, check, genpsk, pki};
use crate::config::{self, SecretSource};
use crate::crypto::random::SecureRandom;
use crate::foreign::Written;
use crate::foreign::export::{self, Options};

/// Arguments of `ipsecd init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// This end: its name, its address, or both, as "a.example.net 192.0.2.1"
    #[arg(long, value_name = "END")]
    pub local: Option<String>,
    /// The far end, likewise
    #[arg(long, value_name = "END")]
    pub peer: Option<String>,
    /// What is behind this end: subnets, with commas
    #[arg(long, value_name = "SUBNETS")]
    pub local_subnets: Option<String>,
    /// What is behind the far end
    #[arg(long, value_name = "SUBNETS")]
    pub peer_subnets: Option<String>,
    /// How the two prove who they are
    #[arg(long, value_enum, value_name = "HOW")]
    pub auth: Option<AuthArg>,
    /// What runs at the far end
    #[arg(long = "for", value_name = "PROGRAM", value_enum, default_value = "ipsecd")]
    pub program: ProgramArg,
    /// Where the files go; nothing is ever overwritten
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
}

/// How the two prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthArg {
    /// By certificates of a CA that is made
    Certificates,
    /// By a key that both have
    Psk,
}

/// What is known of this host.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Its name.
    pub name: Option<String>,
    /// The address that it is reached at.
    pub address: Option<IpAddr>,
    /// Networks on its other interfaces.
    pub networks: Vec<String>,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    id: String,
    address: Option<String>,
}

/// The five answers.
struct Answers {
    local: End,
    peer: End,
    local_subnets: Vec<String>,
    peer_subnets: Vec<String>,
    auth: AuthArg,
}

/// Asks what the arguments do not say, and writes both ends. Returns the exit code of `ipsecd check` for ours.
///
/// # Errors
/// If an argument, or an answer of somebody who is not there to give another, is none; or a file is there already.
pub fn run(
    args: &InitArgs,
    defaults: &Defaults,
    rng: &mut dyn SecureRandom,
    now: SystemTime,
    secrets: &dyn SecretSource,
    console: (&mut dyn BufRead, &mut dyn Write, &mut dyn Write),
) -> Result<u8, CliError> {
    let (input, out, err) = console;
    let answers = answers(args, defaults, input, out)?;
    let io = |error: io::Error| CliError::Io("cannot write".to_owned(), error);
    let name = file_name(&answers.peer.id);
    let far_name = file_name(&answers.local.id);
    let far_dir = args.output.join(format!("for-{name}"));
    let ours = args.output.join(format!("{name}.conf"));
    for path in [&ours, &far_dir] {
        if path.symlink_metadata().is_ok() {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            let what = format!(
                "{} is there already and is not overwritten: nothing was written",
                path.display()
            );
            return Err(CliError::Io(what, error));
        }
    }
    let mut files = Vec::new();
    let mut far_files = Vec::new();
    match answers.auth {
        AuthArg::Psk => {
            let mut key = Zeroizing::new(Vec::new());
            genpsk::run(None, rng, &mut *key).map_err(io)?;
            let text = Zeroizing::new(String::from_utf8_lossy(&key).into_owned());
            if args.program == ProgramArg::Ipsecd {
                far_files.push(Written {
                    name: format!("{name}.psk"),
                    text: text.clone(),
                    secret: true,
                });
            }
            files.push(Written { name: format!("{name}.psk"), text, secret: true });
        }
        AuthArg::Certificates => certificates(args, &answers, rng, now, &far_dir)?,
    }
    let text = config_text(&answers, &name);
    files.push(Written { name: format!("{name}.conf"), text: text.into(), secret: false });
    write_all(&args.output, &files)?;
    let code = check::run(std::slice::from_ref(&ours), secrets, out, err).map_err(io)?;
    if code != check::OK {
        return Ok(code);
    }
    let loaded = config::load(&ours, secrets).map_err(|_| CliError::Config)?;
    let options = Options {
        address: answers.local.address.clone(),
        secrets: args.program != ProgramArg::Ipsecd,
    };
    let far =
        export::export(&loaded.config, args.program.into(), &options).map_err(CliError::Usage)?;
    let far_file = match args.program {
        ProgramArg::Ipsecd => format!("{far_name}.conf"),
        ProgramArg::Libreswan => "ipsec.conf".to_owned(),
        ProgramArg::Openiked => "iked.conf".to_owned(),
        ProgramArg::Strongswan | ProgramArg::Strongswan6 => "swanctl.conf".to_owned(),
    };
    let secret = args.program != ProgramArg::Ipsecd;
    far_files.push(Written { name: far_file.clone(), text: far, secret });
    write_all(&far_dir, &far_files)?;
    writeln!(
        out,
        "\nThis end:    ipsecd up {}\nThe far end: everything in {} belongs there; bring it by a way you trust",
        ours.display(),
        far_dir.display()
    )
    .map_err(io)?;
    Ok(code)
}

/// A CA, and a key and certificate for each; those of the far end in a directory of their own.
fn certificates(
    args: &InitArgs,
    answers: &Answers,
    rng: &mut dyn SecureRandom,
    now: SystemTime,
    far_dir: &Path,
) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| CliError::Io(path, error)
    };
    std::fs::create_dir_all(far_dir).map_err(failed(far_dir))?;
    let pki_args = pki::PkiArgs {
        sites: vec![answers.local.id.clone(), answers.peer.id.clone()],
        dir: args.output.clone(),
        key: pki::Kind::P256,
        days: 730,
        ca_name: "ipsecd CA".to_owned(),
        request: false,
        raw: false,
    };
    pki::run(&pki_args, rng, now, &mut io::sink())
        .map_err(|error| CliError::Io("pki".to_owned(), error))?;
    for end in ["pem", "key"] {
        let name = format!("{}.{end}", answers.peer.id);
        let from = args.output.join(&name);
        std::fs::rename(&from, far_dir.join(&name)).map_err(failed(&from))?;
    }
    let ca = args.output.join("ca.pem");
    std::fs::copy(&ca, far_dir.join("ca.pem")).map_err(failed(&ca))?;
    Ok(())
}

fn config_text(answers: &Answers, name: &str) -> String {
    let mut text = String::from("[local]\n");
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |items: &[String]| {
        format!("[{}]", items.iter().map(|it| quote(it)).collect::<Vec<_>>().join(", "))
    };
    // A string takes all that is written to it.
    if let Some(address) = answers.local.address.as_ref().filter(|it| it.parse::<IpAddr>().is_ok())
    {
        let _done = writeln!(text, "address = {}", quote(address));
    }
    let _done = writeln!(
        text,
        "id = {}\nsubnets = {}\n",
        quote(&answers.local.id),
        list(&answers.local_subnets)
    );
    let address = answers.peer.address.as_deref().unwrap_or("any");
    let _done = writeln!(
        text,
        "[peer]\naddress = {}\nid = {}\nsubnets = {}\n\n[auth]",
        quote(address),
        quote(&answers.peer.id),
        list(&answers.peer_subnets)
    );
    let _done = match answers.auth {
        AuthArg::Psk => writeln!(text, "psk = {{ file = {} }}", quote(&format!("{name}.psk"))),
        AuthArg::Certificates => writeln!(
            text,
            "cert = {}\nkey = {}\nca = [\"ca.pem\"]",
            quote(&format!("{}.pem", answers.local.id)),
            quote(&format!("{}.key", answers.local.id))
        ),
    };
    text
}

fn answers(
    args: &InitArgs,
    defaults: &Defaults,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<Answers, CliError> {
    let own = match (&defaults.name, defaults.address) {
        (Some(name), Some(address)) => Some(format!("{name} {address}")),
        (Some(name), None) => Some(name.clone()),
        (None, Some(address)) => Some(address.to_string()),
        (None, None) => None,
    };
    let mut ask = Ask { input, out };
    let local = ask.until(
        args.local.as_deref(),
        "1. This end: a name, an address, or both",
        own.as_deref(),
        end,
    )?;
    let peer = ask.until(
        args.peer.as_deref(),
        "2. The far end: a name, an address, or both",
        None,
        |text| {
            let end = end(text)?;
            if end.id == local.id {
                Err("both ends cannot be called the same".to_owned())
            } else {
                Ok(end)
            }
        },
    )?;
    let networks = defaults.networks.join(", ");
    let networks = Some(networks.as_str()).filter(|it| !it.is_empty());
    let local_subnets =
        ask.until(args.local_subnets.as_deref(), "3. Subnets behind this end", networks, subnets)?;
    let peer_subnets =
        ask.until(args.peer_subnets.as_deref(), "4. Subnets behind the far end", None, subnets)?;
    let given = args.auth.and_then(|it| it.to_possible_value()).map(|it| it.get_name().to_owned());
    let auth = ask.until(
        given.as_deref(),
        "5. Proof of who is who: psk or certificates",
        Some("psk"),
        |text| match text {
            "psk" => Ok(AuthArg::Psk),
            "certificates" | "certificate" | "cert" => Ok(AuthArg::Certificates),
            other => Err(format!("`{}` is neither psk nor certificates", other.escape_debug())),
        },
    )?;
    Ok(Answers { local, peer, local_subnets, peer_subnets, auth })
}

struct Ask<'a> {
    input: &'a mut dyn BufRead,
    out: &'a mut dyn Write,
}

impl Ask<'_> {
    /// What the command line says, or else the first answer that is one.
    fn until<T>(
        &mut self,
        given: Option<&str>,
        question: &str,
        default: Option<&str>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, CliError> {
        if let Some(given) = given {
            return read(given).map_err(CliError::Usage);
        }
        let io = |error: io::Error| CliError::Io("cannot ask".to_owned(), error);
        loop {
            let shown = default.map_or_else(String::new, |default| format!(" [{default}]"));
            write!(self.out, "{question}{shown}: ").and_then(|()| self.out.flush()).map_err(io)?;
            let mut line = String::new();
            // A line that does not end is no answer.
            let length = io::Read::take(&mut *self.input, 4096).read_line(&mut line).map_err(io)?;
            if length == 0 {
                return Err(CliError::Usage(format!("no answer to: {question}")));
            }
            let text = line.trim();
            let text = if text.is_empty() { default.unwrap_or_default() } else { text };
            match read(text) {
                Ok(answer) => return Ok(answer),
                Err(why) => writeln!(self.out, "   {why}").map_err(io)?,
            }
        }
    }
}

/// `a.example.net 192.0.2.1`, in either order, or one of them.
fn end(text: &str) -> Result<End, String> {
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let is_address = |word: &str| word.parse::<IpAddr>().is_ok();
    let name = |word: &str| config::read_identity(word).map(|_| word.to_owned());
    match words.as_slice() {
        [one] if is_address(one) => {
            Ok(End { id: (*one).to_owned(), address: Some((*one).to_owned()) })
        }
        [one] => Ok(End {
            id: name(one)?,
            address: Some((*one).to_owned()).filter(|it| !it.contains('@')),
        }),
        [a, b] if is_address(b) && !is_address(a) => {
            Ok(End { id: name(a)?, address: Some((*b).to_owned()) })
        }
        [a, b] if is_address(a) && !is_address(b) => {
            Ok(End { id: name(b)?, address: Some((*a).to_owned()) })
        }
        _ => Err("a name such as a.example.net, an address such as 192.0.2.1, or both".to_owned()),
    }
}

fn subnets(text: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> =
        text.split([' ', ',']).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    if items.is_empty() {
        return Err("at least one, such as 10.1.0.0/16".to_owned());
    }
    for item in &items {
        config::read_selectors(item)?;
    }
    Ok(items)
}

pub(super) fn file_name(id: &str) -> String {
    let fine =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    id.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(fine).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_name_an_address_or_both() {
        let made =
            |id: &str, address: &str| End { id: id.to_owned(), address: Some(address.to_owned()) };
        for (text, wanted) in [
            ("192.0.2.1", made("192.0.2.1", "192.0.2.1")),
            ("a.example", made("a.example", "a.example")),
            ("a.example 192.0.2.1", made("a.example", "192.0.2.1")),
            ("192.0.2.1, a.example", made("a.example", "192.0.2.1")),
        ] {
            assert_eq!(end(text), Ok(wanted), "{text}");
        }
        assert_eq!(end("joe@example.net").map(|it| it.address), Ok(None));
        for bad in ["", "a b", "a b c", "192.0.2.1 192.0.2.2", "192.0.2"] {
            assert!(end(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_answer_is_asked_for_again_and_silence_ends_it() {
        let mut out = Vec::new();
        let mut input = io::Cursor::new("nonsense/99\n10.1.0.0/16\n");
        let mut ask = Ask { input: &mut input, out: &mut out };
        let found = ask.until(None, "Subnets", None, subnets).unwrap();
        assert_eq!(found, ["10.1.0.0/16"]);
        let error = ask.until(None, "Subnets", None, subnets).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
        assert_eq!(String::from_utf8(out).unwrap().matches("Subnets: ").count(), 3);
    }
}
