"""Seals and opens AH and ESP with Scapy. A case a line as JSON on standard input, an answer a line on standard output.

Case: op (seal, open), protocol (AH, ESP), spi, sequence, esn (null, or the high 32 bits), packet; tunnel: null, or for
seal the outer header, for open anything else; algorithm and key of integrity, null for none; ESP: encryption,
encryption_key, icv_size (null, or bytes), and for seal iv. Bytes are in hex. Answer: packet, or error.
"""
import json
import sys

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP, SecurityAssociation
from scapy.packet import raw


def parse(text):
    packet = bytes.fromhex(text)
    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)


def unhex(case, name):
    return None if case.get(name) is None else bytes.fromhex(case[name])


for line in sys.stdin:
    case = json.loads(line)
    esn = {} if case["esn"] is None else {"esn_en": True, "esn": case["esn"]}
    tunnel = case["tunnel"] and parse(case["tunnel"])
    esp = {"crypt_algo": case.get("encryption"), "crypt_key": unhex(case, "encryption_key"), "crypt_icv_size": case.get("icv_size")}
    sa = SecurityAssociation(
        AH if case["protocol"] == "AH" else ESP, spi=case["spi"], auth_algo=case["algorithm"], auth_key=unhex(case, "key"),
        tunnel_header=tunnel, **esp, **esn
    )
    packet = parse(case["packet"])
    try:
        if case["op"] == "seal":
            packet = sa.encrypt(packet, seq_num=case["sequence"], iv=unhex(case, "iv"))
        else:
            packet = sa.decrypt(packet)
        answer = {"packet": raw(packet).hex()}
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer))
