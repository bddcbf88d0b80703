#!/usr/bin/env python3
"""Makes a CA, certificates and OCSP responses (`*.ocsp`, DER), with Python's `cryptography`, as `make.py` does with the rest.

Nobody needs to run it: what it made is kept. The keys are worthless. All is valid from 2026 to 2126 unless its name says otherwise.
"""
import datetime as dt
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID as Aia, ExtendedKeyUsageOID as Eku, NameOID

HERE = pathlib.Path(__file__).parent
BEGIN, END = dt.datetime(2026, 1, 1), dt.datetime(2126, 1, 1)
SERIAL = iter(range(20000, 29999))


def name(cn):
    return x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        x509.NameAttribute(NameOID.COMMON_NAME, cn),
    ])


def pem(cert):
    return cert.public_bytes(ser.Encoding.PEM)


def key_pem(key):
    return key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())


def make(cn, issuer=None, *, ca=False, uri=False, eku=None, until=END, dns=None):
    key = ec.generate_private_key(ec.SECP256R1())
    ca_key, ca_cert = issuer or (key, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(cn))
        .issuer_name(ca_cert.subject if ca_cert else name(cn))
        .public_key(key.public_key())
        .serial_number(next(SERIAL))
        .not_valid_before(BEGIN)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    if eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
    if uri:
        at = x509.AccessDescription(Aia.OCSP, x509.UniformResourceIdentifier("http://ocsp.example.net"))
        builder = builder.add_extension(x509.AuthorityInformationAccess([at]), critical=False)
    return key, builder.sign(ca_key, hashes.SHA256())


def response(file, cert, issuer, signer, *, status=ocsp.OCSPCertStatus.GOOD, by=None, hash=hashes.SHA1(),
             begin=BEGIN, end=END, shown=True):
    key, responder = signer
    revoked = status == ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=cert, issuer=issuer, algorithm=hash, cert_status=status, this_update=begin, next_update=end,
        revocation_time=BEGIN if revoked else None, revocation_reason=None,
    ).responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
    if shown and responder is not issuer:
        builder = builder.certificates([responder])
    (HERE / file).write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(ser.Encoding.DER))


ca = make("CA ocsp", ca=True)
other = make("CA ocsp", ca=True)
a = make("a", ca, dns="a.example.net")
b = make("b", ca, dns="b.example.net", uri=True)
signer = make("responder", ca, eku=Eku.OCSP_SIGNING)
stale = make("responder", ca, eku=Eku.OCSP_SIGNING, until=dt.datetime(2026, 2, 1))
server = make("server", ca, eku=Eku.SERVER_AUTH)
foreign = make("responder", other, eku=Eku.OCSP_SIGNING)
for stem, made in [("a-ocsp", a), ("b-ocsp", b)]:
    (HERE / f"{stem}.pem").write_bytes(pem(made[1]))
    (HERE / f"{stem}.key").write_bytes(key_pem(made[0]))
(HERE / "ca-ocsp.pem").write_bytes(pem(ca[1]))
crl = (x509.CertificateRevocationListBuilder().issuer_name(ca[1].subject).last_update(BEGIN).next_update(END)
       .add_extension(x509.CRLNumber(1), critical=False)
       .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca[0].public_key()), critical=False)
       .sign(ca[0], hashes.SHA256()))
(HERE / "ca-ocsp.crl").write_bytes(crl.public_bytes(ser.Encoding.PEM))

S = ocsp.OCSPCertStatus
response("a-good.ocsp", a[1], ca[1], ca)
response("a-good-sha256.ocsp", a[1], ca[1], ca, hash=hashes.SHA256())
response("a-revoked.ocsp", a[1], ca[1], ca, status=S.REVOKED)
response("a-unknown.ocsp", a[1], ca[1], ca, status=S.UNKNOWN)
response("a-old.ocsp", a[1], ca[1], ca, end=dt.datetime(2026, 2, 1))
response("a-future.ocsp", a[1], ca[1], ca, begin=dt.datetime(2100, 1, 1))
response("a-endless.ocsp", a[1], ca[1], ca, begin=dt.datetime(2026, 10, 31, 12), end=None)
response("a-endless-old.ocsp", a[1], ca[1], ca, begin=dt.datetime(2026, 10, 1), end=None)
response("a-delegated.ocsp", a[1], ca[1], signer)
response("a-stale-signer.ocsp", a[1], ca[1], stale)
response("a-wrong-usage.ocsp", a[1], ca[1], server)
response("a-foreign-signer.ocsp", a[1], ca[1], foreign)
response("a-other-ca.ocsp", a[1], other[1], other)
response("a-forged.ocsp", a[1], ca[1], other)
response("b-good.ocsp", b[1], ca[1], ca)
(HERE / "error.ocsp").write_bytes(
    ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(ser.Encoding.DER))
