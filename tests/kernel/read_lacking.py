"""Opens, by the words of RFC 8750 and RFC 4543, the packets that no peer of the lab could: read_lacking.py PCAP SAS.

SAS has a line for each SA: {"spi": 1, "kind": "gcm16iiv", "key": "hex with the salt", "esn": false, "source": "...",
"target": "..."}, the last two being the addresses of the inner packet (those of the packet itself in transport mode).
The primitives are OpenSSL's. Prints {"opened": {"SPI": packets}, "faults": ["..."]}.
"""
import ipaddress
import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

ESP, AH, UDP = 50, 51, 17

sas = {sa["spi"]: sa for sa in map(json.loads, open(sys.argv[2]))}


def frames(file):
    """The packets of a classic pcap file of Ethernet, without their Ethernet headers."""
    assert file.read(24)[:4] == b"\xd4\xc3\xb2\xa1"
    while header := file.read(16):
        frame = file.read(struct.unpack("<8xI4x", header)[0])
        if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
            yield frame[14:]


def split(packet):
    """Header, protocol and payload of an IP packet without options or extension headers."""
    if packet[0] >> 4 == 4:
        assert packet[0] & 15 == 5 and not struct.unpack("!H", packet[6:8])[0] & 0x3FFF, "options, or a fragment"
        return packet[:20], packet[9], packet[20 : struct.unpack("!H", packet[2:4])[0]]
    return packet[:40], packet[6], packet[40 : 40 + struct.unpack("!H", packet[4:6])[0]]


def addresses(header):
    at, size = (12, 4) if header[0] >> 4 == 4 else (8, 16)
    return [str(ipaddress.ip_address(bytes(header[i : i + size]))) for i in (at, at + size)]


def whole(sa, low):
    """SPI and sequence number, and that as 64 bits; in this lab none passes 2**32."""
    return struct.pack("!I", sa["spi"]) + (struct.pack("!Q", low) if sa["esn"] else struct.pack("!I", low)), struct.pack("!Q", low)


def open_esp(sa, payload):
    """The next header and what ESP protects. RFC 8750 section 4: the IV is the sequence number, and not sent."""
    key = bytes.fromhex(sa["key"])
    aad, iv = whole(sa, struct.unpack("!I", payload[4:8])[0])
    if sa["kind"] == "gcm16iiv":
        cipher, salt = AESGCM(key[:-4]), key[-4:]
    elif sa["kind"] == "ccm8iiv":
        cipher, salt = AESCCM(key[:-3], tag_length=8), key[-3:]
    else:
        cipher, salt = ChaCha20Poly1305(key[:-4]), key[-4:]
    plain = cipher.decrypt(salt + iv, payload[8:], aad)
    padding, next_header = plain[-2:]
    assert plain[-2 - padding : -2] == bytes(range(1, padding + 1)), "padding"
    return next_header, plain[: -2 - padding]


def check_ah(sa, header, payload):
    """The next header and what is behind AH. RFC 4543 section 4: the ICV field has the IV, and then the tag."""
    key = bytes.fromhex(sa["key"])
    length = (payload[1] + 2) * 4
    low, high = struct.unpack("!I", payload[8:12])[0], b"\0\0\0\0" if sa["esn"] else b""
    icv = payload[12:36]
    muted = bytearray(header)
    if header[0] >> 4 == 4:
        muted[1] = 0
        muted[6:8] = muted[10:12] = b"\0\0"
        muted[8] = 0
    else:
        muted[:4] = b"\x60\0\0\0"
        muted[7] = 0
    covered = bytes(muted) + payload[:12] + bytes(24) + payload[36:] + high
    AESGCM(key[:-4]).decrypt(key[-4:] + icv[:8], icv[8:], covered)
    assert low, "sequence number zero"
    return payload[0], payload[length:]


opened, faults = {}, []
for number, packet in enumerate(frames(open(sys.argv[1], "rb")), 1):
    header, protocol, payload = split(packet)
    if protocol == UDP:
        if 4500 not in struct.unpack("!HH", payload[:4]) or payload[8:12] == bytes(4) or len(payload) == 9:
            continue
        protocol, payload = ESP, payload[8:]
    if protocol not in (ESP, AH):
        continue
    spi = struct.unpack("!I", payload[:4] if protocol == ESP else payload[4:8])[0]
    try:
        sa = sas[spi]
        next_header, inner = open_esp(sa, payload) if protocol == ESP else check_ah(sa, header, payload)
        seen = addresses(inner if next_header in (4, 41) else header)
        assert seen == [sa["source"], sa["target"]], f"addresses {seen}"
        opened[spi] = opened.get(spi, 0) + 1
    except (AssertionError, InvalidTag, KeyError) as error:
        faults.append(f"packet {number}, SPI {spi:#x}: {error!r}")
print(json.dumps({"opened": opened, "faults": faults[:20]}))
