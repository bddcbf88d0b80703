#!/usr/bin/env python3
"""Makes the certificates, keys and CRLs of this directory, with Python's `cryptography` (that is, OpenSSL).

Nobody needs to run it: what it made is kept, so that the tests have something that this project has not made itself. The keys are
worthless. Every certificate is valid from 2026 to 2126 unless its name says otherwise; the CRLs likewise.
"""
import datetime as dt
import ipaddress
import pathlib
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku, NameOID

HERE = pathlib.Path(__file__).parent
BEGIN, END = dt.datetime(2026, 1, 1), dt.datetime(2126, 1, 1)
IKE = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")
ANY = x509.ObjectIdentifier("2.5.29.37.0")
SERIAL = iter(range(1000, 9999))


def key(kind):
    return {
        "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
        "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()


def hash_for(k):
    if isinstance(k, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(k, ec.EllipticCurvePrivateKey):
        return {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[k.curve.key_size]
    return hashes.SHA256()


def name(cn):
    return x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        x509.NameAttribute(NameOID.COMMON_NAME, cn),
    ])


def usage(**bits):
    names = ("digital_signature content_commitment key_encipherment data_encipherment key_agreement "
             "key_cert_sign crl_sign encipher_only decipher_only").split()
    return x509.KeyUsage(**{n: bits.get(n, False) for n in names})


def write(file, data):
    (HERE / file).write_bytes(data)


def pem(k, form=ser.PrivateFormat.PKCS8, how=None):
    return k.private_bytes(ser.Encoding.PEM, form, how or ser.NoEncryption())


class Ca:
    def __init__(self, file, kind, cn, parent=None, path_length=None, constraints=None):
        self.key, self.name = key(kind), name(cn)
        signer = parent or self
        extensions = [(x509.BasicConstraints(True, path_length), True),
                      (usage(key_cert_sign=True, crl_sign=True), True)]
        if constraints:
            extensions.append((x509.NameConstraints([x509.DNSName(constraints)], None), True))
        self.cert = issue(signer, self.key.public_key(), self.name, extensions)
        write(f"{file}.pem", self.cert.public_bytes(ser.Encoding.PEM))

    def host(self, file, kind, sans, cn=None, k=None, eku=None, ku=None, begin=BEGIN, end=END, extra=()):
        k = k or key(kind)
        extensions = [(x509.BasicConstraints(False, None), True)]
        if sans:
            extensions.append((x509.SubjectAlternativeName(sans), False))
        if eku:
            extensions.append((x509.ExtendedKeyUsage(eku), False))
        if ku:
            extensions.append((ku, True))
        cert = issue(self, k.public_key(), name(cn or file), extensions + list(extra), begin, end)
        write(f"{file}.pem", cert.public_bytes(ser.Encoding.PEM))
        write(f"{file}.key", pem(k))
        return k, cert

    def crl(self, file, revoked, end=END, signer=None):
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(BEGIN).next_update(end)
        builder = builder.add_extension(x509.CRLNumber(1), False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        for cert in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(cert.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(BEGIN).build())
        signer = signer or self.key
        write(f"{file}.crl", builder.sign(signer, hash_for(signer)).public_bytes(ser.Encoding.PEM))


def issue(signer, public, subject, extensions, begin=BEGIN, end=END):
    builder = x509.CertificateBuilder().serial_number(next(SERIAL)).public_key(public)
    builder = builder.subject_name(subject).issuer_name(signer.name)
    builder = builder.not_valid_before(begin).not_valid_after(end)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    return builder.sign(signer.key, hash_for(signer.key))


def dns(site):
    return [x509.DNSName(f"{site}.example.net")]


# One CA of each kind with hosts of its kind.
cas = {}
for kind in ("rsa2048", "p256", "p384", "p521", "ed25519"):
    cas[kind] = Ca(f"ca-{kind}", kind, f"CA {kind}")
    for site in "ab":
        cas[kind].host(f"{site}-{kind}", kind, dns(site), cn=f"{site}.example.net")
ca = cas["p256"]
ca.host("a-rsa4096", "rsa4096", dns("a"))

# A CA below, and one below that.
middle = Ca("ca-middle", "p256", "CA in the middle", parent=ca)
low = Ca("ca-low", "ed25519", "CA far below", parent=middle)
for site in "ab":
    middle.host(f"{site}-middle", "p256", dns(site))
low.host("a-low", "p256", dns("a"))
short = Ca("ca-short", "p256", "CA without CAs below", parent=ca, path_length=0)
too_low = Ca("ca-too-low", "p256", "CA that must not be", parent=short)
too_low.host("a-too-low", "p256", dns("a"))
narrow = Ca("ca-narrow", "p256", "CA of example.org", parent=ca, constraints="example.org")
narrow.host("a-narrow", "p256", dns("a"))

# Names.
ca.host("a-names", "p256", dns("a") + [
    x509.RFC822Name("admin@example.net"), x509.DNSName("*.example.org"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.1")), x509.IPAddress(ipaddress.ip_address("2001:db8::1"))])
ca.host("a-bare", "p256", [], cn="a.example.net")

# Key usage and extended key usage.
ca.host("a-ku-sign", "p256", dns("a"), ku=usage(digital_signature=True))
ca.host("a-ku-repudiation", "p256", dns("a"), ku=usage(content_commitment=True))
ca.host("a-ku-encipher", "p256", dns("a"), ku=usage(key_encipherment=True))
ca.host("a-eku-ike", "p256", dns("a"), eku=[Eku.SERVER_AUTH, IKE])
ca.host("a-eku-old", "p256", dns("a"), eku=[x509.ObjectIdentifier("1.3.6.1.5.5.8.2.2")])
ca.host("a-eku-any", "p256", dns("a"), eku=[ANY])
ca.host("a-eku-code", "p256", dns("a"), eku=[Eku.CODE_SIGNING])
ca.host("a-eku-client", "p256", dns("a"), eku=[Eku.CLIENT_AUTH])
ca.host("a-eku-server", "p256", dns("a"), eku=[Eku.SERVER_AUTH])

# Time.
ca.host("a-expired", "p256", dns("a"), end=dt.datetime(2026, 2, 1))
ca.host("a-future", "p256", dns("a"), begin=dt.datetime(2100, 1, 1))

# A CA that stands for itself, a CA of the same name with another key, a critical extension that nobody knows.
ca.host("a-critical", "p256", dns("a"),
        extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)])
k = key("p256")
own = [(x509.BasicConstraints(True, None), True), (x509.SubjectAlternativeName(dns("a")), False)]
write("a-is-ca.pem", issue(ca, k.public_key(), name("a.example.net"), own).public_bytes(ser.Encoding.PEM))
write("a-is-ca.key", pem(k))
impostor = Ca("ca-impostor", "p256", "CA p256")
impostor.host("a-impostor", "p256", dns("a"))

# Revocation.
_, revoked = ca.host("a-revoked", "p256", dns("a"))
ca.crl("ca-p256", [revoked])
ca.crl("ca-p256-stale", [], end=dt.datetime(2026, 2, 1))
ca.crl("ca-p256-forged", [revoked], signer=impostor.key)
ca.crl("ca-p256-middle-revoked", [middle.cert])

# The forms of private keys.
form = ser.PrivateFormat
for kind, k in (("p256", key("p256")), ("p384", key("p384")), ("p521", key("p521")), ("rsa2048", key("rsa2048"))):
    write(f"form-{kind}.pkcs8.key", pem(k))
    write(f"form-{kind}.traditional.key", pem(k, form.TraditionalOpenSSL))
    write(f"form-{kind}.encrypted.key", pem(k, how=ser.BestAvailableEncryption(b"open sesame")))
    write(f"form-{kind}.pub", k.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo))
    if kind == "p256":
        subprocess.run(["openssl", "pkcs8", "-topk8", "-scrypt", "-passout", "pass:open sesame", "-out",
                        str(HERE / "form-p256.scrypt.key")], input=pem(k), check=True)
    if kind == "rsa2048":
        write("form-rsa2048.old.key", pem(k, form.TraditionalOpenSSL, ser.BestAvailableEncryption(b"open sesame")))
