"""Opens the ESP packets of a capture with Scapy: read_esp.py PCAP KEYS (lines: spi, key with salt, MAC key or -).

Prints a line for each packet that does not open, and `opened N`.
"""
import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.utils import PcapReader

MACS = {32: "SHA2-256-128", 48: "SHA2-384-192", 64: "SHA2-512-256"}
sas = {}
for line in open(sys.argv[2]):
    spi, key, mac = line.split()
    auth = {}
    if mac != "-":
        mac = bytes.fromhex(mac)
        auth = {"auth_algo": MACS[len(mac)], "auth_key": mac}
    sas[int(spi, 16)] = SecurityAssociation(
        ESP, spi=int(spi, 16), crypt_algo="AES-CBC" if auth else "AES-GCM", crypt_key=bytes.fromhex(key), **auth
    )

opened = 0
for number, packet in enumerate(PcapReader(sys.argv[1]), 1):
    outer = packet.getlayer(IP) or packet.getlayer(IPv6)
    if outer is None or ESP not in outer:
        continue
    if (outer.proto if isinstance(outer, IP) else outer.nh) not in (17, 50):
        continue  # an ICMP error quotes what it is about
    esp = outer[ESP]
    if UDP in outer and esp.spi == 0:  # the non-ESP marker: IKE (RFC 3948 section 2.2)
        continue
    try:
        # A tunnel's packet: what is within is an IP packet of its own.
        inner = sas[esp.spi]._decrypt_esp(outer)
    except Exception as error:
        print(f"packet {number}: spi {esp.spi:#x}: {error!r}")
        continue
    if not isinstance(inner, (IP, IPv6)):
        print(f"packet {number}: spi {esp.spi:#x}: not an IP packet: {inner!r}")
        continue
    opened += 1
print("opened", opened)
