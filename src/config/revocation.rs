//! CRLs and OCSP responses: what is read again when their files change, without the rest of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::raw::{List, Raw};
use super::{Config, RevocationFiles, SecretSource};
use crate::crypto::pem;
use crate::crypto::x509::ocsp::OcspResponse;
use crate::ipsec::pad::{Authority, Credential, EapServer, LocalAuth, Peer, PeerAuth};

impl RevocationFiles {
    pub(super) fn of(raw: &Raw<'_>, file: &Path) -> Self {
        let base = file.parent().unwrap_or_else(|| Path::new(""));
        let paths = |list: &Option<List<'_>>| {
            let items = list.iter().flat_map(|list| &list.items);
            items.map(|name| base.join(name.get_ref())).collect()
        };
        Self { crls: paths(&raw.auth.crl), ocsp: paths(&raw.auth.ocsp) }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.crls.iter().chain(&self.ocsp).map(PathBuf::as_path)
    }
}

impl Config {
    /// The peer with what the files of `revocation` have by now. `None` with manual keys.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn with_revocation_read_again(
        &self,
        secrets: &dyn SecretSource,
    ) -> Result<Option<Peer>, String> {
        let Some(peer) = self.ike() else { return Ok(None) };
        let mut peer = peer.clone();
        if !self.revocation.crls.is_empty() {
            let mut crls = Vec::new();
            for path in &self.revocation.crls {
                crls.extend(crls_in(path, secrets)?);
            }
            let renewed = |authority: &Authority| {
                let authority = authority.with_other_crls(&crls);
                authority.map_err(|(_, error)| format!("a CRL cannot be used: {error}"))
            };
            match &mut peer.auth.peer {
                PeerAuth::Signature(authority) => *authority = Arc::new(renewed(authority)?),
                PeerAuth::Eap(server) => {
                    if let Some(authority) = &server.authority {
                        let authority = Some(Arc::new(renewed(authority)?));
                        *server = Arc::new(EapServer { authority, ..(**server).clone() });
                    }
                }
                PeerAuth::Psk(_) => {}
            }
        }
        if let (LocalAuth::Signature(all), false) =
            (&mut peer.auth.local, self.revocation.ocsp.is_empty())
        {
            let renewed = all.iter().zip(&self.revocation.ocsp).map(|(credential, path)| {
                let der = ocsp_in(path, secrets)?;
                Ok::<Credential, String>(credential.clone().with_ocsp(Some(der)))
            });
            *all = renewed.collect::<Result<Vec<_>, _>>()?.into();
        }
        Ok(Some(peer))
    }
}

fn crls_in(path: &Path, secrets: &dyn SecretSource) -> Result<Vec<Vec<u8>>, String> {
    let found = secrets.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let blocks = pem::blocks(found.bytes.expose()).filter(|block| block.label == "X509 CRL");
    let ders: Option<Vec<_>> =
        blocks.map(|block| block.der.map(|der| der.expose().to_vec())).collect();
    ders.filter(|ders| !ders.is_empty())
        .ok_or_else(|| format!("{}: there is no X509 CRL in it", path.display()))
}

fn ocsp_in(path: &Path, secrets: &dyn SecretSource) -> Result<Vec<u8>, String> {
    let found = secrets.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let der = found.bytes.expose();
    OcspResponse::parse(der).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(der.to_vec())
}
